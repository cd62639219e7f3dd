//! Replays the talks of `tests/socket/`, byte for byte, against the real daemon: what docs/socket.md promises.
//!
//! A line `a> …` is what app `a` writes, `a< …` what it reads next, `a=` that it reads the end. An app connects with its
//! first line; after the last one everybody has read all. In a file `json-*` the rest of a line is a line, in `binary-*`
//! hexadecimal digits and `text`. What differs by run stands in `<>`; the same name is the same value within a file:
//! `<id>` the node's id, `<key>` its 32 bytes, `<token>` and `<token8>` the number of a request, and any value of its
//! form: `<at>` a time, `<at8>` its 8 bytes, `<version>`, `<n>` a number, `<n8>` its 8 bytes, `<message>` words for
//! people. `<x*9>` is nine times x.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use data_encoding::{BASE32_NOPAD, HEXLOWER};

use crate::daemon::{Daemon, connect};

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
        let pieces = || if is_binary { frame(&rest[2..]) } else { json(&rest[2..]) };
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
fn frame(text: &str) -> Vec<Piece> {
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
        "token8" | "at8" | "n8" => 8,
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
    if matches!(name, "at" | "at8" | "n" | "n8" | "version" | "message") {
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
