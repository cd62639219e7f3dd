//! Restarts of daemons and of apps, in every order: a message is delivered, or told otherwise only when that is true.

use std::time::Duration;

use atonce::id::ClientId;
use atonce::limits::LISTENER_GRACE;
use atonce::time::Instant;
use serde_json::Value;

use crate::world::{HostId, World, milliseconds, seconds};

const SENDER: HostId = 0;
const RECEIVER: HostId = 1;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    ReceiverDaemon,
    ReceiverApp,
    SenderDaemon,
    SenderApp,
    BothDaemons,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    BeforeTheSend,
    WhileItWaits,
    InFlight,
    JustAfter,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Acked,
    Unacked,
    Published,
    Asked,
}

const WHO: [Who; 6] =
    [Who::ReceiverDaemon, Who::ReceiverApp, Who::SenderDaemon, Who::SenderApp, Who::BothDaemons, Who::All];
const WHEN: [When; 4] = [When::BeforeTheSend, When::WhileItWaits, When::InFlight, When::JustAfter];
const HOW: [How; 4] = [How::Acked, How::Unacked, How::Published, How::Asked];
/// When the listener is back after its daemon is, in milliseconds.
const BACK: [Option<u64>; 4] = [Some(50), Some(500), Some(1900), None];

impl Who {
    const fn receiving_daemon(self) -> bool {
        matches!(self, Self::ReceiverDaemon | Self::BothDaemons | Self::All)
    }

    const fn sending_daemon(self) -> bool {
        matches!(self, Self::SenderDaemon | Self::BothDaemons | Self::All)
    }

    const fn listener(self) -> bool {
        self.receiving_daemon() || matches!(self, Self::ReceiverApp)
    }

    const fn sender(self) -> bool {
        self.sending_daemon() || matches!(self, Self::SenderApp)
    }
}

/// Two hosts, an app that listens on one, and an app that sends on the other.
struct Story {
    world: World,
    listener: Option<ClientId>,
    /// Lines of the listener that were looked at.
    seen: usize,
    sender: ClientId,
    got: usize,
    /// When the listener comes back.
    back_at: Option<Instant>,
    /// Since when nobody has listened, or could have.
    unheard_since: Instant,
}

impl Story {
    fn begin(seed: u64) -> Self {
        let mut world = World::lan(seed, 2);
        world.run(seconds(5));
        let (listener, sender) = (Some(world.listener(RECEIVER, "t")), world.connect(SENDER));
        world.run(seconds(1));
        let unheard_since = world.now;
        Self { world, listener, seen: 0, sender, got: 0, back_at: None, unheard_since }
    }

    fn send(&mut self, how: How) {
        let line = match how {
            How::Acked => r#""op":"send","to":"pi-1""#,
            How::Unacked => r#""op":"send","to":"pi-1","ack":false"#,
            How::Published => r#""op":"publish","ack":true"#,
            How::Asked => r#""op":"send","to":"pi-1","replies":1"#,
        };
        let line = format!(r#"{{{line},"id":1,"topic":"t","text":"hi","timeout_ms":8000}}"#);
        self.world.say(SENDER, self.sender, &line);
    }

    /// Takes what the listener has read, and replies if that is wanted.
    fn harvest(&mut self) {
        let Some(listener) = self.listener else { return };
        let lines = self.world.lines(RECEIVER, listener)[self.seen..].to_vec();
        self.seen += lines.len();
        for message in lines.iter().filter(|line| line["ev"] == "message") {
            self.got += 1;
            if let Some(to) = message["reply_to"].as_str() {
                let reply = format!(r#"{{"op":"reply","id":9,"reply_to":"{to}","text":"yes"}}"#);
                self.world.say(RECEIVER, listener, &reply);
            }
        }
        self.seen = self.world.lines(RECEIVER, listener).len();
    }

    fn listener_goes(&mut self) {
        self.harvest();
        let (now, listener) = (self.world.now, self.listener.take());
        if let Some(listener) = listener {
            self.world.with(RECEIVER, |node| node.handle_hangup(listener, now));
            self.world.hosts[RECEIVER].apps.remove(&listener);
        }
        self.unheard_since = now;
    }

    fn restart(&mut self, who: Who, hard: bool, back: Option<u64>) {
        let daemons = [(who.receiving_daemon(), RECEIVER), (who.sending_daemon(), SENDER)]
            .map(|(is, host)| is.then_some(host));
        if who.listener() {
            self.harvest();
        }
        if who == Who::ReceiverApp {
            self.listener_goes();
        }
        if who == Who::SenderApp {
            let (now, sender) = (self.world.now, self.sender);
            self.world.with(SENDER, |node| node.handle_hangup(sender, now));
        }
        for host in daemons.into_iter().flatten() {
            if hard { self.world.crash(host) } else { self.world.stop(host) }
        }
        if who.listener() {
            self.listener = None;
            self.seen = 0;
        }
        if who.receiving_daemon() || who.sending_daemon() {
            self.pass(milliseconds(100));
        }
        for host in daemons.into_iter().flatten() {
            self.world.start(host);
        }
        if who.sender() {
            self.sender = self.world.connect(SENDER);
        }
        if who.listener() || self.listener.is_none() {
            self.back_at = back.map(|back| self.world.now + milliseconds(back));
        }
        if who.listener() {
            self.unheard_since = self.world.now;
        }
    }

    /// Lets time pass, in which the listener comes back.
    fn pass(&mut self, duration: Duration) {
        let end = self.world.now + duration;
        while self.world.now < end {
            if self.listener.is_none() && self.back_at.is_some_and(|at| at <= self.world.now) {
                self.back_at = None;
                self.listener = Some(self.world.listener(RECEIVER, "t"));
                self.seen = 0;
            }
            self.harvest();
            let next = (self.world.now + milliseconds(10)).min(end);
            self.world.run(next.since(self.world.now));
        }
        self.harvest();
    }

    fn results(&self) -> Vec<&Value> {
        let results = self.world.heard(SENDER, self.sender, "result");
        results.into_iter().filter(|line| line["id"] == 1).collect()
    }
}

fn play(who: Who, when: When, how: How, back: Option<u64>, seed: u64) {
    let case = format!("{who:?} {when:?} {how:?} back {back:?} seed {seed}");
    // A daemon that is killed says no goodbye: what is sent before the other one notices is sent to its old life.
    let hard = seed % 2 == 1;
    let mut story = Story::begin(seed);
    let mut sender_lives = true;
    match when {
        When::BeforeTheSend => {
            story.restart(who, hard, back);
            // What nobody reports on is lost if it leaves before the other one notices.
            let unnoticed = who == Who::ReceiverApp && how == How::Unacked;
            if hard && who.receiving_daemon() || unnoticed {
                story.pass(milliseconds(20));
            }
            story.send(how);
        }
        When::WhileItWaits => {
            story.listener_goes();
            story.pass(milliseconds(10));
            story.send(how);
            story.pass(milliseconds(200));
            story.restart(who, hard, back);
            sender_lives = !who.sender();
        }
        When::InFlight => {
            story.send(how);
            story.restart(who, hard, back);
            sender_lives = !who.sender();
        }
        When::JustAfter => {
            story.send(how);
            story.world.run(Duration::from_micros(150));
            story.restart(who, hard, back);
            sender_lives = !who.sender();
        }
    }
    let mut told_at = None;
    for _ in 0..900 {
        story.pass(milliseconds(10));
        if told_at.is_none() && !story.results().is_empty() {
            told_at = Some(story.world.now);
        }
    }
    assert!(story.got <= 1, "{case}: never twice");
    if !sender_lives {
        return;
    }
    let results = story.results();
    let [result] = results[..] else { panic!("{case}: ends once, {results:?}") };
    let waited = matches!(when, When::BeforeTheSend | When::WhileItWaits);
    let is_heard = back.is_some() || !who.listener() && story.listener.is_some();
    // What had left when its receiver's daemon ended is told as perhaps delivered.
    let perhaps = !waited && who.receiving_daemon();
    let outcome = match how {
        How::Published => {
            let outcomes = result["outcomes"].as_array().unwrap();
            assert!(outcomes.len() <= 1, "{case}: {result}");
            outcomes.first().map_or("no-listener", |copy| copy["outcome"].as_str().unwrap())
        }
        How::Acked | How::Unacked | How::Asked => result["outcome"].as_str().unwrap(),
    };
    if is_heard && !perhaps && (how != How::Unacked || waited) {
        assert_eq!(story.got, 1, "{case}: {result}");
    }
    match (outcome, how) {
        ("sent", How::Unacked) => {}
        ("delivered", _) => assert_eq!(story.got, 1, "{case}: {result}"),
        ("timeout", _) => assert!(perhaps, "{case}: {result}"),
        ("no-listener", _) => {
            assert_eq!(story.got, 0, "{case}: {result}");
            assert!(!is_heard || perhaps, "{case}: {result}");
            let told_after = told_at.unwrap().since(story.unheard_since);
            assert!(told_after >= seconds(2), "{case}: told after {told_after:?}");
        }
        _ => panic!("{case}: {result}"),
    }
    if how == How::Asked && story.got == 1 && outcome == "delivered" {
        assert_eq!(result["replies"], 1, "{case}: {result}");
    }
}

fn play_all(who: Who) {
    for when in WHEN {
        for how in HOW {
            for back in BACK {
                for seed in 0..4 {
                    play(who, when, how, back, seed);
                }
            }
        }
    }
}

#[test]
fn messages_survive_restarts_of_the_receivers_daemon_or_are_told_truly() {
    play_all(WHO[0]);
}

#[test]
fn messages_survive_restarts_of_the_receivers_app_or_are_told_truly() {
    play_all(WHO[1]);
}

#[test]
fn messages_survive_restarts_of_the_senders_daemon_or_are_told_truly() {
    play_all(WHO[2]);
}

#[test]
fn messages_survive_restarts_of_the_senders_app_or_are_told_truly() {
    play_all(WHO[3]);
}

#[test]
fn messages_survive_restarts_of_both_daemons_or_are_told_truly() {
    play_all(WHO[4]);
}

#[test]
fn messages_survive_restarts_of_everything_or_are_told_truly() {
    play_all(WHO[5]);
}

/// Two hosts of which the first has just started, and the second is new to it.
fn young(seed: u64) -> (World, ClientId) {
    let mut world = World::new(seed);
    let (new, old) = (world.add("new", 0), world.add("old", 0));
    world.start(old);
    world.run(seconds(5));
    world.listener(old, "t");
    world.run(seconds(1));
    world.start(new);
    let app = world.connect(new);
    (world, app)
}

#[test]
fn a_name_that_is_met_in_the_first_moments_of_a_daemon_is_waited_for() {
    for seed in 0..10 {
        let (mut world, app) = young(seed);
        world.send(0, app, 1, "old", "t", "hi");
        world.say(0, app, r#"{"op":"ping","id":2,"to":"old"}"#);
        world.say(0, app, r#"{"op":"send","id":3,"to":"nobody","topic":"t","text":"x"}"#);
        world.say(0, app, r#"{"op":"ping","id":4,"to":"nobody"}"#);
        world.run(seconds(2));
        assert_eq!(world.outcome(0, app, 1), Some("delivered"), "seed {seed}");
        assert_eq!(world.heard(0, app, "pong").len(), 1, "seed {seed}");
        assert!(world.heard(0, app, "error").is_empty(), "seed {seed}: it is not true yet");
        world.run(seconds(1));
        let refused: Vec<_> = world.heard(0, app, "error").iter().map(|line| line["id"].clone()).collect();
        assert_eq!(refused, [3, 4], "seed {seed}");
        assert!(world.hosts[0].node.as_ref().unwrap().is_idle(app));
    }
}

#[test]
fn a_name_that_nobody_has_is_refused_at_once_by_a_daemon_that_has_looked_around() {
    let mut world = World::lan(1, 2);
    world.run(seconds(5));
    let app = world.connect(0);
    world.send(0, app, 1, "nobody", "t", "x");
    assert_eq!(world.heard(0, app, "error")[0]["code"], "no-peer");
}

#[test]
fn what_waits_for_a_name_ends_at_its_deadline_and_goes_with_its_app() {
    let (mut world, app) = young(2);
    world.say(0, app, r#"{"op":"send","id":1,"to":"nobody","topic":"t","text":"x","timeout_ms":300}"#);
    let gone = world.connect(0);
    world.send(0, gone, 1, "old", "t", "nobody waits for this");
    let now = world.now;
    world.with(0, |node| node.handle_hangup(gone, now));
    world.run(milliseconds(299));
    assert!(world.heard(0, app, "error").is_empty());
    world.run(milliseconds(2));
    assert_eq!(world.heard(0, app, "error")[0]["code"], "no-peer");
    world.run(seconds(5));
    let listener = *world.hosts[1].apps.keys().next().unwrap();
    assert!(world.heard(1, listener, "message").is_empty());
}

#[test]
fn what_is_published_in_the_first_moments_of_a_daemon_reaches_all_who_are_met_then() {
    for line in [r#""ack":false"#, r#""ack":true"#, r#""ack":true,"replies":2"#] {
        let (mut world, app) = young(3);
        let here = world.listener(0, "t");
        world.say(0, app, &format!(r#"{{"op":"publish","id":1,"topic":"t","text":"hi",{line}}}"#));
        let late = world.listener(0, "t");
        world.run(seconds(1));
        let listener = *world.hosts[1].apps.keys().next().unwrap();
        for (host, app) in [(0, here), (0, late), (1, listener)] {
            let messages = world.heard(host, app, "message");
            assert_eq!(messages.len(), 1, "{line}: {host}");
            if let Some(to) = messages[0]["reply_to"].as_str() {
                let reply = format!(r#"{{"op":"reply","reply_to":"{to}","text":"yes"}}"#);
                world.say(host, app, &reply);
            }
        }
        world.run(seconds(5));
        let results = world.heard(0, app, "result");
        assert_eq!((results.len(), &results[0]["sent"]), (1, &1.into()), "{line}");
        assert!(world.hosts[0].node.as_ref().unwrap().is_idle(app), "{line}");
    }
}

#[test]
fn an_acknowledged_publication_waits_for_an_app_that_is_just_being_restarted_and_for_no_other() {
    let mut story = Story::begin(4);
    let line = r#"{"op":"publish","id":2,"topic":"other","text":"x","ack":true}"#;
    story.world.say(SENDER, story.sender, line);
    assert_eq!(story.world.heard(SENDER, story.sender, "result").len(), 1, "nobody ever listened to that");
    story.listener_goes();
    story.pass(milliseconds(10));
    story.send(How::Published);
    story.back_at = Some(story.world.now + seconds(1));
    story.pass(milliseconds(1500));
    let results = story.results();
    assert_eq!((results[0]["sent"].as_u64(), story.got), (Some(1), 1), "told as soon as it has all");
}

#[test]
fn nobody_listens_is_told_at_once_of_a_topic_that_a_peer_never_had() {
    let mut world = World::lan(5, 2);
    world.run(seconds(5));
    let app = world.connect(0);
    world.send(0, app, 1, "pi-1", "never", "x");
    world.say(0, app, r#"{"op":"send","id":2,"to":"pi-0","topic":"never","text":"x"}"#);
    assert_eq!(world.outcome(0, app, 2), Some("no-listener"));
    world.run(milliseconds(5));
    assert_eq!(world.outcome(0, app, 1), Some("no-listener"));
}

#[test]
fn a_message_that_is_to_wait_for_a_listener_waits_until_its_deadline() {
    let lines = [
        r#""op":"send","to":"pi-1""#,
        r#""op":"send","to":"pi-1","replies":1"#,
        r#""op":"publish","ack":true"#,
        r#""op":"publish""#,
        r#""op":"publish","replies":1"#,
        r#""op":"send","to":"pi-0""#,
    ];
    for (back, expected) in [(Some(7), 1), (None, 0)] {
        for line in lines {
            let mut world = World::lan(6, 2);
            world.run(seconds(5));
            let app = world.connect(0);
            let line = format!(
                r#"{{{line},"id":1,"topic":"t","text":"x","timeout_ms":9000,"when_no_listener":"wait"}}"#
            );
            world.say(0, app, &line);
            let before = world.hosts[0].sent_packets;
            world.run(seconds(back.unwrap_or(8)));
            assert!(world.hosts[0].sent_packets - before < 60, "it does not ask all the time");
            assert!(world.heard(0, app, "result").is_empty(), "{line}");
            let host = usize::from(!line.contains("pi-0"));
            let listener = back.map(|_| world.listener(host, "t"));
            world.run(milliseconds(100));
            if let Some(listener) = listener {
                assert_eq!(world.heard(host, listener, "message").len(), expected, "{line}");
            }
            world.run(seconds(10));
            let [result] = &world.heard(0, app, "result")[..] else { panic!("{line}: ends once") };
            if line.contains("publish") {
                assert_eq!(result["sent"], expected, "{line}");
            } else {
                let outcome = if back.is_some() { "delivered" } else { "no-listener" };
                assert_eq!(result["outcome"], outcome, "{line}");
            }
            assert!(world.hosts[0].node.as_ref().unwrap().is_idle(app), "{line}");
        }
    }
}

#[test]
fn messages_that_found_the_listener_gone_wait_for_the_next_one_and_keep_their_order() {
    for seed in 0..6 {
        let mut story = Story::begin(seed);
        let line = |id: u64| {
            format!(
                r#"{{"op":"send","id":{id},"to":"pi-1","topic":"t","text":"{id}","timeout_ms":20000,"when_no_listener":"wait"}}"#
            )
        };
        for id in 1..=20 {
            story.world.say(SENDER, story.sender, &line(id));
        }
        // They are on their way when it goes.
        story.listener_goes();
        for id in 21..=40 {
            story.world.say(SENDER, story.sender, &line(id));
            story.world.run(milliseconds(1));
        }
        story.world.run(LISTENER_GRACE + seconds(2));
        assert!(story.world.heard(SENDER, story.sender, "result").is_empty(), "seed {seed}");
        let listener = story.world.listener(RECEIVER, "t");
        story.world.run(seconds(1));
        let heard = story.world.heard(RECEIVER, listener, "message");
        let numbers: Vec<u64> =
            heard.iter().map(|line| line["text"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (1..=40).collect::<Vec<_>>(), "seed {seed}");
        let results = story.world.heard(SENDER, story.sender, "result");
        assert_eq!(results.len(), 40);
        assert!(results.iter().all(|result| result["outcome"] == "delivered"));
    }
}

#[test]
fn what_an_app_that_has_gone_sent_does_not_wait_for_a_listener_any_more() {
    let mut story = Story::begin(6);
    let line = r#"{"op":"send","id":1,"to":"pi-1","topic":"t","text":"x","timeout_ms":20000,"when_no_listener":"wait"}"#;
    story.world.say(SENDER, story.sender, line);
    story.listener_goes();
    let (sender, now) = (story.sender, story.world.now);
    story.world.with(SENDER, |node| node.handle_hangup(sender, now));
    story.world.run(LISTENER_GRACE + seconds(2));
    let listener = story.world.listener(RECEIVER, "t");
    story.world.run(seconds(1));
    assert!(story.world.heard(RECEIVER, listener, "message").is_empty());
}

#[test]
fn messages_of_any_size_that_are_on_their_way_when_the_listener_is_restarted_arrive_in_order() {
    for bytes in [1, 5000] {
        let mut story = Story::begin(7);
        for id in 1..=4 {
            let text = format!("{id}{}", "x".repeat(bytes));
            story.world.send(SENDER, story.sender, id, "pi-1", "t", &text);
        }
        story.listener_goes();
        story.world.run(seconds(1));
        let listener = story.world.listener(RECEIVER, "t");
        story.world.run(seconds(2));
        let heard = story.world.heard(RECEIVER, listener, "message");
        let firsts: Vec<&str> = heard.iter().map(|line| &line["text"].as_str().unwrap()[..1]).collect();
        assert_eq!(firsts, ["1", "2", "3", "4"], "{bytes} bytes");
    }
}

#[test]
fn an_app_of_this_node_that_is_restarted_gets_what_was_sent_meanwhile() {
    let mut world = World::lan(8, 1);
    world.run(seconds(5));
    let (listener, app) = (world.listener(0, "t"), world.connect(0));
    let now = world.now;
    world.with(0, |node| node.handle_hangup(listener, now));
    for id in 1..=3 {
        world.send(0, app, id, "pi-0", "t", &id.to_string());
    }
    world.say(0, app, r#"{"op":"send","id":4,"to":"pi-0","topic":"t","text":"4","when_full":"drop"}"#);
    assert_eq!(world.outcome(0, app, 4), Some("no-listener"), "what is dropped does not wait");
    world.run(seconds(2));
    let listener = world.listener(0, "t");
    let heard = world.heard(0, listener, "message");
    let texts: Vec<&str> = heard.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["1", "2", "3"]);
    assert!((1..=3).all(|id| world.outcome(0, app, id) == Some("delivered")));
    assert!(world.hosts[0].node.as_ref().unwrap().is_idle(app));
}

#[test]
fn what_ages_is_not_kept_for_a_listener_that_may_come_back() {
    let mut story = Story::begin(9);
    story.listener_goes();
    story.world.run(milliseconds(10));
    let line = r#"{"op":"send","id":1,"to":"pi-1","topic":"t","text":"x","when_full":"drop"}"#;
    story.world.say(SENDER, story.sender, line);
    story.world.run(milliseconds(10));
    assert_eq!(story.world.outcome(SENDER, story.sender, 1), Some("no-listener"));
}

#[test]
fn a_topic_at_the_end_of_a_long_list_is_found_though_the_list_comes_in_several_records() {
    for seed in 0..5 {
        let mut world = World::lan(seed, 2);
        world.run(seconds(5));
        let app = world.connect(0);
        let listener = world.connect(1);
        let now = world.now;
        for n in 0..60 {
            let topic = format!("{n:0>60}");
            world.with_undrained(1, |node| {
                let line = format!(r#"{{"op":"listen","topic":"{topic}"}}"#);

                node.handle_request(listener, atonce::wire::local::Request::parse(line.as_bytes()), now);
            });
        }
        world.send(0, app, 1, "pi-1", &format!("{:0>60}", 59), "hi");
        world.drain(1);
        world.run(seconds(1));
        assert_eq!(world.outcome(0, app, 1), Some("delivered"), "seed {seed}");
    }
}

#[test]
fn a_request_whose_receivers_daemon_was_restarted_has_its_reply() {
    let mut world = World::lan(10, 2);
    world.run(seconds(5));
    let (listener, app) = (world.listener(1, "t"), world.connect(0));
    world.run(seconds(1));
    let line = r#"{"op":"send","id":1,"to":"pi-1","topic":"t","text":"?","replies":1,"timeout_ms":8000}"#;
    world.say(0, app, line);
    // The app there has it, and the word of that is lost.
    world.cut.insert((1, 0));
    world.run(milliseconds(5));
    let to = world.heard(1, listener, "message")[0]["reply_to"].as_str().unwrap().to_owned();
    world.crash(1);
    world.cut.clear();
    world.start(1);
    world.run(seconds(1));
    assert!(world.heard(0, app, "result").is_empty(), "a reply may come yet");
    let listener = world.connect(1);
    world.say(1, listener, &format!(r#"{{"op":"reply","reply_to":"{to}","text":"yes"}}"#));
    world.run(milliseconds(100));
    assert_eq!(world.heard(0, app, "reply").len(), 1);
    assert_eq!(world.heard(0, app, "result")[0]["replies"], 1);
}

#[test]
fn a_reply_given_to_a_daemon_that_has_just_started_waits_for_the_asker() {
    let (mut world, _) = young(11);
    let asker = world.connect(1);
    let id = world.id(0);
    let line =
        format!(r#"{{"op":"send","id":1,"to":"{id}","topic":"q","text":"?","replies":1,"timeout_ms":8000}}"#);
    world.listener(0, "q");
    world.run(seconds(3));
    world.say(1, asker, &line);
    world.run(milliseconds(50));
    let listener = *world.hosts[0].apps.keys().last().unwrap();
    let to = world.heard(0, listener, "message")[0]["reply_to"].as_str().unwrap().to_owned();
    world.stop(0);
    world.forget_known(0);
    world.run(milliseconds(100));
    world.start(0);
    let replier = world.connect(0);
    world.say(0, replier, &format!(r#"{{"op":"reply","id":1,"reply_to":"{to}","text":"yes"}}"#));
    world.run(seconds(1));
    assert_eq!(world.heard(1, asker, "reply").len(), 1);
}

#[test]
fn a_list_of_peers_that_is_to_be_settled_is_told_when_the_daemon_has_looked_around() {
    let (mut world, app) = young(12);
    world.say(0, app, r#"{"op":"peers","id":1}"#);
    world.say(0, app, r#"{"op":"peers","id":2,"settled":true}"#);
    world.run(seconds(2));
    assert_eq!(world.heard(0, app, "ok").len(), 1, "the first list was there at once");
    world.run(seconds(1));
    assert_eq!(world.heard(0, app, "ok").len(), 2);
    assert_eq!(world.heard(0, app, "peer").len(), 1);
    world.say(0, app, r#"{"op":"peers","id":3,"settled":true}"#);
    assert_eq!(world.heard(0, app, "ok").len(), 3, "it has looked around");
}
