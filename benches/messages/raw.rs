//! The baseline: the same bytes without any daemon, through a Unix socket, UDP or TCP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The variable that makes this program one end of a baseline; its value has the role and its numbers.
pub const ROLE: &str = "ATONCE_BENCH_ROLE";
pub const PORT: u16 = 40_404;
/// A receiver that hears nothing for so long has heard all.
const SILENCE: Duration = Duration::from_millis(300);

/// Messages a second through a pair of sockets, written in such batches.
pub fn unix(batch: &[u8], in_a_batch: usize, batches: usize) -> f64 {
    let (mut sender, mut receiver) = UnixStream::pair().unwrap();
    let total = batch.len() * batches;
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..batches).for_each(|_| sender.write_all(batch).unwrap()));
        let (mut buffer, mut read) = (vec![0; 256 << 10], 0);
        while read < total {
            read += receiver.read(&mut buffer).unwrap();
        }
    });
    (in_a_batch * batches) as f64 / began.elapsed().as_secs_f64()
}

/// Round trips through a pair of sockets, in microseconds.
pub fn unix_trips(count: usize) -> Vec<f64> {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let echo = std::thread::spawn(move || {
        let mut byte = [0; 64];
        while far.read_exact(&mut byte).is_ok() {
            far.write_all(&byte).unwrap();
        }
    });
    let trips = trips(count, || {
        near.write_all(&[0; 64]).unwrap();
        near.read_exact(&mut [0; 64]).unwrap();
    });
    drop(near);
    echo.join().unwrap();
    trips
}

/// How long each of `count` turns takes, in microseconds.
pub fn trips(count: usize, mut turn: impl FnMut()) -> Vec<f64> {
    let time = |turn: &mut dyn FnMut()| {
        let began = Instant::now();
        turn();
        began.elapsed().as_secs_f64() * 1e6
    };
    (0..count).map(|_| time(&mut turn)).collect()
}

/// Plays the role of the variable, if there is one.
pub fn play() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    let words: Vec<&str> = role.split(' ').collect();
    let number = |at: usize| words[at].parse::<usize>().unwrap();
    match words[0] {
        "udp-receive" => udp_receive(),
        "udp-send" => udp_send(words[1], number(2), number(3)),
        "tcp-receive" => tcp_receive(),
        "tcp-send" => tcp_send(words[1], number(2), number(3)),
        "udp-echo" => udp_echo(),
        "udp-trips" => udp_trips(words[1], number(2)),
        other => panic!("no role {other}"),
    }
    true
}

fn udp_receive() {
    let socket = UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    println!("ready");
    let (mut buffer, mut count, mut first, mut last) = ([0; 2048], 0_u64, None, Instant::now());
    while socket.recv(&mut buffer).is_ok() {
        last = Instant::now();
        first.get_or_insert(last);
        count += 1;
        socket.set_read_timeout(Some(SILENCE)).unwrap();
    }
    let took = first.map_or(0.0, |first| (last - first).as_secs_f64());
    println!("{}", count as f64 / took);
}

fn udp_send(to: &str, bytes: usize, count: usize) {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    socket.connect((to, PORT)).unwrap();
    let payload = vec![b'x'; bytes];
    for _ in 0..count {
        let _ = socket.send(&payload);
    }
    println!("sent");
}

fn tcp_receive() {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
    println!("ready");
    let (mut stream, _) = listener.accept().unwrap();
    let (mut buffer, mut bytes, began) = (vec![0; 256 << 10], 0, Instant::now());
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            read => bytes += read,
        }
    }
    println!("{}", bytes as f64 / began.elapsed().as_secs_f64());
}

fn tcp_send(to: &str, bytes: usize, count: usize) {
    let mut stream = TcpStream::connect((to, PORT)).unwrap();
    let payload = vec![b'x'; bytes];
    (0..count).for_each(|_| stream.write_all(&payload).unwrap());
    println!("sent");
}

fn udp_echo() {
    let socket = UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
    println!("ready");
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(&buffer[..length], from);
    }
}

fn udp_trips(to: &str, count: usize) {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    socket.connect((to, PORT)).unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    for trip in trips(count, || {
        socket.send(&[0; 64]).unwrap();
        let _ = socket.recv(&mut [0; 64]);
    }) {
        println!("{trip}");
    }
}
