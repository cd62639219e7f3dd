//! What a daemon may say, and what clients make of it: each check has a daemon of its own that plays a script.

use std::sync::mpsc::channel;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::driver::{Driver, Kind};
use crate::scripted::{Connection, Script, Scripted, message, node, result};
use crate::{Column, cell};

/// A name, and what it does with a client.
type Check = (&'static str, fn(Kind));

pub(crate) const CHECKS: [Check; 24] = [
    ("fields and events that it does not know", ignores_the_unknown),
    ("a message byte for byte", reads_split_lines),
    ("the largest messages", carries_the_largest),
    ("answers in any order", sorts_answers),
    ("an answer that comes too late", skips_a_late_answer),
    ("a failure that is to be an error", raises_a_failure),
    ("an endless line", refuses_an_endless_line),
    ("a line that is no JSON", |kind| refuses(kind, b"hello?\n".into())),
    ("a line that is no object", |kind| refuses(kind, b"[1]\n".into())),
    ("a line that is no UTF-8", |kind| refuses(kind, b"{\"ev\":\"\xff\"}\n".into())),
    ("a line of brackets", |kind| refuses(kind, [b"[".repeat(90_000), b"\n".to_vec()].concat())),
    ("a payload that is no base64", refuses_odd_base64),
    ("an error of the daemon", tells_errors),
    ("a daemon that is full", tells_of_a_full_daemon),
    ("no daemon", no_daemon),
    ("a request that was open when the daemon went", never_sends_twice),
    ("a daemon that is gone for longer", connects_again),
    ("more than anybody reads", stops_reading),
    ("more than is kept for an answer", counts_what_it_drops),
    ("a request and its reply", gets_a_reply),
    ("a request that nobody answers", gets_no_reply),
    ("a published request and its replies", gets_all_replies),
    ("a reply", replies),
    ("messages that wait for a listener", waits_for_listeners),
];

pub(crate) fn column(kind: Kind) -> Column {
    CHECKS.iter().map(|(_, check)| cell(|| check(kind))).collect()
}

/// Runs a client against one connection that begins with the greeting.
fn with(kind: Kind, script: impl FnOnce(&mut Connection) + Send + 'static, check: impl FnOnce(&mut Driver)) {
    let greeted = |connection: &mut Connection| {
        connection.say_hello();
        script(connection);
    };
    with_all(kind, vec![Box::new(greeted)], check);
}

fn with_all(kind: Kind, scripts: Vec<Script>, check: impl FnOnce(&mut Driver)) {
    let daemon = Scripted::start(scripts);
    let mut client = Driver::start(kind, &daemon.socket());
    check(&mut client);
    drop(client);
    daemon.finish();
}

fn heard(client: &mut Driver, text: &str) {
    let event = client.next();
    let expected = (json!("message"), json!(BASE64.encode(text.as_bytes())));
    assert_eq!((event["event"].clone(), event["data"].clone()), expected, "{event}");
}

fn ignores_the_unknown(kind: Kind) {
    let script = |connection: &mut Connection| {
        connection.tell(&json!({"ev": "weather", "id": "sunny", "degrees": 21}));
        let request = connection.expect("send");
        connection.tell(&json!({"ev": "thunder", "id": null}));
        let mut answer = result(&request, "delivered");
        answer["mood"] = json!({"good": [1]});
        connection.tell(&answer);
        let mut told = message("hi");
        (told["from"]["age"], told["colour"]) = (json!(7), json!(["red"]));
        connection.tell(&told);
        connection.until_the_end();
    };
    with(kind, script, |client| {
        assert_eq!(send(client), json!({"outcome": "delivered"}));
        heard(client, "hi");
    });
}

fn send(client: &mut Driver) -> Value {
    client.say(json!({"do": "send", "to": "pi", "topic": "chat", "data": "aGk="}))
}

fn reads_split_lines(kind: Kind) {
    let script = |connection: &mut Connection| {
        let lines = format!("{}\n{}\n", message("grüße 🔔"), message("two"));
        for byte in lines.as_bytes() {
            connection.write(&[*byte]);
        }
        connection.until_the_end();
    };
    with(kind, script, |client| {
        heard(client, "grüße 🔔");
        heard(client, "two");
    });
}

/// A text that would be too long in JSON goes as base64.
fn carries_the_largest(kind: Kind) {
    let payloads = || [vec![1; 61440], "ß".repeat(30_720).into_bytes(), vec![0xff; 61440]];
    let script = move |connection: &mut Connection| {
        for payload in payloads() {
            let request = connection.expect("send");
            let sent = match request["text"].as_str() {
                Some(text) => text.as_bytes().to_vec(),
                None => BASE64.decode(request["data"].as_str().unwrap().as_bytes()).unwrap(),
            };
            assert!(sent == payload && request.to_string().len() < 98_304, "it is no line with this payload");
            connection.tell(&result(&request, "delivered"));
            let mut told = message("");
            told.as_object_mut().unwrap().remove("text");
            for field in ["text", "data"] {
                if let Some(value) = request.get(field) {
                    told[field] = value.clone();
                }
            }
            connection.tell(&told);
        }
        connection.until_the_end();
    };
    with(kind, script, |client| {
        for payload in payloads() {
            let data = BASE64.encode(&payload);
            let send = json!({"do": "send", "to": "pi", "topic": "chat", "data": data});
            assert_eq!(client.say(send), json!({"outcome": "delivered"}));
            assert!(client.next()["data"] == json!(data), "another payload came");
        }
    });
}

/// With requests that were written at once the answers come from the last to the first.
fn sorts_answers(kind: Kind) {
    let script = |connection: &mut Connection| {
        let mut requests: Vec<Value> = (0..20).map(|_| connection.expect("send")).collect();
        let texts: Vec<&str> = requests.iter().map(|request| request["text"].as_str().unwrap()).collect();
        assert_eq!(texts, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
        requests.reverse();
        for (number, request) in requests.iter().enumerate() {
            connection.tell(&result(request, if number == 0 { "busy" } else { "delivered" }));
            connection.tell(&message("meanwhile"));
        }
        connection.until_the_end();
    };
    with(kind, script, |client| {
        let sent = client.say(json!({"do": "send-many", "to": "pi", "topic": "chat", "count": 20}));
        assert_eq!(sent, json!({"outcomes": {"delivered": 19, "busy": 1}}));
        heard(client, "meanwhile");
    });
}

fn skips_a_late_answer(kind: Kind) {
    let script = |connection: &mut Connection| {
        let requests = [connection.expect("send"), connection.expect("send")];
        for (request, outcome) in requests.iter().zip(["delivered", "busy"]) {
            connection.tell(&result(request, outcome));
        }
        connection.until_the_end();
    };
    with(kind, script, |client| {
        let late =
            client.say(json!({"do": "send", "to": "pi", "topic": "chat", "data": "aGk=", "timeout_ms": 1}));
        assert_eq!(late["error"], "timeout");
        assert_eq!(send(client), json!({"outcome": "busy"}));
    });
}

fn raises_a_failure(kind: Kind) {
    let script = |connection: &mut Connection| {
        for outcome in ["busy", "delivered"] {
            let request = connection.expect("send");
            connection.tell(&result(&request, outcome));
        }
        for outcome in ["busy", "delivered"] {
            let request = connection.expect("publish");
            assert_eq!(request["ack"], json!(true));
            let outcomes = json!([{"peer": node("pi"), "outcome": outcome}]);
            connection.tell(&json!({"ev": "result", "id": request["id"], "sent": 1, "outcomes": outcomes}));
        }
        connection.until_the_end();
    };
    with(kind, script, |client| {
        let send = json!({"do": "send", "to": "pi", "topic": "chat", "data": "aGk=", "check": true});
        assert_eq!(client.say(send.clone())["error"], "not-delivered");
        assert_eq!(client.say(send), json!({"outcome": "delivered"}));
        let publish = json!({"do": "publish", "topic": "chat", "data": "aGk=", "ack": false, "check": true});
        assert_eq!(client.say(publish.clone())["error"], "not-delivered");
        assert_eq!(client.say(publish)["sent"], 1);
    });
}

fn refuses_an_endless_line(kind: Kind) {
    let script = |connection: &mut Connection| {
        connection.grant("listen");
        for _ in 0..1000 {
            connection.write(&[b'x'; 1000]);
        }
        connection.until_the_end();
    };
    with(kind, script, malformed);
}

fn refuses(kind: Kind, line: Vec<u8>) {
    let script = move |connection: &mut Connection| {
        connection.grant("listen");
        connection.write(&line);
        connection.until_the_end();
    };
    with(kind, script, malformed);
}

fn malformed(client: &mut Driver) {
    assert_eq!(client.say(json!({"do": "listen", "topic": "chat"})), json!({}));
    assert_eq!(client.next()["error"], "malformed");
}

fn refuses_odd_base64(kind: Kind) {
    let script = |connection: &mut Connection| {
        connection.grant("listen");
        let mut told = message("");
        told.as_object_mut().unwrap().remove("text");
        told["data"] = json!("aGk");
        connection.tell(&told);
        connection.until_the_end();
    };
    with(kind, script, malformed);
}

fn tells_errors(kind: Kind) {
    let script = |connection: &mut Connection| {
        let request = connection.expect("listen");
        let refused = json!({"code": "limit", "message": "256 topics are listened to", "hint": "unlisten"});
        let mut line = json!({"ev": "error", "id": request["id"]});
        line.as_object_mut().unwrap().extend(refused.as_object().unwrap().clone());
        connection.tell(&line);
        connection.until_the_end();
    };
    with(kind, script, |client| {
        let refused = client.say(json!({"do": "listen", "topic": "chat"}));
        assert_eq!((&refused["error"], &refused["code"]), (&json!("refused"), &json!("limit")));
    });
}

fn tells_of_a_full_daemon(kind: Kind) {
    let script: Script = Box::new(|connection| {
        connection.expect("hello");
        connection.tell(
            &json!({"ev": "error", "code": "limit", "message": "there are already 64 apps", "hint": ""}),
        );
    });
    with_all(kind, vec![script], |client| {
        assert_eq!(
            (&client.greeting["error"], &client.greeting["code"]),
            (&json!("refused"), &json!("limit"))
        );
    });
}

fn no_daemon(kind: Kind) {
    let directory = tempfile::tempdir().unwrap();
    let client = Driver::start(kind, &directory.path().join("atonced.sock"));
    assert_eq!(client.greeting["error"], "unreachable");
}

fn never_sends_twice(kind: Kind) {
    let first: Script = Box::new(|connection| {
        connection.say_hello();
        connection.grant("listen");
        connection.expect("send");
    });
    let second: Script = Box::new(|connection| {
        connection.say_hello();
        let request = connection.expect("listen");
        connection.tell(&message("early"));
        connection.tell(&json!({"ev": "ok", "id": request["id"]}));
        connection.grant("watch");
        connection.until_the_end();
    });
    with_all(kind, vec![first, second], |client| {
        assert_eq!(client.say(json!({"do": "listen", "topic": "chat"})), json!({}));
        assert_eq!(send(client)["error"], "disconnected");
        assert_eq!(client.next()["event"], "reconnected");
        heard(client, "early");
        assert_eq!(client.say(json!({"do": "watch"})), json!({}));
    });
}

/// Each connection but the last one breaks before the client is as far as it was.
fn connects_again(kind: Kind) {
    let first: Script = Box::new(|connection| {
        connection.say_hello();
        connection.grant("listen");
        connection.grant("watch");
    });
    let unheard: Script = Box::new(|connection| drop(connection.expect("hello")));
    let halfway: Script = Box::new(|connection| {
        connection.say_hello();
        connection.grant("listen");
    });
    let last: Script = Box::new(|connection| {
        connection.say_hello();
        let request = connection.expect("listen");
        assert_eq!(request["topic"], "chat");
        connection.tell(&json!({"ev": "ok", "id": request["id"]}));
        connection.grant("watch");
        connection.tell(&json!({"ev": "enter", "peer": node("pi"), "path": "lan", "snapshot": true}));
        let request = connection.expect("send");
        connection.tell(&result(&request, "delivered"));
        connection.until_the_end();
    });
    with_all(kind, vec![first, unheard, halfway, last], |client| {
        assert_eq!(client.say(json!({"do": "listen", "topic": "chat"})), json!({}));
        assert_eq!(client.say(json!({"do": "watch"})), json!({}));
        assert_eq!(client.next()["event"], "reconnected");
        // It may have told of the connection that broke halfway, too.
        let events = std::iter::from_fn(|| Some(client.next()));
        let entered = events.into_iter().find(|event| event["event"] != "reconnected").unwrap();
        assert_eq!((&entered["event"], &entered["snapshot"]), (&json!("enter"), &json!(true)));
        assert_eq!(send(client), json!({"outcome": "delivered"}));
    });
}

/// A daemon that writes without end is not read without end, and nothing is lost of what it could write.
fn stops_reading(kind: Kind) {
    let (tell, told) = channel();
    let script = move |connection: &mut Connection| {
        let text = "x".repeat(1000);
        connection.writer.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut written = 0_u32;
        // A write that ends halfway is no matter: what follows is what was left of it.
        let mut rest = Vec::new();
        while written < 50_000 {
            if rest.is_empty() {
                rest = format!("{}\n", message(&format!("{written} {text}"))).into_bytes();
            }
            match std::io::Write::write(&mut connection.writer, &rest) {
                Ok(bytes) => drop(rest.drain(..bytes)),
                Err(_) => break,
            }
            written += u32::from(rest.is_empty());
        }
        tell.send(written).unwrap();
        connection.writer.set_write_timeout(None).unwrap();
        connection.write(&rest);
        connection.until_the_end();
    };
    with(kind, script, |client| {
        let written = told.recv().unwrap();
        assert!(written < 50_000, "it has read all of them");
        for number in 0..written {
            let event = client.next();
            let data = BASE64.decode(event["data"].as_str().unwrap_or_default().as_bytes()).unwrap();
            assert!(data.starts_with(format!("{number} ").as_bytes()), "{event}");
        }
    });
}

/// Messages that come before the answer to a request are kept, and counted when they are too many.
fn counts_what_it_drops(kind: Kind) {
    const MESSAGES: u64 = 10_000;
    let script = |connection: &mut Connection| {
        let request = connection.expect("send");
        for number in 0..MESSAGES {
            connection.tell(&message(&number.to_string()));
        }
        connection.tell(&result(&request, "delivered"));
        connection.grant("listen");
        connection.tell(&message("after"));
        connection.until_the_end();
    };
    with(kind, script, |client| {
        assert_eq!(send(client), json!({"outcome": "delivered"}));
        let mut kept = 0;
        let lost = loop {
            let event = client.next();
            if event["event"] != "message" {
                break event;
            }
            assert_eq!(event["data"], json!(BASE64.encode(kept.to_string().as_bytes())));
            kept += 1;
        };
        assert!(kept >= 1024, "{kept}");
        assert_eq!((&lost["event"], &lost["messages"]), (&json!("lost"), &json!(MESSAGES - kept)));
        assert_eq!(client.say(json!({"do": "listen", "topic": "chat"})), json!({}));
        heard(client, "after");
    });
}

fn reply(request: &Value, name: &str, payload: (&str, &str)) -> Value {
    let mut reply = json!({"ev": "reply", "id": request["id"], "from": node(name), "path": "lan", "at": "2026-11-23T16:00:00.000Z"});
    reply[payload.0] = json!(payload.1);
    reply
}

/// The end of a request to which so many replies came.
fn ended(request: &Value, replies: u32) -> Value {
    let mut end = result(request, "delivered");
    end["replies"] = json!(replies);
    end
}

fn gets_a_reply(kind: Kind) {
    let script = |connection: &mut Connection| {
        let request = connection.expect("send");
        let asked = (&request["replies"], &request["ack"], &request["text"]);
        assert_eq!(asked, (&json!(1), &json!(true), &json!("hi")));
        assert!((1..=2000).contains(&request["timeout_ms"].as_u64().unwrap()), "{request}");
        connection.tell(&reply(&request, "pi", ("data", "/w==")));
        connection.tell(&ended(&request, 1));
        connection.until_the_end();
    };
    with(kind, script, |client| {
        let answer = json!({"outcome": "delivered", "reply": "/w==", "from": "pi"});
        assert_eq!(request(client), answer);
    });
}

fn request(client: &mut Driver) -> Value {
    client.say(json!({"do": "request", "to": "pi", "topic": "chat", "data": "aGk=", "timeout_ms": 2000}))
}

fn gets_no_reply(kind: Kind) {
    let script = |connection: &mut Connection| {
        let request = connection.expect("send");
        connection.tell(&ended(&request, 0));
        let request = connection.expect("send");
        connection.tell(&result(&request, "no-listener"));
        connection.until_the_end();
    };
    with(kind, script, |client| {
        for outcome in ["delivered", "no-listener"] {
            assert_eq!(request(client), json!({"outcome": outcome, "reply": null, "from": null}));
        }
    });
}

fn gets_all_replies(kind: Kind) {
    let script = |connection: &mut Connection| {
        let request = connection.expect("publish");
        assert_eq!((&request["replies"], &request["text"]), (&json!(3), &json!("hi")));
        connection.tell(&reply(&request, "pi", ("text", "one")));
        connection.tell(&message("meanwhile"));
        connection.tell(&reply(&request, "two", ("data", "/w==")));
        connection.tell(&json!({"ev": "result", "id": request["id"], "sent": 5, "replies": 2}));
        connection.until_the_end();
    };
    with(kind, script, |client| {
        let request =
            json!({"do": "request-all", "topic": "chat", "data": "aGk=", "count": 3, "timeout_ms": 2000});
        assert_eq!(client.say(request), json!({"replies": ["b25l", "/w=="]}));
        heard(client, "meanwhile");
    });
}

fn replies(kind: Kind) {
    let script = |connection: &mut Connection| {
        let mut told = message("how warm?");
        told["reply_to"] = json!("token 7");
        connection.tell(&told);
        let request = connection.expect("reply");
        let fields = (&request["reply_to"], &request["data"], &request["ack"]);
        assert_eq!(fields, (&json!("token 7"), &json!("/w=="), &json!(true)));
        assert!((1..=5000).contains(&request["timeout_ms"].as_u64().unwrap()), "{request}");
        connection.tell(&result(&request, "no-listener"));
        connection.until_the_end();
    };
    with(kind, script, |client| {
        assert_eq!(client.next()["reply_to"], "token 7");
        let reply = json!({"do": "reply", "reply_to": "token 7", "data": "/w=="});
        assert_eq!(client.say(reply), json!({"outcome": "no-listener"}));
    });
}

fn waits_for_listeners(kind: Kind) {
    let script = |connection: &mut Connection| {
        for op in ["send", "send", "publish"] {
            let request = connection.expect(op);
            assert_eq!(request["when_no_listener"], "wait");
            if op == "send" {
                connection.tell(&result(&request, "no-listener"));
            } else {
                connection.tell(&json!({"ev": "result", "id": request["id"], "sent": 0, "outcomes": []}));
            }
        }
        let request = connection.expect("send");
        assert!(request["when_no_listener"] != "wait", "who says nothing does not wait");
        connection.tell(&result(&request, "delivered"));
        connection.until_the_end();
    };
    with(kind, script, |client| {
        let message = |what: &str| json!({"do": what, "to": "pi", "topic": "chat", "data": "aGk=", "ack": true, "when_no_listener": "wait"});
        assert_eq!(client.say(message("send"))["outcome"], "no-listener");
        assert_eq!(client.say(message("request"))["outcome"], "no-listener");
        assert_eq!(client.say(message("publish"))["sent"], 0);
        assert_eq!(send(client), json!({"outcome": "delivered"}));
    });
}
