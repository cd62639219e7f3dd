//! Drives one client: the commands are JSON objects, each with one answer, and the same for all of them.
//!
//! | `do` | with | answered by |
//! |---|---|---|
//! | `listen`, `unlisten` | `topic` | `{}` |
//! | `watch` | | `{}` |
//! | `send` | `to`, `topic`, `data`, `timeout_ms` | `outcome` |
//! | `send-many` | `to`, `topic`, `count` | `outcomes`: how many of each; the payloads are the numbers from 0 on |
//! | `publish` | `topic`, `data`, `ack` | `sent`, `outcomes`: pairs of name and outcome, or null |
//! | `request` | `to`, `topic`, `data`, `timeout_ms` | `outcome`, `reply` and `from`, or null |
//! | `request-all` | `topic`, `data`, `count`, `timeout_ms` | `replies` |
//! | `reply` | `reply_to`, `data` | `outcome` |
//! | `peers` | | `peers`: the state of each by name |
//! | `status` | | `name` |
//! | `ping` | `to` | `received` |
//! | `next` | `timeout_ms` | `event` and its fields |
//!
//! With `check` an outcome that is a failure is an error. Payloads are base64. An error has its kind as `error`, a
//! `message`, and a `code` if the daemon refused. The client greets with `{"v", "name", "payload_bytes"}`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use atonce::client::{
    Client, Error, Event, PingOptions, ReplyTo, RequestOptions, SendOptions, WhenNoListener,
};
use data_encoding::BASE64;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::pair::{LONG, Running};

/// A client under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rust,
    Asyncio,
    Blocking,
    Node,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Rust, Self::Asyncio, Self::Blocking, Self::Node];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Asyncio => "Python, asyncio",
            Self::Blocking => "Python, blocking",
            Self::Node => "Node",
        }
    }
}

/// A client that is connected, or could not be.
pub(crate) struct Driver {
    what: What,
    pub(crate) greeting: Value,
}

enum What {
    Rust(Box<RustClient>),
    Process { _running: Running, input: Option<ChildStdin>, output: Receiver<String> },
    Failed,
}

impl Driver {
    pub(crate) fn start(kind: Kind, socket: &Path) -> Self {
        let Some(command) = program(kind) else { return Self::rust(socket) };
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]).env("ATONCE_SOCKET", socket);
        let mut running = Running(process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let (input, lines) =
            (running.0.stdin.take(), BufReader::new(running.0.stdout.take().unwrap()).lines());
        let (tell, output) = std::sync::mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).all(|line| tell.send(line).is_ok()));
        let mut driver =
            Self { what: What::Process { _running: running, input, output }, greeting: Value::Null };
        driver.greeting = driver.answer();
        driver
    }

    /// Has the client do something, and gives what came of it.
    pub(crate) fn say(&mut self, command: Value) -> Value {
        self.begin(&command);
        match &mut self.what {
            What::Rust(client) => client.perform(&command),
            What::Process { .. } | What::Failed => self.answer(),
        }
    }

    /// Its next event, whatever it is.
    pub(crate) fn next(&mut self) -> Value {
        self.say(json!({"do": "next"}))
    }

    /// The next message; what happens before it is skipped.
    pub(crate) fn next_message(&mut self) -> Value {
        loop {
            let event = self.next();
            if event["event"] == "message" || !event["error"].is_null() {
                return event;
            }
        }
    }

    fn begin(&mut self, command: &Value) {
        if let What::Process { input: Some(input), .. } = &mut self.what {
            writeln!(input, "{command}").unwrap();
        }
    }

    fn answer(&self) -> Value {
        let What::Process { output, .. } = &self.what else { panic!("it could not connect") };
        let line = output.recv_timeout(LONG).expect("the client answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn rust(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        match runtime.block_on(Client::connect_to(socket, Duration::from_secs(5))) {
            Ok(client) => {
                let hello = client.hello();
                let greeting =
                    json!({"v": hello.v, "name": hello.node.name, "payload_bytes": hello.payload_bytes});
                Self { what: What::Rust(Box::new(RustClient { runtime, client })), greeting }
            }
            Err(error) => Self { what: What::Failed, greeting: shown_error(&error) },
        }
    }
}

/// What runs the driver of a client in another language.
pub(crate) fn program(kind: Kind) -> Option<Vec<OsString>> {
    let driver = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(name);
    let python = |what: &str| {
        let words = ["python3", "-B", "-W", "error"].map(OsString::from);
        [words.as_slice(), &[driver("driver.py").into(), what.into()]].concat()
    };
    match kind {
        Kind::Rust => None,
        Kind::Asyncio => Some(python("asyncio")),
        Kind::Blocking => Some(python("blocking")),
        Kind::Node => Some(vec!["node".into(), driver("driver.mjs").into()]),
    }
}

struct RustClient {
    runtime: Runtime,
    client: Client,
}

impl RustClient {
    fn perform(&mut self, command: &Value) -> Value {
        let Self { runtime, client } = self;
        runtime.block_on(perform(client, command)).unwrap_or_else(|error| shown_error(&error))
    }
}

async fn perform(client: &mut Client, command: &Value) -> Result<Value, Error> {
    let field = |name: &str| command[name].as_str().unwrap_or_default();
    let payload = BASE64.decode(field("data").as_bytes()).unwrap();
    let check = command["check"].as_bool().unwrap_or(false);
    let mut options = SendOptions { ack: command["ack"].as_bool().unwrap_or(true), ..SendOptions::default() };
    if let Some(milliseconds) = command["timeout_ms"].as_u64() {
        options.timeout = Duration::from_millis(milliseconds);
    }
    if field("when_no_listener") == "wait" {
        options.when_no_listener = WhenNoListener::Wait;
    }
    match field("do") {
        "listen" => client.listen(field("topic")).await?,
        "unlisten" => client.unlisten(field("topic")).await?,
        "watch" => client.watch().await?,
        "send" => {
            let sent = client.send(field("to"), field("topic"), &payload, options).await?;
            let sent = if check { sent.checked()? } else { sent };
            return Ok(json!({"outcome": sent.outcome}));
        }
        "send-many" => {
            let mut outcomes = BTreeMap::new();
            for number in 0..command["count"].as_u64().unwrap() {
                let text = number.to_string();
                client.start_send(field("to"), field("topic"), text.as_bytes(), options).await?;
            }
            while let Some(ended) = client.next_outcome().await? {
                *outcomes.entry(json!(ended.result?.outcome).as_str().unwrap().to_owned()).or_insert(0) += 1;
            }
            return Ok(json!({"outcomes": outcomes}));
        }
        "publish" => {
            let options = SendOptions { ack: options.ack || check, ..options };
            let published = client.publish(field("topic"), &payload, options).await?;
            let published = if check { published.checked()? } else { published };
            let each = published
                .outcomes
                .map(|all| all.iter().map(|one| json!([one.peer.name, one.outcome])).collect::<Vec<_>>());
            return Ok(json!({"sent": published.sent, "outcomes": each}));
        }
        "request" => {
            let SendOptions { timeout, when_no_listener, .. } = options;
            let options = RequestOptions { timeout, when_no_listener, ..RequestOptions::default() };
            let asked = client.request(field("to"), field("topic"), &payload, options).await?;
            let (reply, from) =
                asked.reply.map(|reply| (BASE64.encode(&reply.payload), reply.from.name)).unzip();
            return Ok(json!({"outcome": asked.sent.outcome, "reply": reply, "from": from}));
        }
        "request-all" => {
            let options = RequestOptions { timeout: options.timeout, ..RequestOptions::default() };
            let count = u32::try_from(command["count"].as_u64().unwrap()).unwrap();
            let mut replies = Vec::new();
            let each = |reply: atonce::client::Reply| replies.push(BASE64.encode(&reply.payload));
            client.request_all(field("topic"), &payload, count, options, each).await?;
            return Ok(json!({"replies": replies}));
        }
        "reply" => {
            let reply_to = ReplyTo::from(field("reply_to").to_owned());
            let sent = client.reply(&reply_to, &payload, options).await?;
            return Ok(json!({"outcome": sent.outcome}));
        }
        "peers" => {
            let peers = client.peers().await?;
            let states: BTreeMap<_, _> = peers.iter().map(|peer| (&peer.name, peer.state)).collect();
            return Ok(json!({"peers": states}));
        }
        "status" => return Ok(json!({"name": client.status().await?.name})),
        "ping" => {
            let pinged = client.ping(field("to"), PingOptions::default(), |_| ()).await?;
            return Ok(json!({"received": pinged.received}));
        }
        "next" => {
            let patience =
                command["timeout_ms"].as_u64().map_or(Duration::from_secs(10), Duration::from_millis);
            loop {
                let Ok(event) = timeout(patience, client.next_event()).await else {
                    return Ok(json!({"error": "timeout"}));
                };
                // The others tell only that it is over.
                let event = event?;
                if !matches!(event, Event::Disconnected) {
                    return Ok(shown(&event));
                }
            }
        }
        other => panic!("the Rust client cannot {other:?}"),
    }
    Ok(json!({}))
}

fn shown(event: &Event) -> Value {
    match event {
        Event::Message(message) => {
            json!({"event": "message", "from": message.from.name, "topic": message.topic,
            "data": BASE64.encode(&message.payload), "path": message.path, "reply_to": message.reply_to})
        }
        Event::Enter { peer, snapshot, .. } => {
            json!({"event": "enter", "peer": peer.name, "snapshot": snapshot})
        }
        Event::Exit { peer, .. } => json!({"event": "exit", "peer": peer.name}),
        Event::Path { peer, .. } => json!({"event": "path", "peer": peer.name}),
        Event::Listen { peer, topic, snapshot } => {
            json!({"event": "listen", "peer": peer.name, "topic": topic, "snapshot": snapshot})
        }
        Event::Unlisten { peer, topic } => json!({"event": "unlisten", "peer": peer.name, "topic": topic}),
        Event::Disconnected => json!({"event": "disconnected"}),
        Event::Reconnected => json!({"event": "reconnected"}),
        Event::Lost { messages, bytes } => json!({"event": "lost", "messages": messages, "bytes": bytes}),
    }
}

fn shown_error(error: &Error) -> Value {
    let (kind, code) = match error {
        Error::Unreachable { .. } => ("unreachable", None),
        Error::Refused { code, .. } => ("refused", Some(code)),
        Error::TooBig { .. } => ("too-big", None),
        Error::Closed => ("disconnected", None),
        Error::Timeout(_) => ("timeout", None),
        Error::Protocol(_) => ("malformed", None),
        Error::NotDelivered(_) => ("not-delivered", None),
        Error::Behind => ("behind", None),
    };
    json!({"error": kind, "code": code, "message": error.to_string()})
}
