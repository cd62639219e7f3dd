//! The client library against daemons that are slow, newer, odd, or gone.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod fake;

use std::time::Duration;

use atonce::Client;
use atonce::client::{Error, ErrorCode, Event, Outcome, PathKind, PingOptions, RequestOptions, SendOptions};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::fake::{Fake, Session, error, message, node, ok, peers};

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

/// The daemon was gone and is back.
async fn reconnected(client: &mut Client) {
    assert_eq!(next(client).await, Event::Disconnected);
    assert_eq!(next(client).await, Event::Reconnected);
}

#[tokio::test]
async fn after_a_restart_of_the_daemon_it_listens_and_watches_again_and_says_so_once() {
    let asks = |session: &mut Session, ops: [(&str, Value); 3]| {
        for (op, topic) in ops {
            let request = session.expect(op);
            assert_eq!(request["topic"], topic);
            session.tell(&ok(&request)[0]);
        }
    };
    let fake = Fake::restarted(
        move |session| {
            asks(session, [("listen", json!("b")), ("listen", json!("a")), ("watch", Value::Null)]);
            let request = session.expect("unlisten");
            session.tell(&ok(&request)[0]);
            let request = session.expect("listen");
            session.tell(&ok(&request)[0]);
        },
        move |session| {
            asks(session, [("listen", json!("a")), ("listen", json!("c")), ("watch", Value::Null)]);
            session.tell(&json!({"ev": "enter", "peer": node("pi", 2), "path": "lan", "snapshot": true}));
            session.tell(&message("pi", "a", "here"));
            session.wait_for_the_end();
        },
    );
    let mut client = connect(&fake).await;
    client.listen("b").await.unwrap();
    client.listen("a").await.unwrap();
    client.watch().await.unwrap();
    client.unlisten("b").await.unwrap();
    client.listen("c").await.unwrap();
    reconnected(&mut client).await;
    let enter = next(&mut client).await;
    assert!(matches!(enter, Event::Enter { snapshot: true, .. }), "{enter:?}");
    assert_eq!(next_text(&mut client).await, "here");
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn a_connection_comes_back_whichever_futures_are_dropped_meanwhile() {
    let (go_on, wait) = std::sync::mpsc::channel();
    let fake = Fake::restarted(
        |session| {
            let request = session.expect("listen");
            session.tell(&ok(&request)[0]);
        },
        move |session| {
            let request = session.expect("listen");
            wait.recv().unwrap();
            session.tell(&ok(&request)[0]);
            session.wait_for_the_end();
        },
    );
    let mut client = connect(&fake).await;
    client.listen("a").await.unwrap();
    assert_eq!(next(&mut client).await, Event::Disconnected);
    for _ in 0..300 {
        let early = timeout(Duration::from_millis(1), client.next_event()).await;
        assert!(early.is_err(), "it listens again before it says so: {early:?}");
    }
    go_on.send(()).unwrap();
    assert_eq!(next(&mut client).await, Event::Reconnected);
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn a_request_that_was_open_when_the_connection_broke_is_an_error_and_never_sent_again() {
    let fake = Fake::restarted(
        |session| drop(session.expect("send")),
        |session| {
            let request = session.expect("network");
            let network = json!({"kind": "open", "fingerprint": null, "source": null});
            session.tell(&json!({"ev": "ok", "id": request["id"], "network": network}));
            assert_eq!(session.request(), None);
        },
    );
    let mut client = connect(&fake).await;
    let open = client.send("pi", "chat", b"once", SendOptions::default()).await;
    assert!(matches!(open, Err(Error::Closed)), "{open:?}");
    assert_eq!(client.network().await.unwrap().kind, "open");
    reconnected(&mut client).await;
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn a_request_while_there_is_no_connection_waits_for_one_as_long_as_it_may_take_itself() {
    let fake = Fake::restarted(
        |_| {},
        |session| {
            let request = session.expect("send");
            session.tell(&delivered(&request));
        },
    );
    let mut client = connect(&fake).await;
    assert_eq!(next(&mut client).await, Event::Disconnected);
    let sent = client.send("pi", "chat", b"later", SendOptions::default()).await.unwrap();
    assert_eq!(sent.outcome, Outcome::Delivered);
    assert_eq!(next(&mut client).await, Event::Reconnected);
    fake.finish();
    assert_eq!(next(&mut client).await, Event::Disconnected);
    let options = SendOptions { timeout: Duration::from_millis(1), ..SendOptions::default() };
    let never = client.send("pi", "chat", b"never", options).await;
    assert!(matches!(never, Err(Error::Unreachable { .. })), "{never:?}");
}

#[tokio::test]
async fn whoever_may_be_started_before_the_daemon_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("atonced.sock");
    let never = Client::connect_when_there(&path, LONG, Duration::from_millis(100)).await;
    assert!(matches!(never, Err(Error::Unreachable { .. })), "{never:?}");
    let late = tokio::spawn({
        let path = path.clone();
        async move { Client::connect_when_there(&path, LONG, LONG).await }
    });
    tokio::task::yield_now().await;
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let daemon = std::thread::spawn(move || {
        let mut session = Session::new(listener.accept().unwrap().0);
        session.say_hello();
        session.tell(&message("pi", "chat", "first"));
        session.wait_for_the_end();
    });
    let mut client = late.await.unwrap().unwrap();
    assert_eq!(next_text(&mut client).await, "first");
    drop(client);
    daemon.join().unwrap();
}

#[tokio::test]
async fn a_topic_that_the_new_daemon_refuses_is_told_and_the_rest_goes_on() {
    let fake = Fake::restarted(
        |session| {
            for _ in 0..2 {
                let request = session.expect("listen");
                session.tell(&ok(&request)[0]);
            }
        },
        |session| {
            let request = session.expect("listen");
            session.tell(&error(&request, "limit")[0]);
            let request = session.expect("listen");
            session.tell(&ok(&request)[0]);
            session.tell(&message("pi", "b", "still here"));
            session.wait_for_the_end();
        },
    );
    let mut client = connect(&fake).await;
    client.listen("a").await.unwrap();
    client.listen("b").await.unwrap();
    assert_eq!(next(&mut client).await, Event::Disconnected);
    let refused = client.next_event().await;
    assert!(matches!(refused, Err(Error::Refused { code: ErrorCode::Limit, .. })), "{refused:?}");
    assert_eq!(next(&mut client).await, Event::Reconnected);
    assert_eq!(next_text(&mut client).await, "still here");
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn many_sends_are_under_way_at_once_and_their_outcomes_come_as_they_end() {
    let fake = Fake::new(|session| {
        let requests: Vec<Value> = (0..4).map(|_| session.expect("send")).collect();
        session.tell(&message("pi", "chat", "meanwhile"));
        session.tell(&delivered(&requests[2]));
        session.tell(&error(&requests[0], "no-peer")[0]);
        session.tell(&delivered(&requests[1]));
        // The fourth is never answered.
    });
    let mut client = connect(&fake).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(client.start_send("pi", "chat", b"x", SendOptions::default()).await.unwrap());
    }
    assert_eq!(client.under_way(), 4);
    let mut ended = Vec::new();
    while let Some(end) = client.next_outcome().await.unwrap() {
        let number = ids.iter().position(|id| *id == end.id).unwrap();
        ended.push((number, end.result.map(|sent| sent.outcome)));
    }
    assert!(matches!(
        &ended[..],
        [
            (2, Ok(Outcome::Delivered)),
            (0, Err(Error::Refused { code: ErrorCode::NoPeer, .. })),
            (1, Ok(Outcome::Delivered)),
            (3, Err(Error::Closed))
        ]
    ));
    assert_eq!(next_text(&mut client).await, "meanwhile");
    fake.finish();
}

#[tokio::test]
async fn the_send_beyond_what_may_be_under_way_waits_for_one_to_end() {
    let fake = Fake::new(|session| {
        let first = session.expect("send");
        for _ in 1..1024 {
            session.expect("send");
        }
        session.tell(&delivered(&first));
        session.expect("send");
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    for _ in 0..1025 {
        client.start_send("pi", "chat", b"x", SendOptions::default()).await.unwrap();
    }
    assert_eq!(client.under_way(), 1024);
    assert!(client.next_outcome().await.unwrap().unwrap().result.is_ok());
    // The last one has to be written yet.
    assert!(timeout(Duration::from_millis(50), client.next_outcome()).await.is_err());
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn a_send_that_is_never_answered_ends_with_its_time() {
    let fake = Fake::new(Session::wait_for_the_end);
    let mut client = connect(&fake).await;
    let options = SendOptions { timeout: Duration::from_millis(1), ..SendOptions::default() };
    let id = client.start_send("pi", "chat", b"x", options).await.unwrap();
    let ended = client.next_outcome().await.unwrap().unwrap();
    assert!(ended.id == id && matches!(ended.result, Err(Error::Timeout(_))), "{ended:?}");
    assert!(client.next_outcome().await.unwrap().is_none());
    drop(client);
    fake.finish();
}

fn reply(request: &Value, text: &str) -> Value {
    json!({"ev": "reply", "id": request["id"], "from": node("pi", 2), "text": text, "path": "lan", "at": ""})
}

#[tokio::test]
async fn a_request_gives_the_first_reply_or_the_outcome_without_one() {
    let fake = Fake::new(|session| {
        let request = session.expect("send");
        assert_eq!(
            (&request["replies"], &request["ack"], &request["timeout_ms"]),
            (&json!(1), &json!(true), &json!(5000))
        );
        session.tell(&reply(&json!({"id": 999}), "another's"));
        session.tell(&reply(&request, "noon"));
        let mut result = delivered(&request);
        result["replies"] = json!(1);
        session.tell(&result);
        let request = session.expect("send");
        let mut result = delivered(&request);
        (result["replies"], result["outcome"]) = (json!(0), json!("no-listener"));
        session.tell(&result);
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    let answered = client.request("pi", "time", b"", RequestOptions::default()).await.unwrap();
    assert_eq!(answered.reply.unwrap().payload, b"noon");
    assert_eq!((answered.sent.outcome, answered.sent.replies), (Outcome::Delivered, Some(1)));
    let nobody = client.request("pi", "time", b"", RequestOptions::default()).await.unwrap();
    assert_eq!((nobody.reply, nobody.sent.outcome), (None, Outcome::NoListener));
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn a_request_to_all_gives_each_reply_as_it_comes_and_their_count() {
    let fake = Fake::new(|session| {
        let request = session.expect("publish");
        assert_eq!(request["replies"], json!(3));
        for text in ["one", "two"] {
            session.tell(&reply(&request, text));
        }
        session.tell(&json!({"ev": "result", "id": request["id"], "sent": 4, "replies": 2, "outcomes": []}));
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    let mut told = Vec::new();
    let asked = client
        .request_all("time", b"", 3, RequestOptions::default(), |reply| {
            told.push(String::from_utf8(reply.payload).unwrap());
        })
        .await
        .unwrap();
    assert_eq!((asked.sent, asked.replies), (4, Some(2)));
    assert_eq!(told, ["one", "two"]);
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn a_reply_names_what_the_message_said_is_to_be_named() {
    let fake = Fake::new(|session| {
        let mut question = message("pi", "time", "now?");
        question["reply_to"] = json!("abc.7");
        session.tell(&question);
        let request = session.expect("reply");
        assert_eq!(
            (&request["reply_to"], &request["text"], request.get("topic")),
            (&json!("abc.7"), &json!("noon"), None)
        );
        session.tell(&delivered(&request));
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    let Event::Message(question) = next(&mut client).await else { panic!("a message was told") };
    let to = question.reply_to.unwrap();
    let sent = client.reply(&to, b"noon", SendOptions::default()).await.unwrap();
    assert_eq!(sent.outcome, Outcome::Delivered);
    drop(client);
    fake.finish();
}

#[tokio::test]
async fn a_text_that_would_not_fit_a_line_goes_as_base64() {
    const MOST: usize = 61_440;
    let fake = Fake::raw(|session| {
        session.say_hello_with(MOST);
        for field in ["text", "data", "data"] {
            let request = session.expect("send");
            assert!(request[field].is_string() && request.to_string().len() < 98_304, "{field}");
            session.tell(&delivered(&request));
        }
        session.wait_for_the_end();
    });
    let mut client = connect(&fake).await;
    for payload in [vec![b'x'; MOST], vec![b'\\'; MOST], vec![0xff; MOST]] {
        client.send("pi", "chat", &payload, SendOptions::default()).await.unwrap();
    }
    drop(client);
    fake.finish();
}
