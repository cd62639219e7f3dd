//! The command line against a scripted daemon: what it prints, and how it ends.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

#[path = "cli/asking.rs"]
mod asking;
mod fake;
#[path = "cli/streams.rs"]
mod streams;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::fake::{Fake, Session, error, id, message, node, ok};

fn atonce(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonce"));
    command.arg("--socket").arg(socket).args(arguments).env("TZ", "UTC");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(socket: &Path, arguments: &[&str]) -> Ended {
    Ended::from(atonce(socket, arguments).output().unwrap())
}

/// Runs it against a daemon that has to have played its script to the end.
fn against(fake: Fake, arguments: &[&str]) -> Ended {
    let ended = run(&fake.socket(), arguments);
    fake.finish();
    ended
}

fn fed(fake: &Fake, arguments: &[&str], input: &[u8]) -> Ended {
    let mut child = atonce(&fake.socket(), arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    Ended::from(child.wait_with_output().unwrap())
}

#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ended {
    #[track_caller]
    fn expect(&self, code: i32, stdout: &str, stderr: &str) {
        assert_eq!((self.code, self.stdout.as_str(), self.stderr.as_str()), (Some(code), stdout, stderr));
    }
}

fn result(outcome: &'static str) -> impl FnMut(&Value) -> Vec<Value> + Send + 'static {
    move |request| {
        let to = request["to"].as_str().unwrap();
        assert_eq!(to.len(), 52, "the daemon is asked by id");
        vec![
            json!({"ev": "result", "id": request["id"], "outcome": outcome, "peer": {"name": "pi-attic", "id": to},
            "path": "lan", "rtt_us": 812}),
        ]
    }
}

#[test]
fn a_daemon_that_is_not_there_is_told_with_the_reason_and_what_to_try() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("atonced.sock");
    let missing = run(&path, &["peers"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(3), ""));
    let what = format!("atonce: cannot reach the daemon at {} (no such file)\n  ", path.display());
    assert!(missing.stderr.starts_with(&what), "{}", missing.stderr);
    assert!(missing.stderr.contains("\n  try: "), "{}", missing.stderr);

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let refused = run(&path, &["peers"]);
    assert_eq!(refused.code, Some(3));
    assert!(refused.stderr.contains("(connection refused)"), "{}", refused.stderr);
}

#[test]
fn the_socket_is_found_by_the_environment() {
    let fake = Fake::answering(ok);
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonce"));
    let ended = Ended::from(command.arg("id").env("ATONCE_SOCKET", fake.socket()).output().unwrap());
    ended.expect(0, &format!("here  {}\n", id(1)), "");
    fake.finish();
}

#[test]
fn a_daemon_that_is_silent_odd_or_closes_has_each_its_exit_code() {
    assert_eq!(against(Fake::raw(Session::wait_for_the_end), &["--timeout", "50ms", "status"]).code, Some(5));
    let odd = Fake::raw(|session| session.write(b"220 mail.example.org ESMTP\r\n"));
    assert_eq!(against(odd, &["status"]).code, Some(1));
    let closing = Fake::new(|session| drop(session.expect("status")));
    let closed = against(closing, &["status"]);
    assert_eq!(closed.code, Some(3));
    assert!(
        closed.stderr.starts_with("atonce: the daemon closed the connection before it answered\n"),
        "{}",
        closed.stderr
    );
}

#[test]
fn wrong_usage_is_2() {
    let nowhere = Path::new("/nonexistent");
    for arguments in [
        &["frobnicate"][..],
        &["listen"],
        &["listen", "No"],
        &["listen", "a", "atonce.x"],
        &["listen", "a", "-n", "0"],
        &["listen", "a", "--raw", "--json"],
        &["ping", "pi", "-c", "0"],
        &["--timeout", "5x", "status"],
    ] {
        assert_eq!(run(nowhere, arguments).code, Some(2), "{arguments:?}");
    }
    let reserved = run(nowhere, &["listen", "atonce.x"]).stderr;
    assert!(
        reserved.contains(": atonce.x is a topic of the daemon's own; choose another name\n"),
        "{reserved}"
    );
    let both = against(Fake::new(Session::wait_for_the_end), &["send", "pi", "a", "text", "--lines"]);
    assert_eq!(both.code, Some(2));
}

#[test]
fn what_was_delivered_is_told_with_its_time_and_its_path() {
    let ended = against(Fake::answering(result("delivered")), &["send", "pi-attic", "sensor", "hi"]);
    ended.expect(0, "delivered to pi-attic in 0.8 ms (lan)\n", "");
    let ended = against(Fake::answering(result("sent")), &["send", "--no-ack", "pi-attic", "sensor", "hi"]);
    ended.expect(0, "sent to pi-attic (lan)\n", "");
}

#[test]
fn each_outcome_has_its_exit_code_and_a_failed_one_still_its_object() {
    for (outcome, code) in [
        ("delivered", 0),
        ("sent", 0),
        ("no-listener", 8),
        ("busy", 8),
        ("too-big", 8),
        ("unreachable", 5),
        ("timeout", 5),
    ] {
        let text = against(Fake::answering(result(outcome)), &["send", "pi-attic", "sensor", "hi"]);
        assert_eq!((text.code, text.stdout.is_empty()), (Some(code), code != 0), "{outcome}");
        assert_eq!(text.stderr.contains("\n  try: "), code != 0, "{outcome}: {}", text.stderr);
        let json = against(Fake::answering(result(outcome)), &["send", "--json", "pi-attic", "sensor", "hi"]);
        let object = format!(
            r#"{{"ev":"result","outcome":"{outcome}","peer":{{"name":"pi-attic","id":"{}"}},"path":"lan","rtt_us":812}}"#,
            id(2)
        );
        assert_eq!((json.code, json.stdout), (Some(code), object + "\n"), "{outcome}");
    }
}

#[test]
fn a_message_to_who_is_offline_says_since_when() {
    let ended = against(Fake::answering(result("unreachable")), &["send", "garage", "sensor", "hi"]);
    assert_eq!(ended.code, Some(5));
    assert!(
        ended.stderr.starts_with("atonce: garage is not reachable\n  it is offline, last seen "),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("ago: it said goodbye\n"), "{}", ended.stderr);
}

#[test]
fn a_message_to_who_is_offline_names_the_other_peer_of_that_name_that_is_online() {
    let to_garage_2 = |conflict: bool| {
        let fake = Fake::new(move |session| {
            while let Some(request) = session.request() {
                if request["op"] == "peers" {
                    session.tell(&json!({"ev": "peer", "id": id(7), "name": "garage", "state": "online",
                        "conflict": conflict, "path": null, "rtt_us": 1, "last_seen": null, "topics": []}));
                    fake::peers(&request).iter().for_each(|line| session.tell(line));
                } else {
                    result("unreachable")(&request).iter().for_each(|line| session.tell(line));
                }
            }
        });
        against(fake, &["send", &id(4), "sensor", "hi"])
    };
    let ended = to_garage_2(true);
    assert_eq!(ended.code, Some(5));
    let short = &id(7)[..8];
    let hint = format!(
        "\n  another peer called garage is online\n  try: its id, {short}, or: atonce forget garage\n"
    );
    assert!(ended.stderr.ends_with(&hint), "{}", ended.stderr);
    // To forget the other one would not help where this is the one that came later.
    assert!(to_garage_2(false).stderr.ends_with("said goodbye\n  try: atonce peers --all\n"));
}

#[test]
fn the_unique_beginning_of_a_name_is_enough_and_an_ambiguous_one_lists_who_fits() {
    let unique = against(Fake::answering(result("delivered")), &["send", "pi-a", "sensor", "hi"]);
    assert_eq!(unique.code, Some(0));
    let ambiguous = against(Fake::answering(result("delivered")), &["send", "pi-", "sensor", "hi"]);
    let listed = format!(
        "atonce: pi- may be one of 2\n  pi-attic  {}\n  pi-cellar  {}\n  try: a longer part of the name, or the id\n",
        id(2),
        id(3)
    );
    ambiguous.expect(4, "", &listed);
    let unknown = against(Fake::answering(ok), &["send", "--json", "nobody", "sensor", "hi"]);
    assert_eq!(unknown.code, Some(4));
    let object: Value = serde_json::from_str(&unknown.stdout).unwrap();
    assert_eq!((&object["ev"], &object["code"]), (&json!("error"), &json!("no-peer")));
}

#[test]
fn standard_input_is_sent_as_it_is_or_line_by_line() {
    let sink = || {
        let (tell, told) = std::sync::mpsc::channel();
        let mut answer = result("delivered");
        let fake = Fake::answering(move |request| {
            let text = request["text"].as_str().or_else(|| request["data"].as_str()).unwrap();
            tell.send(text.to_owned()).unwrap();
            answer(request)
        });
        (fake, told)
    };
    for (arguments, input, expected) in [
        (&["send", "pi-attic", "t"][..], &b"two\nlines\n"[..], &["two\nlines\n"][..]),
        (&["send", "pi-attic", "t", "-"], b"\xff", &["/w=="]),
        (&["send", "pi-attic", "t", "--lines"], b"two\nlines\n\nlast", &["two", "lines", "", "last"]),
        (&["send", "pi-attic", "t", "--lines"], b"", &[]),
    ] {
        let (fake, told) = sink();
        let ended = fed(&fake, arguments, input);
        fake.finish();
        assert_eq!(told.try_iter().collect::<Vec<_>>(), expected, "{arguments:?}");
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn the_first_line_that_fails_ends_it_and_is_named() {
    let mut outcomes = ["delivered", "busy", "delivered"].into_iter();
    let fake = Fake::answering(move |request| result(outcomes.next().unwrap())(request));
    let ended = fed(&fake, &["send", "pi-attic", "t", "--lines"], b"a\nb\nc\n");
    fake.finish();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(8), ""));
    assert!(ended.stderr.contains(" delivered to pi-attic\natonce: pi-attic is busy\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains("\n  it was line 2; "), "{}", ended.stderr);
}

#[test]
fn a_message_that_is_too_big_is_refused_however_long_standard_input_is() {
    let fake = Fake::answering(ok);
    let endless = std::fs::File::open("/dev/zero").unwrap();
    let ended = Ended::from(
        atonce(&fake.socket(), &["--json", "send", "pi-attic", "t"]).stdin(endless).output().unwrap(),
    );
    fake.finish();
    assert_eq!(ended.code, Some(8));
    let object: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&object["outcome"], &object["peer"]), (&json!("too-big"), &node("pi-attic", 2)));
}

#[test]
fn every_command_tells_in_the_same_words_that_a_message_is_too_big() {
    let words =
        "atonce: the message is too big\n  a message has at most 1152 bytes\n  try: sending it in pieces\n";
    for command in [
        &["send", "pi-attic", "t"][..],
        &["publish", "t"],
        &["request", "pi-attic", "t"],
        &["request", "--all", "t"],
    ] {
        let fake = Fake::answering(ok);
        let endless = std::fs::File::open("/dev/zero").unwrap();
        Ended::from(atonce(&fake.socket(), command).stdin(endless).output().unwrap()).expect(8, "", words);
        fake.finish();
    }
}

#[test]
fn a_publication_is_counted_and_fails_only_if_it_was_to_be_acknowledged() {
    let published = |sent: u64, outcomes: Option<Value>| {
        Fake::answering(move |request| {
            let mut line = json!({"ev": "result", "id": request["id"], "sent": sent});
            if let Some(outcomes) = &outcomes {
                assert_eq!(request["ack"], true);
                line["outcomes"] = outcomes.clone();
            }
            vec![line]
        })
    };
    against(published(3, None), &["publish", "t", "hi"]).expect(0, "sent to 3 peers\n", "");
    against(published(0, None), &["-q", "publish", "t", "hi"]).expect(0, "sent to 0 peers\n", "");
    against(published(0, None), &["publish", "t", "hi"]).expect(
        0,
        "sent to 0 peers\n",
        "atonce: no other node listens to t now\n",
    );
    let unheard = "atonce: nobody listens to t now\n  no peer was reached; apps of this node are not counted\n  \
                   try: atonce listen t   (on another node)\n";
    against(published(0, Some(json!([]))), &["publish", "t", "hi", "--ack"]).expect(8, "", unheard);
    let both =
        json!([{"peer": node("pi", 2), "outcome": "busy"}, {"peer": node("pa", 3), "outcome": "delivered"}]);
    let ended = against(published(2, Some(both)), &["publish", "t", "hi", "--ack"]);
    ended.expect(8, "sent to 2 peers\n", "atonce: 1 peer of 2 did not get it\n  pi: busy\n  try: atonce peers --topic shows who listens to it\n");
    let json = against(published(1, None), &["publish", "--json", "t", "hi"]);
    json.expect(0, "{\"ev\":\"result\",\"sent\":1}\n", "");
}

#[test]
fn a_ping_tells_each_answer_and_fails_if_there_was_none() {
    let ping = |answers: bool| {
        Fake::answering(move |request| {
            let (id, peer) = (&request["id"], node("pi-attic", 2));
            let (pong, trips) = if answers {
                let pong = json!({"ev": "pong", "id": id, "peer": peer, "seq": 1, "rtt_us": 410, "path": "lan",
                    "addr": "192.168.1.40:28282"});
                (pong, json!({"min": 410, "p50": 410, "max": 410}))
            } else {
                (json!({"ev": "pong", "id": id, "seq": 1, "error": "timeout"}), json!(null))
            };
            let received = u64::from(answers);
            vec![
                pong,
                json!({"ev": "result", "id": id, "peer": peer, "sent": 1, "received": received, "rtt_us": trips}),
            ]
        })
    };
    let text = "pi-attic: 0.41 ms via lan 192.168.1.40:28282\n1 sent, 1 received, min 0.41 ms, median 0.41 ms, max 0.41 ms\n";
    against(ping(true), &["ping", "pi-attic", "-c", "1"]).expect(0, text, "");
    let none = against(ping(false), &["ping", "pi-attic", "-c", "1", "--json"]);
    assert_eq!(none.code, Some(5));
    let (pong, rest) = none.stdout.split_once('\n').unwrap();
    assert_eq!(pong, r#"{"ev":"pong","seq":1,"error":"timeout"}"#);
    assert!(rest.starts_with(r#"{"ev":"result","peer":{"name":"pi-attic","#), "{rest}");
}

#[test]
fn a_ping_until_direct_ends_with_the_first_answer_that_came_without_a_relay() {
    let ping = |direct_after: u64| {
        let mut asked = 0_u64;
        Fake::answering(move |request| {
            if request["op"] != "ping" {
                return ok(request);
            }
            asked += 1;
            let (id, peer) = (&request["id"], node("pi-attic", 2));
            let path = if asked > direct_after { "direct" } else { "relay" };
            let trips = json!({"min": 410, "p50": 410, "max": 410});
            vec![
                json!({"ev": "pong", "id": id, "peer": peer, "seq": 1, "rtt_us": 410, "path": path,
                    "addr": "192.0.2.40:28282"}),
                json!({"ev": "result", "id": id, "peer": peer, "sent": 1, "received": 1, "rtt_us": trips}),
            ]
        })
    };
    let relayed = "pi-attic: 0.41 ms via relay 192.0.2.40:28282\n";
    let direct = "pi-attic: 0.41 ms via direct 192.0.2.40:28282\n";
    against(ping(1), &["ping", "pi-attic", "--until-direct"]).expect(0, &format!("{relayed}{direct}"), "");
    let never = against(ping(9), &["ping", "pi-attic", "--until-direct", "-c", "1"]);
    assert_eq!((never.code, never.stdout.as_str()), (Some(5), relayed));
    assert!(never.stderr.contains("through another peer only"), "{}", never.stderr);
}

/// The peers, of which pi-attic has gone if `gone`.
fn peers_later(request: &Value, gone: bool) -> Vec<Value> {
    let mut lines = fake::peers(request);
    if gone {
        (lines[0]["state"], lines[0]["why"], lines[0]["path"]) =
            (json!("offline"), json!("it said goodbye"), Value::Null);
    }
    lines
}

#[test]
fn a_ping_until_direct_ends_with_its_timeout_and_tells_the_reason_of_then() {
    let mut gone = false;
    let fake = Fake::new(move |session| {
        while let Some(request) = session.request() {
            if request["op"] == "peers" {
                peers_later(&request, gone).iter().for_each(|line| session.tell(line));
                continue;
            }
            gone = true;
            assert!(request["timeout_ms"].as_u64().unwrap() <= 1000, "{request}");
            let id = &request["id"];
            session.tell(&json!({"ev": "pong", "id": id, "seq": 1, "error": "unreachable"}));
            session.tell(
                &json!({"ev": "result", "id": id, "peer": node("pi-attic", 2), "sent": 1, "received": 0,
                "rtt_us": null}),
            );
        }
    });
    let ended = against(fake, &["--timeout", "1s", "ping", "pi-attic", "--until-direct"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(5), ""));
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(lines[0], "atonce: no answer from pi-attic within 1s");
    assert!(lines[1].starts_with("  it is offline, ") && lines[1].ends_with("it said goodbye"), "{lines:?}");
    assert_eq!(lines[2..], ["  try: atonce peers --all"]);
}

#[test]
fn peers_are_a_table_with_the_same_columns_always() {
    let ended = against(Fake::answering(ok), &["peers"]);
    assert_eq!(ended.code, Some(0));
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines[0], "PEER          STATE       PATH                      RTT      SEEN  TOPICS");
    assert!(
        lines[1].starts_with("pi-attic      online      lan 192.168.1.42:28282    0.4 ms   "),
        "{}",
        lines[1]
    );
    assert!(lines[1].ends_with("  sensor"), "{}", lines[1]);
    assert_eq!(lines[2], "pi-cellar     connecting  -                         -        -     -");
    assert_eq!(lines.len(), 3);
    assert_eq!(ended.stderr, "atonce: pi-cellar is connecting: no answer yet\n");

    let all = against(Fake::answering(ok), &["peers", "--all", "-q"]);
    assert_eq!((all.stdout.lines().count(), all.stderr.as_str()), (4, ""));
    let listening = against(Fake::answering(ok), &["peers", "--all", "--topic", "sensor", "--json"]);
    let object: Value = serde_json::from_str(&listening.stdout).unwrap();
    assert_eq!(object, fake::peers(&Value::Null)[0]);
}

#[test]
fn that_nobody_is_online_is_told_with_how_many_are_not() {
    let fake = Fake::new(|session| {
        let request = session.expect("peers");
        fake::peers(&request)[2..].iter().for_each(|line| session.tell(line));
    });
    let note = "atonce: no peers are online; atonce peers --all shows 1 offline\n";
    assert_eq!(against(fake, &["peers"]).stderr, note);
    let other = against(Fake::answering(ok), &["peers", "--topic", "chat"]);
    assert_eq!(other.stderr, "atonce: no peer that is online listens to chat\n");
}

#[test]
fn a_relay_is_told_by_its_name_or_by_its_short_id_if_that_is_not_known() {
    let relayed = |via: String| {
        let fake = Fake::new(move |session| {
            let request = session.expect("peers");
            let mut lines = fake::peers(&request);
            lines[0]["path"] = json!({"kind": "relay", "addr": "192.0.2.1:28282", "via": via});
            lines.iter().for_each(|line| session.tell(line));
        });
        against(fake, &["peers"]).stdout
    };
    let (known, unknown) = (relayed(id(3)), relayed(id(9)));
    assert!(known.contains("relay 192.0.2.1:28282 via pi-cellar "), "{known}");
    assert!(unknown.contains(&format!("relay 192.0.2.1:28282 via {} ", &id(9)[..8])), "{unknown}");
}

fn status(request: &Value, health: &Value) -> Vec<Value> {
    let status = json!({"v": 1, "name": "here", "id": id(1), "network": "open", "version": "0.1.0", "uptime_s": 11520,
        "udp": ["0.0.0.0:28282"], "interfaces": [{"name": "eth0", "addrs": ["192.168.1.40", "fe80::1"]}], "rendezvous": [],
        "peers": {"online": 3, "connecting": 0, "offline": 1}, "apps": 2, "counters": [["odd-records", 0]], "health": health});
    vec![json!({"ev": "ok", "id": request["id"], "status": status})]
}

const STATUS: &str = "\
daemon         running 3h12m
udp            0.0.0.0:28282
interfaces     eth0 192.168.1.40, eth0 fe80::1
peers          3 online, 0 connecting, 1 offline
apps           2 connected, this command included
health         ";

#[test]
fn the_status_is_a_line_for_each_thing_and_trouble_comes_with_what_mends_it() {
    let head = format!("atonce 0.1.0   here   id {}   network open\n", &id(1)[..8]);
    let well = Fake::answering(|request| status(request, &json!([])));
    against(well, &["status"]).expect(0, &format!("{head}{STATUS}ok\n"), "");
    let ill = json!([{"check": "mdns", "state": "warn", "why": "port 5353 is taken", "fix": "stop avahi"}]);
    let ill = Fake::answering(move |request| status(request, &ill));
    let trouble = format!("{head}{STATUS}warn  mdns: port 5353 is taken\n               try: stop avahi\n");
    against(ill, &["status"]).expect(0, &trouble, "");
}

#[test]
fn the_status_of_a_private_network_tells_its_fingerprint_and_counts_one_as_one() {
    let fake = || {
        Fake::answering(|request| {
            let mut lines = status(request, &json!([]));
            let status = &mut lines[0]["status"];
            (status["network"], status["fingerprint"]) = (json!("private"), json!("uzm4scxl"));
            status["rendezvous"] =
                json!([{"server": "a.example:1", "state": "registered", "reflexive": null, "members": 1}]);
            lines
        })
    };
    let text = against(fake(), &["status"]).stdout;
    assert!(text.lines().next().unwrap().ends_with("   network private (uzm4scxl)"), "{text}");
    assert!(text.contains("\nrendezvous     a.example:1 registered, 1 other\n"), "{text}");
    let object: Value = serde_json::from_str(&against(fake(), &["status", "--json"]).stdout).unwrap();
    assert_eq!(object["fingerprint"], "uzm4scxl");
}

#[test]
fn the_status_in_json_is_the_daemons_object_and_a_bare_call_adds_what_to_try() {
    let fake = || Fake::answering(|request| status(request, &json!([])));
    let ended = against(fake(), &["status", "--json"]);
    let object: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(object, status(&Value::Null, &json!([]))[0]["status"]);
    let bare = against(fake(), &[]);
    assert!(bare.stdout.starts_with("atonce 0.1.0 "), "{}", bare.stdout);
    assert!(bare.stderr.contains("atonce listen chat"), "{}", bare.stderr);
}

const EVIL: &str = "pi\u{1b}[2J\u{202e}";

fn listening(lines: Vec<Value>) -> Fake {
    Fake::new(move |session| {
        let request = session.expect("listen");
        session.tell(&ok(&request)[0]);
        for line in &lines {
            session.tell(line);
        }
        session.wait_for_the_end();
    })
}

#[test]
fn what_came_from_the_network_is_never_printed_raw_but_where_that_was_asked_for() {
    let lines = || listening(vec![message(EVIL, "chat", "a\nb\u{9b}\u{202e}")]);
    let text = against(lines(), &["listen", "chat", "-n", "1"]);
    text.expect(0, "16:00:00 pi\\u{1b}[2J\\u{202e}> a\\nb\\u{9b}\\u{202e}\n", "");
    let raw = against(lines(), &["listen", "chat", "-n", "1", "--raw"]);
    raw.expect(0, "a\nb\u{9b}\u{202e}", "");
    let json = against(lines(), &["listen", "chat", "-n", "1", "--json"]);
    let object: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(object, message(EVIL, "chat", "a\nb\u{9b}\u{202e}"));
    assert!(json.stdout.trim_end().chars().all(|character| character.is_ascii() && !character.is_control()));
}

#[test]
fn an_error_of_the_daemon_cannot_steer_the_terminal() {
    let evil = |request: &Value| {
        vec![
            json!({"ev": "error", "id": request["id"], "code": "internal", "message": EVIL, "hint": "\u{1b}c"}),
        ]
    };
    let ended = against(Fake::answering(evil), &["status"]);
    ended.expect(1, "", "atonce: pi\\u{1b}[2J\\u{202e}\n  try: \\u{1b}c\n");
}

#[test]
fn bytes_that_are_no_text_are_shown_escaped_and_with_several_topics_each_has_its_own() {
    let data = json!({"ev": "message", "from": node("pi", 2), "topic": "b", "data": "b2v/", "path": "lan",
        "at": "2026-11-23T16:00:00.000Z"});
    let fake = Fake::new(move |session| {
        for topic in ["a", "b"] {
            let request = session.expect("listen");
            assert_eq!(request["topic"], topic);
            session.tell(&ok(&request)[0]);
        }
        session.tell(&data);
        session.wait_for_the_end();
    });
    against(fake, &["listen", "a", "b", "-n", "1"]).expect(0, "16:00:00 pi b> ok\\xff\n", "");
}

#[test]
fn listening_ends_with_its_count_or_with_its_time() {
    let two = || listening(vec![message("pi", "t", "1"), message("pi", "t", "2")]);
    let counted = against(two(), &["listen", "t", "-n", "1"]);
    assert_eq!((counted.code, counted.stdout.lines().count()), (Some(0), 1));
    let short = against(two(), &["listen", "t", "-n", "3", "--for", "1s"]);
    assert_eq!((short.code, short.stdout.lines().count()), (Some(5), 2));
    assert_eq!(
        short.stderr,
        "atonce: 2 of 3 messages within 1s\n  try: a longer --for; atonce peers shows who is there\n"
    );
    assert_eq!(against(two(), &["listen", "t", "--for", "1s"]).code, Some(0));
}

#[test]
fn lost_messages_are_told_but_do_not_count() {
    let lost = json!({"ev": "lost", "messages": 12, "bytes": 2400});
    let ended = against(listening(vec![lost, message("pi", "t", "1")]), &["listen", "t", "-n", "1"]);
    let note = "atonce: 12 messages lost here: they came faster than they were read\n";
    ended.expect(0, "16:00:00 pi> 1\n", note);
}

/// Waits for the first line on its standard output: from then on it listens.
fn started(child: &mut Child) -> BufReader<std::process::ChildStdout> {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "16:00:00 pi> 1\n");
    stdout
}

#[test]
fn an_interrupt_ends_it_with_130() {
    let fake = listening(vec![message("pi", "t", "1")]);
    let mut child = atonce(&fake.socket(), &["listen", "t"]).spawn().unwrap();
    let stdout = started(&mut child);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdout);
    fake.finish();
}

#[test]
fn whoever_stops_reading_its_output_ends_it_without_a_word() {
    let (go_on, wait) = std::sync::mpsc::channel();
    let fake = Fake::new(move |session| {
        let request = session.expect("listen");
        session.tell(&ok(&request)[0]);
        session.tell(&message("pi", "t", "1"));
        wait.recv().unwrap();
        // More than one: a process that another test starts just now may hold the pipe's other end for a moment.
        for _ in 0..25 {
            session.tell(&message("pi", "t", "2"));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        session.wait_for_the_end();
    });
    let mut child = atonce(&fake.socket(), &["listen", "t"]).spawn().unwrap();
    drop(started(&mut child));
    go_on.send(()).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
    fake.finish();
}

#[test]
fn presence_is_watched_as_plus_minus_and_change() {
    let events = || {
        vec![
            json!({"ev": "enter", "peer": node("pi", 2), "path": "lan", "snapshot": true}),
            json!({"ev": "listen", "peer": node("pi", 2), "topic": "chat"}),
            json!({"ev": "path", "peer": node("pi", 2), "path": "relay"}),
            json!({"ev": "exit", "peer": node("pi", 2), "path": "relay"}),
        ]
    };
    let fake = || {
        Fake::new(move |session| {
            let request = session.expect("watch");
            session.tell(&ok(&request)[0]);
            for event in events() {
                session.tell(&event);
            }
        })
    };
    let (text, note) = watched_until_gone(&fake(), &["watch"]);
    assert_eq!(note, "atonce: the daemon is gone; waiting for it to come back\n");
    let signs: Vec<_> = text.iter().map(|line| line[9..].split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(signs[0], ["+", "pi", "enter", "lan"]);
    assert_eq!(signs[1], ["+", "pi", "listen", "chat"]);
    assert_eq!(signs[2], ["=", "pi", "path", "relay"]);
    assert_eq!(signs[3], ["-", "pi", "exit", "relay"]);
    let (json, _) = watched_until_gone(&fake(), &["watch", "--json"]);
    let objects: Vec<Value> = json.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects, events());
}

/// The first four lines, and the note that follows when the daemon goes.
fn watched_until_gone(fake: &Fake, arguments: &[&str]) -> (Vec<String>, String) {
    let mut child = atonce(&fake.socket(), arguments).spawn().unwrap();
    let mut note = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut note).unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let lines = stdout.by_ref().lines().take(4).collect::<Result<_, _>>().unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    (lines, note)
}

fn watched(events: Vec<Value>) -> Fake {
    Fake::answering(move |request| {
        let mut lines = ok(request);
        lines.extend(events.clone());
        lines
    })
}

#[test]
fn waiting_is_silent_and_ends_when_the_peer_or_its_topic_is_there() {
    let enter = json!({"ev": "enter", "peer": node("pi-attic", 2), "path": "lan", "snapshot": true});
    let listen = json!({"ev": "listen", "peer": node("pi-attic", 2), "topic": "chat", "snapshot": true});
    against(watched(vec![enter.clone()]), &["wait", "pi-attic"]).expect(0, "", "");
    against(watched(vec![enter.clone(), listen]), &["wait", "pi-attic/chat"]).expect(0, "", "");
    against(watched(vec![]), &["wait", "here"]).expect(0, "", "");
    let new = json!({"ev": "enter", "peer": node("new", 9), "path": "lan"});
    against(watched(vec![enter.clone(), new]), &["wait", "new"]).expect(0, "", "");
    let late = against(watched(vec![enter]), &["--timeout", "1s", "wait", "garage/chat"]);
    assert_eq!((late.code, late.stdout.as_str()), (Some(5), ""));
    assert!(late.stderr.starts_with("atonce: garage/chat did not come within 1s\n"), "{}", late.stderr);
}

#[test]
fn who_is_online_and_does_not_listen_is_told_so_until_it_has_gone() {
    let silent = |name: &str| {
        format!(
            "atonce: nobody listened to chat on {name} within 1s\n  it is online, but no app there listens to that topic\n  \
             try: atonce listen chat   (on {name})\n"
        )
    };
    let wait = |events, target| against(watched(events), &["--timeout", "1s", "wait", target]);
    let enter =
        |name, number| json!({"ev": "enter", "peer": node(name, number), "path": "lan", "snapshot": true});
    let exit = json!({"ev": "exit", "peer": node("pi-attic", 2), "path": "lan"});
    let both = || vec![enter("pi-attic", 2), enter("new", 9)];
    wait(both(), "pi-attic/chat").expect(5, "", &silent("pi-attic"));
    wait(both(), "new/chat").expect(5, "", &silent("new"));
    wait(vec![], "here/chat").expect(5, "", &silent("here"));
    let gone = wait(vec![enter("pi-attic", 2), exit], "pi-attic/chat");
    assert!(gone.stderr.starts_with("atonce: pi-attic/chat did not come within 1s\n"), "{}", gone.stderr);
}

#[test]
fn a_new_secret_is_one_line_and_needs_no_daemon() {
    let secret = || {
        let ended = run(Path::new("/nonexistent"), &["network", "create"]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let base32 =
            ended.stdout.strip_prefix("atonce-secret-").unwrap().strip_suffix('\n').unwrap().to_owned();
        assert!(
            base32.len() == 52 && base32.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')),
            "{base32}"
        );
        base32
    };
    assert_ne!(secret(), secret());
}

#[test]
fn a_secret_is_read_from_a_file_or_standard_input_and_never_from_the_command_line() {
    let network = || {
        Fake::answering(|request| {
            assert_eq!(
                (&request["action"], &request["secret"]),
                (&json!("join"), &json!("atonce-secret-abc"))
            );
            let network = json!({"kind": "private", "fingerprint": "abcdefgh", "source": "state"});
            vec![json!({"ev": "ok", "id": request["id"], "network": network})]
        })
    };
    let shown = "network        private\nfingerprint    abcdefgh\nsecret from    state\n";
    let fake = network();
    fed(&fake, &["network", "join"], b" atonce-secret-abc \n").expect(0, shown, "");
    fake.finish();
    let fake = network();
    let file = fake.directory().join("secret");
    std::fs::write(&file, "atonce-secret-abc\n").unwrap();
    let json = run(&fake.socket(), &["network", "join", file.to_str().unwrap(), "--json"]);
    json.expect(0, "{\"kind\":\"private\",\"fingerprint\":\"abcdefgh\",\"source\":\"state\"}\n", "");
    fake.finish();
    let keeping = Fake::answering(|request| {
        let keep = (request["action"] == "join").then_some(json!(true));
        assert_eq!(request.get("keep"), keep.as_ref(), "{request}");
        let network =
            json!({"kind": "private", "fingerprint": "abcdefgh", "also": "bcdefghi", "source": "state"});
        vec![json!({"ev": "ok", "id": request["id"], "network": network})]
    });
    let shown =
        "network        private\nfingerprint    abcdefgh\nalso valid     bcdefghi\nsecret from    state\n";
    fed(&keeping, &["network", "join", "--keep-old"], b"atonce-secret-abc\n").expect(0, shown, "");
    keeping.finish();
    let settling = Fake::answering(|request| {
        if request["action"] == "show" {
            let network =
                json!({"kind": "private", "fingerprint": "abcdefgh", "also": "bcdefghi", "source": null});
            return vec![json!({"ev": "ok", "id": request["id"], "network": network})];
        }
        assert_eq!(request["action"], "settle");
        error(request, "denied")
    });
    assert_eq!(against(settling, &["network", "settle"]).code, Some(6));
    let empty = run(Path::new("/nonexistent"), &["network", "join"]);
    assert_eq!(empty.code, Some(1));
}

#[test]
fn a_secret_on_the_command_line_is_refused_and_never_shown_again() {
    let characters = "b".repeat(51) + "a";
    let invitation = format!("atonce-invite-{characters}@a.example:1~abcdefgh");
    let (secret, cut) = (format!("atonce-secret-{characters}"), format!("ATONCE-SECRET-{}", "B".repeat(20)));
    for given in [&secret, &invitation, &cut, &characters] {
        let ended = run(Path::new("/nonexistent"), &["network", "join", given]);
        assert_eq!(ended.code, Some(2), "{given}");
        assert!(ended.stderr.contains("\n  try: atonce network join"), "{}", ended.stderr);
        assert!(!ended.stderr.to_lowercase().contains("bbbb"), "{}", ended.stderr);
    }
    for arguments in [
        &["network", "join", "x", &secret][..],
        &["network", "join", "--keep-old", "y", &invitation],
        &[&secret],
    ] {
        let ended = run(Path::new("/nonexistent"), arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert!(ended.stderr.contains("…") && !ended.stderr.contains("bbbb"), "{}", ended.stderr);
    }
    // A file of that name is a file.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("atonce-secret-home");
    let missing = run(Path::new("/nonexistent"), &["network", "join", file.to_str().unwrap()]);
    assert!(missing.stderr.starts_with("atonce: cannot read /"), "{}", missing.stderr);
}

#[test]
fn an_invitation_is_one_line_and_a_note_that_whoever_reads_it_is_a_member() {
    let line = format!("atonce-secret-{}@a.example:28283#{}", "b".repeat(52), "c".repeat(52));
    let told = line.clone();
    let inviting = move || {
        let line = told.clone();
        Fake::answering(move |request| {
            assert_eq!(request["op"], "invite");
            vec![json!({"ev": "invitation", "id": request["id"], "line": line})]
        })
    };
    let note = "atonce: whoever reads this line becomes a member: atonce network join takes it, by its standard input\n";
    against(inviting(), &["invite"]).expect(0, &format!("{line}\n"), note);
    against(inviting(), &["invite", "-q"]).expect(0, &format!("{line}\n"), "");
    let json = format!("{{\"ev\":\"invitation\",\"line\":\"{line}\"}}\n");
    against(inviting(), &["invite", "--json"]).expect(0, &json, note);

    let pictured = against(inviting(), &["invite", "--qr", "-q"]);
    assert_eq!((pictured.code, pictured.stdout), (Some(0), format!("{line}\n")));
    let rows: Vec<_> = pictured.stderr.lines().collect();
    let width = rows[0].chars().count();
    // A square of modules, two rows of them in each row of characters.
    assert!((21..100).contains(&width) && rows.len() == width.div_ceil(2), "{width}\n{}", pictured.stderr);
    let is_block = |char| matches!(char, ' ' | '█' | '▀' | '▄');
    assert!(rows.iter().all(|row| row.chars().count() == width && row.chars().all(is_block)), "{rows:?}");
    // Never more than fits into one.
    let long = format!("atonce-secret-{}@{}", "b".repeat(52), "x".repeat(5000));
    let too_long =
        Fake::answering(move |request| vec![json!({"ev": "invitation", "id": request["id"], "line": long})]);
    let ended = against(too_long, &["invite", "--qr"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.starts_with("atonce: the line fits into no QR code: "), "{}", ended.stderr);
}

#[test]
fn the_servers_of_a_network_are_shown_and_steer_no_terminal() {
    let network = json!({"kind": "private", "fingerprint": "abcdefgh", "source": "state",
        "servers": ["a.example:1", "b\u{1b}[2J:2"]});
    let fake =
        Fake::answering(move |request| vec![json!({"ev": "ok", "id": request["id"], "network": network})]);
    let shown = "network        private\nfingerprint    abcdefgh\nsecret from    state\n\
                 rendezvous     a.example:1\nrendezvous     b\\u{1b}[2J:2\n";
    against(fake, &["network", "show"]).expect(0, shown, "");
}

/// Answers `show` with two secrets that count or one, and `settle`; the peers with the numbers of `behind` have only the
/// old one.
fn changing(two: bool, behind: &'static [u8]) -> Fake {
    Fake::new(move |session| {
        while let Some(request) = session.request() {
            if request["op"] == "peers" {
                for mut line in fake::peers(&request) {
                    if behind.iter().any(|number| line["id"] == id(*number)) {
                        line["old_secret"] = json!(true);
                    }
                    session.tell(&line);
                }
                continue;
            }
            let mut network = json!({"kind": "private", "fingerprint": "abcdefgh", "source": "state"});
            if request["action"] == "show" && two {
                network["also"] = json!("bcdefghi");
            }
            assert!(request["action"] == "show" || two, "nothing is settled that is settled: {request}");
            session.tell(&json!({"ev": "ok", "id": request["id"], "network": network}));
        }
    })
}

#[test]
fn settling_is_refused_with_who_would_be_lost_by_it_unless_it_is_forced() {
    let shown = "network        private\nfingerprint    abcdefgh\nsecret from    state\n";
    let refused = format!(
        "atonce: 2 peers online have the old secret only, and would be lost\n  pi-attic  {}\n  pi-cellar  {}\n  \
         try: atonce network join --keep-old there; or, if they are to be lost, atonce network settle --force\n",
        id(2),
        id(3)
    );
    against(changing(true, &[2, 3]), &["network", "settle"]).expect(8, "", &refused);
    against(changing(true, &[2, 3]), &["network", "settle", "--force"]).expect(0, shown, "");
    against(changing(true, &[]), &["network", "settle"]).expect(0, shown, "");
    let nothing = "atonce: there is nothing to settle: one secret counts here\n";
    against(changing(false, &[]), &["network", "settle"]).expect(0, shown, nothing);
}

#[test]
fn nothing_of_the_open_network_is_kept_and_that_is_told() {
    let fake = Fake::answering(|request| {
        let open = request["action"] == "show";
        assert!(open || request.get("keep").is_none(), "{request}");
        let network = if open {
            json!({"kind": "open", "fingerprint": "bcdefghi", "source": null})
        } else {
            json!({"kind": "private", "fingerprint": "abcdefgh", "source": "state"})
        };
        vec![json!({"ev": "ok", "id": request["id"], "network": network})]
    });
    let shown = "network        private\nfingerprint    abcdefgh\nsecret from    state\n";
    let note = "atonce: there is nothing to keep: this node was in the open network\n";
    fed(&fake, &["network", "join", "--keep-old"], b"atonce-secret-abc\n").expect(0, shown, note);
    fake.finish();
}

#[test]
fn the_open_network_has_its_secret_from_nowhere() {
    let network = json!({"kind": "open", "fingerprint": "bcdefghi", "source": null});
    let fake =
        Fake::answering(move |request| vec![json!({"ev": "ok", "id": request["id"], "network": network})]);
    let shown = "network        open\nfingerprint    bcdefghi\nsecret from    none\n";
    against(fake, &["network", "show"]).expect(0, shown, "");
}

#[test]
fn a_directory_in_the_place_of_a_secret_is_called_one() {
    let directory = tempfile::tempdir().unwrap();
    let ended = run(Path::new("/nonexistent"), &["network", "join", directory.path().to_str().unwrap()]);
    let what = format!("atonce: cannot read {}: it is a directory\n", directory.path().display());
    assert!(ended.stderr.starts_with(&what), "{}", ended.stderr);
}

#[test]
fn what_the_daemon_denies_is_6_with_its_own_words() {
    let ended = against(Fake::answering(|request| error(request, "denied")), &["network", "leave"]);
    ended.expect(6, "", "atonce: it is not to be\n  try: something else\n");
    let json = against(Fake::answering(|request| error(request, "denied")), &["--json", "network", "leave"]);
    let object = "{\"ev\":\"error\",\"code\":\"denied\",\"message\":\"it is not to be\",\"hint\":\"something else\"}\n";
    assert_eq!((json.code, json.stdout.as_str()), (Some(6), object));
}

#[test]
fn a_reload_tells_what_has_changed_and_what_needs_a_restart() {
    let reload = |changed: &[&str]| {
        let answer = json!({"changed": changed, "restart": ["name", "port"]});
        Fake::answering(move |request| {
            assert_eq!(request["op"], "reload");
            vec![json!({"ev": "ok", "id": request["id"], "reload": answer})]
        })
    };
    against(reload(&[]), &["reload"]).expect(0, "changed        -\nneeds restart  name, port\n", "");
    let json = "{\"changed\":[\"log\"],\"restart\":[\"name\",\"port\"]}\n";
    against(reload(&["log"]), &["--json", "reload"]).expect(0, json, "");
    let wrong = against(Fake::answering(|request| error(request, "internal")), &["reload"]);
    wrong.expect(1, "", "atonce: it is not to be\n  try: something else\n");
}

#[test]
fn who_is_forgotten_is_told_and_who_has_the_name_now() {
    let heir = || {
        let mut listed = 0;
        Fake::new(move |session| {
            while let Some(request) = session.request() {
                if request["op"] == "forget" {
                    assert_eq!(request["to"], id(2));
                    session.tell(&ok(&request)[0]);
                    continue;
                }
                listed += 1;
                let peer = |number, conflict| {
                    json!({"ev": "peer", "id": id(number), "name": "pi", "state": "online", "path": null, "rtt_us": null,
                        "last_seen": null, "topics": [], "conflict": conflict})
                };
                let peers =
                    if listed == 1 { vec![peer(2, false), peer(3, true)] } else { vec![peer(3, false)] };
                peers.iter().chain(&ok(&request)).for_each(|line| session.tell(line));
            }
        })
    };
    let short = |number| id(number)[..8].to_owned();
    let note = format!("atonce: messages to pi go to {} now\n", short(3));
    against(heir(), &["forget", "pi"]).expect(0, &format!("forgot pi ({})\n", short(2)), &note);
    let json = json!({"peer": node("pi", 2), "heir": node("pi", 3)});
    let told = against(heir(), &["forget", &id(2)[..8], "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&told.stdout).unwrap(), json);
    assert_eq!(against(heir(), &["forget", "nobody"]).code, Some(4));
}

#[test]
fn a_conflict_is_told_with_what_to_do() {
    let fake = Fake::new(|session| {
        let request = session.expect("peers");
        for (number, conflict) in [(2, false), (3, true)] {
            session.tell(
                &json!({"ev": "peer", "id": id(number), "name": "pi", "state": "offline", "path": null,
                "rtt_us": null, "last_seen": null, "topics": [], "conflict": conflict}),
            );
        }
        session.tell(&ok(&request)[0]);
    });
    let told = against(fake, &["peers", "--all"]);
    assert!(told.stdout.contains("\npi            offline,conflict"), "{}", told.stdout);
    assert!(
        told.stderr.contains(&format!("atonce forget {} gives it the name", &id(2)[..8])),
        "{}",
        told.stderr
    );
}
