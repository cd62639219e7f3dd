//! One page of counters for Prometheus, by the least of HTTP/1.1 that its scraper speaks: one GET, one answer, closed.
//!
//! It serves few at once and none for long, so that whoever finds the port cannot hold up what the program is for. Who
//! comes is served at once, in the place of the one who has been there longest: so nobody keeps others away by being
//! silent.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// Connections at once: so many may come in the time that a scraper's request needs to cross the world, and it still is
/// served.
const CONNECTIONS: usize = 64;
/// Bytes of the longest request that is read: a scraper sends a few hundred.
const REQUEST_BYTES: usize = 4096;
/// How long one connection may take: a scraper asks at once, and the page fits the buffers of any socket.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nobody is accepted after the system refused to.
const PAUSE: Duration = Duration::from_millis(100);

/// Somebody wants to see the page: write it here.
pub(super) type Ask = oneshot::Sender<String>;

/// The port of the page.
pub(super) struct Metrics {
    addr: SocketAddr,
    asks: mpsc::Receiver<Ask>,
}

impl Metrics {
    /// Listens.
    ///
    /// # Errors
    ///
    /// The address cannot be had.
    pub(super) async fn open(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let (sender, asks) = mpsc::channel(CONNECTIONS);
        tokio::spawn(accept(listener, sender));
        Ok(Self { addr, asks })
    }

    /// What it is bound to.
    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ready when somebody asks.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ask> {
        match self.asks.poll_recv(cx) {
            Poll::Ready(Some(ask)) => Poll::Ready(ask),
            // The listener lives as long as the runtime.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

async fn accept(listener: TcpListener, asks: mpsc::Sender<Ask>) {
    let mut served: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                served.retain(|connection| !connection.is_finished());
                if served.len() >= CONNECTIONS
                    && let Some(longest) = served.pop_front()
                {
                    longest.abort();
                }
                let asks = asks.clone();
                let connection = tokio::spawn(async move {
                    let _ = timeout(PATIENCE, serve(stream, &asks)).await;
                });
                served.push_back(connection.abort_handle());
            }
            Err(error) => {
                tracing::debug!(reason = %error, "a reader of the metrics cannot be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(mut stream: TcpStream, asks: &mpsc::Sender<Ask>) -> io::Result<()> {
    let mut request = Vec::new();
    let is_whole = |request: &[u8]| request.windows(4).any(|window| window == b"\r\n\r\n");
    let mut rest = (&mut stream).take(REQUEST_BYTES as u64);
    while !is_whole(&request) {
        if rest.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let answer =
        match (is_whole(&request), request.split(|byte| *byte == b' ').collect::<Vec<_>>().as_slice()) {
            (true, [b"GET", b"/" | b"/metrics", ..]) => {
                let (page, written) = oneshot::channel();
                let asked = asks.send(page).await;
                let text = if asked.is_ok() { written.await.unwrap_or_default() } else { String::new() };
                response("200 OK", "text/plain; version=0.0.4", &text)
            }
            (true, [b"GET", ..]) => response("404 Not Found", "text/plain", "try: GET /metrics\n"),
            _ => response("400 Bad Request", "text/plain", "try: GET /metrics HTTP/1.1\n"),
        };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn response(status: &str, kind: &str, text: &str) -> String {
    let length = text.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Instant;

    use super::*;

    async fn ask(addr: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn the_page_is_there_for_a_get_and_for_nothing_else() {
        let mut metrics = Metrics::open(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = metrics.addr();
        let asking = tokio::spawn(async move {
            let page = ask(addr, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let long = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'x'; REQUEST_BYTES]].concat();
            let others: [&[u8]; 4] =
                [b"GET /x HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"\r\n\r\n", &long];
            let mut told = Vec::new();
            for request in others {
                told.push(ask(addr, request).await);
            }
            (page, told)
        });
        poll_fn(|cx| metrics.poll(cx)).await.send("a 1\n".to_owned()).unwrap();
        let (page, told) = asking.await.unwrap();
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\n\r\na 1\n"), "{page}");
        assert!(page.contains("Content-Length: 4\r\n"), "{page}");
        let statuses: Vec<_> = told.iter().map(|told| told.get(9..12).unwrap_or_default()).collect();
        // What was not read of the longest may make the kernel reset the connection before its answer is read.
        assert_eq!(statuses[..3], ["404", "400", "400"]);
        assert!(["400", ""].contains(&statuses[3]), "{statuses:?}");
    }

    #[tokio::test]
    async fn hundreds_of_silent_connections_do_not_keep_a_scraper_waiting() {
        let mut metrics = Metrics::open(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = metrics.addr();
        let mut silent = Vec::new();
        for number in 0..300 {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            // Some say a little, and none a whole request.
            if number % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
            }
            silent.push(stream);
        }
        let began = Instant::now();
        let asking = tokio::spawn(async move { ask(addr, b"GET / HTTP/1.1\r\n\r\n").await });
        poll_fn(|cx| metrics.poll(cx)).await.send("a 1\n".to_owned()).unwrap();
        assert!(asking.await.unwrap().starts_with("HTTP/1.1 200 OK"));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        // The earliest ones had to go, and the others go soon, though they never end.
        let mut rest = Vec::new();
        let _ = silent[1].read_to_end(&mut rest).await;
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
        for stream in &mut silent {
            let _ = stream.read_to_end(&mut rest).await;
        }
        assert!(began.elapsed() < PATIENCE * 2, "{:?}", began.elapsed());
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn who_asks_and_does_not_read_is_not_waited_for() {
        let mut metrics = Metrics::open(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = metrics.addr();
        let mut deaf = TcpStream::connect(addr).await.unwrap();
        deaf.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        // More than any socket takes at once.
        poll_fn(|cx| metrics.poll(cx)).await.send("x".repeat(64 << 20)).unwrap();
        let began = Instant::now();
        let asking = tokio::spawn(async move { ask(addr, b"GET / HTTP/1.1\r\n\r\n").await });
        poll_fn(|cx| metrics.poll(cx)).await.send(String::new()).unwrap();
        assert!(asking.await.unwrap().starts_with("HTTP/1.1 200 OK"));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        tokio::time::sleep(PATIENCE + Duration::from_millis(500)).await;
        let mut page = Vec::new();
        let _ = deaf.read_to_end(&mut page).await;
        assert!(page.len() < 64 << 20, "it was left before it had read all");
    }
}
