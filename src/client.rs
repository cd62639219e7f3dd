//! The library for apps: one connection to the daemon of this host.
//!
//! A [`Client`] asks, one question at a time, and hands out what happens meanwhile. While it waits for an answer it
//! keeps the events that arrive, and [`Client::next_event`] gives them in their order before it reads new ones. What it
//! keeps is bounded: after [`limits::CLIENT_QUEUE_MESSAGES`] messages or [`limits::CLIENT_QUEUE_BYTES`] of them the next
//! ones are dropped, and told as [`Event::Lost`] in their place; presence is never dropped, so an app that has
//! [`PRESENCE_KEPT`] unread changes gets [`Error::Behind`]. An app that calls `next_event` in a loop sees neither.
//!
//! Every future may be dropped before it is done, as in `tokio::select!`: a line is always read and written whole.
//! Needs a tokio runtime with I/O and time.
//!
//! ```no_run
//! use atonce::client::{Client, Event, SendOptions};
//!
//! # async fn run() -> Result<(), atonce::client::Error> {
//! let mut client = Client::connect().await?;
//! client.listen("chat").await?;
//! client.send("pi-attic", "chat", b"anyone there?", SendOptions::default()).await?;
//! loop {
//!     if let Event::Message(message) = client.next_event().await? {
//!         client.send(&message.from.id.to_string(), "chat", &message.payload, SendOptions::default()).await?;
//!     }
//! }
//! # }
//! ```

mod answer;
mod event;
mod request;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::{Zeroize, Zeroizing};

use answer::owned;
pub use answer::{Error, Pinged, Pong, Published, Sent};
pub use event::{Event, Message, PRESENCE_KEPT};
use event::{Waiting, event_of};
use request::{Line, milliseconds};
pub use request::{PingOptions, SendOptions};

use crate::id::RequestId;
use crate::limits;
use crate::wire::local;
pub use crate::wire::local::{
    ErrorCode, Health, HealthState, Hello, InterfaceInfo, NetworkInfo, Outcome, PathInfo, PathKind,
    PeerCounts, PeerInfo, PeerOutcome, PeerRef, PeerState, Reloaded, RoundTrips, Status, WhenFull,
};

/// How long the answer to a message may take beyond the message's own deadline.
const GRACE: Duration = Duration::from_secs(2);
/// Where the daemon listens when systemd runs it.
const SYSTEM_SOCKET: &str = "/run/atonce/atonced.sock";

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    hello: Hello<'static>,
    timeout: Duration,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// The part of a line that has come so far.
    line: Vec<u8>,
    /// What has not been written yet.
    output: Vec<u8>,
    waiting: Waiting,
    last_id: u64,
}

/// The daemon's socket, where nothing else was said: `$ATONCE_SOCKET`, `/run/atonce/atonced.sock` when it exists,
/// `$XDG_RUNTIME_DIR/atonce/atonced.sock`, `/tmp/atonce-$UID/atonced.sock`.
pub fn default_socket() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set("ATONCE_SOCKET") {
        return path;
    }
    let system = PathBuf::from(SYSTEM_SOCKET);
    if !matches!(system.try_exists(), Ok(false)) {
        return system;
    }
    let directory = set("XDG_RUNTIME_DIR").map_or_else(shared_directory, |runtime| runtime.join("atonce"));
    directory.join("atonced.sock")
}

fn shared_directory() -> PathBuf {
    PathBuf::from(format!("/tmp/atonce-{}", rustix::process::getuid().as_raw()))
}

impl Client {
    /// Connects to the daemon of this host at [`default_socket`].
    pub async fn connect() -> Result<Self, Error> {
        Self::connect_to(&default_socket(), limits::DEFAULT_TIMEOUT).await
    }

    /// Connects to the daemon at `socket`. `timeout` is how long to wait for it, and later for each of its answers,
    /// beyond what the request itself may take.
    pub async fn connect_to(socket: &Path, timeout: Duration) -> Result<Self, Error> {
        let stream = open(socket, timeout).await?;
        let (reader, writer) = stream.into_split();
        let mut client = Self {
            socket: socket.to_owned(),
            hello: unknown(),
            timeout,
            reader: BufReader::with_capacity(64 * 1024, reader),
            writer,
            line: Vec::new(),
            output: Vec::new(),
            waiting: Waiting::default(),
            last_id: 0,
        };
        client.hello = client.ask(Line::op("hello"), timeout, |event, _| hello_of(event)).await?;
        Ok(client)
    }

    /// Where it is connected to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the daemon said of itself: its node, its version, its limits.
    pub const fn hello(&self) -> &Hello<'static> {
        &self.hello
    }

    /// Asks for the messages of a topic.
    pub async fn listen(&mut self, topic: &str) -> Result<(), Error> {
        self.ask_ok(Line { topic: Some(topic), ..Line::op("listen") }).await
    }

    /// No more messages of a topic, please.
    pub async fn unlisten(&mut self, topic: &str) -> Result<(), Error> {
        self.ask_ok(Line { topic: Some(topic), ..Line::op("unlisten") }).await
    }

    /// Sends one message to the listeners of a topic on one peer, and waits for what becomes of it.
    ///
    /// `to` is an exact name or id. A name that nobody ever had is an [`Error::Refused`]; that a known peer did not get
    /// the message is an outcome.
    pub async fn send(
        &mut self,
        to: &str,
        topic: &str,
        payload: &[u8],
        options: SendOptions,
    ) -> Result<Sent, Error> {
        let request = Line { to: Some(to), ..Line::message("send", topic, options) };
        self.ask_message(request, payload, options, |event, _| {
            let local::Event::Result { ending: local::Ending::Send { outcome, peer, path, rtt_us, .. }, .. } =
                event
            else {
                return unfit(&event);
            };
            Found::Break(Ok(Sent { outcome, peer: owned(peer), path, rtt_us }))
        })
        .await
    }

    /// Sends one message to the listeners of a topic on every peer. With [`SendOptions::ack`] it waits for what becomes of
    /// each copy, without it is best effort and done at once.
    pub async fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        options: SendOptions,
    ) -> Result<Published, Error> {
        let request = Line::message("publish", topic, options);
        self.ask_message(request, payload, options, |event, _| {
            let local::Event::Result { ending: local::Ending::Publish { sent, outcomes, .. }, .. } = event else {
                return unfit(&event);
            };
            let each = |copy: PeerOutcome<'_>| PeerOutcome { peer: owned(copy.peer), outcome: copy.outcome };
            let outcomes = outcomes.map(|all| all.into_iter().map(each).collect());
            Found::Break(Ok(Published { sent, outcomes }))
        })
        .await
    }

    /// Measures the way to a peer, an exact name or id; `each` is called with every answer as it comes.
    pub async fn ping(
        &mut self,
        to: &str,
        options: PingOptions,
        mut each: impl FnMut(Pong),
    ) -> Result<Pinged, Error> {
        let request = Line {
            to: Some(to),
            count: Some(options.count),
            interval_ms: Some(milliseconds(options.interval)),
            timeout_ms: Some(milliseconds(options.timeout)),
            ..Line::op("ping")
        };
        let patience = options.timeout.max(options.interval) + GRACE;
        self.ask(request, patience, |event, line| {
            if let local::Event::Pong { peer, seq, rtt_us, path, addr, error, .. } = event {
                each(Pong { peer: peer.map(owned), seq, rtt_us, path, addr, error });
                return Found::Continue(());
            }
            let local::Event::Result { .. } = event else { return unfit(&event) };
            // Read by its own name: the end of a publication has some of the same fields.
            Found::Break(serde_json::from_slice::<Pinged>(line).map_err(odd))
        })
        .await
    }

    /// Lists the peers, those that are offline included, by id.
    pub async fn peers(&mut self) -> Result<Vec<PeerInfo<'static>>, Error> {
        let mut peers = BTreeMap::new();
        self.ask(Line::op("peers"), self.timeout, |event, line| {
            let local::Event::Peer(_) = event else { return ok(&event) };
            match serde_json::from_slice::<PeerInfo<'static>>(line) {
                Ok(info) => {
                    peers.insert(info.id, info);
                    Found::Continue(())
                }
                Err(error) => Found::Break(Err(odd(error))),
            }
        })
        .await?;
        Ok(peers.into_values().collect())
    }

    /// Asks the daemon how it is.
    pub async fn status(&mut self) -> Result<Status<'static>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            status: Status<'static>,
        }
        let read = |line: &[u8]| serde_json::from_slice::<Answer>(line).map(|answer| answer.status);
        self.ask(Line::op("status"), self.timeout, |_, line| Found::Break(read(line).map_err(odd))).await
    }

    /// Asks to be told who and what is there, and then every change, as events.
    pub async fn watch(&mut self) -> Result<(), Error> {
        self.ask_ok(Line::op("watch")).await
    }

    /// As [`Client::watch`], and of the topics of this node's own apps too.
    pub async fn watch_all(&mut self) -> Result<(), Error> {
        self.ask_ok(Line { own: Some(true), ..Line::op("watch") }).await
    }

    /// Makes the daemon forget a peer: its name goes to whoever else has it, and the peer may come back as a new one.
    /// `to` is an exact name or id.
    pub async fn forget(&mut self, to: &str) -> Result<(), Error> {
        self.ask_ok(Line { to: Some(to), ..Line::op("forget") }).await
    }

    /// Asks which network the node belongs to.
    pub async fn network(&mut self) -> Result<NetworkInfo<'static>, Error> {
        self.ask_network(Line { action: Some("show"), ..Line::op("network") }).await
    }

    /// Makes the node a member of the private network with this secret, the line that `atonce network create` or
    /// `atonce invite` printed.
    pub async fn join_network(&mut self, secret: &str) -> Result<NetworkInfo<'static>, Error> {
        self.join(secret, None).await
    }

    /// The same, and goes on with the members of the private network of before, until
    /// [`settle_network`](Self::settle_network): for the time in which all members change their secret.
    pub async fn change_secret(&mut self, secret: &str) -> Result<NetworkInfo<'static>, Error> {
        self.join(secret, Some(true)).await
    }

    async fn join(&mut self, secret: &str, keep: Option<bool>) -> Result<NetworkInfo<'static>, Error> {
        let request = Line { action: Some("join"), secret: Some(secret), keep, ..Line::op("network") };
        let answer = self.ask_network(request).await;
        self.output.zeroize();
        answer
    }

    /// Makes the node talk no more to members that have only the secret of before.
    pub async fn settle_network(&mut self) -> Result<NetworkInfo<'static>, Error> {
        self.ask_network(Line { action: Some("settle"), ..Line::op("network") }).await
    }

    /// Makes the node a member of the open network.
    pub async fn leave_network(&mut self) -> Result<NetworkInfo<'static>, Error> {
        self.ask_network(Line { action: Some("leave"), ..Line::op("network") }).await
    }

    /// Asks for the line that makes another node a member: the secret and the servers of the network. Whoever reads it
    /// is a member. The open network has none, which is an [`Error::Refused`].
    pub async fn invite(&mut self) -> Result<Zeroizing<String>, Error> {
        let read = |event: local::Event<'_>| {
            let local::Event::Invitation { line, .. } = event else { return unfit(&event) };
            Found::Break(Ok(Zeroizing::new(line.0.into_owned())))
        };
        self.ask(Line::op("invite"), self.timeout, |event, _| read(event)).await
    }

    /// Makes the daemon read its configuration again. A mistake in it is an [`Error::Refused`], and nothing has changed.
    pub async fn reload(&mut self) -> Result<Reloaded<'static>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            reload: Reloaded<'static>,
        }
        let read = |line: &[u8]| serde_json::from_slice::<Answer>(line).map(|answer| answer.reload);
        let request = Line::op("reload");
        self.ask(request, self.timeout, |_, line| Found::Break(read(line).map_err(odd))).await
    }

    /// The next message, change of presence, or loss. Waits as long as it takes: put a `tokio::time::timeout` around
    /// it, or a `select!`.
    pub async fn next_event(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.waiting.pop() {
                return Ok(event);
            }
            let line = self.read_line().await?;
            self.sort(&line, None, |_, _| Found::<()>::Continue(()))?;
        }
    }

    async fn ask_ok(&mut self, request: Line<'_>) -> Result<(), Error> {
        self.ask(request, self.timeout, |event, _| ok(&event)).await
    }

    async fn ask_network(&mut self, request: Line<'_>) -> Result<NetworkInfo<'static>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            network: NetworkInfo<'static>,
        }
        let read = |line: &[u8]| serde_json::from_slice::<Answer>(line).map(|answer| answer.network);
        self.ask(request, self.timeout, |_, line| Found::Break(read(line).map_err(odd))).await
    }

    async fn ask_message<T>(
        &mut self,
        request: Line<'_>,
        payload: &[u8],
        options: SendOptions,
        take: impl FnMut(local::Event<'_>, &[u8]) -> Found<T>,
    ) -> Result<T, Error> {
        let most = usize::try_from(self.hello.payload_bytes).unwrap_or(usize::MAX);
        if payload.len() > most {
            return Err(Error::TooBig { bytes: payload.len(), most });
        }
        // Text of control characters alone grows to six times its size in JSON: base64 always fits.
        let text =
            std::str::from_utf8(payload).ok().filter(|text| escaped_len(text) <= limits::LINE_BYTES / 2);
        let data = text.is_none().then(|| BASE64.encode(payload));
        let request = Line { text, data: data.as_deref(), ..request };
        self.ask(request, options.timeout + GRACE, take).await
    }

    /// Asks, and gives `take` each line of the answer until it has what it wants. `patience` is for each of them.
    async fn ask<T>(
        &mut self,
        request: Line<'_>,
        patience: Duration,
        mut take: impl FnMut(local::Event<'_>, &[u8]) -> Found<T>,
    ) -> Result<T, Error> {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        serde_json::to_writer(&mut self.output, &Line { id: Some(id), ..request }).map_err(odd)?;
        self.output.push(b'\n');
        let mut deadline = Instant::now() + patience;
        loop {
            let Ok(line) = timeout_at(deadline, self.read_line()).await else {
                return Err(Error::Timeout(patience));
            };
            match self.sort(&line?, Some(id), &mut take)? {
                Sorted::Done(answer) => return answer,
                Sorted::Part => deadline = Instant::now() + patience,
                Sorted::Other => {}
            }
        }
    }

    /// Puts a line where it belongs: to the events that wait, to the answer to `id`, or nowhere.
    fn sort<T>(
        &mut self,
        line: &[u8],
        id: Option<RequestId>,
        mut take: impl FnMut(local::Event<'_>, &[u8]) -> Found<T>,
    ) -> Result<Sorted<T>, Error> {
        let event = match serde_json::from_slice::<local::Event<'_>>(line) {
            Ok(event) => event,
            Err(error) if is_of_a_newer_daemon(line, id) => {
                tracing::debug!(%error, "a line of an unknown kind is skipped");
                return Ok(Sorted::Other);
            }
            Err(error) => return Err(odd(error)),
        };
        let ours = match &event {
            local::Event::Error { id: None, .. } => true,
            local::Event::Error { id: of, .. }
            | local::Event::Ok { id: of, .. }
            | local::Event::Result { id: of, .. }
            | local::Event::Invitation { id: of, .. }
            | local::Event::Reply { id: of, .. }
            | local::Event::Pong { id: of, .. } => id.is_some() && *of == id,
            local::Event::Peer(_) => id.is_some(),
            local::Event::Message { .. }
            | local::Event::Enter { .. }
            | local::Event::Exit { .. }
            | local::Event::Path { .. }
            | local::Event::Listen { .. }
            | local::Event::Unlisten { .. }
            | local::Event::Lost { .. } => {
                let Some(event) = event_of(event)? else { return Ok(Sorted::Other) };
                return self.waiting.push(event).map(|()| Sorted::Other);
            }
        };
        if !ours {
            // The late answer to a question that nobody waits for any more.
            return Ok(Sorted::Other);
        }
        if let local::Event::Error { code, message, hint, .. } = event {
            return Err(Error::Refused { code, message: message.into_owned(), hint: hint.into_owned() });
        }
        Ok(match take(event, line) {
            Found::Break(answer) => Sorted::Done(answer),
            Found::Continue(()) => Sorted::Part,
        })
    }

    /// The next line, without its newline. Meanwhile writes what there is to write: the daemon stops reading an app
    /// that does not read.
    async fn read_line(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            tokio::select! {
                available = self.reader.fill_buf() => {
                    let Ok(available) = available else { return Err(Error::Closed) };
                    if available.is_empty() {
                        return Err(Error::Closed);
                    }
                    let end = available.iter().position(|byte| *byte == b'\n');
                    let taken = end.unwrap_or(available.len());
                    self.line.extend_from_slice(&available[..taken]);
                    self.reader.consume(end.map_or(taken, |end| end + 1));
                    if self.line.len() >= limits::LINE_BYTES {
                        return Err(Error::Protocol(format!("a line of more than {} bytes", limits::LINE_BYTES)));
                    }
                    if end.is_some() {
                        return Ok(std::mem::take(&mut self.line));
                    }
                }
                written = self.writer.write(&self.output), if !self.output.is_empty() => match written {
                    Ok(written) => drop(self.output.drain(..written)),
                    // The daemon's last words may still be there to be read.
                    Err(_) => self.output.clear(),
                }
            }
        }
    }
}

async fn open(socket: &Path, within: Duration) -> Result<UnixStream, Error> {
    let unreachable = |source| Error::Unreachable { path: socket.to_owned(), source };
    // Anybody may create a directory in /tmp: what another user put there is not our daemon.
    let directory = shared_directory();
    if socket.starts_with(&directory)
        && let Ok(found) = std::fs::metadata(&directory)
        && found.uid() != rustix::process::getuid().as_raw()
    {
        let text = format!("{} belongs to another user", directory.display());
        return Err(unreachable(io::Error::other(text)));
    }
    match timeout(within, UnixStream::connect(socket)).await {
        Ok(connected) => connected.map_err(unreachable),
        Err(_) => Err(Error::Timeout(within)),
    }
}

/// Done with an answer or an error, or more lines to come.
type Found<T> = ControlFlow<Result<T, Error>>;

/// Where a line belonged.
enum Sorted<T> {
    /// It ended the answer.
    Done(Result<T, Error>),
    /// It was a part of the answer.
    Part,
    /// It was something else.
    Other,
}

fn ok(event: &local::Event<'_>) -> Found<()> {
    let local::Event::Ok { .. } = event else { return unfit(event) };
    Found::Break(Ok(()))
}

fn hello_of(event: local::Event<'_>) -> Found<Hello<'static>> {
    let local::Event::Ok { hello: Some(hello), .. } = event else { return unfit(&event) };
    Found::Break(Ok(Hello {
        v: hello.v,
        version: Cow::Owned(hello.version.into_owned()),
        node: owned(hello.node),
        payload_bytes: hello.payload_bytes,
        line_bytes: hello.line_bytes,
    }))
}

/// Until the daemon said it.
fn unknown() -> Hello<'static> {
    let node = PeerRef { name: Cow::Borrowed(""), id: crate::id::NodeId([0; 32]) };
    Hello { v: 0, version: Cow::Borrowed(""), node, payload_bytes: 0, line_bytes: 0 }
}

fn unfit<T>(event: &local::Event<'_>) -> Found<T> {
    let shown: String = format!("{event:?}").chars().take(80).collect();
    Found::Break(Err(Error::Protocol(format!("this does not answer what was asked: {shown}"))))
}

fn odd(error: serde_json::Error) -> Error {
    Error::Protocol(error.to_string())
}

/// Whether a line that could not be read is an event of a kind that came after this version, and nobody waits for it.
fn is_of_a_newer_daemon(line: &[u8], id: Option<RequestId>) -> bool {
    #[derive(Deserialize)]
    struct Any {
        #[serde(rename = "ev")]
        _ev: String,
        id: Option<serde_json::Value>,
    }
    let Ok(any) = serde_json::from_slice::<Any>(line) else { return false };
    id.is_none_or(|RequestId(id)| any.id != Some(id.into()))
}

/// Bytes of a text in JSON, quotes aside.
fn escaped_len(text: &str) -> usize {
    let escaped = |byte| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}
