//! The connections of the local apps: bytes in, cut into lines or frames for the node; bytes out, as the node has them.
//!
//! Nothing is queued here. What an app sends faster than the node takes stays in the kernel's buffer of its
//! connection, and what an app does not read stays in the node, which bounds it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, geteuid, getrlimit};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};
use zeroize::Zeroize;

use crate::core::{Node, Owner};
use crate::edge::frames::{Cut, Frames};
use crate::edge::lines::{Line, Lines};
use crate::edge::listener::Listener;
use crate::id::ClientId;
use crate::limits;
use crate::time::Instant;
use crate::wire::complaint;
use crate::wire::local::frame::{Frame, Header, PREFACE};
use crate::wire::local::{BadLine, ErrorCode, Event, Health, HealthState, Request};

/// Bytes read from one connection before the others get their turn.
const READ_BYTES: usize = 64 * 1024;
/// Descriptors that apps leave to files of the state, to sockets of other ports, and to the watch of the network.
const DESCRIPTORS_OF_FILES: u64 = 4;
/// Beside these, to whoever administers the daemon.
const DESCRIPTORS_OF_ADMINS: u64 = 4;
/// Bytes of the longest line or frame that is kept until it is whole, its header included.
const KEPT_BYTES: usize = limits::LINE_BYTES + Header::BYTES;
/// Connections taken before the others get their turn.
const ACCEPTS_IN_A_ROW: usize = 16;
/// After a failed accept, mostly for want of descriptors, so long nothing is accepted: the failure comes at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// An app that is sent away has so long to read why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// All connections of apps.
pub struct Local {
    listener: Listener,
    socket: UnixListener,
    pause: Option<Pin<Box<Sleep>>>,
    clients: BTreeMap<ClientId, Connection>,
    next: u64,
    euid: u32,
    /// How many descriptors this process may have.
    descriptors: u64,
    memory: Vec<u8>,
    /// Why the socket, which somebody removed, cannot be made again.
    missing: Option<String>,
}

impl Local {
    /// Begins to serve.
    ///
    /// # Errors
    ///
    /// The socket cannot be waited for.
    pub fn new(listener: Listener) -> io::Result<Self> {
        Ok(Self {
            socket: serving(listener.socket.try_clone()?)?,
            listener,
            missing: None,
            pause: None,
            clients: BTreeMap::new(),
            next: 1,
            euid: geteuid().as_raw(),
            descriptors: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            memory: Vec::with_capacity(READ_BYTES),
        })
    }

    /// Where apps find us.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Looks whether apps still find the socket, and makes it again if they do not. Tells how that went, when there is
    /// something new to tell.
    pub fn look(&mut self) -> Option<Health<'static>> {
        let outcome = match self.listener.renew() {
            None if self.missing.is_none() => return None,
            // Whatever was in its place is gone, and it is ours again.
            None => Ok(()),
            Some(Ok(())) => self.listener.socket.try_clone().and_then(serving).map_or_else(
                |error| Err(error.to_string()),
                |socket| {
                    self.socket = socket;
                    tracing::warn!(socket = %self.listener.path().display(), "the socket was removed, and made again");
                    Ok(())
                },
            ),
            Some(Err(error)) => Err(error.to_string()),
        };
        let missing = outcome.err();
        let is_news = missing != self.missing || missing.is_none();
        self.missing = missing;
        if !is_news {
            return None;
        }
        if let Some(reason) = &self.missing {
            tracing::error!(
                reason = complaint::one_line(reason),
                "the socket was removed, and cannot be made again"
            );
        }
        Some(socket_health(self.missing.as_deref()))
    }

    /// How many apps are connected.
    pub fn count(&self) -> usize {
        self.clients.len()
    }

    /// The node has something for this app.
    pub fn on_output(&mut self, client: ClientId) {
        if let Some(connection) = self.clients.get_mut(&client) {
            connection.writing = true;
        }
    }

    /// Nothing more is read from this app; it is closed when it has read what there is.
    pub fn on_close(&mut self, client: ClientId) {
        if let Some(connection) = self.clients.get_mut(&client) {
            connection.writing = true;
            connection.closing.get_or_insert_with(|| Box::pin(sleep(LAST_WORDS)));
        }
    }

    /// Serves everyone once; tells whether there was anything to do.
    pub fn poll(&mut self, cx: &mut Context<'_>, node: &mut Node, now: Instant) -> bool {
        let mut busy = self.poll_accept(cx, node, now);
        let mut gone = Vec::new();
        for (client, connection) in &mut self.clients {
            let mut app = App { client: *client, node, now };
            match connection.poll(cx, &mut app, &mut self.memory) {
                Ok(served) => busy |= served,
                Err(Gone) => gone.push(*client),
            }
        }
        for client in gone {
            self.clients.remove(&client);
            node.handle_hangup(client, now);
            busy = true;
        }
        busy
    }

    /// Writes what can be written without waiting: the last words before the end.
    pub fn flush(&mut self, node: &mut Node, now: Instant) {
        for (client, connection) in &mut self.clients {
            if let Ok(bytes) = connection.stream.try_write(node.output(*client)) {
                node.handle_written(*client, bytes, now);
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>, node: &mut Node, now: Instant) -> bool {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.pause = None;
        }
        for _ in 0..ACCEPTS_IN_A_ROW {
            match self.socket.poll_accept(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok((stream, _))) => self.welcome(stream, node, now),
                Poll::Ready(Err(error)) => {
                    tracing::warn!(reason = %error, "an app cannot be served");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                    return true;
                }
            }
        }
        true
    }

    fn welcome(&mut self, stream: UnixStream, node: &mut Node, now: Instant) {
        let Ok(owner) = stream.peer_cred() else { return };
        let client = ClientId(self.next);
        let uid = owner.uid();
        let owner = Owner { uid, admin: uid == 0 || uid == self.euid };
        let kept =
            if owner.admin { DESCRIPTORS_OF_FILES } else { DESCRIPTORS_OF_FILES + DESCRIPTORS_OF_ADMINS };
        // The kernel gives the lowest number that is free: so many are taken.
        let has_descriptors = u64::try_from(stream.as_raw_fd()).is_ok_and(|fd| fd + kept < self.descriptors);
        let taken = if has_descriptors {
            node.handle_connect(client, owner, now).map_err(|error| error.to_string())
        } else {
            Err("the daemon may not open more files".to_owned())
        };
        if let Err(reason) = taken {
            tracing::debug!(uid, reason, "an app was refused");
            let _ = stream.try_write(&refusal(&reason));
            return;
        }
        self.next += 1;
        self.clients.insert(client, Connection::new(stream));
    }
}

fn serving(socket: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket)
}

/// Whether apps find the socket.
fn socket_health(missing: Option<&str>) -> Health<'static> {
    let (state, why, fix) = match missing {
        None => (HealthState::Ok, "apps find the socket".to_owned(), ""),
        Some(reason) => (
            HealthState::Fail,
            format!(
                "somebody removed the socket, and it cannot be made again: {}",
                complaint::one_line(reason)
            ),
            "free its place: it is tried again within seconds, and at once by a signal HUP",
        ),
    };
    Health { check: "socket".into(), state, why: why.into(), fix: fix.into() }
}

/// One app's connection.
struct Connection {
    stream: UnixStream,
    mode: Mode,
    /// Read and not yet handed over: the beginning of a line or frame, or what the node does not take yet.
    kept: Vec<u8>,
    /// So much of `kept` is done with.
    used: usize,
    /// There may be whole lines or frames in `kept`.
    held: bool,
    /// A network secret was in what was handed over: it is overwritten.
    had_secret: bool,
    /// The app has said all; it may still read.
    finished: bool,
    /// It does not even read any more.
    unheard: bool,
    writing: bool,
    closing: Option<Pin<Box<Sleep>>>,
}

/// How an app speaks: its first byte says it.
enum Mode {
    Unknown,
    Lines(Lines),
    Frames(Frames),
}

/// The connection is over.
struct Gone;

/// The node, as far as one connection needs it.
struct App<'a> {
    client: ClientId,
    node: &'a mut Node,
    now: Instant,
}

impl Connection {
    const fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            mode: Mode::Unknown,
            kept: Vec::new(),
            used: 0,
            held: false,
            had_secret: false,
            finished: false,
            unheard: false,
            writing: false,
            closing: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, app: &mut App<'_>, memory: &mut Vec<u8>) -> Result<bool, Gone> {
        let read = self.poll_read(cx, app, memory)?;
        let written = self.poll_write(cx, app)?;
        let empty = app.node.output(app.client).is_empty();
        if self.finished && !self.held && !self.unheard && has_hung_up(&self.stream) {
            self.unheard = true;
            app.node.handle_unheard(app.client, app.now);
        }
        let overdue = self.closing.as_mut().is_some_and(|closing| closing.as_mut().poll(cx).is_ready());
        let over = (self.closing.is_some() && empty)
            || (self.finished && !self.held && app.node.is_idle(app.client));
        if over || overdue { Err(Gone) } else { Ok(read || written) }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        app: &mut App<'_>,
        memory: &mut Vec<u8>,
    ) -> Result<bool, Gone> {
        if self.closing.is_some() || !app.node.accepts(app.client) {
            return Ok(false);
        }
        if self.held {
            let mut data = std::mem::take(&mut self.kept);
            let from = self.used;
            let used = self.hand_over(&data, from, app);
            if std::mem::take(&mut self.had_secret) {
                data[from..used].zeroize();
            }
            self.keep(data, used);
            return Ok(true);
        }
        if self.finished || self.stream.poll_read_ready(cx).is_pending() {
            return Ok(false);
        }
        // The memory of all is used while nothing is kept, so an idle connection has none of its own.
        let shared = self.kept.is_empty();
        let mut data = std::mem::take(if shared { memory } else { &mut self.kept });
        data.drain(..std::mem::take(&mut self.used));
        // Beyond what is kept no more is read than the longest line needs: what many connections keep adds up.
        data.reserve_exact(if shared {
            READ_BYTES
        } else {
            READ_BYTES.min(KEPT_BYTES.saturating_sub(data.len())).max(1)
        });
        let outcome = self.stream.try_read_buf(&mut data);
        let used = if matches!(outcome, Ok(1..)) { self.hand_over(&data, 0, app) } else { 0 };
        if std::mem::take(&mut self.had_secret) {
            data[..used].zeroize();
        }
        if shared {
            self.kept.reserve_exact(data.len() - used);
            self.kept.extend_from_slice(&data[used..]);
            data.clear();
            *memory = data;
        } else {
            self.keep(data, used);
        }
        match outcome {
            Ok(0) => {
                self.finished = true;
                self.tell_unfinished(app);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Registers for the next time.
                return Ok(self.stream.poll_read_ready(cx).is_ready());
            }
            Err(_) => return Err(Gone),
            Ok(_) => {}
        }
        Ok(true)
    }

    /// The app ends in the middle of a line or frame: it may have been cut, so it is not done, and that is told.
    fn tell_unfinished(&mut self, app: &mut App<'_>) {
        let rest = &self.kept[self.used.min(self.kept.len())..];
        let told = match &self.mode {
            Mode::Unknown if rest.is_empty() => return,
            Mode::Unknown => BadLine::other_preface(),
            Mode::Lines(lines) if lines.is_blank(rest) => return,
            Mode::Lines(_) => BadLine::unfinished(),
            Mode::Frames(_) if rest.is_empty() => return,
            Mode::Frames(_) => BadLine::unfinished_frame(),
        };
        app.node.handle_request(app.client, Err(told), app.now);
        self.kept = Vec::new();
        self.used = 0;
    }

    /// Keeps what is left. It moves to the front only when more is read, not for each message that the node takes.
    fn keep(&mut self, data: Vec<u8>, used: usize) {
        let done = used >= data.len();
        (self.kept, self.used) = if done { (Vec::new(), 0) } else { (data, used) };
    }

    /// Hands over whole lines or frames, from `at` on, while the node takes them; tells how many bytes are done with.
    fn hand_over(&mut self, data: &[u8], mut at: usize, app: &mut App<'_>) -> usize {
        if let Mode::Unknown = self.mode
            && !self.choose_mode(data, &mut at, app)
        {
            return at;
        }
        loop {
            self.held = !app.node.accepts(app.client);
            if self.held {
                return at;
            }
            match &mut self.mode {
                Mode::Unknown => return at,
                Mode::Lines(lines) => {
                    let request = match lines.next(data, &mut at) {
                        Some(Line::Whole(line)) => Request::parse(line),
                        Some(Line::TooLong) => Err(BadLine::too_long()),
                        None => return at,
                    };
                    self.had_secret |= request.as_ref().is_ok_and(Request::has_secret);
                    app.node.handle_request(app.client, request, app.now);
                }
                Mode::Frames(frames) => {
                    let frame = match frames.next(data, &mut at) {
                        Some(Cut::Whole(header, body)) => Frame::parse(header, body),
                        Some(Cut::TooLong(header)) => Err(BadLine::long_body(header)),
                        None => return at,
                    };
                    self.had_secret |= frame.as_ref().is_ok_and(Frame::has_secret);
                    app.node.handle_frame(app.client, frame, app.now);
                }
            }
        }
    }

    /// Reads the preface, if there is one. False: it is not whole yet, or not ours, and then this was all.
    fn choose_mode(&mut self, data: &[u8], at: &mut usize, app: &mut App<'_>) -> bool {
        if data.first() != PREFACE.first() {
            self.mode = Mode::Lines(Lines::new());
            return true;
        }
        let length = data.len().min(PREFACE.len());
        if data[..length] != PREFACE[..length] {
            app.node.handle_request(app.client, Err(BadLine::other_preface()), app.now);
            self.writing = true;
            self.closing = Some(Box::pin(sleep(LAST_WORDS)));
            *at = data.len();
            return false;
        }
        if length < PREFACE.len() {
            return false;
        }
        *at = length;
        self.mode = Mode::Frames(Frames::new());
        app.node.handle_preface(app.client, app.now);
        true
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, app: &mut App<'_>) -> Result<bool, Gone> {
        let mut written = false;
        while self.writing {
            let output = app.node.output(app.client);
            if output.is_empty() {
                self.writing = false;
                break;
            }
            if self.stream.poll_write_ready(cx).is_pending() {
                break;
            }
            match self.stream.try_write(output) {
                Ok(bytes) => {
                    app.node.handle_written(app.client, bytes, app.now);
                    written = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Gone),
            }
        }
        Ok(written)
    }
}

/// Whether the app has closed both sides: what it sent is still brought over, but nobody reads answers.
fn has_hung_up(stream: &UnixStream) -> bool {
    let mut asked = [PollFd::new(stream, PollFlags::empty())];
    poll(&mut asked, Some(&Timespec::default())).is_ok() && asked[0].revents().contains(PollFlags::HUP)
}

/// The line for an app that cannot be taken.
fn refusal(reason: &str) -> Vec<u8> {
    let event = Event::Error {
        id: None,
        code: ErrorCode::Limit,
        message: reason.into(),
        hint: "end some of this user's apps first".into(),
    };
    let mut line = serde_json::to_vec(&event).unwrap_or_default();
    line.push(b'\n');
    line
}
