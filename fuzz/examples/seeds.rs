//! Writes the seeds, one right example of each kind, into `corpus/`:
//! `cargo run --manifest-path fuzz/Cargo.toml --no-default-features --example seeds`.
//!
//! The other files there, named by a hash, are what the fuzzer found worth keeping.

use std::fs;
use std::path::Path;

use atonce::crypto::identity::Identity;
use atonce::crypto::invitation::Invitation;
use atonce::crypto::membership::NetworkSecrets;
use atonce::crypto::network::NetworkKeys;
use atonce::edge::hardware::Binding;
use atonce::edge::keytext::StoredKey;
use atonce::edge::peerfile;
use atonce::id::{BootId, MessageNumber, NodeId, TopicNumber};
use atonce::wire::message::{self, Fate, Record};
use atonce::wire::presence::{Candidate, CandidateKind, Flags, Introduction, Presence, Step};

fn main() {
    for (name, bytes) in records() {
        write("packet", name, &[&[4, 1, 2, 3][..], &[0; 24]].concat());
        write("packet", &format!("record-{name}"), &bytes);
        write("records", name, &inside(0, &bytes));
        write("datagram", &format!("session-{name}"), &[&[1][..], &session(&bytes)].concat());
    }
    for (kind, length) in [(1, 164), (2, 160), (3, 60), (5, 76), (6, 76), (7, 76)] {
        write("packet", &format!("kind-{kind}"), &[&[kind][..], &vec![0; length - 1]].concat());
    }
    write("packet", "long", &[4; 1201]);
    for network in 0..5 {
        // Everything that may happen, once, with a pause behind it.
        let steps = (0..24).flat_map(|step| [step, step, 1, 2, 3, 4]);
        let scenario: Vec<u8> = [1, network, 2, 1].into_iter().chain(steps).collect();
        write("promises", &format!("one-of-each-{network}"), &scenario);
    }
    let pings = [2, 0, 0, 1].repeat(290);
    write("records", "aside-full-of-pings", &inside(4, &pings));
    let long = message_of(&vec![1; 1160]);
    write("records", "payload-over-the-limit", &inside(0, &long));
    let talk: Vec<u8> =
        records().iter().flat_map(|(_, bytes)| [inside(0, bytes), vec![6, 1, 1, 5, 3]].concat()).collect();
    write("records", "conversation", &talk);

    for network in [0, 1] {
        let id = Identity::from_secret([1; 32]).id().0;
        let step = |kind: u8, rest: &[u8]| [&[1, 0, kind, 0][..], rest].concat();
        let steps = [
            step(0, &[2, 0, 9, 9]),
            step(1, &[7; 131]),
            step(2, &[1; 32]),
            step(3, &[4, 0, 1, 0, 2, 0]),
            step(6, &[&[1][..], &[3; 24]].concat()),
            vec![0, 4],
            step(5, &[&[0; 8][..], &[2], b"pi", &[0; 61]].concat()),
            step(7, &[5; 24]),
            [&[1, 5, 8, 0][..], &[6; 24]].concat(),
            step(9, &[]),
            step(10, &[]),
            step(11, &[9, 0, 1]),
            step(6, &[&id[..], &[1], &[3; 24]].concat()),
        ];
        write("datagram", &format!("one-of-each-{network}"), &[&[network][..], &steps.concat()].concat());
        write("hello", &format!("network-{network}"), &[&[network * 3][..], &[7; 32], &[9; 24]].concat());
        let sealed = NetworkKeys::open().seal_txt(&NodeId(id), [4; 24], "pi", 7);
        let txt = atonce::wire::txt::Txt::Sealed(sealed).properties();
        for (name, [(version, one), (key, value)]) in
            [("sealed", txt), ("open", atonce::wire::txt::Txt::Open(NodeId(id)).properties())]
        {
            let text = format!("{version}={one}\n{key}={value}\n");
            let advert =
                [&[network][..], &piece(b"pi"), &[7, 0, 2], &piece(text.as_bytes()), &[2, 0, 9, 0, 8, 3]]
                    .concat();
            write("txt", &format!("{name}-{network}"), &advert);
        }
        write(
            "txt",
            &format!("seen-{network}"),
            &[&[network][..], &piece(b"pi"), &[7, 0, 1, 1, 0, 9, 3]].concat(),
        );
    }
    write("hello", "foreign", &[&[8][..], &[7; 32], &[9; 24]].concat());

    write("handshake", "true", &[0; 200]);
    for (name, mac1) in [("damaged", 1), ("damaged-at-the-door", 0)] {
        let initiation = [&[1; 4][..], &[2; 32], &[1, 40, 1, mac1]].concat();
        let rest = [&[3; 72][..], &[1, 50, 1, 0, 0, 4, 0, 1, 2, 3, 4, 1, 20, 1]].concat();
        write("handshake", name, &[initiation, rest].concat());
    }

    for (at, line) in LINES.iter().enumerate() {
        let line = format!("{line}\n");
        write(
            "local_lines",
            &format!("line-{at:02}"),
            &[&[3][..], &piece(line.as_bytes()), &[2, 4]].concat(),
        );
    }
    let whole = LINES.join("\n");
    let (left, right) = whole.split_at(100);
    write(
        "local_lines",
        "cut",
        &[&[3][..], &piece(left.as_bytes()), &[3], &piece(right.as_bytes()), &[2, 5]].concat(),
    );
    let filler =
        |start: &[u8], byte: u8| [&[3][..], &piece(start), &[0, 163, byte, 3], &piece(b"\"}\n")].concat();
    write("local_lines", "long-variant", &filler(br#"{"op":"send","to":"pi","when_full":""#, b'a'));
    write("local_lines", "long-unprintable", &filler(br#"{"op":"hello","id":""#, 0x7f));
    write("local_lines", "too-long", &[0, 255, b'a', 3, 3, 0, b'\n', b'{', b'\n'].to_vec());

    let framed = |kind: u8, flags: u8, chan: u8, id: u8, body: &[u8]| {
        [&[5, kind, flags, chan, id][..], &piece(body)].concat()
    };
    for (at, line) in LINES.iter().enumerate() {
        write("local_frames", &format!("request-{at:02}"), &framed(1, 0, 0, 4, line.as_bytes()));
    }
    let open = framed(2, 0, 1, 1, br#"{"to":"own","topic":"t","replies":2}"#);
    let (send, reply, close) = (framed(4, 1, 1, 2, b"?"), vec![4, 3, 0, b'y', b'e', b's', 1], framed(3, 0, 1, 3, b""));
    let listen = framed(1, 0, 0, 5, br#"{"op":"listen","topic":"t"}"#);
    write("local_frames", "send", &[open.clone(), send.clone(), close.clone()].concat());
    let asked = [open, listen.clone(), send, reply.clone(), reply.clone(), reply, close].concat();
    write("local_frames", "replies", &asked);
    let all = framed(2, 0, 2, 1, br#"{"topic":"t"}"#);
    let published = [listen, all, framed(4, 0, 2, 0, &[0xff; 9]), framed(4, 3, 2, 7, b"all"), vec![1]].concat();
    write("local_frames", "publish", &published);
    let long = [&[3][..], &piece(&[1, 128, 1, 0, 4, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0]), &[0, 200, 7]].concat();
    write("local_frames", "too-long", &[&long[..], &framed(1, 0, 0, 9, LINES[0].as_bytes())].concat());

    for (at, said) in SAID.iter().enumerate() {
        for mode in [at as u8 % 8, 15] {
            write(
                "client_events",
                &format!("said-{at:02}-{mode}"),
                &[&[mode][..], said.as_bytes(), b"\n"].concat(),
            );
        }
    }
    write("client_events", "all", &[&[7][..], SAID.join("\n").as_bytes(), b"\n"].concat());

    let card = format!("card {}", "a".repeat(26));
    let binding = Binding::parse([card.as_str()].into_iter()).unwrap();
    let key = StoredKey { secret: [7; 32].into(), binding }.to_text();
    write("files", "key", &[&[0][..], key.as_bytes()].concat());
    // Of the first version, which is still read.
    let old =
        b"\0atonce-identity-1\na4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dq\nr3nkvygllndv4sci\n";
    write("files", "key-1", old);
    write("files", "secret", &[&[1][..], b"atonce-secret-", &[b'a'; 52], b"\n"].concat());
    let invitation = |secret: &str, servers: &[&str]| {
        let secret = format!("atonce-secret-{secret}").parse().unwrap();
        Invitation { secret, servers: servers.iter().map(|server| server.parse().unwrap()).collect() }
    };
    let key = "a".repeat(52);
    let secrets = NetworkSecrets {
        current: invitation(&key, &[&format!("a.example:1#{key}"), "[fe80::1%Eth0]:2"]),
        before: Some(invitation(&format!("{}a", "b".repeat(51)), &["b:1"])),
    };
    write("files", "invitation", &[&[1][..], secrets.to_lines().as_bytes()].concat());
    let known = atonce::core::KnownPeer {
        id: NodeId([7; 32]),
        name: "pi".parse().unwrap(),
        pinned: true,
        addrs: vec!["192.168.1.2:28282".parse().unwrap(), "[fe80::1%3]:28282".parse().unwrap()],
        last_seen: Some(std::time::Duration::from_secs(1_700_000_000)),
    };
    write("files", "peers", &[&[2][..], &peerfile::to_text(&[known]).unwrap()].concat());
    write("files", "configuration", &[&[3][..], CONFIGURATION.as_bytes()].concat());
    write("files", "unknown-key", b"\x03nmae = 1\n");

    rendezvous();
    rendezvous_client();
}

/// One of each message, and what a few members say to a server.
fn rendezvous() {
    for (kind, length) in (1_u8..).zip([88, 86, 138, 116, 88, 84, 88, 68, 66, 110, 70, 76, 16, 32, 30, 30, 30]) {
        let message = [&[0x40, 0x31, kind, 2][..], &vec![0; length - 4]].concat();
        write("rendezvous_messages", &format!("kind-{kind:02}"), &message);
        let said = [&[5, 0][..], &piece(&message)].concat();
        write("rendezvous_server", &format!("stranger-{kind:02}"), &said);
    }
    let candidates = vec![Candidate { kind: CandidateKind::Server, addr: ([192, 0, 2, 7], 7).into() }; 2];
    let (id, boot, flags) = (NodeId([7; 32]), BootId(1), Flags::RELAY);
    let presence = Presence { id, boot, flags, candidates: candidates.clone() };
    write("rendezvous_messages", "presence", &presence.to_bytes());
    let introduction = Introduction { id, to: id, boot, step: Step::Meet, flags, candidates };
    write("rendezvous_messages", "introduction", &introduction.to_bytes());

    let act = |who: u8, room: u16, what: u8| {
        let [low, high] = room.to_le_bytes();
        vec![who, 4, low, high, what]
    };
    let join = |who| [act(who, 0, 0), act(who, 1200, 1)].concat();
    let (wait, repeat, damage) = (vec![0, 2, 3], vec![2, 3, 5], vec![1, 1, 50, 0, 1, 0]);
    let all: Vec<Vec<u8>> = vec![
        join(0),
        join(2),
        wait.clone(),
        act(0, 1200, 3),
        act(0, 2, 4),
        act(2, 0, 2),
        repeat,
        damage,
        act(0, 3, 6),
        act(0, 0, 5),
        wait,
        act(2, 100, 3),
        vec![0, 2, 6],
    ];
    write("rendezvous_server", "join", &join(0));
    write("rendezvous_server", "meet", &all.concat());
}

/// What servers say to a node until it opens ports, and until it guesses those of a member.
fn rendezvous_client() {
    let says = |which: u8, kind: u8, place: u8, entries: &[u8], rest: &[u8]| {
        [&[which, 5, 0, 0, 0, 0, 0, place, 9, 0, 120, 0, 25, 0][..], entries, &[kind], rest, &[0]].concat()
    };
    let waits = |count: usize| [0, 1, 2].repeat(count);
    let retry = |which, place| says(which, 0, place, &[0], &[]);
    // Flags 4: it guesses; one candidate, as a server sees it.
    let member = [1, 5, 1, 7, 4, 1, 1, 3, 1];
    let welcome = |which| says(which, 2, 0, &member, &[1, 0]);
    let knock = |flags: u8, kind: u8, nonce: u8| {
        says(0, 6, 0, &[0], &[&[nonce; 8][..], &[5, 1, 1, 7, flags, 1, kind, 3]].concat())
    };
    let varying = [retry(0, 0), retry(1, 1), welcome(0), waits(5), retry(0, 1), retry(1, 0), waits(12)];
    write("rendezvous_client", "birthday", &[varying.concat(), knock(4, 1, 6), waits(140)].concat());
    let steady = [retry(0, 0), welcome(0), waits(3), knock(2, 4, 7), waits(10), knock(10, 1, 8), waits(120)];
    write("rendezvous_client", "guessing", &steady.concat());
    let elsewhere = [says(0, 2, 0, &[0], &[1, 0]), says(0, 2, 3, &[0], &[1, 0])].concat().repeat(300);
    write("rendezvous_client", "seen-elsewhere-each-time", &[retry(0, 0), elsewhere].concat());
    let on_day = |day: u8| [vec![0, 5, day], says(0, 2, 0, &[0], &[1, 0])[3..].to_vec()].concat();
    let days = [on_day(1), on_day(2), on_day(0)].concat().repeat(200);
    write("rendezvous_client", "another-day-each-time", &[retry(0, 0), days].concat());
    let minute = [0, 1, 5].repeat(13);
    let measuring =
        [retry(0, 0), welcome(0), minute, retry(0, 0), [0, 1, 5].repeat(6), says(0, 8, 0, &[0], &[])];
    write("rendezvous_client", "measuring", &[measuring.concat(), [0, 1, 5].repeat(40)].concat());
    let compared = [retry(0, 0), welcome(0), waits(1), says(0, 9, 1, &[0], &[]), waits(12)].concat();
    write("rendezvous_client", "second-port", &[compared, knock(4, 1, 6), waits(140)].concat());
    let others = [
        says(0, 3, 0, &[0], &[0, 0]),
        says(0, 4, 1, &member, &[1, 0]),
        says(0, 5, 2, &member, &[1]),
        says(0, 7, 0, &[0], &[5, 0]),
    ];
    write("rendezvous_client", "others", &[varying.concat(), others.concat(), [0, 1, 5].repeat(9)].concat());
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
}

/// As the targets read a part of the input.
fn piece(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_le_bytes()[..], bytes].concat()
}

/// One datagram of the target `records`.
fn inside(op: u8, plaintext: &[u8]) -> Vec<u8> {
    [&[op][..], &piece(plaintext)].concat()
}

/// A handshake that a stranger begins, and its first data packet, for the target `datagram`.
fn session(plaintext: &[u8]) -> Vec<u8> {
    [&[1, 0, 2, 0][..], &[1; 32], &[1, 0, 3, 0], &piece(plaintext), &[0, 4]].concat()
}

fn message_of(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    assert!(message::push(&mut packet, 2000, &Record::Message { topic: TopicNumber(1), payload }));
    packet
}

fn records() -> Vec<(&'static str, Vec<u8>)> {
    let tracked = |number| Record::Tracked {
        number: MessageNumber(number),
        after: 1,
        open: 1,
        topic: TopicNumber(1),
        payload: b"hi",
    };
    let all = [
        ("ping", Record::Ping { token: 1, peers: 0 }),
        ("pong", Record::Pong { token: 2, peers: 0 }),
        ("about", Record::About { name: "pi", peers: 3, topics: 4 }),
        ("peers", Record::Peers { entries: vec![(NodeId([9; 32]), ([10, 0, 0, 9], 28282).into())] }),
        ("suspect", Record::Suspect { peer: NodeId([8; 32]) }),
        ("topics", Record::Topics { since: 0, upto: 1, added: vec![(TopicNumber(1), "t")], removed: vec![] }),
        ("topics-have", Record::TopicsHave { upto: 0, ask: true }),
        ("message", Record::Message { topic: TopicNumber(1), payload: b"hi" }),
        ("tracked", tracked(1)),
        ("tracked-early", tracked(3)),
        ("outcome", Record::Outcome { number: MessageNumber(1), fate: Fate::Busy }),
        ("goodbye", Record::Goodbye),
    ];
    all.iter()
        .map(|(name, record)| {
            let mut packet = Vec::new();
            assert!(message::push(&mut packet, 1000, record));
            (*name, packet)
        })
        .collect()
}

const LINES: [&str; 18] = [
    r#"{"op":"hello","id":1}"#,
    r#"{"op":"listen","topic":"t","id":2}"#,
    r#"{"op":"unlisten","topic":"t","id":3}"#,
    r#"{"op":"send","to":"pi","topic":"t","text":"hi \u00e9","id":4,"timeout_ms":100}"#,
    r#"{"op":"send","to":"own","topic":"t","data":"/w==","id":5,"ack":false,"when_full":"drop"}"#,
    r#"{"op":"publish","topic":"t","text":"hi","id":6,"ack":true}"#,
    r#"{"op":"watch","id":7}"#,
    r#"{"op":"peers","id":8}"#,
    r#"{"op":"status","id":9}"#,
    r#"{"op":"ping","to":"own","count":2,"interval_ms":10,"timeout_ms":100,"id":10}"#,
    r#"{"op":"network","action":"show","id":11}"#,
    r#"{"op":"network","action":"leave","id":12}"#,
    r#"{"op":"dance","id":13}"#,
    r#"{"op":7}"#,
    r#"{"op":"send","to":"own","topic":"t","text":"?","replies":2,"id":14,"timeout_ms":100}"#,
    r#"{"op":"publish","topic":"t","text":"?","ack":true,"replies":2,"id":15,"timeout_ms":100}"#,
    r#"{"op":"reply","reply_to":"x","text":"?","id":16}"#,
    r#"{"op":"reply","reply_to":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.0000000000000001","text":"?","id":17}"#,
];

const SAID: [&str; 15] = [
    r#"{"ev":"ok","id":2}"#,
    r#"{"ev":"result","id":2,"outcome":"delivered","peer":{"name":"pi","id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"path":"lan","rtt_us":812}"#,
    r#"{"ev":"result","id":2,"sent":1,"outcomes":[{"peer":{"name":"pi","id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"outcome":"busy"}]}"#,
    r#"{"ev":"pong","id":2,"seq":1,"rtt_us":80,"path":"lan","addr":"10.0.0.2:28282"}"#,
    r#"{"ev":"peer","id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","name":"pi","state":"online","path":{"kind":"lan","addr":"10.0.0.2:28282","via":null},"rtt_us":5,"last_seen":null,"topics":["t"]}"#,
    r#"{"ev":"ok","id":2,"status":{"v":1,"name":"pi","id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","network":"open","version":"1","uptime_s":1,"udp":[],"interfaces":[],"rendezvous":[],"peers":{"online":0,"offline":0},"apps":1,"counters":[["x",1]],"health":[]}}"#,
    r#"{"ev":"ok","id":2,"network":{"kind":"open","fingerprint":"btuv6spy","source":null}}"#,
    r#"{"ev":"message","from":{"name":"pi","id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"topic":"t","data":"/w==","path":"lan","at":"x"}"#,
    r#"{"ev":"enter","peer":{"name":"pi","id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"path":"lan","snapshot":true}"#,
    r#"{"ev":"lost","messages":3,"bytes":9}"#,
    r#"{"ev":"error","id":2,"code":"no-peer","message":"m","hint":"h"}"#,
    r#"{"ev":"later","x":[1]}"#,
    r#"{"ev":"result","id":2,"outcome":"delivered","peer":{"name":"pi","id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"path":"lan","rtt_us":812,"replies":1}"#,
    r#"{"ev":"reply","id":2,"from":{"name":"pi","id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"text":"x","path":"lan","at":"x"}"#,
    r#"{"ev":"message","from":{"name":"pi","id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"topic":"t","text":"x","path":"lan","at":"x","reply_to":"y"}"#,
];

const CONFIGURATION: &str = r#"name = "pi"
port = 7
bind = ["10.0.0.1", "::1"]
peers = ["a:1", "[::1]:3"]
interface = ["eth*"]
no_mdns = true
log = "debug"
"#;
