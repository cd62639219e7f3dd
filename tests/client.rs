//! The client library against daemons that are slow, newer, odd, or gone.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

#[path = "client/asking.rs"]
mod asking;
mod fake;
#[path = "client/restarts.rs"]
mod restarts;

use std::time::Duration;

use atonce::Client;
use atonce::client::{Error, ErrorCode, Event, Outcome, PathKind, PingOptions, SendOptions};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::fake::{Fake, Session, message, node, ok, peers};

const LONG: Duration = Duration::from_secs(10);

async fn connect(fake: &Fake) -> Client {
    Client::connect_to(&fake.socket(), LONG).await.unwrap()
}

async fn next_text(client: &mut Client) -> String {
    match timeout(LONG, client.next_event()).await.unwrap().unwrap() {
        Event::Message(message) => String::from_utf8(message.payload).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn events_that_come_before_an_answer_are_kept_in_their_order() {
    let fake = Fake::new(|session| {
        let request = session.expect("peers");
        session.tell(&message("pi", "chat", "one"));
        let listing = peers(&request);
        session.tell(&listing[0]);
        session.tell(&json!({"ev": "enter", "peer": node("pi", 2), "path": "lan"}));
        for line in &listing[1..] {
            session.tell(line);
        }
        session.tell(&message("pi", "chat", "two"));
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    let states: Vec<_> =
        client.peers().await.unwrap().iter().map(|peer| peer.name.clone().into_owned()).collect();
    assert_eq!(states, ["pi-attic", "pi-cellar", "garage"]);
    assert_eq!(next_text(&mut client).await, "one");
    let event = client.next_event().await.unwrap();
    assert!(matches!(event, Event::Enter { path: PathKind::Lan, snapshot: false, .. }), "{event:?}");
    assert_eq!(next_text(&mut client).await, "two");
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn a_line_whose_reader_was_dropped_halfway_is_read_whole_by_the_next_one() {
    let (go_on, wait) = std::sync::mpsc::channel();
    let fake = Fake::new(move |session| {
        let line = format!("{}\n", message("pi", "chat", "whole"));
        let (begin, end) = line.split_at(40);
        session.write(begin.as_bytes());
        wait.recv().unwrap();
        session.write(end.as_bytes());
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    assert!(timeout(Duration::from_millis(50), client.next_event()).await.is_err());
    go_on.send(()).unwrap();
    assert_eq!(next_text(&mut client).await, "whole");
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn a_late_answer_is_not_taken_for_the_answer_to_the_next_question() {
    let fake = Fake::new(|session| {
        let first = session.expect("network");
        let second = session.expect("network");
        for (request, kind) in [(first, "open"), (second, "private")] {
            session.tell(&json!({"ev": "ok", "id": request["id"], "network": {"kind": kind}}));
        }
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    let abandoned = timeout(Duration::from_millis(50), client.network()).await;
    assert!(abandoned.is_err());
    assert_eq!(client.network().await.unwrap().kind, "private");
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn what_a_newer_daemon_says_besides_is_skipped() {
    let fake = Fake::new(|session| {
        session.tell(&json!({"ev": "weather", "id": "sunny", "degrees": 21}));
        let request = session.expect("listen");
        session.tell(&json!({"ev": "ok", "id": request["id"], "mood": "good"}));
        session.tell(&json!({"ev": "enter", "peer": node("pi", 2), "path": "carrier-pigeon"}));
        session.tell(&message("pi", "chat", "hi"));
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    client.listen("chat").await.unwrap();
    assert_eq!(next_text(&mut client).await, "hi");
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn a_payload_goes_as_text_when_it_is_utf_8_and_as_base64_when_not() {
    let fake = Fake::new(|session| {
        for (text, data) in [(json!("hi \u{1b}"), json!(null)), (json!(null), json!("/wA="))] {
            let request = session.expect("send");
            assert_eq!((&request["text"], &request["data"]), (&text, &data));
            assert_eq!((&request["to"], &request["topic"]), (&json!("pi"), &json!("chat")));
            assert_eq!((&request["ack"], &request["timeout_ms"]), (&json!(true), &json!(5000)));
            let outcome = json!({"ev": "result", "id": request["id"], "outcome": "delivered", "peer": node("pi", 2),
                "path": "lan", "rtt_us": 812});
            session.tell(&outcome);
        }
        session.tell(&json!({"ev": "message", "from": node("pi", 2), "topic": "chat", "data": "/wA=", "path": "lan", "at": ""}));
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    let sent = client.send("pi", "chat", "hi \u{1b}".as_bytes(), SendOptions::default()).await.unwrap();
    assert_eq!((sent.outcome, sent.rtt_us, &*sent.peer.name), (Outcome::Delivered, Some(812), "pi"));
    client.send("pi", "chat", b"\xff\x00", SendOptions::default()).await.unwrap();
    let Event::Message(message) = client.next_event().await.unwrap() else { panic!("a message was told") };
    assert_eq!(message.payload, b"\xff\x00");
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn a_payload_over_the_daemons_limit_is_not_even_written() {
    let fake = Fake::new(|session| assert_eq!(session.request(), None));
    let mut client = connect(&fake).await;
    let refused = client.publish("chat", &[b'x'; 1153], SendOptions::default()).await;
    assert!(matches!(refused, Err(Error::TooBig { bytes: 1153, most: 1152 })), "{refused:?}");
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn messages_beyond_what_is_kept_are_counted_and_told_in_their_place() {
    let fake = Fake::new(|session| {
        let request = session.expect("listen");
        for number in 0..1024 + 7 {
            session.tell(&message("pi", "chat", &format!("{number:04}")));
        }
        session.tell(&ok(&request)[0]);
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    client.listen("chat").await.unwrap();
    for number in 0..1024 {
        assert_eq!(next_text(&mut client).await, format!("{number:04}"));
    }
    assert_eq!(client.next_event().await.unwrap(), Event::Lost { messages: 7, bytes: 28 });
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn every_answer_to_a_ping_is_told_as_it_comes() {
    let fake = Fake::new(|session| {
        let request = session.expect("ping");
        assert_eq!((&request["count"], &request["interval_ms"]), (&json!(2), &json!(10)));
        let id = &request["id"];
        session.tell(&json!({"ev": "pong", "id": 999, "seq": 9, "error": "timeout"}));
        session.tell(&json!({"ev": "pong", "id": id, "seq": 1, "error": "timeout"}));
        session.tell(
            &json!({"ev": "pong", "id": id, "seq": 2, "peer": node("pi", 2), "rtt_us": 410, "path": "lan"}),
        );
        session.tell(&json!({"ev": "result", "id": id, "peer": node("pi", 2), "sent": 2, "received": 1,
            "rtt_us": {"min": 410, "p50": 410, "max": 410}}));
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    let mut told = Vec::new();
    let options = PingOptions { count: 2, interval: Duration::from_millis(10), timeout: LONG };
    let pinged =
        client.ping("pi", options, |pong| told.push((pong.seq, pong.rtt_us, pong.error))).await.unwrap();
    assert_eq!(told, [(1, None, Some(Outcome::Timeout)), (2, Some(410), None)]);
    assert_eq!((pinged.sent, pinged.received), (2, 1));
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn a_request_that_the_daemon_cannot_take_yet_does_not_keep_its_events_from_being_read() {
    let fake = Fake::new(|session| {
        // More than two socket buffers hold: it is written only if the app reads while it writes.
        let text = "x".repeat(1000);
        for _ in 0..1000 {
            session.tell(&message("pi", "chat", &text));
        }
        let request = session.expect("listen");
        session.tell(&ok(&request)[0]);
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    client.listen("chat").await.unwrap();
    assert_eq!(next_text(&mut client).await.len(), 1000);
    drop(client);
    fake.finish();
}

async fn hello(script: impl FnOnce(&mut Session) + Send + 'static, within: Duration) -> Error {
    let fake = Fake::raw(script);
    let error = Client::connect_to(&fake.socket(), within).await.expect_err("this is no daemon");
    fake.finish();
    error
}

#[tokio::test]
async fn a_daemon_that_says_nothing_garbage_or_good_bye_is_told_apart() {
    let silent = hello(Session::wait_for_the_end, Duration::from_millis(50)).await;
    assert!(matches!(silent, Error::Timeout(_)), "{silent:?}");
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"{}\n",
        b"\xff\xfe\n",
        b"[1]\n",
        b"{\"ev\":\"ok\",\"id\":1}\n",
    ] {
        let error = hello(
            move |session| {
                session.write(garbage);
                session.wait_for_the_end();
            },
            LONG,
        )
        .await;
        assert!(matches!(error, Error::Protocol(_)), "{garbage:?}: {error:?}");
    }
    let closed = hello(|session| drop(session.request()), LONG).await;
    assert!(matches!(closed, Error::Closed), "{closed:?}");
}

#[tokio::test]
async fn an_endless_line_ends_at_the_limit_and_not_with_the_memory() {
    let endless = hello(
        |session| {
            for _ in 0..100 {
                session.write(&[b'x'; 4096]);
            }
        },
        LONG,
    )
    .await;
    assert!(matches!(endless, Error::Protocol(_)), "{endless:?}");
}

#[tokio::test]
async fn the_last_words_of_a_daemon_that_closes_are_heard() {
    let told = hello(
        |session| {
            session.expect("hello");
            session.tell(&json!({"ev": "error", "code": "limit", "message": "there are already 64 apps", "hint": "close one"}));
        },
        LONG,
    )
    .await;
    let Error::Refused { code, message, hint } = told else { panic!("{told:?}") };
    assert_eq!(
        (code, message.as_str(), hint.as_str()),
        (ErrorCode::Limit, "there are already 64 apps", "close one")
    );
}

#[tokio::test]
async fn a_socket_without_a_daemon_says_why_it_is_without() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("atonced.sock");
    let kind = async || match Client::connect_to(&path, LONG).await {
        Err(Error::Unreachable { source, .. }) => source.kind(),
        other => panic!("{other:?}"),
    };
    assert_eq!(kind().await, std::io::ErrorKind::NotFound);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert_eq!(kind().await, std::io::ErrorKind::ConnectionRefused);
}

fn delivered(request: &Value) -> Value {
    json!({"ev": "result", "id": request["id"], "outcome": "delivered", "peer": node("pi", 2), "path": "lan", "rtt_us": 812})
}

async fn next(client: &mut Client) -> Event {
    timeout(LONG, client.next_event()).await.unwrap().unwrap()
}
