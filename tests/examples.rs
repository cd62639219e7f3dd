//! The examples run: each is started as a person would start it, at two daemons that know each other.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod pair;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::Receiver;

use data_encoding::{BASE64, HEXLOWER};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::pair::{App, LONG, Pair, Running};

/// A program that runs, and the lines that it prints.
struct Program {
    running: Running,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Program {
    fn start(mut command: Command) -> Self {
        // A group of its own, so that it can be interrupted as a terminal does it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running(command.spawn().unwrap());
        let output = BufReader::new(running.0.stdout.take().unwrap()).lines();
        let (tell, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || output.map_while(Result::ok).all(|line| tell.send(line).is_ok()));
        Self { input: running.0.stdin.take(), running, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(LONG).expect("it prints a line")
    }

    fn until(&self, part: &str) -> String {
        std::iter::repeat_with(|| self.line()).find(|line| line.contains(part)).unwrap()
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Ctrl-C: what it said to standard error by then, which must have been piped.
    fn interrupt(mut self) -> String {
        kill_process_group(Pid::from_child(&self.running.0), Signal::INT).unwrap();
        self.running.0.wait().unwrap();
        let mut errors = String::new();
        self.running.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }
}

fn example(language: &str, name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(language).join(name);
    let interpreter: &[&str] = match language {
        "python" => &["python3", "-W", "error", "-B"],
        "node" => &["node"],
        "shell" => &["sh"],
        other => panic!("no {other}"),
    };
    let mut command = Command::new(interpreter[0]);
    command.args(&interpreter[1..]).arg(path);
    command
}

fn python(pair: &Pair, at: &str, name: &str) -> Command {
    at_daemon(pair, at, example("python", name))
}

fn filedrop(pair: &Pair, at: &str) -> Command {
    at_daemon(pair, at, example("node", "filedrop.mjs"))
}

fn at_daemon(pair: &Pair, at: &str, mut command: Command) -> Command {
    command.env("ATONCE_SOCKET", pair.socket(at));
    command
}

fn rust_doorbell(pair: &Pair, at: &str) -> Command {
    let built = Path::new(env!("CARGO_BIN_EXE_atonced")).parent().unwrap().join("examples/doorbell");
    assert!(built.exists(), "cargo builds the examples with the tests");
    at_daemon(pair, at, Command::new(built))
}

/// Runs it to its end.
fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_lines_of_the_readme_answer_a_message() {
    let readme = include_str!("../README.md");
    let (_, program) = readme.split_once("```python\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    let pair = Pair::start();
    let mut command = Command::new("python3");
    command.args(["-c", program]).arg(pair.socket("one"));
    let _answering = Program::start(command);
    let mut app = pair.app("two");
    app.listen("chat.answer");
    app.until_listening("one", "chat");
    pair.app("one").until_listening("two", "chat.answer");
    assert_eq!(app.send("one", "chat", "dinner"), "delivered");
    assert_eq!(app.next("message")["text"], "coming");
}

fn rings(pair: &Pair, waiting: Command, ringing: impl Fn(&str) -> Command) {
    let bell = Program::start(waiting);
    pair.app("one").until_listening("two", "doorbell");
    let mut ring = ringing("one");
    ring.args(["ring", "the post"]);
    let rung = run(ring);
    assert!(rung.status.success(), "{rung:?}");
    let line = bell.line();
    assert!(line.contains("ding dong") && line.contains("the post") && line.contains("one"), "{line}");
    let answer = text(&rung.stdout);
    assert!(answer.contains("two") && answer.contains("coming"), "{answer}");
}

#[test]
fn the_rust_doorbell_rings_the_python_one_which_tells_the_desktop() {
    let pair = Pair::start();
    let desktop = tempfile::tempdir().unwrap();
    let (notify, shown) = (desktop.path().join("notify-send"), desktop.path().join("shown"));
    fs::write(&notify, format!("#!/bin/sh\nprintf '%s|' \"$@\" >{}\n", shown.display())).unwrap();
    fs::set_permissions(&notify, fs::Permissions::from_mode(0o755)).unwrap();
    let mut waiting = python(&pair, "two", "doorbell.py");
    waiting.env("PATH", format!("{}:{}", desktop.path().display(), std::env::var("PATH").unwrap()));
    rings(&pair, waiting, |at| rust_doorbell(&pair, at));
    assert_eq!(fs::read_to_string(shown).unwrap(), "--|Ding dong at one|'the post'|");
}

#[test]
fn the_python_doorbell_rings_the_rust_one() {
    let pair = Pair::start();
    rings(&pair, rust_doorbell(&pair, "two"), |at| python(&pair, at, "doorbell.py"));
}

#[test]
fn a_chat_shows_who_comes_what_they_say_and_who_goes() {
    let pair = Pair::start();
    let mut one = Program::start(python(&pair, "one", "chat.py"));
    one.until("You are one");
    let two = Program::start(python(&pair, "two", "chat.py"));
    one.until("* two is here");
    two.until("* one is here");
    one.type_line("grüße");
    assert_eq!(two.line(), "one> grüße");
    assert_eq!(pair.app("one").send("two", "chat.lobby", "clear\u{1b}[2J"), "delivered");
    assert_eq!(two.line(), "one> clear\u{fffd}[2J");
    drop(one.input.take());
    assert_eq!(two.line(), "* one has left");
    assert!(one.running.0.wait().unwrap().success());
}

#[test]
fn a_dashboard_shows_the_readings_of_sensors_and_nothing_else() {
    let pair = Pair::start();
    let lines = Program::start(python(&pair, "two", "dashboard.py"));
    // In a terminal of its own.
    let mut terminal = Command::new("python3");
    terminal.args(["-c", "import pty, sys; pty.spawn(sys.argv[1:])", "python3", "-B"]);
    terminal.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python/dashboard.py"));
    let table = Program::start(at_daemon(&pair, "one", terminal));
    pair.app("one").until_listening("two", "sensor");
    pair.app("two").until_listening("one", "sensor");
    for odd in ["no reading", "[1]", "{\"load\": \"much\", \"a\\u001b\": 7}"] {
        assert_eq!(pair.app("one").send("two", "sensor", odd), "delivered");
    }
    let mut sensor = python(&pair, "one", "sensor.py");
    sensor.args(["--count", "1"]);
    assert!(run(sensor).status.success());
    assert_eq!(lines.line(), "one  a\u{fffd} 7");
    let reading = lines.line();
    assert!(reading.starts_with("one  load ") && reading.contains("free MB"), "{reading}");
    table.until("1 devices");
    let row = table.line();
    assert!(row.starts_with("one ") && row.contains("s ago  load "), "{row:?}");
}

/// The receiver of a file drop at `two`, and where it puts the files.
struct Drop {
    program: Program,
    directory: tempfile::TempDir,
}

impl Drop {
    fn start(pair: &Pair) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { program: Self::program(pair, directory.path()), directory }
    }

    fn program(pair: &Pair, directory: &Path) -> Program {
        let mut command = filedrop(pair, "two");
        command.arg("receive").arg(directory);
        let program = Program::start(command);
        assert_eq!(program.line(), "waiting for files at two");
        pair.app("one").until_listening("two", "filedrop");
        program
    }

    /// What is there, in order.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn send_file(pair: &Pair, path: &Path) -> Output {
    let mut command = filedrop(pair, "one");
    command.args(["send", "two"]).arg(path);
    run(command)
}

/// Bytes that do not repeat, and a file with them.
fn some_file(directory: &Path, name: &str, bytes: u32) -> (PathBuf, Vec<u8>) {
    let content: Vec<u8> =
        (0..bytes.div_ceil(4)).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let path = directory.join(name);
    fs::write(&path, &content).unwrap();
    (path, content)
}

#[test]
fn a_file_arrives_whole_and_overwrites_none() {
    let pair = Pair::start();
    let drop = Drop::start(&pair);
    let outgoing = tempfile::tempdir().unwrap();
    let (path, content) = some_file(outgoing.path(), "some file.bin", 300_000);
    for name in ["some file.bin", "some file-2.bin"] {
        let sent = send_file(&pair, &path);
        assert!(sent.status.success(), "{sent:?}");
        assert!(text(&sent.stdout).contains(&format!("there as \"{name}\"")), "{sent:?}");
        assert_eq!(fs::read(drop.directory.path().join(name)).unwrap(), content);
    }
    let (empty, _) = some_file(outgoing.path(), "empty", 0);
    assert!(send_file(&pair, &empty).status.success());
    assert_eq!(drop.names(), ["empty", "some file-2.bin", "some file.bin"]);
}

/// Offers a file in plain lines, and gives the answer.
fn offer(app: &mut App, offer: &Value) -> Value {
    assert_eq!(app.send("two", "filedrop", &offer.to_string()), "delivered");
    let answer = app.next("message");
    assert_eq!(answer["topic"], "filedrop.answer");
    serde_json::from_str(answer["text"].as_str().unwrap()).unwrap()
}

fn send_chunk(app: &mut App, sha256: &str, at: u64, content: &[u8]) {
    let chunk = [&[0], &*HEXLOWER.decode(sha256.as_bytes()).unwrap(), &at.to_be_bytes(), content].concat();
    let data = BASE64.encode(&chunk);
    let sent = app.ask(json!({"op": "send", "to": "two", "topic": "filedrop", "data": data}));
    assert_eq!(sent["outcome"], "delivered");
}

fn sha256(path: &Path) -> String {
    text(&run_with(Command::new("sha256sum"), path).stdout)[..64].to_owned()
}

fn run_with(mut command: Command, path: &Path) -> Output {
    command.arg(path);
    run(command)
}

#[test]
fn a_file_that_came_in_part_goes_on_where_it_was() {
    let pair = Pair::start();
    let mut drop = Drop::start(&pair);
    let outgoing = tempfile::tempdir().unwrap();
    let (path, content) = some_file(outgoing.path(), "large", 100_000);
    let sha256 = sha256(&path);
    let offered = json!({"name": "large", "size": 100_000, "sha256": sha256});
    let mut app = pair.app("one");
    app.listen("filedrop.answer");
    app.until_listening("one", "filedrop.answer");
    assert_eq!(offer(&mut app, &offered)["at"], 0);
    send_chunk(&mut app, &sha256, 0, &content[..1000]);
    // Twice, and one with a gap before it: the receiver says where it is.
    send_chunk(&mut app, &sha256, 0, &content[..1000]);
    send_chunk(&mut app, &sha256, 1500, &content[1500..2000]);
    let answer: Value = serde_json::from_str(app.next("message")["text"].as_str().unwrap()).unwrap();
    assert_eq!(answer["at"], 1000);
    drop.program = Drop::program(&pair, drop.directory.path());
    assert_eq!(offer(&mut app, &offered)["at"], 1000);
    let sent = send_file(&pair, &path);
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(fs::read(drop.directory.path().join("large")).unwrap(), content);
    assert_eq!(drop.names(), ["large"]);
}

#[test]
fn a_file_with_a_hostile_name_or_another_content_is_refused() {
    let pair = Pair::start();
    let drop = Drop::start(&pair);
    let mut app = pair.app("one");
    app.listen("filedrop.answer");
    pair.app("two").until_listening("one", "filedrop.answer");
    let sha256 = "ab".repeat(32);
    let long = "x".repeat(201);
    for name in ["../up", "/etc/passwd", ".hidden", "..", "", "a\\b", "line\nbreak", "bell\u{7}", &long] {
        let answer = offer(&mut app, &json!({"name": name, "size": 1, "sha256": sha256}));
        assert!(answer["error"].as_str().unwrap_or_default().contains("name"), "{name:?}: {answer}");
    }
    for size in [json!(-1), json!(1.5), json!("1"), json!(2_u64.pow(40)), json!(null)] {
        let answer = offer(&mut app, &json!({"name": "x", "size": size, "sha256": sha256}));
        assert!(answer["error"].as_str().unwrap_or_default().contains("bytes"), "{size}: {answer}");
    }
    for odd in ["", "{", "null", "[]", "{\"sha256\": \"../x\"}", "{\"sha256\": 7}"] {
        assert_eq!(app.send("two", "filedrop", odd), "delivered");
    }
    assert_eq!(drop.names(), [""; 0]);
    // A link that somebody put in its place is not followed.
    let id = pair.app("one").ask(json!({"op": "hello"}))["hello"]["node"]["id"].as_str().unwrap().to_owned();
    let elsewhere = drop.directory.path().join("elsewhere");
    let part = drop.directory.path().join(format!(".filedrop-{id}.{sha256}"));
    symlink(&elsewhere, &part).unwrap();
    let offered = json!({"name": "x", "size": 4, "sha256": sha256});
    assert!(offer(&mut app, &offered)["error"].as_str().unwrap().contains("ELOOP"));
    fs::remove_file(part).unwrap();
    assert_eq!(offer(&mut app, &offered)["at"], 0);
    send_chunk(&mut app, &sha256, 0, b"1234");
    let answer: Value = serde_json::from_str(app.next("message")["text"].as_str().unwrap()).unwrap();
    assert!(answer["error"].as_str().unwrap().contains("checksum"), "{answer}");
    assert_eq!(drop.names(), [""; 0]);
}

/// A directory with these programs only.
fn only(programs: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for program in programs {
        let found = run_with(Command::new("which"), Path::new(program));
        symlink(text(&found.stdout).trim(), directory.path().join(program)).unwrap();
    }
    directory
}

#[test]
fn a_command_runs_when_a_peer_is_there_and_when_it_comes_back() {
    for tool in ["socat", "nc"] {
        let mut pair = Pair::start();
        let path = only(&["sh", "jq", "id", tool]);
        let mut command = at_daemon(&pair, "two", example("shell", "when-here.sh"));
        command.env("PATH", path.path()).args([
            "one",
            "sh",
            "-c",
            "echo \"$ATONCE_PATH $1\"",
            "-",
            "a b; exit",
        ]);
        let program = Program::start(command);
        assert_eq!(program.line(), "lan a b; exit");
        pair.restart_one();
        assert_eq!(program.line(), "lan a b; exit");
    }
}

/// Every example: with what it runs until it is stopped, and with what it does not run at all.
const EXAMPLES: [(&str, &str, &[&str], &[&str]); 6] = [
    ("python", "chat.py", &[], &["a", "b"]),
    ("python", "doorbell.py", &[], &["rong"]),
    ("python", "dashboard.py", &[], &["x"]),
    ("python", "sensor.py", &["--every", "600"], &["--every", "x"]),
    ("node", "filedrop.mjs", &["receive", "/tmp"], &["receive"]),
    ("shell", "when-here.sh", &["one", "true"], &["one"]),
];

#[test]
fn mistakes_are_answered_by_the_usage_and_a_missing_daemon_by_its_place() {
    let nowhere = tempfile::tempdir().unwrap();
    for (language, name, right, wrong) in EXAMPLES {
        let mut command = example(language, name);
        command.args(wrong);
        let output = run(command);
        assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
        assert!(text(&output.stderr).contains("usage"), "{name}: {output:?}");

        let socket = nowhere.path().join("atonced.sock");
        let mut command = example(language, name);
        command.args(right).env("ATONCE_SOCKET", &socket);
        let output = run(command);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {output:?}");
        assert!(errors.contains(socket.to_str().unwrap()) && errors.lines().count() == 1, "{name}: {errors}");
    }
}

#[test]
fn an_interrupt_ends_them_quietly() {
    let pair = Pair::start();
    let mut app = pair.app("one");
    for (language, name, right, _) in EXAMPLES {
        let mut command = at_daemon(&pair, "one", example(language, name));
        command.args(right).stderr(Stdio::piped());
        let apps = status_apps(&mut app);
        let program = Program::start(command);
        while status_apps(&mut app) == apps {}
        assert_eq!(program.interrupt(), "", "{name}");
        while status_apps(&mut app) > apps {}
    }
}

fn status_apps(app: &mut App) -> u64 {
    app.ask(json!({"op": "status"}))["status"]["apps"].as_u64().unwrap()
}
