//! Requests that wait for replies, and who may reply.

use atonce::id::{ClientId, ReplyToken};
use atonce::limits;
use atonce::wire::local::ReplyTo;
use serde_json::Value;

use crate::world::{HostId, World, milliseconds, seconds};

/// Hosts that know each other, each with an app that listens to `t`.
fn listening(seed: u64, count: usize) -> (World, Vec<ClientId>) {
    let mut world = World::lan(seed, count);
    world.run(seconds(3));
    let listeners = (0..count).map(|host| world.listener(host, "t")).collect();
    world.run(seconds(1));
    (world, listeners)
}

fn ask(world: &mut World, host: HostId, app: ClientId, id: u64, to: &str, replies: u32, timeout_ms: u32) {
    world.say(
        host,
        app,
        &format!(
            r#"{{"op":"send","id":{id},"to":"{to}","topic":"t","text":"?","replies":{replies},"timeout_ms":{timeout_ms}}}"#
        ),
    );
}

fn reply(world: &mut World, host: HostId, app: ClientId, id: u64, reply_to: &str, text: &str) {
    let line =
        format!(r#"{{"op":"reply","id":{id},"reply_to":"{reply_to}","text":"{text}","timeout_ms":2000}}"#);
    world.say(host, app, &line);
}

/// What the last message that an app read may be replied to with.
fn reply_to(world: &World, host: HostId, app: ClientId) -> String {
    world.heard(host, app, "message").last().unwrap()["reply_to"].as_str().unwrap().to_owned()
}

fn texts(events: &[&Value]) -> Vec<String> {
    events.iter().map(|event| event["text"].as_str().unwrap().to_owned()).collect()
}

fn results(world: &World, host: HostId, app: ClientId, id: u64) -> Vec<Value> {
    let results = world.heard(host, app, "result").into_iter();
    results.filter(|result| result["id"] == id).cloned().collect()
}

#[test]
fn a_request_ends_with_the_last_reply_that_it_waits_for_and_is_told_so_once() {
    let (mut world, listeners) = listening(1, 2);
    let app = world.connect(0);
    ask(&mut world, 0, app, 7, "pi-1", 2, 5000);
    world.run(milliseconds(10));
    assert!(results(&world, 0, app, 7).is_empty(), "delivered, and still waiting");
    let to = reply_to(&world, 1, listeners[1]);
    assert!(to.len() <= 128);
    // Any connection of that daemon may reply.
    let other = world.connect(1);
    reply(&mut world, 1, other, 1, &to, "one");
    reply(&mut world, 1, listeners[1], 2, &to, "two");
    reply(&mut world, 1, other, 3, &to, "three");
    world.run(milliseconds(10));
    let replies = world.heard(0, app, "reply");
    assert_eq!(texts(&replies), ["one", "two"]);
    assert!(replies.iter().all(|event| event["id"] == 7 && event["from"]["name"] == "pi-1"));
    assert!(replies.iter().all(|event| event["path"] == "lan" && event["at"].is_string()));
    let [result] = &results(&world, 0, app, 7)[..] else { panic!("one result") };
    assert_eq!((&result["outcome"], &result["replies"]), (&"delivered".into(), &2.into()));
    assert_eq!(world.outcome(1, other, 1), Some("delivered"));
    assert_eq!(world.outcome(1, other, 3), Some("no-listener"));
    world.run(seconds(10));
    assert_eq!(results(&world, 0, app, 7).len(), 1);
    assert!(world.hosts[0].node.as_ref().unwrap().is_idle(app));
}

#[test]
fn a_request_that_nobody_answers_ends_at_its_deadline_and_one_that_nobody_got_at_once() {
    let (mut world, _) = listening(2, 2);
    let app = world.connect(0);
    ask(&mut world, 0, app, 1, "pi-1", 1, 3000);
    world.say(0, app, r#"{"op":"send","id":2,"to":"pi-1","topic":"none","text":"?","replies":1}"#);
    world.run(milliseconds(500));
    let result = &results(&world, 0, app, 2)[0];
    assert_eq!((&result["outcome"], &result["replies"]), (&"no-listener".into(), &0.into()));
    world.run(milliseconds(2400));
    assert!(results(&world, 0, app, 1).is_empty());
    world.run(milliseconds(200));
    let result = &results(&world, 0, app, 1)[0];
    assert_eq!((&result["outcome"], &result["replies"]), (&"delivered".into(), &0.into()));
    // Of a peer that is not there.
    world.crash(1);
    world.run(seconds(30));
    ask(&mut world, 0, app, 3, "pi-1", 1, 1000);
    world.run(seconds(2));
    let [result] = &results(&world, 0, app, 3)[..] else { panic!("one result") };
    assert_eq!((&result["outcome"], &result["replies"]), (&"unreachable".into(), &0.into()));
    assert!(world.hosts[0].node.as_ref().unwrap().is_idle(app));
}

#[test]
fn a_request_without_acknowledgement_waits_for_its_replies_too() {
    let (mut world, listeners) = listening(3, 2);
    let app = world.connect(0);
    world.say(0, app, r#"{"op":"send","id":1,"to":"pi-1","topic":"t","text":"?","ack":false,"replies":1}"#);
    world.run(milliseconds(10));
    let to = reply_to(&world, 1, listeners[1]);
    let line = format!(r#"{{"op":"reply","id":1,"reply_to":"{to}","data":"/w==","ack":false}}"#);
    world.say(1, listeners[1], &line);
    world.run(milliseconds(10));
    assert_eq!(world.heard(0, app, "reply")[0]["data"], "/w==");
    assert_eq!(world.outcome(1, listeners[1], 1), Some("sent"));
    let result = &results(&world, 0, app, 1)[0];
    assert_eq!((&result["outcome"], &result["replies"]), (&"sent".into(), &1.into()));
}

#[test]
fn a_publication_is_answered_by_everyone_who_listens_this_node_included() {
    for ack in [false, true] {
        let (mut world, listeners) = listening(4, 4);
        let app = world.listener(0, "t");
        world.say(
            0,
            app,
            &format!(r#"{{"op":"publish","id":9,"topic":"t","text":"?","ack":{ack},"replies":5,"timeout_ms":2000}}"#),
        );
        world.run(milliseconds(10));
        assert!(world.heard(0, app, "message").is_empty(), "not the asking connection itself");
        for (host, listener) in listeners.iter().enumerate() {
            let to = reply_to(&world, host, *listener);
            reply(&mut world, host, *listener, 1, &to, &format!("pi-{host}"));
        }
        world.run(milliseconds(10));
        let replies = world.heard(0, app, "reply");
        let mut names: Vec<_> = replies.iter().map(|event| event["from"]["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["pi-0", "pi-1", "pi-2", "pi-3"]);
        assert!(results(&world, 0, app, 9).is_empty(), "one more is awaited");
        world.run(seconds(2));
        let [result] = &results(&world, 0, app, 9)[..] else { panic!("one result") };
        assert_eq!((&result["sent"], &result["replies"]), (&3.into(), &4.into()));
        let outcomes = result["outcomes"].as_array();
        assert_eq!(outcomes.map(Vec::len), ack.then_some(3));
        assert!(outcomes.is_none_or(|all| all.iter().all(|one| one["outcome"] == "delivered")));
        assert!(world.hosts[0].node.as_ref().unwrap().is_idle(app));
    }
}

#[test]
fn a_publication_that_nobody_is_there_to_answer_ends_at_once() {
    let (mut world, _) = listening(5, 2);
    let app = world.connect(0);
    for (id, ack) in [(1, true), (2, false)] {
        world.say(
            0,
            app,
            &format!(r#"{{"op":"publish","id":{id},"topic":"none","text":"?","ack":{ack},"replies":1}}"#),
        );
        let result = &results(&world, 0, app, id)[0];
        assert_eq!((&result["sent"], &result["replies"]), (&0.into(), &0.into()));
    }
}

#[test]
fn apps_of_one_node_ask_each_other() {
    let mut world = World::lan(6, 1);
    let (listener, app) = (world.listener(0, "t"), world.connect(0));
    ask(&mut world, 0, app, 1, "pi-0", 1, 5000);
    let to = reply_to(&world, 0, listener);
    reply(&mut world, 0, listener, 2, &to, "here");
    assert_eq!(texts(&world.heard(0, app, "reply")), ["here"]);
    assert_eq!(world.heard(0, app, "reply")[0]["path"], "local");
    assert_eq!(results(&world, 0, app, 1)[0]["replies"], 1);
    assert_eq!(world.outcome(0, listener, 2), Some("delivered"));
    reply(&mut world, 0, listener, 3, &to, "again");
    assert_eq!(world.outcome(0, listener, 3), Some("no-listener"));
}

#[test]
fn only_who_was_asked_may_reply_and_only_by_the_number_that_was_drawn() {
    let (mut world, listeners) = listening(7, 3);
    let app = world.connect(0);
    ask(&mut world, 0, app, 1, "pi-1", 3, 2000);
    world.run(milliseconds(10));
    let to = reply_to(&world, 1, listeners[1]);
    // Somebody overheard it, and another one guesses.
    reply(&mut world, 2, listeners[2], 1, &to, "not asked");
    let own = world.connect(0);
    reply(&mut world, 0, own, 1, &to, "neither was our own node");
    let token = to.parse::<ReplyTo>().unwrap().token;
    let guess = ReplyTo { node: world.id(0), token: ReplyToken(token.0 ^ 1) }.to_string();
    reply(&mut world, 1, listeners[1], 2, &guess, "guessed");
    world.run(milliseconds(50));
    for (host, app, id) in [(2, listeners[2], 1), (0, own, 1), (1, listeners[1], 2)] {
        assert_eq!(world.outcome(host, app, id), Some("no-listener"));
    }
    world.run(seconds(3));
    assert!(world.heard(0, app, "reply").is_empty());
    assert_eq!(results(&world, 0, app, 1)[0]["replies"], 0);
}

#[test]
fn a_mistake_in_a_reply_is_told_in_words() {
    let (mut world, listeners) = listening(8, 1);
    let app = listeners[0];
    reply(&mut world, 0, app, 1, "hello", "x");
    reply(&mut world, 0, app, 2, &format!("{}.0000000000000001", atonce::id::NodeId([9; 32])), "x");
    let own = format!("{}.0000000000000001", world.id(0));
    reply(&mut world, 0, app, 3, &own, &"x".repeat(limits::PAYLOAD_BYTES + 1));
    let errors = world.heard(0, app, "error");
    let codes: Vec<_> = errors.iter().map(|error| (&error["id"], &error["code"])).collect();
    assert_eq!(codes, [(&1.into(), &"bad-request".into()), (&2.into(), &"no-peer".into())]);
    assert_eq!(world.outcome(0, app, 3), Some("too-big"));
    for wrong in [
        r#"{"op":"send","to":"pi-0","topic":"t","text":"?","replies":1}"#,
        r#"{"op":"send","id":4,"to":"pi-0","topic":"t","text":"?","replies":0}"#,
        r#"{"op":"publish","id":4,"topic":"t","text":"?","replies":1025}"#,
        r#"{"op":"reply","id":4,"text":"x"}"#,
    ] {
        let before = world.heard(0, app, "error").len();
        world.say(0, app, wrong);
        assert_eq!(world.heard(0, app, "error")[before]["code"], "bad-request", "{wrong}");
    }
}

#[test]
fn replies_fill_the_queue_of_the_asker_like_messages_and_are_refused_when_it_is_full() {
    let (mut world, listeners) = listening(9, 2);
    let app = world.listener(0, "t");
    ask(&mut world, 0, app, 1, "pi-1", 1024, 60_000);
    world.run(milliseconds(10));
    let to = reply_to(&world, 1, listeners[1]);
    world.hosts[0].apps.get_mut(&app).unwrap().deaf = true;
    let sender = world.connect(0);
    for id in 0..limits::CLIENT_QUEUE_MESSAGES as u64 - 1 {
        world.send(0, sender, id, "pi-0", "t", "x");
    }
    // The other listener of this node reads, so that nothing is refused; ours has room for one more.
    reply(&mut world, 1, listeners[1], 1, &to, "the last that fits");
    world.run(milliseconds(10));
    reply(&mut world, 1, listeners[1], 2, &to, "one too many");
    let line = format!(r#"{{"op":"reply","id":3,"reply_to":"{to}","text":"12345","ack":false}}"#);
    world.say(1, listeners[1], &line);
    world.run(milliseconds(10));
    assert_eq!(world.outcome(1, listeners[1], 1), Some("delivered"));
    assert_eq!(world.outcome(1, listeners[1], 2), Some("busy"));
    world.hosts[0].apps.get_mut(&app).unwrap().deaf = false;
    world.read(0, app, usize::MAX);
    world.read(0, app, usize::MAX);
    assert_eq!(texts(&world.heard(0, app, "reply")), ["the last that fits"]);
    let lost = world.heard(0, app, "lost");
    assert_eq!((&lost[0]["messages"], &lost[0]["bytes"]), (&1.into(), &5.into()));
    reply(&mut world, 1, listeners[1], 4, &to, "now it reads");
    world.run(milliseconds(10));
    assert_eq!(world.outcome(1, listeners[1], 4), Some("delivered"));
}

#[test]
fn who_hangs_up_waits_no_more_and_its_open_requests_were_bounded() {
    let (mut world, listeners) = listening(10, 2);
    let app = world.connect(0);
    let mut asked = 0;
    while world.with(0, |node| node.accepts(app)) == Some(true) {
        ask(&mut world, 0, app, asked, "pi-1", 1, 600_000);
        world.run(milliseconds(1));
        asked += 1;
        assert!(asked <= limits::CLIENT_QUEUE_MESSAGES as u64);
    }
    assert_eq!(asked, limits::CLIENT_QUEUE_MESSAGES as u64);
    let to = reply_to(&world, 1, listeners[1]);
    let now = world.now;
    world.with(0, |node| node.handle_hangup(app, now));
    reply(&mut world, 1, listeners[1], 1, &to, "is anybody there?");
    world.run(milliseconds(10));
    assert_eq!(world.outcome(1, listeners[1], 1), Some("no-listener"));
    world.run(seconds(700));
}

#[test]
fn a_thousand_random_exchanges_end_once_each_with_no_more_replies_than_were_asked_for() {
    for seed in 20..24 {
        let (mut world, listeners) = listening(seed, 3);
        world.weather.loss = if seed % 2 == 0 { 0 } else { 150 };
        let app = world.connect(0);
        let mut wanted = std::collections::BTreeMap::new();
        for id in 0..250_u64 {
            let replies = world.below(3) as u32 + 1;
            wanted.insert(id, replies);
            let timeout = 50 + world.below(1500);
            let line = if world.below(2) == 0 {
                let to = world.below(3);
                format!(r#""op":"send","to":"pi-{to}""#)
            } else {
                format!(r#""op":"publish","ack":{}"#, world.below(2) == 0)
            };
            world.say(
                0,
                app,
                &format!(r#"{{{line},"id":{id},"topic":"t","text":"?","replies":{replies},"timeout_ms":{timeout}}}"#),
            );
            world.run(milliseconds(5));
            let host = world.below(3) as usize;
            if !world.heard(host, listeners[host], "message").is_empty() {
                let to = reply_to(&world, host, listeners[host]);
                for _ in 0..world.below(4) {
                    reply(&mut world, host, listeners[host], id, &to, "!");
                }
            }
        }
        world.run(seconds(5));
        for (id, wanted) in wanted {
            let [result] = &results(&world, 0, app, id)[..] else { panic!("{id} ends once") };
            let told = world.heard(0, app, "reply").iter().filter(|reply| reply["id"] == id).count() as u64;
            assert_eq!(result["replies"], told, "{result}");
            assert!(told <= u64::from(wanted));
            let position =
                |ev: &str| world.lines(0, app).iter().rposition(|line| line["ev"] == ev && line["id"] == id);
            assert!(position("reply") < position("result"), "nothing comes after the end");
        }
        assert!(world.hosts[0].node.as_ref().unwrap().is_idle(app));
    }
}

#[test]
fn copies_that_are_still_under_way_when_a_published_request_has_its_reply_count_for_its_app() {
    let (mut world, listeners) = listening(12, 2);
    world.cut.insert((0, 1));
    let app = world.connect(0);
    let text = "x".repeat(limits::PAYLOAD_BYTES);
    let mut published = 0;
    while world.accepts(0, app) && published < 100 {
        published += 1;
        let line = format!(
            r#"{{"op":"publish","id":{published},"topic":"t","text":"{text}","ack":true,"replies":1,"timeout_ms":20000}}"#
        );
        world.say(0, app, &line);
        let to = reply_to(&world, 0, listeners[0]);
        reply(&mut world, 0, listeners[0], 1, &to, "mine");
        assert_eq!(results(&world, 0, app, published).len(), 1, "it has its reply");
    }
    assert!(published < 30, "{published} were taken, and their copies wait in memory");
    world.run(seconds(30));
    assert!(world.hosts[0].node.as_ref().unwrap().is_idle(app));
    assert_eq!(world.counter(0, "messages-under-way"), 0);
    assert!((1..=published).all(|id| results(&world, 0, app, id).len() == 1), "each is told once");
}
