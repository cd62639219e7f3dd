//! The addresses behind the `host:port` of configured peers: asked again until each has one, and from time to time
//! afterwards, since names move to other addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::wire::local::{Health, HealthState};

/// From one question for a name without an address to the next.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How often a name that has addresses is asked for: each so many of these times, five minutes, as long as names that
/// move are kept by resolvers at most.
const ASK_KNOWN_EACH: u32 = 5;

/// The resolution of configured peers, which goes on beside the daemon's loop.
#[derive(Debug)]
pub(super) struct StaticPeers {
    found: mpsc::Receiver<Found>,
}

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// All addresses.
    pub(super) addrs: Vec<SocketAddr>,
    /// Peers without one, each with the reason.
    pub(super) missing: Vec<(String, String)>,
}

impl Found {
    /// How the configured peers are.
    pub(super) fn health(&self) -> Health<'static> {
        let named: Vec<_> = self.missing.iter().map(|(peer, reason)| format!("{peer} ({reason})")).collect();
        let (state, why, fix) = if named.is_empty() {
            (HealthState::Ok, "all configured peers have an address".to_owned(), "")
        } else {
            let why = format!("no address for the configured peer {}", named.join(", "));
            (
                HealthState::Warn,
                why,
                "correct --peer, or name its address; it is looked up again every minute",
            )
        };
        Health { check: "peers".into(), state, why: why.into(), fix: fix.into() }
    }
}

impl StaticPeers {
    /// Begins to ask.
    pub(super) fn new(peers: Vec<String>) -> Self {
        let (sender, found) = mpsc::channel(1);
        if !peers.is_empty() {
            tokio::spawn(resolve(peers, sender));
        }
        Self { found }
    }

    /// What is known so far, whenever that is more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Found> {
        match self.found.poll_recv(cx) {
            Poll::Ready(Some(found)) => Poll::Ready(found),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// The lookups of rendezvous servers' names, each when the node asks for it.
#[derive(Debug)]
pub(super) struct ServerNames {
    sender: mpsc::Sender<Answer>,
    answers: mpsc::Receiver<Answer>,
    under_way: BTreeSet<String>,
}

/// A name, and its addresses: none if it has none, or nobody says.
type Answer = (String, Vec<SocketAddr>);

impl ServerNames {
    /// Nothing is looked up yet.
    pub(super) fn new() -> Self {
        let (sender, answers) = mpsc::channel(1);
        Self { sender, answers, under_way: BTreeSet::new() }
    }

    /// Looks `name` up, unless that is under way.
    pub(super) fn look_up(&mut self, name: String) {
        if !self.under_way.insert(name.clone()) {
            return;
        }
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let addrs = lookup(&name).await.unwrap_or_else(|reason| {
                tracing::debug!(server = name, %reason, "a rendezvous server has no address");
                Vec::new()
            });
            // Fails only when the daemon has ended.
            let _ = sender.send((name, addrs)).await;
        });
    }

    /// The next answer.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.answers.poll_recv(cx) {
            Poll::Ready(Some(answer)) => {
                self.under_way.remove(&answer.0);
                Poll::Ready(answer)
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

async fn resolve(peers: Vec<String>, found: mpsc::Sender<Found>) {
    // An address is looked up once, a name again and again.
    let mut names: Vec<_> = peers.into_iter().map(|peer| (peer, true)).collect();
    let mut addrs: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
    let mut missing: BTreeMap<String, String> = BTreeMap::new();
    let mut told = None;
    for round in 0_u32.. {
        for (peer, goes_on) in &mut names {
            if addrs.contains_key(peer) && !round.is_multiple_of(ASK_KNOWN_EACH) {
                continue;
            }
            match lookup(peer).await {
                Ok(answer) => {
                    *goes_on = !is_literal(peer);
                    missing.remove(peer);
                    addrs.insert(peer.clone(), answer);
                }
                Err(reason) => {
                    tracing::debug!(peer, %reason, "a configured peer has no address now");
                    // One that it had stays: a resolver that is away says nothing of the peer.
                    if !addrs.contains_key(peer) {
                        missing.insert(peer.clone(), reason.to_string());
                    }
                }
            }
            // At once: the next name may take its resolver half a minute.
            let all: BTreeSet<_> = addrs.values().flatten().copied().collect();
            let so_far = (all, missing.clone());
            if told.as_ref() != Some(&so_far) {
                told = Some(so_far.clone());
                let (addrs, missing) = so_far;
                let known =
                    Found { addrs: addrs.into_iter().collect(), missing: missing.into_iter().collect() };
                if found.send(known).await.is_err() {
                    return;
                }
            }
        }
        names.retain(|(_, goes_on)| *goes_on);
        if names.is_empty() {
            return;
        }
        sleep(ASK_AGAIN).await;
        if found.is_closed() {
            return;
        }
    }
}

/// Whether this is an address, which stays what it is. (One with an interface's name may get another number.)
fn is_literal(peer: &str) -> bool {
    peer.parse::<SocketAddr>().is_ok()
}

async fn lookup(peer: &str) -> io::Result<Vec<SocketAddr>> {
    // The resolver knows what an interface's name behind a link-local address means, but no brackets.
    let bracketed = peer.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:"));
    let Some((addr, Ok(port))) = bracketed.map(|(addr, port)| (addr, port.parse())) else {
        return Ok(lookup_host(peer).await?.collect());
    };
    Ok(lookup_host((addr, port)).await?.collect())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_name_without_an_address_does_not_hold_up_the_others() {
        let names = ["no-such-host.invalid:1", "127.0.0.1:2", "[::1]:3"].map(str::to_owned);
        let mut peers = StaticPeers::new(names.to_vec());
        let mut found = Found::default();
        while found.addrs.len() < 2 {
            found = poll_fn(|cx| peers.poll(cx)).await;
        }
        assert_eq!(found.addrs, ["127.0.0.1:2".parse().unwrap(), "[::1]:3".parse().unwrap()]);
        let health = found.health();
        assert_eq!(health.state, HealthState::Warn);
        assert!(health.why.contains("no-such-host.invalid:1 ("), "{}", health.why);
    }

    #[tokio::test]
    async fn a_server_is_looked_up_as_often_as_asked_and_an_unknown_one_has_no_address() {
        let mut names = ServerNames::new();
        for _ in 0..2 {
            names.look_up("127.0.0.1:9".to_owned());
            names.look_up("127.0.0.1:9".to_owned());
            let answer = poll_fn(|cx| names.poll(cx)).await;
            assert_eq!(answer, ("127.0.0.1:9".to_owned(), vec!["127.0.0.1:9".parse().unwrap()]));
        }
        names.look_up("no-such-host.invalid:1".to_owned());
        assert_eq!(poll_fn(|cx| names.poll(cx)).await.1, []);
    }

    #[tokio::test]
    async fn a_link_local_address_may_name_its_interface() {
        let loopback =
            if_addrs::get_if_addrs().unwrap().into_iter().find(if_addrs::Interface::is_loopback).unwrap();
        let index = loopback.index.unwrap();
        let mut peers = StaticPeers::new(vec![format!("[fe80::1%{}]:5", loopback.name)]);
        let found = poll_fn(|cx| peers.poll(cx)).await;
        assert_eq!(found.addrs, [format!("[fe80::1%{index}]:5").parse().unwrap()]);
    }
}
