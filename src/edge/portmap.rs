//! A port of the home router that leads to our sessions: asked for, renewed, given back.
//!
//! A task beside the daemon's loop owns it. It asks when there is another router (one search each time), and at half of
//! the lease; changes of the machine that lead to the same router ask nothing. Most networks have no such router, which
//! is no fault.

mod gateway;
mod router;
#[cfg(feature = "upnp")]
mod upnp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use self::gateway::Gateway;
use self::router::{LEASE, Mapping};
use crate::core::InterfaceAddr;
use crate::wire::local::{Health, HealthState};

/// From one look for a router to the next while there is none, twice as late each time: an address comes before the
/// route. Such a look sends nothing.
const LOOK: Duration = Duration::from_secs(1);
/// From one question to a router that gave no port to the next.
const ASK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// The port of the router, which is kept beside the daemon's loop.
#[derive(Debug)]
pub(super) struct PortMapping {
    wanted: watch::Sender<Wanted>,
    told: mpsc::Receiver<Told>,
    task: JoinHandle<()>,
}

/// What is known of it.
#[derive(Debug)]
pub(super) struct Told {
    /// Where the internet finds us.
    pub(super) addr: Option<SocketAddr>,
    why: String,
}

impl Told {
    /// How it is.
    pub(super) fn health(self) -> Health<'static> {
        let check = "port-mapping".into();
        Health { check, state: HealthState::Ok, why: self.why.into(), fix: "".into() }
    }
}

/// What the daemon is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// Whether anybody is to come from the internet.
    open: bool,
    /// The addresses that may be used.
    own: Vec<Ipv4Addr>,
}

impl PortMapping {
    /// Nothing is asked yet; `port` is the one of the sessions.
    pub(super) fn new(port: NonZeroU16) -> Self {
        let (wanted, follows) = watch::channel(Wanted::default());
        let (tells, told) = mpsc::channel(1);
        Self { wanted, told, task: tokio::spawn(keep(port, follows, tells)) }
    }

    /// Whether anybody is to come from the internet.
    pub(super) fn open(&self, open: bool) {
        self.wanted.send_if_modified(|wanted| std::mem::replace(&mut wanted.open, open) != open);
    }

    /// The machine's own addresses, complete.
    pub(super) fn set_interfaces(&self, addrs: &[InterfaceAddr]) {
        let v4 = |addr: &InterfaceAddr| match addr.addr {
            IpAddr::V4(ip) => (!ip.is_loopback()).then_some(ip),
            IpAddr::V6(_) => None,
        };
        self.wanted.send_modify(|wanted| wanted.own = addrs.iter().filter_map(v4).collect());
    }

    /// What is known, whenever it may be something else.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Told> {
        match self.told.poll_recv(cx) {
            Poll::Ready(Some(told)) => Poll::Ready(told),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Gives the port back.
    pub(super) async fn end(self) {
        drop((self.wanted, self.told));
        // It ends without a word, or was in the middle of a question that the daemon does not wait for.
        let _ = self.task.await;
    }
}

async fn keep(port: NonZeroU16, mut wanted: watch::Receiver<Wanted>, told: mpsc::Sender<Told>) {
    let mut at = None;
    let mut mapping: Option<Mapping> = None;
    let mut look = LOOK;
    let mut due: Option<Instant> = None;
    loop {
        let Wanted { open, own } = wanted.borrow_and_update().clone();
        let found = if open { Gateway::find(&own) } else { None };
        let moved = found != at;
        let is_due = due.is_some_and(|due| due <= Instant::now());
        if moved && let Some(mapping) = mapping.take() {
            mapping.delete().await;
        }
        at = found;
        if let (Some(at), true) = (at, moved || is_due) {
            let outcome = ask(at, port, mapping.take(), moved).await;
            let pause = outcome.as_ref().map_or(ASK_AGAIN, |mapping| mapping.renew_after);
            due = Some(Instant::now() + pause);
            if told.send(tell(at, &outcome)).await.is_err() {
                mapping = outcome.ok();
                break;
            }
            mapping = outcome.ok();
        } else if at.is_none() {
            let why = if open {
                "there is no router"
            } else {
                "no router is asked: nobody comes from the internet"
            };
            if moved && told.send(Told { addr: None, why: why.to_owned() }).await.is_err() {
                break;
            }
            due = open.then(|| Instant::now() + look);
            look = (look * 2).min(LEASE);
        }
        select! {
            changed = wanted.changed() => match changed {
                Ok(()) => look = LOOK,
                Err(_) => break,
            },
            () = until(due) => {}
        }
    }
    if let Some(mapping) = mapping {
        mapping.delete().await;
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn ask(at: Gateway, port: NonZeroU16, old: Option<Mapping>, moved: bool) -> Result<Mapping, String> {
    let lost = match old {
        None => false,
        Some(old) => match old.renewed().await {
            Ok(mapping) => return Ok(mapping),
            Err(reason) => {
                tracing::info!(router = %at.router, reason, "the router does not give its port once more");
                true
            }
        },
    };
    Mapping::new(at, port, moved || lost).await
}

fn tell(at: Gateway, outcome: &Result<Mapping, String>) -> Told {
    match outcome {
        Ok(Mapping { addr, protocol, .. }) => {
            tracing::info!(%addr, protocol, "the router maps a port to us");
            Told { addr: Some(*addr), why: format!("the router maps {addr} to us ({protocol})") }
        }
        Err(reason) => {
            tracing::debug!(router = %at.router, reason, "the router maps no port to us");
            Told { addr: None, why: format!("the router at {} maps no port to us: {reason}", at.router) }
        }
    }
}
