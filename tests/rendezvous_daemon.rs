//! The rendezvous server as a process: how it starts, refuses to start, serves and ends.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed; the member knows more than is asked of it"
)]

#[path = "server/member.rs"]
mod member;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use atonce::id::ServerKey;
use atonce::wire::rendezvous::{Kind, size};
use rustix::process::{Pid, Signal, kill_process};

use crate::member::{Member, network};

/// A running server, which ends with the test.
struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    log: BufReader<ChildStderr>,
    ready: String,
    addr: SocketAddr,
    key: ServerKey,
}

fn command(dir: &Path, bind: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonce-rendezvous"));
    command.env_clear().arg("--state-dir").arg(dir.join("state")).args(["--bind", bind]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Server {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = command(dir, "127.0.0.1:0");
        command.args(args);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut ready = String::new();
        output.read_line(&mut ready).unwrap();
        let (addr, key) = ready.trim_end().split_once('#').unwrap_or_else(|| panic!("{ready:?}"));
        let (addr, key) = (addr.parse().unwrap(), key.parse().unwrap());
        Self { child, output, log, ready, addr, key }
    }

    fn end(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A member with a socket.
struct Node {
    socket: UdpSocket,
    member: Member,
}

impl Node {
    fn new(server: &Server, number: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server.addr).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The day is what the server says.
        let mut hail = [0; size::HAIL];
        hail[..4].copy_from_slice(&[0x40, 0x31, 1, 2]);
        socket.send(&hail).unwrap();
        let mut answer = [0; 1500];
        let length = socket.recv(&mut answer).unwrap();
        let parsed = atonce::wire::rendezvous::FromServer::parse(&answer[..length]);
        let Ok(atonce::wire::rendezvous::FromServer::Retry(retry)) = parsed else { panic!("{parsed:?}") };
        assert_eq!(retry.server, server.key);
        let addr = socket.local_addr().unwrap();
        let mut member = Member::new(&network(1), &server.key, retry.time.day, number, addr);
        assert_eq!(member.hear(&answer[..length]), Kind::Retry);
        Self { socket, member }
    }

    fn joined(server: &Server, number: u32) -> Self {
        let mut node = Self::new(server, number);
        let register = node.member.register(size::MESSAGE_MAX);
        node.socket.send(&register).unwrap();
        assert_eq!(node.hear(), Kind::Welcome);
        node
    }

    fn hear(&mut self) -> Kind {
        let mut answer = [0; 1500];
        let length = self.socket.recv(&mut answer).unwrap();
        self.member.hear(&answer[..length])
    }

    /// Sends it and hears until an answer of this kind comes.
    fn ask(&mut self, message: &[u8], kind: Kind) {
        self.socket.send(message).unwrap();
        while self.hear() != kind {}
    }
}

fn page(addr: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

fn free_tcp_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn two_members_meet_through_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut left = Node::joined(&server, 1);
    let mut right = Node::joined(&server, 2);
    assert!(right.member.others.contains_key(&left.member.handle));
    assert_eq!(left.hear(), Kind::Event);
    assert!(left.member.others.contains_key(&right.member.handle));
    let intro = right.member.intro(left.member.handle, b"come");
    right.socket.send(&intro).unwrap();
    assert_eq!(left.hear(), Kind::Knock);
    let bye = right.member.bye();
    right.socket.send(&bye).unwrap();
    assert_eq!(left.hear(), Kind::Event);
    assert!(left.member.others.is_empty());
}

#[test]
fn its_second_port_is_told_to_members_and_tells_only_where_a_question_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = free_tcp_port();
    let server = Server::start(dir.path(), &["--metrics", &metrics]);
    let mut node = Node::joined(&server, 1);
    let second = SocketAddr::new(server.addr.ip(), server.addr.port() + 1);
    assert_eq!(node.member.second_port.map(std::num::NonZeroU16::get), Some(second.port()));
    let socket = node.socket.try_clone().unwrap();
    socket.connect(second).unwrap();
    // What it does not answer comes first: the answer that comes is that to the last one.
    let (hail, keep, question) = (node.member.hail(), node.member.keep(true), node.member.ask_where());
    for message in [&hail[..], &keep, b"garbage", &question] {
        socket.send(message).unwrap();
    }
    let mut answer = [0; 1500];
    let (length, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!((from, length), (second, question.len()));
    assert_eq!(node.member.hear(&answer[..length]), Kind::Here);
    let page = page(&metrics);
    for line in [
        "atonce_rendezvous_messages_total{way=\"in\",kind=\"where\"} 1\n",
        "atonce_rendezvous_messages_total{way=\"out\",kind=\"here\"} 1\n",
        "atonce_rendezvous_dropped_total{reason=\"port\"} 2\n",
    ] {
        assert!(page.contains(line), "{line}{page}");
    }
}

#[test]
fn a_second_port_that_somebody_else_has_costs_a_warning_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (args, warned) in [(["--second-port", &port], true), (["--second-port", "0"], false)] {
        let server = Server::start(dir.path(), &args);
        let node = Node::joined(&server, 1);
        assert_eq!(node.member.second_port, None);
        drop(node);
        let log = server.end();
        assert_eq!(log.lines().filter(|line| line.contains("WARN")).count(), usize::from(warned), "{log}");
        assert_eq!(log.contains("--second-port"), warned, "{log}");
    }
}

#[test]
fn a_restart_keeps_the_key_and_the_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut node = Node::joined(&server, 1);
    let (key, addr) = (server.key, server.addr);
    let file = dir.path().join("state/rendezvous.key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    server.end();

    let again = Server::spawn(command(dir.path(), &addr.to_string()));
    assert_eq!((again.key, again.addr), (key, addr));
    let keep = node.member.keep(false);
    node.ask(&keep, Kind::Kept);
    assert!(node.member.register_after.is_some(), "it is known by its token and is to tell its blob");
}

#[test]
fn garbage_does_not_stop_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--log", "warn"]);
    let mut node = Node::joined(&server, 1);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..2000_u32 {
        let bytes: Vec<u8> = (0..n % 1400).map(|at| (at * 7 + n) as u8).collect();
        let bytes = if n % 2 == 0 { [&[0x40, 0x31, (n % 18) as u8, 2], &bytes[..]].concat() } else { bytes };
        let _ = stranger.send_to(&bytes, server.addr);
    }
    let keep = node.member.keep(true);
    node.ask(&keep, Kind::Kept);
    assert_eq!(server.end(), "", "below debug it says nothing of it");
}

#[test]
fn the_page_shows_counts_and_neither_an_address_nor_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = free_tcp_port();
    let server = Server::start(dir.path(), &["--metrics", &metrics, "--log", "info"]);
    let mut node = Node::joined(&server, 1);
    let keep = node.member.keep(true);
    node.ask(&keep, Kind::Kept);
    let _ = node.socket.send(b"garbage");
    node.ask(&keep, Kind::Kept);
    let page = page(&metrics);
    for line in [
        "atonce_rendezvous_registrations 1\n",
        "atonce_rendezvous_namespaces 1\n",
        "atonce_rendezvous_messages_total{way=\"in\",kind=\"hail\"} 1\n",
        "atonce_rendezvous_messages_total{way=\"in\",kind=\"register\"} 1\n",
        "atonce_rendezvous_messages_total{way=\"out\",kind=\"kept\"} 2\n",
        "atonce_rendezvous_dropped_total{reason=\"kind\"} 1\n",
        "# TYPE atonce_rendezvous_uptime_seconds gauge\n",
    ] {
        assert!(page.contains(line), "{line}{page}");
    }
    let log = server.end();
    for text in [page, log] {
        assert!(!text.contains("127.0.0.1"), "{text}");
        assert!(!text.contains(&format!(":{}", node.member.addr.port())), "{text}");
    }
}

#[test]
fn the_page_is_there_within_a_second_though_hundreds_hold_connections_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = free_tcp_port();
    let server = Server::start(dir.path(), &["--metrics", &metrics]);
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.extend((0..300).map(|_| TcpStream::connect(&metrics).unwrap()));
        let began = Instant::now();
        assert!(page(&metrics).contains("atonce_rendezvous_registrations 0\n"));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    assert!(open < 120, "{open} files are open");
    Node::joined(&server, 1);
}

#[test]
fn it_says_where_it_is_for_each_address_and_ends_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::spawn(command(dir.path(), "[::1]:0"));
    assert!(server.ready.starts_with("[::1]:") && server.addr.port() != 0, "{}", server.ready);
    assert_eq!(server.ready.trim_end().split_once('#').unwrap().1.len(), 52);
    kill_process(Pid::from_child(&server.child), Signal::INT).unwrap();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    server.output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");

    // Of all addresses it names those that can be pasted into a configuration.
    let mut everywhere = Server::spawn(command(dir.path(), "0.0.0.0:0,[::]:0"));
    assert!(!everywhere.addr.ip().is_unspecified(), "{}", everywhere.ready);
    kill_process(Pid::from_child(&everywhere.child), Signal::TERM).unwrap();
    let mut rest = String::new();
    everywhere.output.read_to_string(&mut rest).unwrap();
    for line in rest.lines() {
        let (addr, key) = line.split_once('#').unwrap();
        let addr: SocketAddr = addr.parse().unwrap();
        assert!(!addr.ip().is_unspecified() && addr.port() == everywhere.addr.port(), "{line}");
        assert_eq!(key.parse(), Ok(everywhere.key));
    }
}

#[test]
fn a_second_one_is_told_whose_the_place_is_and_a_damaged_key_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let failed = |mut command: Command| {
        let Output { status, stderr, .. } = command.output().unwrap();
        assert_eq!(status.code(), Some(1));
        String::from_utf8(stderr).unwrap()
    };
    let server = Server::start(dir.path(), &[]);
    let told = failed(command(dir.path(), "127.0.0.1:0"));
    let owner = format!("(pid {})", server.child.id());
    assert!(told.starts_with("atonce-rendezvous: the state directory ") && told.contains(&owner), "{told}");
    // No option that it does not have.
    assert!(!told.contains("--socket") && !told.contains("--name"), "{told}");
    let other = tempfile::tempdir().unwrap();
    let told = failed(command(other.path(), &server.addr.to_string()));
    assert!(told.contains("is taken\ntry: another port in --bind"), "{told}");
    server.end();
    std::fs::write(dir.path().join("state/rendezvous.key"), "what is this?\n").unwrap();
    let told = failed(command(dir.path(), "127.0.0.1:0"));
    assert!(told.contains("rendezvous.key is cut or foreign\ntry: "), "{told}");
}

#[test]
fn the_service_manager_hears_that_it_is_ready_how_it_is_and_that_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut command = command(dir.path(), "127.0.0.1:0");
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let server = Server::spawn(command);
    let mut awaited = vec!["READY=1", "STATUS=0 registrations in 0 networks", "WATCHDOG=1"];
    let hear = || {
        let mut message = [0; 4096];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    while !awaited.is_empty() {
        let told = hear();
        awaited.retain(|line| !told.lines().any(|told| told == *line));
    }
    server.end();
    while !hear().contains("STOPPING=1") {}
}

#[test]
fn a_check_tells_what_would_be_used_and_a_mistake_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("atonce-rendezvous.toml");
    std::fs::write(&file, "metrics = \"127.0.0.1:9\"\n").unwrap();
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = command(dir.path(), "127.0.0.1:0");
        command.arg("--check").arg("--config").arg(&file).env("ATONCE_RENDEZVOUS_LOG", "debug");
        let Output { status, stdout, stderr } = command.output().unwrap();
        (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
    };
    let (code, told) = check("metrics = \"127.0.0.1:9\"\n");
    assert_eq!(code, Some(0), "{told}");
    assert!(told.starts_with("# atonce-rendezvous: the configuration is good\n"), "{told}");
    assert!(told.contains("log = \"debug\"  # $ATONCE_RENDEZVOUS_LOG\n"), "{told}");
    assert!(told.contains("atonce-rendezvous.toml:1\n"), "{told}");
    let (code, told) = check("\nmetric = 1\n");
    assert_eq!(code, Some(1));
    assert!(
        told.contains("atonce-rendezvous.toml:2: unknown key `metric`, did you mean `metrics`?"),
        "{told}"
    );
}
