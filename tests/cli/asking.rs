//! Questions and measurements: `request` and `bench`.

use serde_json::{Value, json};

use crate::fake::{Fake, node};
use crate::{against, result, run};

fn reply(request: &Value, name: &str, text: &str) -> Value {
    json!({"ev": "reply", "id": request["id"], "from": node(name, 2), "text": text, "path": "lan",
        "at": "2026-11-23T16:00:00.000Z"})
}

/// Answers a request to one peer: with these texts, and this outcome.
fn answering(texts: &'static [&'static str], outcome: &'static str) -> Fake {
    Fake::answering(move |request| {
        assert_eq!(
            (&request["op"], &request["replies"], &request["text"]),
            (&json!("send"), &json!(1), &json!("now?"))
        );
        let mut lines: Vec<Value> = texts.iter().map(|text| reply(request, "pi-attic", text)).collect();
        let mut end = result(outcome)(request).remove(0);
        end["replies"] = json!(texts.len());
        lines.push(end);
        lines
    })
}

#[test]
fn the_reply_is_printed_as_a_line_and_byte_for_byte_where_that_was_asked_for() {
    let ask = ["request", "pi-attic", "time", "now?"];
    against(answering(&["no\u{1b}on"], "delivered"), &ask).expect(0, "no\\u{1b}on\n", "");
    let raw = against(answering(&["no\u{1b}on"], "delivered"), &[&ask[..], &["--raw"]].concat());
    raw.expect(0, "no\u{1b}on", "");
    let json = against(answering(&["noon"], "delivered"), &[&ask[..], &["--json"]].concat());
    let objects: Vec<Value> = json.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json.code, Some(0));
    assert_eq!(objects[0]["text"], "noon");
    assert_eq!((&objects[0]["ev"], &objects[1]["ev"]), (&json!("reply"), &json!("result")));
    assert_eq!((&objects[1]["outcome"], &objects[1]["replies"]), (&json!("delivered"), &json!(1)));
}

#[test]
fn the_newline_at_the_end_of_a_reply_is_that_of_the_line() {
    let ask = ["request", "pi-attic", "time", "now?"];
    against(answering(&["a\nb\n"], "delivered"), &ask).expect(0, "a\\nb\n", "");
    let raw = against(answering(&["a\nb\n"], "delivered"), &[&ask[..], &["--raw"]].concat());
    raw.expect(0, "a\nb\n", "");
}

#[test]
fn a_daemon_that_knows_no_replies_is_told_as_that_and_not_waited_for() {
    let old = against(Fake::answering(result("delivered")), &["request", "pi-attic", "time", "now?"]);
    assert_eq!(old.code, Some(1));
    let what = "atonce: the daemon of this host does not wait for replies\n";
    assert!(old.stderr.starts_with(what), "{}", old.stderr);
    let published = |request: &Value| vec![json!({"ev": "result", "id": request["id"], "sent": 1})];
    let old = against(Fake::answering(published), &["request", "--all", "time", "now?"]);
    assert_eq!(old.code, Some(1));
    assert!(old.stderr.starts_with(what), "{}", old.stderr);
}

#[test]
fn a_question_without_a_reply_ends_with_5_or_with_what_became_of_it() {
    let ask = |outcome| against(answering(&[], outcome), &["request", "pi-attic", "time", "now?"]);
    let silent = ask("delivered");
    assert_eq!((silent.code, silent.stdout.as_str()), (Some(5), ""));
    assert!(silent.stderr.starts_with("atonce: no reply from pi-attic within 5s\n"), "{}", silent.stderr);
    for (outcome, code) in [("no-listener", 8), ("busy", 8), ("unreachable", 5), ("timeout", 5)] {
        let ended = ask(outcome);
        assert_eq!(ended.code, Some(code), "{outcome}");
        assert!(ended.stderr.contains("\n  try: "), "{}", ended.stderr);
    }
}

#[test]
fn a_question_to_all_prints_who_replied_and_fails_if_fewer_did_than_were_asked_for() {
    let fake = |most: u32| {
        Fake::answering(move |request| {
            assert_eq!((&request["op"], &request["replies"]), (&json!("publish"), &json!(most)));
            assert_eq!(request["timeout_ms"], json!(2000));
            let end = json!({"ev": "result", "id": request["id"], "sent": 3, "replies": 2, "outcomes":
                [{"peer": node("pi", 2), "outcome": "delivered"}]});
            vec![reply(request, "pi", "one"), reply(request, "pa", "two"), end]
        })
    };
    let ask = ["request", "--all", "time", "now?", "--for", "2s"];
    against(fake(1024), &ask).expect(0, "pi> one\npa> two\n", "");
    against(fake(2), &[&ask[..], &["-n", "2"]].concat()).expect(0, "pi> one\npa> two\n", "");
    let few = against(fake(3), &[&ask[..], &["-n", "3"]].concat());
    assert_eq!((few.code, few.stdout.as_str()), (Some(5), "pi> one\npa> two\n"));
    let why = "atonce: 2 of 3 replies\n  it was sent to 3 peers, and delivered to 1\n";
    assert!(few.stderr.starts_with(why), "{}", few.stderr);
}

#[test]
fn a_question_to_all_that_nobody_hears_says_so_and_one_that_ends_with_its_time_names_that() {
    let asked = |sent: u64, slow: bool, arguments: &[&str]| {
        let fake = Fake::answering(move |request| {
            if slow {
                // The script's daemon lets the time of the question pass.
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            vec![json!({"ev": "result", "id": request["id"], "sent": sent, "replies": 0, "outcomes": []})]
        });
        against(fake, &[&["request", "--all", "time", "now?"], arguments].concat())
    };
    let unheard = "atonce: nobody listens to time now\n  no app here, and none of a peer that is online, listens to that topic\n  \
                   try: atonce listen time   (on any node)\n";
    asked(0, false, &[]).expect(8, "", unheard);
    asked(0, false, &["-n", "2"]).expect(8, "", unheard);
    let hint = "try: atonce peers --topic time shows who listens to it\n";
    let told =
        |what, count| format!("atonce: {what}\n  it was sent to {count} peers, and delivered to 0\n  {hint}");
    asked(2, false, &[]).expect(5, "", &told("nobody replied", 2));
    asked(2, true, &["--for", "10ms"]).expect(5, "", &told("nobody replied within 10ms", 2));
    // An app of this node, which is not counted, may have the question.
    asked(0, true, &["--for", "10ms", "-n", "2"]).expect(5, "", &told("0 of 2 replies within 10ms", 0));
}

#[test]
fn a_request_has_a_peer_or_all_and_what_does_not_fit_is_told_with_its_usage() {
    let usage = "\n\nUsage: atonce request [OPTIONS] PEER TOPIC [TEXT]\n       \
                 atonce request --all [OPTIONS] TOPIC [TEXT]\n\n";
    let missing = "the following required arguments were not provided:\n  ";
    let nowhere = std::path::Path::new("/nonexistent");
    for (arguments, what) in [
        (&["request"][..], format!("{missing}PEER\n  TOPIC")),
        (&["request", "pi"], format!("{missing}TOPIC")),
        (&["request", "--all"], format!("{missing}TOPIC")),
        (&["request", "pi", "t", "x", "y"], "unexpected argument 'y' found".to_owned()),
        (&["request", "--all", "t", "x", "y"], "unexpected argument 'y' found".to_owned()),
        (&["request", "pi", "No"], "invalid value 'No' for 'TOPIC': ".to_owned()),
        (&["request", "pi", "t", "-n", "1"], String::new()),
    ] {
        let ended = run(nowhere, arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ended.stderr.starts_with(&format!("error: {what}")), "{}", ended.stderr);
        assert!(
            ended.stderr.ends_with(&format!("{usage}For more information, try '--help'.\n")),
            "{}",
            ended.stderr
        );
    }
    let help = run(nowhere, &["request", "--help"]).stdout;
    assert!(help.contains(usage) && !help.contains("..."), "{help}");
}

#[test]
fn a_bench_tells_what_was_delivered_for_programs_and_for_people() {
    let fake = || {
        let mut count = 0_u64;
        Fake::answering(move |request| {
            assert_eq!(
                (&request["topic"], request["text"].as_str().unwrap().len()),
                (&json!("atonce.discard"), 100)
            );
            count += 1;
            result(if count.is_multiple_of(4) { "timeout" } else { "delivered" })(request)
        })
    };
    let bench = ["bench", "pi-attic", "--for", "50ms", "--size", "100", "--window", "8"];
    let json = against(fake(), &[&bench[..], &["--json"]].concat());
    assert_eq!((json.code, json.stderr.as_str()), (Some(0), ""));
    let told: Value = serde_json::from_str(&json.stdout).unwrap();
    let number = |name: &str| told[name].as_u64().unwrap();
    assert_eq!((&told["ev"], &told["peer"], number("bytes")), (&json!("bench"), &node("pi-attic", 2), 100));
    assert_eq!(number("lost"), number("sent") / 4);
    assert_eq!(number("delivered"), number("sent") - number("lost"));
    assert!(number("bits_per_s").abs_diff(number("messages_per_s") * 800) <= 800, "{told}");
    assert!(told["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(told["rtt_us"], json!({"p50": 808, "p99": 808, "max": 812}));
    let text = against(fake(), &bench);
    assert_eq!(text.code, Some(0));
    assert!(text.stdout.starts_with("pi-attic, 100 bytes: "), "{}", text.stdout);
    assert!(text.stdout.ends_with("% lost, median 0.81 ms, p99 0.81 ms, max 0.81 ms\n"), "{}", text.stdout);
}

#[test]
fn a_peer_that_cannot_be_measured_is_told_with_the_reason() {
    let old = against(Fake::answering(result("no-listener")), &["bench", "pi-attic"]);
    assert_eq!(old.code, Some(8));
    assert!(old.stderr.starts_with("atonce: pi-attic cannot be measured\n"), "{}", old.stderr);
    let gone = against(Fake::answering(result("unreachable")), &["bench", "garage"]);
    assert_eq!(gone.code, Some(5));
    let big = against(Fake::answering(result("delivered")), &["bench", "pi-attic", "--size", "1153"]);
    assert_eq!(big.code, Some(8));
}
