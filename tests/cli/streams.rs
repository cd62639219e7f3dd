//! What listens, watches and sends for long: over restarts, line by line, and with a program for each message.

use serde_json::{Value, json};

use crate::fake::{Fake, Session, message, node, ok};
use crate::{Ended, against, fed, listening, result, run};

const GONE: &str = "atonce: the daemon is gone; waiting for it to come back\n";

fn again(ops: &'static str, then: Value) -> Fake {
    Fake::restarted(
        move |session| {
            let request = session.expect(ops);
            session.tell(&ok(&request)[0]);
        },
        move |session| {
            let request = session.expect(ops);
            session.tell(&ok(&request)[0]);
            session.tell(&then);
            session.wait_for_the_end();
        },
    )
}

#[test]
fn listening_goes_on_when_the_daemon_is_restarted_and_says_so() {
    let notes = format!("{GONE}atonce: the daemon is back: listening again\n");
    let fake = again("listen", message("pi", "t", "1"));
    against(fake, &["listen", "t", "-n", "1"]).expect(0, "16:00:00 pi> 1\n", &notes);
    let fake = again("listen", message("pi", "t", "1"));
    let json = against(fake, &["listen", "t", "-n", "1", "--json", "-q"]);
    let objects: Vec<Value> = json.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = [json!({"ev": "disconnected"}), json!({"ev": "reconnected"}), message("pi", "t", "1")];
    assert_eq!(objects, expected);
}

#[test]
fn who_read_too_slowly_is_told_so_and_listens_on() {
    let fake = Fake::restarted(
        |session| {
            let request = session.expect("listen");
            session.tell(&ok(&request)[0]);
            session.tell(
                &json!({"ev": "error", "code": "slow-consumer", "message": "it did not read", "hint": ""}),
            );
        },
        |session| {
            let request = session.expect("listen");
            session.tell(&ok(&request)[0]);
            session.tell(&message("pi", "t", "1"));
            session.wait_for_the_end();
        },
    );
    let notes = format!("atonce: it did not read\n{GONE}atonce: the daemon is back: listening again\n");
    against(fake, &["listen", "t", "-n", "1"]).expect(0, "16:00:00 pi> 1\n", &notes);
}

#[test]
fn waiting_goes_on_when_the_daemon_is_restarted() {
    let arrival = || json!({"ev": "enter", "peer": node("new", 9), "path": "lan", "snapshot": true});
    let fake = Fake::restarted(
        |session| {
            let request = session.expect("watch");
            session.tell(&ok(&request)[0]);
            let request = session.expect("peers");
            session.tell(&ok(&request)[0]);
        },
        move |session| {
            let request = session.expect("watch");
            assert_eq!(request["own"], true);
            session.tell(&ok(&request)[0]);
            session.tell(&arrival());
            session.wait_for_the_end();
        },
    );
    against(fake, &["wait", "new"]).expect(0, "", "");
}

#[test]
fn lines_are_what_the_messages_carry_and_a_newline_each() {
    let messages = || vec![message("pi", "t", "\u{1b}one"), message("pi", "t", "two\n")];
    let ended = against(listening(messages()), &["listen", "t", "-n", "2", "--lines"]);
    ended.expect(0, "\u{1b}one\ntwo\n\n", "");
}

#[test]
fn a_program_gets_each_message_as_its_input_and_the_rest_in_its_environment() {
    let command = "cat; echo \" $ATONCE_FROM $ATONCE_FROM_ID $ATONCE_TOPIC $ATONCE_PATH $ATONCE_AT\"";
    let messages = vec![message("pi", "t", "one"), message("pi 'x'", "t", "two")];
    let ended = against(listening(messages), &["listen", "t", "-n", "2", "--exec", command]);
    let rest = format!("{} t lan 2026-11-23T16:00:00.000Z\n", crate::fake::id(2));
    ended.expect(0, &format!("one pi {rest}two pi 'x' {rest}"), "");
    let fake = listening(vec![message("pi", "t", "one")]);
    let socket = format!("{}\n", fake.socket().display());
    against(fake, &["listen", "t", "-n", "1", "--exec", "echo $ATONCE_SOCKET"]).expect(0, &socket, "");
}

#[test]
fn a_program_that_fails_is_a_note_and_the_next_one_runs() {
    let messages = || vec![message("pi", "t", "3"), message("pi", "t", "0")];
    let ended = against(listening(messages()), &["listen", "t", "-n", "2", "--exec", "read n; exit $n"]);
    ended.expect(0, "", "atonce: the command ended with exit status: 3\n");
    let killed = against(listening(messages()), &["-q", "listen", "t", "-n", "2", "--exec", "kill -9 $$"]);
    killed.expect(0, "", "");
}

#[test]
fn a_program_need_not_read_and_is_no_burden_when_it_has_ended() {
    let messages = || vec![message("pi", "t", &"x".repeat(60_000)); 3];
    let ended = against(listening(messages()), &["listen", "t", "-n", "3", "--exec", "true"]);
    ended.expect(0, "", "");
    // All of our children, each time the one that looks.
    let command = "set -- $(cat /proc/$PPID/task/$PPID/children); echo $#";
    let ended = against(listening(messages()), &["listen", "t", "-n", "3", "--exec", command]);
    ended.expect(0, "1\n1\n1\n", "");
}

/// Tells one question, and takes the replies until the app is gone.
fn questions(count: usize) -> (Fake, std::sync::mpsc::Receiver<Value>) {
    let (tell, told) = std::sync::mpsc::channel();
    let fake = Fake::new(move |session| {
        let request = session.expect("listen");
        session.tell(&ok(&request)[0]);
        for number in 0..count {
            let mut question = message("pi", "t", &number.to_string());
            question["reply_to"] = json!(format!("to.{number}"));
            session.tell(&question);
        }
        while let Some(reply) = session.request() {
            assert_eq!(reply["op"], "reply");
            session.tell(
                &json!({"ev": "result", "id": reply["id"], "outcome": "delivered", "peer": node("pi", 2),
                "path": "lan", "rtt_us": 1}),
            );
            tell.send(reply).unwrap();
        }
    });
    (fake, told)
}

#[test]
fn what_a_program_writes_is_the_reply_unless_it_fails_or_writes_too_much() {
    let (fake, told) = questions(3);
    let command = "read n; case $n in 0) printf 'got %s' $n;; 1) echo lost; exit 1;; 2) head -c 100000 /dev/zero;; esac";
    let ended = against(fake, &["listen", "t", "-n", "3", "--exec", command, "--reply"]);
    let notes = "atonce: the command ended with exit status: 1; no reply is sent\n\
                 atonce: the command wrote more than the 1152 bytes of a message; no reply is sent\n";
    ended.expect(0, "", notes);
    let replies: Vec<_> = told.try_iter().collect();
    assert_eq!(replies.len(), 1);
    assert_eq!((&replies[0]["reply_to"], &replies[0]["text"]), (&json!("to.0"), &json!("got 0")));
}

#[test]
fn what_a_program_leaves_running_does_not_keep_its_reply_back() {
    let (fake, told) = questions(1);
    let ended =
        against(fake, &["listen", "t", "-n", "1", "--exec", "sleep 30 2>/dev/null & echo $! hi", "--reply"]);
    ended.expect(0, "", "");
    let reply = told.try_iter().next().unwrap();
    let (pid, text) = reply["text"].as_str().unwrap().split_once(' ').unwrap();
    assert_eq!(text, "hi\n");
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn lines_are_sent_without_waiting_for_the_outcome_of_the_one_before() {
    let fake = Fake::new(|session: &mut Session| {
        let request = session.expect("peers");
        crate::fake::peers(&request).iter().for_each(|line| session.tell(line));
        let requests: Vec<Value> = (0..3).map(|_| session.expect("send")).collect();
        for (request, text) in requests.iter().zip(["a", "b", "c"]) {
            assert_eq!(request["text"], text);
            session.tell(&result("delivered")(request)[0]);
        }
        session.wait_for_the_end();
    });
    let ended = fed(&fake, &["send", "pi-attic", "t", "--lines"], b"a\nb\nc\n");
    fake.finish();
    ended.expect(0, "", "atonce: 3 delivered to pi-attic\n");
}

#[test]
fn lines_are_counted_at_the_end_and_told_one_by_one_only_where_that_was_asked_for() {
    let sent = |arguments: &[&str]| {
        let arguments = [&["send", "pi-attic", "t", "--lines"], arguments].concat();
        let outcome = if arguments.contains(&"--no-ack") { "sent" } else { "delivered" };
        let fake = Fake::answering(result(outcome));
        let ended = fed(&fake, &arguments, b"a\nb\n");
        fake.finish();
        ended
    };
    sent(&["-q"]).expect(0, "", "");
    sent(&["--no-ack"]).expect(0, "", "atonce: 2 sent to pi-attic\n");
    let each = sent(&["-v"]);
    assert_eq!(each.stdout, "delivered to pi-attic in 0.8 ms (lan)\n".repeat(2));
    assert!(each.stderr.ends_with("\natonce: 2 delivered to pi-attic\n"), "{}", each.stderr);
    let json = sent(&["--json"]);
    assert_eq!((json.code, json.stdout.lines().count(), json.stderr.as_str()), (Some(0), 2, ""));
}

#[test]
fn published_lines_are_counted_at_the_end_and_that_nobody_hears_them_is_told_once() {
    let published = |peers: u64, arguments: &[&str]| {
        let fake =
            Fake::answering(move |request| vec![json!({"ev": "result", "id": request["id"], "sent": peers})]);
        let ended = fed(&fake, &[&["publish", "t", "--lines"], arguments].concat(), b"a\nb\n");
        fake.finish();
        ended
    };
    published(1, &[]).expect(0, "", "atonce: 2 sent\n");
    published(1, &["-q"]).expect(0, "", "");
    published(0, &[]).expect(0, "", "atonce: no other node listens to t now\natonce: 2 sent\n");
    let each = published(1, &["-v"]);
    assert_eq!(each.stdout, "sent to 1 peer\n".repeat(2));
    assert!(each.stderr.ends_with("\natonce: 2 sent\n"), "{}", each.stderr);
    let json = published(1, &["--json"]);
    assert_eq!((json.code, json.stdout.lines().count(), json.stderr.as_str()), (Some(0), 2, ""));
}

#[test]
fn lines_are_published_one_by_one_until_one_fails() {
    let mut texts = Vec::new();
    let fake = Fake::answering(move |request| {
        texts.push(request["text"].as_str().unwrap().to_owned());
        assert!(texts.len() <= 2 && texts[0] == "a", "{texts:?}");
        let outcome = if texts.len() == 1 { "delivered" } else { "busy" };
        let outcomes = json!([{"peer": node("pi", 2), "outcome": outcome}]);
        vec![json!({"ev": "result", "id": request["id"], "sent": 1, "outcomes": outcomes})]
    });
    let ended: Ended = fed(&fake, &["publish", "t", "--ack", "--lines"], b"a\nb\nc\n");
    fake.finish();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(8), ""));
    assert!(
        ended.stderr.starts_with("atonce: 1 sent\natonce: 1 peer of 1 did not get it\n"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("\n  it was line 2; what follows was not sent\n"), "{}", ended.stderr);
    let both = against(Fake::new(Session::wait_for_the_end), &["publish", "t", "text", "--lines"]);
    assert_eq!(both.code, Some(2));
}

#[test]
fn options_of_listening_that_exclude_each_other_are_wrong_usage() {
    let nowhere = std::path::Path::new("/nonexistent");
    for arguments in [
        &["listen", "a", "--lines", "--raw"][..],
        &["listen", "a", "--lines", "--json"],
        &["listen", "a", "--exec", "true", "--json"],
        &["listen", "a", "--exec", "true", "--raw"],
        &["listen", "a", "--reply"],
    ] {
        assert_eq!(run(nowhere, arguments).code, Some(2), "{arguments:?}");
    }
}
