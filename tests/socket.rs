//! The real daemon's socket, as docs/socket.md promises it: talks that are replayed byte for byte, and apps that do not
//! read.
//!
//! A talk is a file of `tests/socket/`. In it a line `a> …` is what app `a` writes, `a< …` what it reads next, `a=` that it
//! reads the end. An app connects with its first line; after the last one everybody has read all. In a file `json-*` the
//! rest of a line is a line, in `binary-*` it is hexadecimal digits and `text`. What differs by run stands in `<>`; one of
//! the first four names is the same value in all of a file: `<id>` the node's id, `<key>` its 32 bytes, `<token>` and
//! `<token8>` the number of a request, `<at>` a time, `<at8>` its 8 bytes, `<version>`, `<n>` a number, `<message>` words
//! for people. `<x*9>` is nine times x.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use data_encoding::{BASE32_NOPAD, HEXLOWER};

use crate::daemon::{Daemon, connect, line};

/// What a line of a talk is made of.
enum Piece {
    Bytes(Vec<u8>),
    /// What differs by run.
    Value(String),
}

/// The values that were met so far, by name.
type Values = BTreeMap<String, Vec<u8>>;

#[test]
fn the_talks_in_json_mode_are_as_they_are_written_down() {
    assert!(replay("json-") >= 3);
}

#[test]
fn the_talks_in_binary_mode_are_as_they_are_written_down() {
    assert!(replay("binary-") >= 3);
}

#[test]
fn the_end_of_a_preface_that_comes_much_later_is_waited_for_and_the_end_of_a_frame_too() {
    let dir = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(dir.path(), &[]);
    let (mut app, mut answers) = connect(dir.path());
    let (mut other, mut others_answers) = connect(dir.path());
    let request = frame(1, 0, 0, 7, br#"{"op":"peers"}"#);
    let bytes = [&b"@ONCE\0\0\x01"[..], &request].concat();
    for byte in &bytes[..bytes.len() - 1] {
        app.write_all(&[*byte]).unwrap();
        // Whatever was written before was read before this is answered.
        writeln!(other, r#"{{"op":"peers","id":1}}"#).unwrap();
        assert_eq!(line(&mut others_answers)["ev"], "ok");
    }
    app.write_all(&bytes[bytes.len() - 1..]).unwrap();
    let expected = [&b"@ONCE\0\0\x01"[..], &frame(0x81, 0, 0, 7, br#"{"ev":"ok","id":7}"#)].concat();
    let mut got = vec![0; expected.len()];
    answers.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

#[test]
fn apps_that_read_nothing_in_either_mode_delay_neither_another_app_nor_the_daemon_and_cost_a_bounded_queue() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &[]);
    let (mut asker, mut answers) = connect(dir.path());
    writeln!(asker, r#"{{"op":"hello","id":1}}"#).unwrap();
    let payload = line(&mut answers)["hello"]["payload_bytes"].as_u64().unwrap() as usize;
    let (mut in_lines, _unread) = connect(dir.path());
    writeln!(in_lines, r#"{{"op":"listen","topic":"t"}}"#).unwrap();
    let (mut in_frames, _unread_too) = connect(dir.path());
    in_frames.write_all(b"@ONCE\0\0\x01").unwrap();
    in_frames.write_all(&frame(1, 0, 0, 0, br#"{"op":"listen","topic":"t"}"#)).unwrap();
    // Forty megabytes, or what that many small messages are.
    let text = "x".repeat(payload);
    let count = (40_000_000 / payload).min(8000);
    let mut outcomes = std::collections::BTreeMap::<String, usize>::new();
    for id in 0..count {
        writeln!(asker, r#"{{"op":"send","id":{id},"to":"test-node","topic":"t","text":"{text}"}}"#).unwrap();
        let outcome = line(&mut answers)["outcome"].as_str().unwrap().to_owned();
        *outcomes.entry(outcome).or_default() += 1;
    }
    assert!(outcomes["busy"] > outcomes["delivered"], "{outcomes:?}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    let kibibytes: usize = peak.trim_end_matches(" kB").parse().unwrap();
    // Two queues of a mebibyte, each in a buffer that may be twice that, beside all else that a daemon has.
    assert!(kibibytes < 40_000, "{peak}");
}

#[test]
fn an_app_that_writes_and_never_reads_is_read_no_more_and_has_all_its_answers_later() {
    let dir = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(dir.path(), &[]);
    let (mut app, mut answers) = connect(dir.path());
    app.set_nonblocking(true).unwrap();
    let hello = br#"{"op":"hello"}"#;
    let mut bytes = b"@ONCE\0\0\x01".to_vec();
    let count = 50_000_u64;
    (1..=count).for_each(|id| bytes.extend(frame(1, 0, 0, id, hello)));
    let mut written = 0;
    let mut stuck = 0;
    while stuck < 1000 {
        match app.write(&bytes[written..]) {
            Ok(more) => (written, stuck) = (written + more, 0),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                stuck += 1;
                std::thread::yield_now();
            }
        }
    }
    assert!(written < bytes.len(), "the daemon does not take everything from who does not read");
    app.set_nonblocking(false).unwrap();
    let mut writer = app.try_clone().unwrap();
    let rest = bytes.split_off(written);
    let writing = std::thread::spawn(move || writer.write_all(&rest).unwrap());
    let mut preface = [0; 8];
    answers.read_exact(&mut preface).unwrap();
    for id in 1..=count {
        let mut header = [0; 16];
        answers.read_exact(&mut header).unwrap();
        let mut body = vec![0; u32::from_le_bytes(header[..4].try_into().unwrap()) as usize];
        answers.read_exact(&mut body).unwrap();
        assert_eq!((header[4], u64::from_le_bytes(header[8..].try_into().unwrap())), (0x81, id));
    }
    writing.join().unwrap();
}

/// A frame as an app in binary mode writes it.
fn frame(kind: u8, flags: u8, chan: u16, id: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_le_bytes()[..], &[kind, flags], &chan.to_le_bytes(), &id.to_le_bytes(), body].concat()
}

fn replay(start: &str) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/socket");
    let talks = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let ours = talks.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(start));
    ours.map(|path| replay_one(&path, start == "binary-")).count()
}

fn replay_one(path: &Path, is_binary: bool) {
    let dir = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(dir.path(), &[]);
    let mut values = Values::new();
    let mut apps: BTreeMap<char, (UnixStream, BufReader<UnixStream>)> = BTreeMap::new();
    let text = std::fs::read_to_string(path).unwrap();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{}:{}", path.display(), number + 1);
        let (app, rest) = line.split_at(1);
        let (stream, reader) = apps.entry(app.chars().next().unwrap()).or_insert_with(|| connect(dir.path()));
        let pieces = || if is_binary { binary(&rest[2..]) } else { json(&rest[2..]) };
        match rest.get(..2) {
            Some("> ") => stream.write_all(&written(&pieces(), &values)).unwrap(),
            Some("< ") => expect(&pieces(), reader, &mut values, is_binary, &place),
            _ => assert_eq!((rest, reader.read(&mut [0]).ok()), ("=", Some(0)), "{place}: it is closed"),
        }
    }
    for (app, (stream, mut reader)) in apps {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "", "{}: {app} has read all", path.display());
    }
}

/// A line and its newline.
fn json(text: &str) -> Vec<Piece> {
    let mut pieces = text_pieces(text);
    pieces.push(Piece::Bytes(b"\n".to_vec()));
    pieces
}

/// Hexadecimal digits, texts between backticks, and values, in any order.
fn binary(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (n, part) in text.split('`').enumerate() {
        if n % 2 == 1 {
            pieces.extend(text_pieces(part));
            continue;
        }
        for word in part.split_whitespace() {
            if word.starts_with('<') {
                pieces.extend(text_pieces(word));
            } else {
                pieces.push(Piece::Bytes(HEXLOWER.decode(word.as_bytes()).unwrap()));
            }
        }
    }
    pieces
}

fn text_pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        pieces.push(Piece::Bytes(before.as_bytes().to_vec()));
        let (name, after) = after.split_once('>').unwrap();
        pieces.push(match name.split_once('*') {
            Some((text, times)) => Piece::Bytes(text.repeat(times.parse().unwrap()).into_bytes()),
            None => Piece::Value(name.to_owned()),
        });
        rest = after;
    }
    pieces.push(Piece::Bytes(rest.as_bytes().to_vec()));
    pieces
}

fn written(pieces: &[Piece], values: &Values) -> Vec<u8> {
    let bytes = pieces.iter().flat_map(|piece| match piece {
        Piece::Bytes(bytes) => bytes.clone(),
        Piece::Value(name) => values[name].clone(),
    });
    bytes.collect()
}

/// Reads what is expected, piece by piece.
fn expect(pieces: &[Piece], reader: &mut impl BufRead, values: &mut Values, is_binary: bool, place: &str) {
    let mut line = Vec::new();
    if !is_binary {
        reader.read_until(b'\n', &mut line).unwrap();
    }
    let whole = String::from_utf8_lossy(&line).into_owned();
    let (mut line, mut before) = (&line[..], String::new());
    for piece in pieces {
        let expected_length = match piece {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Value(name) => length_of(name, line),
        };
        let got = if is_binary {
            let mut got = vec![0; expected_length];
            reader.read_exact(&mut got).unwrap_or_else(|error| panic!("{place}: after {before}: {error}"));
            got
        } else {
            let (got, rest) = line.split_at(expected_length.min(line.len()));
            line = rest;
            got.to_vec()
        };
        let shown = String::from_utf8_lossy(&got).into_owned();
        match piece {
            Piece::Bytes(bytes) => {
                assert_eq!(shown, String::from_utf8_lossy(bytes), "{place}: after {before}, of {whole}");
                assert_eq!(got, *bytes, "{place}: after {before}");
            }
            Piece::Value(name) => learn(name, got, values, place),
        }
        before.push_str(&shown);
    }
    assert_eq!(String::from_utf8_lossy(line), "", "{place}: nothing more");
}

fn length_of(name: &str, rest: &[u8]) -> usize {
    match name {
        "id" => 52,
        "key" => 32,
        "token" => 16,
        "at" => 24,
        "token8" | "at8" => 8,
        "n" => rest.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        "version" | "message" => rest.iter().take_while(|byte| **byte != b'"').count(),
        other => panic!("<{other}> is no value"),
    }
}

/// A value has its form, and is the one that it was before.
fn learn(name: &str, got: Vec<u8>, values: &mut Values, place: &str) {
    let text = || String::from_utf8(got.clone()).unwrap();
    let form = match name {
        "id" => text().bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')),
        "token" => text().bytes().all(|byte| byte.is_ascii_hexdigit()),
        "at" => text().starts_with("20") && text().ends_with('Z'),
        _ => !got.is_empty(),
    };
    assert!(form, "{place}: {got:?} is no {name}");
    if matches!(name, "at" | "at8" | "n" | "version" | "message") {
        return;
    }
    let mut learnt = vec![(name, got.clone())];
    match name {
        "id" => learnt.push(("key", BASE32_NOPAD.decode(text().to_ascii_uppercase().as_bytes()).unwrap())),
        "token8" => {
            let number = u64::from_le_bytes(got.try_into().unwrap());
            learnt.push(("token", format!("{number:016x}").into_bytes()));
        }
        _ => {}
    }
    for (name, value) in learnt {
        let before = values.entry(name.to_owned()).or_insert_with(|| value.clone());
        assert_eq!(*before, value, "{place}: <{name}> is what it was before");
    }
}
