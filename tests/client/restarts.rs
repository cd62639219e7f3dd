//! The client when its daemon goes and comes back.

use std::time::Duration;

use atonce::Client;
use atonce::client::{Error, ErrorCode, Event, Outcome, SendOptions};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::fake::{Fake, Session, error, message, node, ok};
use crate::{LONG, connect, delivered, next, next_text};

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
async fn an_app_that_was_idle_asks_the_new_daemon_and_not_the_old_connection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("atonced.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let daemon = std::thread::spawn(move || {
        let mut session = Session::new(listener.accept().unwrap().0);
        session.say_hello();
        session.tell(&message("pi", "chat", "last words"));
        drop(session);
        tell.send(()).unwrap();
        let mut session = Session::new(listener.accept().unwrap().0);
        session.say_hello();
        let request = session.expect("send");
        session.tell(&delivered(&request));
    });
    let mut client = Client::connect_to(&path, LONG).await.unwrap();
    tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap();
    assert!(client.send("pi", "chat", b"x", SendOptions::default()).await.is_ok());
    assert_eq!(next_text(&mut client).await, "last words");
    reconnected(&mut client).await;
    daemon.join().unwrap();
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
