//! The scenario: the client under test speaks to `one`, an app in plain lines to `two`.

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::driver::{Driver, Kind};
use crate::pair::{App, Pair};
use crate::{Column, cell};

/// A name, and what happens.
type Step = (&'static str, fn(&mut Story));

/// The steps, in this order.
pub(crate) const CHECKS: [Step; 20] = [
    ("the greeting of the daemon", greeting),
    ("a text is heard", hears_text),
    ("bytes are heard", hears_bytes),
    ("a text is delivered", delivers_text),
    ("bytes are delivered", delivers_bytes),
    ("text that grows in JSON is delivered", delivers_control_characters),
    ("nobody listens", nobody_listens),
    ("nobody has that name", nobody_has_that_name),
    ("a payload that is too big", too_big),
    ("a publication with its outcomes", publishes),
    ("peers, status, ping", asks),
    ("500 messages in their order", many_in_order),
    ("presence: what is there, then changes", watches),
    ("a topic is given up", gives_up_a_topic),
    ("a restart of the daemon", survives_a_restart),
    ("a request that an app answers", gets_a_reply),
    ("a request without a reply", gets_no_reply),
    ("a published request that two apps answer", gets_all_replies),
    ("a reply to a request", replies),
    ("a request that was open at the restart of the daemon", loses_an_open_request),
];

pub(crate) struct Story {
    client: Driver,
    other: App,
    pair: Pair,
}

pub(crate) fn column(kind: Kind) -> Column {
    let pair = Pair::start();
    let client = Driver::start(kind, &pair.socket("one"));
    let mut story = Story { client, other: pair.app("two"), pair };
    CHECKS.iter().map(|(_, check)| cell(|| check(&mut story))).collect()
}

fn encoded(payload: &[u8]) -> String {
    BASE64.encode(payload)
}

fn said(story: &mut Story, to: &str, topic: &str, payload: &[u8]) -> Value {
    story.client.say(json!({"do": "send", "to": to, "topic": topic, "data": encoded(payload)}))
}

fn greeting(story: &mut Story) {
    let hello = story.other.ask(json!({"op": "hello"}))["hello"].clone();
    let expected = json!({"v": 1, "name": "one", "payload_bytes": hello["payload_bytes"]});
    assert_eq!(story.client.greeting, expected);
}

fn hears_text(story: &mut Story) {
    assert_eq!(story.client.say(json!({"do": "listen", "topic": "chat"})), json!({}));
    assert_eq!(story.other.send("one", "chat", "grüße 🔔"), "delivered");
    let heard = story.client.next();
    let expected = ("message", "two", "chat", encoded("grüße 🔔".as_bytes()));
    let fields = |name: &str| heard[name].as_str().unwrap_or_default();
    assert_eq!((fields("event"), fields("from"), fields("topic"), fields("data").to_owned()), expected);
}

fn hears_bytes(story: &mut Story) {
    let bytes = encoded(&[0xff, 0, b'a', b'\n', 0xc3]);
    let sent = story.other.ask(json!({"op": "send", "to": "one", "topic": "chat", "data": bytes}));
    assert_eq!(sent["outcome"], "delivered");
    assert_eq!(story.client.next()["data"], json!(bytes));
}

fn delivers_text(story: &mut Story) {
    story.other.listen("inbox");
    assert_eq!(said(story, "two", "inbox", "grüße \"\n".as_bytes()), json!({"outcome": "delivered"}));
    let message = story.other.next("message");
    assert_eq!((&message["from"]["name"], &message["text"]), (&json!("one"), &json!("grüße \"\n")));
}

fn delivers_bytes(story: &mut Story) {
    let bytes = [0xff, 0, 1, 2];
    assert_eq!(said(story, "two", "inbox", &bytes), json!({"outcome": "delivered"}));
    assert_eq!(story.other.next("message")["data"], json!(encoded(&bytes)));
}

fn delivers_control_characters(story: &mut Story) {
    let bytes = vec![1; payload_bytes(story)];
    assert_eq!(said(story, "two", "inbox", &bytes), json!({"outcome": "delivered"}));
    let message = story.other.next("message");
    let text = message["text"].as_str().map(|text| encoded(text.as_bytes()));
    assert_eq!(text.as_deref().or_else(|| message["data"].as_str()), Some(&*encoded(&bytes)));
}

fn nobody_listens(story: &mut Story) {
    assert_eq!(said(story, "two", "nothing", b"hi"), json!({"outcome": "no-listener"}));
}

fn nobody_has_that_name(story: &mut Story) {
    let refused = said(story, "nobody", "inbox", b"hi");
    assert_eq!((&refused["error"], &refused["code"]), (&json!("refused"), &json!("no-peer")));
}

fn too_big(story: &mut Story) {
    let bytes = vec![b'x'; payload_bytes(story) + 1];
    assert_eq!(said(story, "two", "inbox", &bytes)["error"], "too-big");
}

fn payload_bytes(story: &Story) -> usize {
    usize::try_from(story.client.greeting["payload_bytes"].as_u64().unwrap()).unwrap()
}

fn publishes(story: &mut Story) {
    let publish =
        |ack: bool| json!({"do": "publish", "topic": "inbox", "data": encoded(b"to all"), "ack": ack});
    let published = story.client.say(publish(true));
    assert_eq!(published, json!({"sent": 1, "outcomes": [["two", "delivered"]]}));
    assert_eq!(story.other.next("message")["text"], "to all");
    assert_eq!(story.client.say(publish(false)), json!({"sent": 1, "outcomes": null}));
    assert_eq!(story.other.next("message")["text"], "to all");
}

fn asks(story: &mut Story) {
    assert_eq!(story.client.say(json!({"do": "peers"})), json!({"peers": {"two": "online"}}));
    assert_eq!(story.client.say(json!({"do": "status"})), json!({"name": "one"}));
    assert_eq!(story.client.say(json!({"do": "ping", "to": "two"})), json!({"received": 1}));
}

fn many_in_order(story: &mut Story) {
    let sent = story.client.say(json!({"do": "send-many", "to": "two", "topic": "inbox", "count": 500}));
    assert_eq!(sent, json!({"outcomes": {"delivered": 500}}));
    for number in 0..500 {
        assert_eq!(story.other.next("message")["text"], json!(number.to_string()));
    }
}

fn watches(story: &mut Story) {
    assert_eq!(story.client.say(json!({"do": "watch"})), json!({}));
    let told = |story: &mut Story| {
        let event = story.client.next();
        let field = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        (field("event"), field("peer"), field("topic"), event["snapshot"].as_bool().unwrap_or_default())
    };
    let expected =
        |event: &str, topic: &str, snapshot| (event.to_owned(), "two".to_owned(), topic.to_owned(), snapshot);
    assert_eq!(told(story), expected("enter", "", true));
    assert_eq!(told(story), expected("listen", "inbox", true));
    story.other.listen("fresh");
    assert_eq!(told(story), expected("listen", "fresh", false));
    story.other.ask(json!({"op": "unlisten", "topic": "fresh"}));
    assert_eq!(told(story), expected("unlisten", "fresh", false));
}

fn gives_up_a_topic(story: &mut Story) {
    assert_eq!(story.client.say(json!({"do": "listen", "topic": "for.a.while"})), json!({}));
    assert_eq!(story.client.say(json!({"do": "unlisten", "topic": "for.a.while"})), json!({}));
    assert_eq!(story.other.send("one", "for.a.while", "hi"), "no-listener");
}

fn survives_a_restart(story: &mut Story) {
    story.other.ask(json!({"op": "watch"}));
    story.pair.restart_one();
    while story.client.next()["event"] != "reconnected" {}
    // Presence comes anew: `two` is met again.
    while story.client.next()["event"] != "enter" {}
    story.other.next("exit");
    while story.other.next("listen")["topic"] != "chat" {}
    assert_eq!(story.other.send("one", "chat", "still there?"), "delivered");
    assert_eq!(story.client.next_message()["data"], json!(encoded(b"still there?")));
    assert_eq!(said(story, "two", "inbox", b"yes"), json!({"outcome": "delivered"}));
    assert_eq!(story.other.next("message")["text"], "yes");
}

/// Waits for a request, and answers it.
fn answer(app: &mut App, text: &str) {
    let request = app.next("message");
    let reply = json!({"op": "reply", "reply_to": request["reply_to"], "text": text});
    assert_eq!(app.ask(reply)["outcome"], "delivered");
}

fn gets_a_reply(story: &mut Story) {
    story.other.listen("ask");
    let Story { client, other, .. } = story;
    std::thread::scope(|scope| {
        scope.spawn(|| answer(other, "21 °C"));
        let request = json!({"do": "request", "to": "two", "topic": "ask", "data": encoded(b"how warm?")});
        let expected = json!({"outcome": "delivered", "reply": encoded("21 °C".as_bytes()), "from": "two"});
        assert_eq!(client.say(request), expected);
    });
}

fn gets_no_reply(story: &mut Story) {
    for (topic, outcome) in [("ask", "delivered"), ("nothing", "no-listener")] {
        let request = json!({"do": "request", "to": "two", "topic": topic, "data": "", "timeout_ms": 500});
        let expected = json!({"outcome": outcome, "reply": null, "from": null});
        assert_eq!(story.client.say(request), expected);
    }
    story.other.next("message");
}

fn gets_all_replies(story: &mut Story) {
    let mut third = story.pair.app("two");
    third.listen("ask");
    let Story { client, other, .. } = story;
    std::thread::scope(|scope| {
        scope.spawn(|| answer(other, "one"));
        scope.spawn(|| answer(&mut third, "two"));
        let request =
            json!({"do": "request-all", "topic": "ask", "data": "", "count": 2, "timeout_ms": 60_000});
        let mut replies = client.say(request)["replies"].as_array().cloned().unwrap_or_default();
        replies.sort_by_key(ToString::to_string);
        let mut expected = [json!(encoded(b"one")), json!(encoded(b"two"))];
        expected.sort_by_key(ToString::to_string);
        assert_eq!(replies, expected);
    });
}

fn replies(story: &mut Story) {
    let Story { client, other, .. } = story;
    assert_eq!(client.say(json!({"do": "listen", "topic": "ask.me"})), json!({}));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            other.ask(json!({"op": "send", "to": "one", "topic": "ask.me", "text": "who?", "replies": 1}))
        });
        let request = client.next_message();
        let reply = json!({"do": "reply", "reply_to": request["reply_to"], "data": encoded(b"me")});
        assert_eq!(client.say(reply.clone()), json!({"outcome": "delivered"}));
        let result = asking.join().unwrap();
        assert_eq!((&result["outcome"], &result["replies"]), (&json!("delivered"), &json!(1)));
        assert_eq!(client.say(reply), json!({"outcome": "no-listener"}));
    });
    assert_eq!(other.next("reply")["text"], "me");
}

fn loses_an_open_request(story: &mut Story) {
    let Story { client, other, pair } = story;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            other.next("message");
            pair.restart_one();
        });
        let request = json!({"do": "request", "to": "two", "topic": "ask", "data": "", "timeout_ms": 60_000});
        assert_eq!(client.say(request)["error"], "disconnected");
    });
    while client.next()["event"] != "reconnected" {}
    assert_eq!(client.say(json!({"do": "status"})), json!({"name": "one"}));
}
