//! Many messages under way, requests and their replies.

use std::time::Duration;

use atonce::client::{Error, ErrorCode, Event, Outcome, RequestOptions, SendOptions};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::fake::{Fake, Session, error, message, node};
use crate::{connect, delivered, next, next_text};

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
