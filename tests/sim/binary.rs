//! The binary mode of the socket: the same requests as in lines, and the same events.

use std::collections::BTreeMap;

use atonce::id::{AppChannel, ClientId};
use atonce::limits;
use atonce::wire::local::ReplyTo;
use atonce::wire::local::frame::{Frame, Header, PREFACE, flag, kind};
use serde_json::{Value, json};

use crate::world::{HostId, World, milliseconds, seconds};

/// A new app that speaks in frames.
pub fn connect(world: &mut World, host: HostId) -> ClientId {
    let app = world.connect(host);
    world.hosts[host].apps.get_mut(&app).unwrap().in_frames = true;
    let now = world.now;
    world.with(host, |node| node.handle_preface(app, now));
    app
}

/// An app writes a frame; type and flags, chan and id.
pub fn put(world: &mut World, host: HostId, app: ClientId, head: (u8, u8, u16, u64), body: &[u8]) {
    let (kind, flags, chan, id) = head;
    let header = Header { body_bytes: body.len() as u32, kind, flags, chan: AppChannel(chan), id };
    let now = world.now;
    world.with(host, |node| node.handle_frame(app, Frame::parse(header, body), now));
}

/// What an app has read in frames, as lines would say it. Of a result's peer there is no name.
pub fn events(world: &World, host: HostId, app: ClientId) -> Vec<Value> {
    let mut bytes = world.hosts[host].apps[&app].partial.strip_prefix(&PREFACE[..]).unwrap();
    let (mut sources, mut events) = (BTreeMap::new(), Vec::new());
    while let Some((head, rest)) = bytes.split_first_chunk::<{ Header::BYTES }>() {
        let header = Header::from_bytes(head);
        let Some((body, rest)) = rest.split_at_checked(header.body_bytes as usize) else { break };
        assert!(body.len() <= limits::FRAME_BODY_BYTES);
        bytes = rest;
        let event = match header.kind {
            kind::EVENT => {
                let event: Value = serde_json::from_slice(body).unwrap();
                let id = if event["ev"] == "peer" { 0 } else { event["id"].as_u64().unwrap_or(0) };
                assert_eq!(id, header.id);
                if event["ev"] == "source" {
                    assert_eq!(event["chan"], header.chan.0);
                    sources.insert(header.chan.0, event);
                    continue;
                }
                event
            }
            kind::RESULT => result(header, body),
            kind::MESSAGE | kind::REPLIED => message(header, body, &sources[&header.chan.0]),
            other => panic!("the daemon sends no frame of type {other}"),
        };
        events.push(event);
    }
    events
}

fn result(header: Header, body: &[u8]) -> Value {
    let outcomes = ["delivered", "sent", "no-listener", "busy", "too-big", "unreachable", "timeout"];
    assert_eq!((body.len(), &body[2..4]), (48, &[0, 0][..]));
    let rtt = u64::from_le_bytes(body[8..16].try_into().unwrap());
    let mut id = data_encoding::BASE32_NOPAD.encode(&body[16..]);
    id.make_ascii_lowercase();
    let mut event = json!({
        "ev": "result", "id": header.id, "outcome": outcomes[usize::from(body[0]) - 1], "peer": {"id": id},
        "path": path(body[1]), "rtt_us": (rtt != u64::MAX).then_some(rtt),
    });
    if header.flags == flag::REPLIES {
        event["replies"] = u32::from_le_bytes(body[4..8].try_into().unwrap()).into();
    }
    event
}

fn message(header: Header, body: &[u8], source: &Value) -> Value {
    let at = i64::from_le_bytes(body[..8].try_into().unwrap());
    let at = format!("{:.3}", jiff::Timestamp::from_millisecond(at).unwrap());
    let mut event = json!({"from": source["from"], "path": path(header.flags & 7), "at": at});
    let mut payload = &body[8..];
    if header.kind == kind::MESSAGE {
        (event["ev"], event["topic"]) = ("message".into(), source["topic"].clone());
        assert_eq!(header.id, 0);
        if header.flags & flag::REQUEST != 0 {
            let (reply_to, rest) = payload.split_first_chunk().unwrap();
            event["reply_to"] = ReplyTo::from_bytes(reply_to).to_string().into();
            payload = rest;
        }
    } else {
        (event["ev"], event["id"]) = ("reply".into(), header.id.into());
        assert!(source.get("topic").is_none());
    }
    match std::str::from_utf8(payload) {
        Ok(text) => event["text"] = text.into(),
        Err(_) => event["data"] = data_encoding::BASE64.encode(payload).into(),
    }
    event
}

fn path(number: u8) -> Value {
    [Value::Null, "local".into(), "lan".into(), "direct".into(), "relay".into()][usize::from(number)].clone()
}

/// An app that says the same in either mode.
struct App {
    host: HostId,
    client: ClientId,
    channels: Option<u16>,
}

impl App {
    fn new(world: &mut World, host: HostId, in_frames: bool) -> Self {
        let client = if in_frames { connect(world, host) } else { world.connect(host) };
        Self { host, client, channels: in_frames.then_some(0) }
    }

    /// In frames everything that has a frame of its own is said in that.
    fn say(&mut self, world: &mut World, line: &Value) {
        let Some(last) = &mut self.channels else {
            return world.say(self.host, self.client, &line.to_string());
        };
        let mut say = |head, body: &[u8]| put(world, self.host, self.client, head, body);
        let id = line["id"].as_u64().unwrap_or(0);
        let op = line["op"].as_str().unwrap();
        let ack = line["ack"].as_bool().unwrap_or(op != "publish");
        let drop = if line["when_full"] == "drop" { flag::DROP } else { 0 };
        let flags = drop | if ack { flag::ACK } else { 0 };
        let data = || data_encoding::BASE64.decode(line["data"].as_str().unwrap().as_bytes()).unwrap();
        let payload = line["text"].as_str().map_or_else(data, |text| text.as_bytes().to_vec());
        match op {
            "send" | "publish" => {
                *last += 1;
                let mut opening = json!({"topic": line["topic"]});
                for field in ["to", "timeout_ms", "replies"] {
                    if let Some(value) = line.get(field) {
                        opening[field] = value.clone();
                    }
                }
                say((kind::OPEN, 0, *last, 0), opening.to_string().as_bytes());
                say((kind::SEND, flags, *last, id), &payload);
                say((kind::CLOSE, 0, *last, 0), b"");
            }
            _ => {
                let reply_to: ReplyTo = line["reply_to"].as_str().unwrap().parse().unwrap();
                let timeout = line["timeout_ms"].as_u64().unwrap_or(0) as u32;
                let body = [&reply_to.to_bytes()[..], &timeout.to_le_bytes(), &payload].concat();
                say((kind::REPLY, flags, 0, id), &body);
            }
        }
    }

    /// In frames as a request in JSON.
    fn ask(&self, world: &mut World, line: &Value) {
        let mut line = line.clone();
        if line["id"] == 0 {
            line.as_object_mut().unwrap().remove("id");
        }
        let text = line.to_string();
        match self.channels {
            None => world.say(self.host, self.client, &text),
            Some(_) => {
                let head = (kind::REQUEST, 0, 0, line["id"].as_u64().unwrap_or(0));
                put(world, self.host, self.client, head, text.as_bytes());
            }
        }
    }

    /// What it has read; of the result of a send without the peer's name.
    fn heard(&self, world: &World) -> Vec<Value> {
        if self.channels.is_some() {
            return events(world, self.host, self.client);
        }
        let mut lines = world.lines(self.host, self.client).to_vec();
        for line in lines.iter_mut().filter(|line| line["ev"] == "result" && line.get("outcome").is_some()) {
            line["peer"].as_object_mut().unwrap().remove("name");
        }
        lines
    }
}

/// A talk between two nodes; what both apps and one that watches were told.
fn talk(in_frames: bool) -> [Vec<Value>; 3] {
    let mut world = World::lan(1, 3);
    world.run(seconds(1));
    let mut listener = App::new(&mut world, 1, in_frames);
    let mut app = App::new(&mut world, 0, in_frames);
    let watcher = App::new(&mut world, 0, in_frames);
    watcher.ask(&mut world, &json!({"op": "watch", "id": 1, "own": true}));
    for (id, topic) in [(1, "a"), (2, "b"), (0, "c"), (4, "Not Legal")] {
        listener.ask(&mut world, &json!({"op": "listen", "id": id, "topic": topic}));
    }
    world.run(seconds(1));
    for (id, line) in [
        json!({"op": "send", "to": "pi-1", "topic": "a", "text": "one"}),
        json!({"op": "send", "to": "pi-1", "topic": "a", "data": "/w==", "ack": false}),
        json!({"op": "send", "to": world.id(1).to_string(), "topic": "b", "text": "", "when_full": "drop"}),
        json!({"op": "send", "to": "pi-1", "topic": "none", "text": "x"}),
        json!({"op": "send", "to": "pi-0", "topic": "none", "text": "x"}),
        json!({"op": "send", "to": "nobody", "topic": "a", "text": "x"}),
        json!({"op": "send", "to": "pi-1", "topic": "a", "text": "x".repeat(limits::PAYLOAD_BYTES + 1)}),
        json!({"op": "send", "to": "pi-1", "topic": "a", "text": "x".repeat(limits::PAYLOAD_BYTES)}),
        json!({"op": "publish", "topic": "a", "text": "all"}),
        json!({"op": "publish", "topic": "a", "text": "all", "ack": true}),
        json!({"op": "publish", "topic": "none", "text": "all", "ack": true, "replies": 1}),
        json!({"op": "send", "to": "pi-1", "topic": "c", "text": "?", "replies": 2, "timeout_ms": 3000}),
        json!({"op": "publish", "topic": "c", "text": "?", "replies": 2, "timeout_ms": 3000}),
        json!({"op": "send", "to": "pi-1", "topic": "c", "text": "?", "replies": 9, "timeout_ms": 3000}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut line = line;
        line["id"] = (id + 1).into();
        app.say(&mut world, &line);
        world.run(milliseconds(5));
    }
    world.run(milliseconds(500));
    let asked: Vec<_> =
        listener.heard(&world).into_iter().filter(|event| event.get("reply_to").is_some()).collect();
    assert_eq!(asked.len(), 3);
    for (n, event) in asked.iter().enumerate() {
        for (id, text) in [(10 * n + 20, "yes"), (10 * n + 21, "no")] {
            let reply_to = &event["reply_to"];
            listener.say(&mut world, &json!({"op": "reply", "id": id, "reply_to": reply_to, "text": text}));
        }
    }
    let strange = format!("{}.0123456789abcdef", world.id(2));
    for (id, reply_to, ack) in [(60, strange.as_str(), true), (61, strange.as_str(), false)] {
        let line = json!({"op": "reply", "id": id, "reply_to": reply_to, "data": "AA==", "ack": ack, "timeout_ms": 800});
        listener.say(&mut world, &line);
    }
    world.run(seconds(1));
    for line in [
        json!({"op": "ping", "id": 50, "to": "pi-1"}),
        json!({"op": "peers", "id": 51}),
        json!({"op": "hello", "id": 52}),
        json!({"op": "network", "action": "show", "id": 53}),
        json!({"op": "unlisten", "topic": "zz", "id": 54}),
        json!({"op": "dance", "id": 55}),
        json!({"op": "send", "to": "pi-1", "topic": "a", "text": "in JSON", "id": 56, "replies": 1, "timeout_ms": 100}),
        json!({"op": 7, "id": 57}),
    ] {
        app.ask(&mut world, &line);
        world.run(milliseconds(200));
    }
    world.crash(2);
    listener.ask(&mut world, &json!({"op": "unlisten", "topic": "b", "id": 7}));
    world.run(seconds(30));
    [app, listener, watcher].map(|app| app.heard(&world))
}

#[test]
fn equal_requests_lead_to_equal_events_in_both_modes() {
    let (lines, mut frames) = (talk(false), talk(true));
    let answered = lines[0].iter().filter(|event| event["ev"] == "result").count();
    assert!(answered >= 14 && lines[1].len() > 12 && lines[2].len() > 6, "something was said");
    // Only the hint names another chapter.
    let mut lines = lines;
    for events in [&mut lines, &mut frames] {
        for event in events.iter_mut().flatten().filter(|event| event["ev"] == "error") {
            let hint = event["hint"].take();
            assert!(hint.as_str().is_some_and(|hint| !hint.is_empty()));
        }
    }
    for (lines, frames) in lines.iter().zip(&frames) {
        assert_eq!(lines.len(), frames.len());
        for (line, frame) in lines.iter().zip(frames) {
            assert_eq!(line, frame);
        }
    }
}

#[test]
fn channels_are_opened_once_closed_once_and_bounded() {
    let mut world = World::lan(2, 1);
    let app = connect(&mut world, 0);
    let mut last = |head, body: &[u8]| {
        put(&mut world, 0, app, head, body);
        let events = events(&world, 0, app);
        let last = events.last().unwrap();
        (
            last["ev"].as_str().unwrap().to_owned(),
            last["code"].as_str().unwrap_or_default().to_owned(),
            last["id"].clone(),
        )
    };
    let ok = |id: u64| ("ok".to_owned(), String::new(), Value::from(id));
    let error = |code: &str, id: u64| ("error".to_owned(), code.to_owned(), Value::from(id));
    let opening = br#"{"to":"pi-0","topic":"t"}"#;
    assert_eq!(last((kind::SEND, 0, 7, 1), b"x"), error("bad-request", 1));
    assert_eq!(last((kind::OPEN, 0, 7, 2), opening), ok(2));
    assert_eq!(last((kind::OPEN, 0, 7, 3), opening), error("bad-request", 3));
    assert_eq!(last((kind::CLOSE, 0, 7, 4), b""), ok(4));
    assert_eq!(last((kind::CLOSE, 0, 7, 5), b""), error("bad-request", 5));
    let long = format!(r#"{{"to":"{}","topic":"t"}}"#, "x".repeat(64));
    assert_eq!(last((kind::OPEN, 0, 8, 6), long.as_bytes()), error("bad-request", 6));
    assert_eq!(last((kind::OPEN, 0, 8, 7), br#"{"topic":"t","replies":2}"#), ok(7));
    put(&mut world, 0, app, (kind::SEND, 0, 8, 0), b"x");
    assert_eq!(events(&world, 0, app).last().unwrap()["code"], "bad-request", "replies need an id");
    for chan in 1000..1000 + limits::CHANNELS as u16 - 1 {
        put(&mut world, 0, app, (kind::OPEN, 0, chan, 0), opening);
    }
    put(&mut world, 0, app, (kind::OPEN, 0, u16::MAX, 9), opening);
    assert_eq!(events(&world, 0, app).last().unwrap()["code"], "limit");
    put(&mut world, 0, app, (0x77, 0, 0, 10), b"");
    assert_eq!(events(&world, 0, app).last().unwrap()["code"], "unknown-op");
}

#[test]
fn a_source_is_announced_once_and_anew_when_its_peer_has_another_name() {
    let mut world = World::lan(3, 2);
    world.run(seconds(1));
    let listener = connect(&mut world, 0);
    put(&mut world, 0, listener, (kind::REQUEST, 0, 0, 0), br#"{"op":"listen","topic":"t"}"#);
    world.run(seconds(1));
    let send = |world: &mut World| {
        let app = world.connect(1);
        for id in 0..3 {
            world.send(1, app, id, "pi-0", "t", "x");
        }
        world.run(milliseconds(100));
    };
    send(&mut world);
    world.stop(1);
    world.hosts[1].name = "pi-one".to_owned();
    world.start(1);
    world.run(seconds(2));
    send(&mut world);
    let read = &world.hosts[0].apps[&listener].partial;
    let announced = read.windows(14).filter(|bytes| bytes == br#"{"ev":"source""#).count();
    assert_eq!(announced, 2);
    let events = events(&world, 0, listener);
    let names: Vec<_> = events.iter().map(|event| event["from"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, [["pi-1"; 3], ["pi-one"; 3]].concat());
}
