//! The connection that comes back: up, being greeted, or down until the next try.
//!
//! ```text
//!   Down --connected--> Greeting --all answered--> Up
//!    ^                     |                       |
//!    +-----broken, or silent for too long----------+
//! ```
//!
//! Nothing here is lost when a future is dropped: when to try again, and how long a greeting may take, are kept as moments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::Error;
use super::backoff::BackOff;
use super::connection::Connection;

#[derive(Debug)]
pub(super) struct Link {
    socket: PathBuf,
    /// How long the daemon may take to answer the greeting.
    timeout: Duration,
    state: State,
    back_off: BackOff,
    /// Why the last try failed.
    failure: Option<Error>,
}

#[derive(Debug)]
enum State {
    Up(Connection),
    /// Until when it has to be answered.
    Greeting(Connection, Instant),
    /// When to try again.
    Down(Instant),
}

impl Link {
    /// Not connected yet; the first try may be now.
    pub(super) fn new(socket: &Path, timeout: Duration) -> Self {
        let state = State::Down(Instant::now());
        Self { socket: socket.to_owned(), timeout, state, back_off: BackOff::new(), failure: None }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    pub(super) const fn is_greeting(&self) -> bool {
        matches!(self.state, State::Greeting(..))
    }

    pub(super) const fn is_down(&self) -> bool {
        matches!(self.state, State::Down(_))
    }

    /// Waits until it is time, and tries once. True if there is a connection now, which has to be greeted.
    pub(super) async fn connect(&mut self) -> bool {
        let State::Down(again_at) = self.state else { return false };
        sleep_until(again_at).await;
        match Connection::open(&self.socket) {
            Ok(connection) => {
                self.state = State::Greeting(connection, Instant::now() + self.timeout);
                true
            }
            Err(error) => {
                self.lost(Some(error));
                false
            }
        }
    }

    /// The greeting was answered.
    pub(super) fn greeted(&mut self) {
        let now = Instant::now();
        self.state = match std::mem::replace(&mut self.state, State::Down(now)) {
            State::Up(connection) | State::Greeting(connection, _) => State::Up(connection),
            State::Down(again_at) => State::Down(again_at),
        };
        self.back_off.reset();
        self.failure = None;
    }

    /// The connection is no good any more, or there is none.
    pub(super) fn lost(&mut self, why: Option<Error>) {
        self.state = State::Down(Instant::now() + self.back_off.next());
        self.failure = why;
    }

    /// Why the last try failed.
    pub(super) const fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    pub(super) const fn connection(&mut self) -> Option<&mut Connection> {
        match &mut self.state {
            State::Up(connection) | State::Greeting(connection, _) => Some(connection),
            State::Down(_) => None,
        }
    }

    /// The next line.
    pub(super) async fn line(&mut self) -> Result<Vec<u8>, Error> {
        match &mut self.state {
            State::Up(connection) => connection.line().await,
            State::Greeting(connection, deadline) => match timeout_at(*deadline, connection.line()).await {
                Ok(line) => line,
                Err(_) => Err(Error::Timeout(self.timeout)),
            },
            State::Down(_) => Err(Error::Closed),
        }
    }
}
