//! The library for apps: one connection to the daemon of this host, which comes back by itself.
//!
//! A [`Client`] asks, one question at a time, and hands out what happens meanwhile. While it waits for an answer it
//! keeps the events that arrive, and [`Client::next_event`] gives them in their order before it reads new ones. What it
//! keeps is bounded: after [`limits::CLIENT_QUEUE_MESSAGES`] messages or [`limits::CLIENT_QUEUE_BYTES`] of them the next
//! ones are dropped, and told as [`Event::Lost`] in their place; presence is never dropped, so an app that has
//! [`PRESENCE_KEPT`] unread changes gets [`Error::Behind`]. An app that calls `next_event` in a loop sees neither.
//!
//! Every future may be dropped before it is done, as in `tokio::select!`: a line is always read and written whole.
//! Every wait but that for an event has an end. Needs a tokio runtime with I/O and time.
//!
//! # When the daemon is restarted
//!
//! [`Client::connect`] fails at once if there is no daemon; [`Client::connect_when_there`] waits for one. From then on the
//! client connects again by itself whenever it is used, 50 ms to 2 s after each try. It says hello, listens and watches
//! again, and gives [`Event::Disconnected`] and [`Event::Reconnected`]; after the latter presence comes anew as a snapshot,
//! so an app that shows who is there empties its picture. Nothing is sent twice: a request that was open when the
//! connection ended is an [`Error::Closed`], though the daemon may have done it. A request that is made while there is
//! no connection waits for one, as long as it may take itself.
//!
//! # Four ways to send
//!
//! [`Client::send`] sends to one peer and waits for the outcome, [`Client::publish`] sends to all, [`Client::request`] (and
//! [`Client::request_all`]) waits for what the other app answers by [`Client::reply`], and [`Client::start_send`] starts
//! one of many.
//!
//! ```no_run
//! use atonce::client::{Client, Event, RequestOptions, SendOptions};
//!
//! # async fn run() -> Result<(), atonce::client::Error> {
//! let mut client = Client::connect().await?;
//! client.listen("chat").await?;
//! client.send("pi-attic", "chat", b"anyone there?", SendOptions::default()).await?;
//! let asked = client.request("pi-attic", "time", b"", RequestOptions::default()).await?;
//! if let Some(reply) = asked.reply {
//!     println!("{}", String::from_utf8_lossy(&reply.payload));
//! }
//! loop {
//!     match client.next_event().await? {
//!         Event::Message(message) => match &message.reply_to {
//!             Some(to) => drop(client.reply(to, b"here I am", SendOptions::default()).await?),
//!             None => println!("{}", String::from_utf8_lossy(&message.payload)),
//!         },
//!         Event::Reconnected => println!("connected again, listening as before"),
//!         _ => {}
//!     }
//! }
//! # }
//! ```

mod answer;
mod backoff;
mod connection;
mod daemon;
mod event;
mod greeting;
mod link;
mod messages;
mod request;
mod sends;
mod socket;

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

pub use answer::{Error, Pinged, Pong, Published, Sent};
use answer::{odd, owned, unfit};
pub use event::{Event, Message, PRESENCE_KEPT, Reply, ReplyTo};
use event::{Waiting, event_of};
use greeting::{Greeting, Said, Watch, Wishes};
use link::Link;
pub use messages::Requested;
use request::Line;
pub use request::{PingOptions, RequestOptions, SendOptions};
use sends::Sends;
pub use sends::{Ended, SendId};
pub use socket::default_socket;

use crate::id::RequestId;
use crate::limits;
use crate::wire::local;
pub use crate::wire::local::{
    ErrorCode, Health, HealthState, Hello, InterfaceInfo, LookingInfo, NetworkInfo, Outcome, PathInfo,
    PathKind, PeerCounts, PeerInfo, PeerOutcome, PeerRef, PeerState, Reloaded, RoundTrips, Status, WhenFull,
    WhenNoListener,
};

/// How long the answer to a message may take beyond the message's own deadline.
const GRACE: Duration = Duration::from_secs(2);

/// A connection to the daemon, and the next one when that ends.
#[derive(Debug)]
pub struct Client {
    link: Link,
    known: Known,
    hello: Hello<'static>,
    wishes: Wishes,
    greeting: Greeting,
    waiting: Waiting,
    sends: Sends,
    last_id: u64,
}

/// What the app knows of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// There was none yet.
    Nothing,
    There,
    Gone,
}

impl Client {
    /// Connects to the daemon of this host at [`default_socket`]. If there is none, that is an error at once.
    pub async fn connect() -> Result<Self, Error> {
        Self::connect_to(&default_socket(), limits::DEFAULT_TIMEOUT).await
    }

    /// Connects to the daemon at `socket`. `timeout` is how long to wait for it, and later for each of its answers,
    /// beyond what the request itself may take.
    pub async fn connect_to(socket: &Path, timeout: Duration) -> Result<Self, Error> {
        let mut client = Self::new(socket, timeout);
        while !client.link.is_up() {
            client.reconnect().await?;
            if client.link.is_down() {
                return Err(client.link.take_failure().unwrap_or(Error::Closed));
            }
        }
        Ok(client)
    }

    /// The same, and tries again for as long as `patience` says: for programs that may be started before the daemon.
    pub async fn connect_when_there(
        socket: &Path,
        timeout: Duration,
        patience: Duration,
    ) -> Result<Self, Error> {
        let mut client = Self::new(socket, timeout);
        client.ready(Instant::now() + patience, patience).await?;
        Ok(client)
    }

    fn new(socket: &Path, timeout: Duration) -> Self {
        Self {
            link: Link::new(socket, timeout),
            known: Known::Nothing,
            hello: unknown(),
            wishes: Wishes::default(),
            greeting: Greeting::default(),
            waiting: Waiting::default(),
            sends: Sends::default(),
            last_id: 0,
        }
    }

    /// Where it is connected to.
    pub fn socket(&self) -> &Path {
        self.link.socket()
    }

    /// What the daemon said of itself when it was connected to last: its node, its version, its limits.
    pub const fn hello(&self) -> &Hello<'static> {
        &self.hello
    }

    /// Asks for the messages of a topic, on this connection and on all that come after it.
    pub async fn listen(&mut self, topic: &str) -> Result<(), Error> {
        self.reach().await?;
        // Kept even if this future is dropped: the daemon was asked.
        let is_new = self.wishes.topics.insert(topic.to_owned());
        let answer = self.ask_ok(Line { topic: Some(topic), ..Line::op("listen") }).await;
        if answer.is_err() && is_new {
            self.wishes.topics.remove(topic);
        }
        answer
    }

    /// No more messages of a topic, please.
    pub async fn unlisten(&mut self, topic: &str) -> Result<(), Error> {
        self.reach().await?;
        self.wishes.topics.remove(topic);
        self.ask_ok(Line { topic: Some(topic), ..Line::op("unlisten") }).await
    }

    /// Asks to be told who and what is there, and then every change, as events; again after [`Event::Reconnected`].
    pub async fn watch(&mut self) -> Result<(), Error> {
        self.watch_as(Watch::Peers).await
    }

    /// As [`Client::watch`], and of the topics of this node's own apps too.
    pub async fn watch_all(&mut self) -> Result<(), Error> {
        self.watch_as(Watch::All).await
    }

    async fn watch_as(&mut self, watch: Watch) -> Result<(), Error> {
        self.reach().await?;
        let before = self.wishes.watch.replace(watch);
        let answer = self.ask_ok(watch.line()).await;
        if answer.is_err() {
            self.wishes.watch = before;
        }
        answer
    }

    /// The next message, change of presence, loss, or change of the connection. Waits as long as it takes: put a
    /// `tokio::time::timeout` around it, or a `select!`.
    pub async fn next_event(&mut self) -> Result<Event, Error> {
        loop {
            // `Reconnected` is told when all is listened to again.
            if !self.link.is_greeting()
                && let Some(event) = self.waiting.pop()
            {
                return Ok(event);
            }
            self.step().await?;
        }
    }

    /// Reads one line, or comes nearer to a connection.
    async fn step(&mut self) -> Result<(), Error> {
        if !self.link.is_up() {
            return self.reconnect().await;
        }
        match self.link.line().await {
            Ok(line) => self.sort(&line, None, |_, _| Found::<()>::Continue(())).map(drop),
            Err(Error::Closed) => {
                self.lost(None);
                Ok(())
            }
            Err(error) => {
                self.lost(None);
                Err(error)
            }
        }
    }

    /// One step towards a connection on which all was said that has to be said first.
    async fn reconnect(&mut self) -> Result<(), Error> {
        if self.link.is_down() {
            if self.link.connect().await {
                self.greeting = Greeting::new(&self.wishes, &mut self.last_id);
                let Some(connection) = self.link.connection() else { return Ok(()) };
                for line in self.greeting.lines() {
                    connection.put(&line)?;
                }
            }
            return Ok(());
        }
        match self.link.line().await {
            Ok(line) => self.sort(&line, None, |_, _| Found::<()>::Continue(())).map(drop),
            Err(error) => {
                self.lost(Some(error));
                Ok(())
            }
        }
    }

    /// Waits for a connection, and takes in what has come on it: a connection that has ended meanwhile is noticed before
    /// something is asked that would be lost with it.
    async fn ready(&mut self, deadline: Instant, patience: Duration) -> Result<(), Error> {
        loop {
            while !self.link.is_up() {
                match timeout_at(deadline, self.reconnect()).await {
                    Ok(step) => step?,
                    Err(_) => return Err(self.link.take_failure().unwrap_or(Error::Timeout(patience))),
                }
            }
            let Some(connection) = self.link.connection() else { continue };
            match connection.line_now().await {
                None => return Ok(()),
                Some(Ok(line)) => drop(self.sort(&line, None, |_, _| Found::<()>::Continue(()))?),
                Some(Err(_)) => self.lost(None),
            }
        }
    }

    async fn reach(&mut self) -> Result<(), Error> {
        let patience = self.link.timeout();
        self.ready(Instant::now() + patience, patience).await
    }

    /// The connection has ended, or is no good.
    fn lost(&mut self, why: Option<Error>) {
        self.link.lost(why);
        self.greeting = Greeting::default();
        self.sends.broken();
        if self.known == Known::There {
            self.known = Known::Gone;
            self.waiting.push_connection(Event::Disconnected);
        }
    }

    async fn ask_ok(&mut self, request: Line<'_>) -> Result<(), Error> {
        self.ask(request, self.link.timeout(), |event, _| ok(&event)).await
    }

    /// Asks, and gives `take` each line of the answer until it has what it wants. `patience` is for each of them.
    async fn ask<T>(
        &mut self,
        request: Line<'_>,
        patience: Duration,
        mut take: impl FnMut(local::Event<'_>, &[u8]) -> Found<T>,
    ) -> Result<T, Error> {
        let mut deadline = Instant::now() + patience;
        self.ready(deadline, patience).await?;
        let id = self.put(request)?;
        loop {
            let Ok(line) = timeout_at(deadline, self.link.line()).await else {
                return Err(Error::Timeout(patience));
            };
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    self.lost(None);
                    return Err(error);
                }
            };
            match self.sort(&line, Some(id), &mut take)? {
                Sorted::Done(answer) => return answer,
                Sorted::Part => deadline = Instant::now() + patience,
                Sorted::Other => {}
            }
        }
    }

    /// Puts a request to what is to be written.
    fn put(&mut self, request: Line<'_>) -> Result<RequestId, Error> {
        let Some(connection) = self.link.connection() else { return Err(Error::Closed) };
        self.last_id += 1;
        let id = RequestId(self.last_id);
        connection.put(&Line { id: Some(id), ..request })?;
        Ok(id)
    }

    /// Puts a line where it belongs: to the events that wait, to the answer to `id`, to the greeting, to the sends that
    /// were started, or nowhere. What is not our protocol ends the connection.
    fn sort<T>(
        &mut self,
        line: &[u8],
        id: Option<RequestId>,
        take: impl FnMut(local::Event<'_>, &[u8]) -> Found<T>,
    ) -> Result<Sorted<T>, Error> {
        let sorted = self.sort_line(line, id, take);
        if let Err(Error::Protocol(_)) = &sorted {
            self.lost(None);
        }
        sorted
    }

    fn sort_line<T>(
        &mut self,
        line: &[u8],
        id: Option<RequestId>,
        mut take: impl FnMut(local::Event<'_>, &[u8]) -> Found<T>,
    ) -> Result<Sorted<T>, Error> {
        let event = match serde_json::from_slice::<local::Event<'_>>(line) {
            Ok(event) => event,
            Err(error) if self.is_of_a_newer_daemon(line, id) => {
                tracing::debug!(%error, "a line of an unknown kind is skipped");
                return Ok(Sorted::Other);
            }
            Err(error) => return Err(odd(error)),
        };
        let of = match &event {
            local::Event::Error { id: of, .. }
            | local::Event::Ok { id: of, .. }
            | local::Event::Result { id: of, .. }
            | local::Event::Invitation { id: of, .. }
            | local::Event::Pong { id: of, .. } => *of,
            local::Event::Reply { id: of, .. } => Some(*of),
            local::Event::Peer(_) => id,
            // Of the binary mode, which this does not speak.
            local::Event::Source { .. } => None,
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
        match of {
            Some(of) if self.greeting.awaits(of) => self.greeted(of, event).map(|()| Sorted::Other),
            Some(of) if self.sends.awaits(of) => {
                self.sends.answered(of, event);
                Ok(Sorted::Other)
            }
            // Of no request in particular: the last words before the daemon closes.
            None => match accepted(event) {
                Err(refused) if self.link.is_greeting() => {
                    self.lost(Some(refused));
                    Ok(Sorted::Other)
                }
                accepted => accepted.map(|_| Sorted::Other),
            },
            Some(of) if Some(of) == id => Ok(match take(accepted(event)?, line) {
                Found::Break(answer) => Sorted::Done(answer),
                Found::Continue(()) => Sorted::Part,
            }),
            // The late answer to a question that nobody waits for any more.
            _ => Ok(Sorted::Other),
        }
    }

    /// Takes the answer to a line of the greeting.
    fn greeted(&mut self, id: RequestId, event: local::Event<'_>) -> Result<(), Error> {
        let Some(said) = self.greeting.answered(id) else { return Ok(()) };
        let mut refused = Ok(());
        match (said, accepted(event)) {
            (Said::Hello, Ok(local::Event::Ok { hello: Some(hello), .. })) => {
                self.hello = owned_hello(hello);
                if self.known == Known::Gone {
                    self.waiting.push_connection(Event::Reconnected);
                }
                self.known = Known::There;
            }
            (Said::Hello, Err(error)) => {
                self.lost(Some(error));
                return Ok(());
            }
            (Said::Listen(topic), Err(error)) => {
                self.wishes.topics.remove(&topic);
                refused = Err(error);
            }
            (Said::Watch(_), Err(error)) => {
                self.wishes.watch = None;
                refused = Err(error);
            }
            (Said::Listen(_) | Said::Watch(_), Ok(local::Event::Ok { .. })) => {}
            (_, Ok(event)) => return Err(unfit(&event)),
        }
        if self.greeting.is_done() {
            self.link.greeted();
        }
        refused
    }

    /// Whether a line that could not be read is an event of a kind that came after this version, and nobody waits for it.
    fn is_of_a_newer_daemon(&self, line: &[u8], asked: Option<RequestId>) -> bool {
        #[derive(Deserialize)]
        struct Any {
            #[serde(rename = "ev")]
            _ev: String,
            id: Option<serde_json::Value>,
        }
        let Ok(any) = serde_json::from_slice::<Any>(line) else { return false };
        let Some(id) = any.id.and_then(|id| id.as_u64()).map(RequestId) else { return true };
        asked != Some(id) && !self.greeting.awaits(id) && !self.sends.awaits(id)
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
    let local::Event::Ok { .. } = event else { return Found::Break(Err(unfit(event))) };
    Found::Break(Ok(()))
}

/// The daemon's answer, unless it refuses.
fn accepted(event: local::Event<'_>) -> Result<local::Event<'_>, Error> {
    let local::Event::Error { code, message, hint, .. } = event else { return Ok(event) };
    Err(Error::Refused { code, message: message.into_owned(), hint: hint.into_owned() })
}

fn owned_hello(hello: Hello<'_>) -> Hello<'static> {
    Hello {
        v: hello.v,
        version: Cow::Owned(hello.version.into_owned()),
        node: owned(hello.node),
        payload_bytes: hello.payload_bytes,
        line_bytes: hello.line_bytes,
    }
}

/// Until the daemon said it.
fn unknown() -> Hello<'static> {
    let node = PeerRef { name: Cow::Borrowed(""), id: crate::id::NodeId([0; 32]) };
    Hello { v: 0, version: Cow::Borrowed(""), node, payload_bytes: 0, line_bytes: 0 }
}
