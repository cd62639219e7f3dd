//! The addresses behind the `host:port` of configured peers, asked again until each has one.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// From one question for a name without an address to the next.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// The resolution of configured peers, which goes on beside the daemon's loop.
#[derive(Debug)]
pub(super) struct StaticPeers {
    found: mpsc::Receiver<Vec<SocketAddr>>,
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

    /// All addresses found so far, whenever there are more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Vec<SocketAddr>> {
        match self.found.poll_recv(cx) {
            Poll::Ready(Some(addrs)) => Poll::Ready(addrs),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

async fn resolve(mut peers: Vec<String>, found: mpsc::Sender<Vec<SocketAddr>>) {
    let mut addrs = BTreeSet::new();
    loop {
        let mut left = Vec::new();
        for peer in peers {
            let answer = lookup(&peer).await;
            match answer {
                Ok(answer) => {
                    addrs.extend(answer);
                    // At once: the next name may take its resolver half a minute.
                    if found.send(addrs.iter().copied().collect()).await.is_err() {
                        return;
                    }
                }
                Err(reason) => {
                    tracing::debug!(peer, %reason, "a configured peer has no address yet");
                    left.push(peer);
                }
            }
        }
        if left.is_empty() {
            return;
        }
        peers = left;
        sleep(ASK_AGAIN).await;
    }
}

async fn lookup(peer: &str) -> io::Result<Vec<SocketAddr>> {
    // The resolver knows what an interface's name behind a link-local address means, but no brackets.
    let bracketed = peer.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:"));
    let found = match bracketed.map(|(addr, port)| (addr, port.parse::<u16>())) {
        Some((addr, Ok(port))) => lookup_host((addr, port)).await?.collect(),
        Some((_, Err(_))) | None => lookup_host(peer).await?.collect(),
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_name_without_an_address_does_not_hold_up_the_others() {
        let names = ["no-such-host.invalid:1", "127.0.0.1:2", "[::1]:3"].map(str::to_owned);
        let mut peers = StaticPeers::new(names.to_vec());
        let mut found = Vec::new();
        while found.len() < 2 {
            found = poll_fn(|cx| peers.poll(cx)).await;
        }
        assert_eq!(found, ["127.0.0.1:2".parse().unwrap(), "[::1]:3".parse().unwrap()]);
    }

    #[tokio::test]
    async fn a_link_local_address_may_name_its_interface() {
        let loopback =
            if_addrs::get_if_addrs().unwrap().into_iter().find(if_addrs::Interface::is_loopback).unwrap();
        let index = loopback.index.unwrap();
        let mut peers = StaticPeers::new(vec![format!("[fe80::1%{}]:5", loopback.name)]);
        let found = poll_fn(|cx| peers.poll(cx)).await;
        assert_eq!(found, [format!("[fe80::1%{index}]:5").parse().unwrap()]);
    }
}
