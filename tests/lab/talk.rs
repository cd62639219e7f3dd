//! What people and apps do with two daemons, and what must come of it.

use std::io::Write;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::lab::Daemon;
use crate::lab::lines::{Lines, parse};

/// Both find each other, and a message is delivered each way.
pub(crate) fn talk(one: &Daemon, other: &Daemon) {
    for (from, to) in [(one, other), (other, one)] {
        let topic = format!("from-{}", from.name);
        let listening = to.start(&["listen", "-n", "1", &topic]);
        from.atonce(&["wait", &format!("{}/{topic}", to.name)]);
        let sent = from.atonce(&["send", &to.name, &topic, "hello"]);
        assert!(sent.starts_with(&format!("delivered to {} in ", to.name)), "{sent}");
        let heard = listening.rest();
        assert!(heard.len() == 1 && heard[0].ends_with(" hello"), "{heard:?}");
    }
}

/// An app on the socket of a daemon.
pub(crate) struct App {
    socket: UnixStream,
    lines: Lines,
}

impl App {
    pub(crate) fn connect(daemon: &Daemon) -> Self {
        let socket = UnixStream::connect(&daemon.socket).unwrap();
        let lines = Lines::of(format!("an app of {}", daemon.name), socket.try_clone().unwrap());
        Self { socket, lines }
    }

    pub(crate) fn say(&self, request: &Value) {
        writeln!(&self.socket, "{request}").unwrap();
    }

    /// All events up to the next one for which `is_it` holds.
    pub(crate) fn until(&self, is_it: impl Fn(&Value) -> bool) -> Vec<Value> {
        let lines = self.lines.until(|line| is_it(&parse(line)));
        lines.iter().map(|line| parse(line)).collect()
    }
}

/// Numbered messages, each acknowledged, while something happens to the network; and what both sides are told of each
/// other meanwhile.
pub(crate) struct Conversation {
    sender: App,
    receiver: App,
    to: String,
    said: u64,
    heard: u64,
    told: Vec<Value>,
}

impl Conversation {
    pub(crate) fn begin(from: &Daemon, to: &Daemon) -> Self {
        let [sender, receiver] = [from, to].map(App::connect);
        receiver.say(&json!({"op": "listen", "topic": "chat", "id": 0}));
        receiver.until(|event| event["ev"] == "ok");
        from.atonce(&["wait", &format!("{}/chat", to.name)]);
        for (app, peer) in [(&sender, to), (&receiver, from)] {
            app.say(&json!({"op": "watch"}));
            app.until(|event| event["ev"] == "enter" && event["peer"]["name"] == peer.name);
        }
        Self { sender, receiver, to: to.name.clone(), said: 0, heard: 0, told: Vec::new() }
    }

    /// Says so many more, and waits for nothing.
    pub(crate) fn say(&mut self, count: u64) {
        for number in self.said + 1..=self.said + count {
            self.sender.say(&json!({
                "op": "send", "id": number, "to": self.to, "topic": "chat", "text": number.to_string(),
                "timeout_ms": 30_000,
            }));
        }
        self.said += count;
    }

    /// Waits until the last of them was heard, and reported as delivered: each once, and in order.
    pub(crate) fn hear(&mut self) {
        let (is_message, is_result) = (of_kind("message"), of_kind("result"));
        let last = self.said.to_string();
        let (messages, events) = split(self.receiver.until(|event| event["text"] == last), is_message);
        self.told.extend(events);
        let numbers: Vec<_> = messages.iter().map(|message| message["text"].clone()).collect();
        let expected: Vec<_> =
            (self.heard + 1..=self.said).map(|number| Value::from(number.to_string())).collect();
        assert_eq!(numbers, expected, "each must be heard once, and in order");

        let mut left: Vec<u64> = (self.heard + 1..=self.said).collect();
        while !left.is_empty() {
            let (results, events) = split(self.sender.until(of_kind("result")), is_result);
            self.told.extend(events);
            for result in results {
                assert_eq!(result["outcome"], "delivered", "{result}");
                left.retain(|number| result["id"] != *number);
            }
        }
        self.heard = self.said;
    }

    /// Ends it. Nobody was said to have left; returns what was told of paths.
    pub(crate) fn end(mut self) -> Vec<Value> {
        // A message that was doubled would stand before these.
        self.say(1);
        self.hear();
        assert!(self.told.iter().all(|event| event["ev"] != "exit"), "{:?}", self.told);
        split(self.told, of_kind("path")).0
    }
}

fn of_kind(kind: &str) -> impl Fn(&Value) -> bool + Copy {
    move |event| event["ev"] == kind
}

fn split(events: Vec<Value>, is_it: impl Fn(&Value) -> bool) -> (Vec<Value>, Vec<Value>) {
    events.into_iter().partition(|event| is_it(event))
}
