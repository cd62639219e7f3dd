//! What a rendezvous server does in a second, and what a registration costs it.
//!
//! `cargo bench --bench rendezvous` asks the state machine without a socket, beside a handler that only parses; and then
//! the real program over loopback, beside an echo that only receives and sends. Both share this machine's processors with
//! the one who asks. Memory is that of 100,000 registrations with blobs of 256 bytes, in networks of 100 and of 3.
#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot go on has failed, and tells; the member knows more than is asked of it"
)]

#[path = "../tests/server/member.rs"]
mod member;

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as Clock};

use allocation_counter::measure;
use atonce::crypto::namespace::{NamespaceKeys, ServerSecret};
use atonce::id::ServerKey;
use atonce::route::Route;
use atonce::server::{Config, Secrets, Server};
use atonce::time::Instant;
use atonce::wire::rendezvous::{Day, FromNode, FromServer, size};
use chacha20::ChaCha20Rng;
use member::{Member, network};
use rand_core::SeedableRng;

const REGISTRATIONS: u32 = 100_000;
const DAY: Day = Day(20_000);
const KEEPS: usize = 200_000;
/// Questions on the way at once, over loopback.
const WINDOW: usize = 64;

fn main() {
    println!("{:58} {:>12} {:>10}", "state machine, one core", "a second", "us each");
    let (mut server, mut members) = registered(100);
    let now = Instant::from_origin(Duration::from_secs(1001));
    let keeps: Vec<_> = members.iter_mut().map(|member| (member.addr, member.keep(true))).collect();
    let keeps = || keeps.iter().cycle().take(KEEPS);
    rate("keep, only parsed", KEEPS, || {
        for (_, keep) in keeps() {
            let _ = black_box(FromNode::parse(black_box(keep)));
        }
    });
    let mut buffer = Vec::new();
    rate("keep, answered (100,000 registrations)", KEEPS, || {
        for (from, keep) in keeps() {
            let _ = server.handle_datagram(Route::to(*from), keep, now);
            while server.poll_transmit(&mut buffer).is_some() {}
        }
    });
    drop((server, members));

    println!("\n{:58} {:>12} {:>10}", "loopback, one who asks", "a second", "us each");
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let echo_addr = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, from)) = echo.recv_from(&mut datagram) {
            let _ = echo.send_to(&datagram[..length], from);
        }
    });
    let mut program = Program::start();
    let (socket, mut member) = program.joined();
    let keep = member.keep(true);
    over("keep, echoed", &socket, echo_addr, &keep);
    over("keep, answered by atonce-rendezvous", &socket, program.addr, &keep);
    program.end();

    println!("\n{:58} {:>12}", "memory", "bytes each");
    for group in [100, 3] {
        let each = memory(group);
        println!("{:58} {each:>12}", format!("registration with a blob of 256 bytes, networks of {group}"));
    }
    println!("1 passed, 0 failed");
}

fn rate(what: &str, count: usize, work: impl FnOnce()) {
    let began = Clock::now();
    work();
    let took = began.elapsed().as_secs_f64();
    println!("{what:58} {:>12.0} {:>10.2}", count as f64 / took, took * 1e6 / count as f64);
}

fn server() -> Server {
    let secrets = Secrets { key: ServerSecret::new([5; 32]), tokens: [6; 32].into() };
    let now = Instant::from_origin(Duration::from_secs(1000));
    let rng = Box::new(ChaCha20Rng::from_seed([1; 32]));
    let mut server = Server::new(Config::default(), secrets, rng, now);
    server.handle_wall_clock(Duration::from_secs(u64::from(DAY.0) * 86_400), now);
    server
}

/// Members with a cookie, in networks of `group`.
fn hailed(server: &mut Server, group: u32) -> Vec<Member> {
    let now = Instant::from_origin(Duration::from_secs(1000));
    let mut keys = NamespaceKeys::of_day(&network(0), &server.key(), DAY).unwrap();
    let (mut members, mut answer) = (Vec::new(), Vec::new());
    for number in 0..REGISTRATIONS {
        if number % group == 0 {
            keys = NamespaceKeys::of_day(&network(number.into()), &server.key(), DAY).unwrap();
        }
        let [_, b, c, d] = number.to_be_bytes();
        let mut member = Member::with_keys(keys.clone(), number, ([100, b, c, d], 28282).into());
        member.blob_bytes = 256;
        let route = Route::to(member.addr);
        server.handle_datagram(route, &member.hail(), now).unwrap();
        while server.poll_transmit(&mut answer).is_some() {
            member.hear(&answer);
        }
        members.push(member);
    }
    members
}

fn registered(group: u32) -> (Server, Vec<Member>) {
    let mut server = server();
    let now = Instant::from_origin(Duration::from_secs(1000));
    let mut members = hailed(&mut server, group);
    let registers: Vec<_> = members.iter_mut().map(|member| (member.addr, member.register(0))).collect();
    let mut tokens = Vec::new();
    let mut buffer = Vec::new();
    rate("register, only parsed", registers.len(), || {
        for (_, register) in &registers {
            let _ = black_box(FromNode::parse(black_box(register)));
        }
    });
    rate("register, answered (a key exchange for each 100)", registers.len(), || {
        for (from, register) in &registers {
            server.handle_datagram(Route::to(*from), register, now).unwrap();
            while server.poll_transmit(&mut buffer).is_some() {
                let Ok(FromServer::Welcome(welcome)) = FromServer::parse(&buffer) else { continue };
                tokens.push((welcome.token, welcome.version));
            }
        }
    });
    for (member, (token, version)) in members.iter_mut().zip(tokens) {
        (member.token, member.known) = (token, version);
    }
    (server, members)
}

fn memory(group: u32) -> i64 {
    let mut server = server();
    let mut members = hailed(&mut server, group);
    let registers: Vec<_> = members.iter_mut().map(|member| (member.addr, member.register(0))).collect();
    let mut now = Instant::from_origin(Duration::from_secs(1000));
    let info = measure(|| {
        let mut buffer = Vec::new();
        for (from, register) in &registers {
            // Slow enough for the limit of new namespaces.
            now = now + Duration::from_micros(300);
            server.handle_timeout(now);
            server.handle_datagram(Route::to(*from), register, now).unwrap();
            while server.poll_transmit(&mut buffer).is_some() {}
        }
    });
    assert_eq!(server.members(), REGISTRATIONS as usize);
    info.bytes_current / i64::from(REGISTRATIONS)
}

/// The real program.
struct Program {
    child: Child,
    addr: SocketAddr,
    key: ServerKey,
    _state: tempfile::TempDir,
}

impl Program {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_atonce-rendezvous"));
        command.env_clear().arg("--state-dir").arg(state.path()).args(["--bind", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (addr, key) = line.trim_end().split_once('#').unwrap();
        Self { child, addr: addr.parse().unwrap(), key: key.parse().unwrap(), _state: state }
    }

    fn joined(&self) -> (UdpSocket, Member) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let addr = socket.local_addr().unwrap();
        let mut answer = [0; 2048];
        let mut member = Member::new(&network(1), &self.key, DAY, 1, addr);
        for message in [Member::hail as fn(&mut Member) -> Vec<u8>, |member| member.register(0)] {
            socket.send_to(&message(&mut member), self.addr).unwrap();
            let length = socket.recv(&mut answer).unwrap();
            member.hear(&answer[..length]);
        }
        (socket, member)
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks with a window of questions; what is lost is not asked again.
fn over(what: &str, socket: &UdpSocket, to: SocketAddr, question: &[u8]) {
    let mut answer = [0; 2048];
    let mut answered = 0;
    rate(what, KEEPS, || {
        for _ in 0..WINDOW {
            socket.send_to(question, to).unwrap();
        }
        while answered < KEEPS {
            let length = socket.recv(&mut answer).unwrap();
            if length == size::KEPT || length == question.len() {
                answered += 1;
                socket.send_to(question, to).unwrap();
            }
        }
    });
    // What is still on the way is not for the next one.
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    while socket.recv(&mut answer).is_ok() {}
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
}
