//! What the daemon tells of itself and its network, and how it is told what to do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::request::{Line, milliseconds};
use super::{Client, Error, Found, GRACE, PingOptions, Pinged, Pong, odd, ok, owned, unfit};
use crate::limits;
use crate::wire::local;
use crate::wire::local::{NetworkInfo, PeerInfo, Reloaded, Status};

impl Client {
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
            let local::Event::Result { .. } = event else { return Found::Break(Err(unfit(&event))) };
            // Read by its own name: the end of a publication has some of the same fields.
            Found::Break(serde_json::from_slice::<Pinged>(line).map_err(odd))
        })
        .await
    }

    /// Lists the peers, those that are offline included, by id.
    pub async fn peers(&mut self) -> Result<Vec<PeerInfo<'static>>, Error> {
        self.list(Line::op("peers"), self.link.timeout()).await
    }

    /// The same, but not before the daemon has looked around for the first time: in the first 2.5 s after its start it may
    /// not have met everybody yet.
    pub async fn peers_settled(&mut self) -> Result<Vec<PeerInfo<'static>>, Error> {
        let line = Line { settled: Some(true), ..Line::op("peers") };
        self.list(line, self.link.timeout() + limits::LISTENER_GRACE).await
    }

    async fn list(&mut self, line: Line<'_>, patience: Duration) -> Result<Vec<PeerInfo<'static>>, Error> {
        let mut peers = BTreeMap::new();
        self.ask(line, patience, |event, line| {
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
        self.ask(Line::op("status"), self.link.timeout(), |_, line| Found::Break(read(line).map_err(odd)))
            .await
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
        if let Some(connection) = self.link.connection() {
            connection.wipe();
        }
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
            let local::Event::Invitation { line, .. } = event else {
                return Found::Break(Err(unfit(&event)));
            };
            Found::Break(Ok(Zeroizing::new(line.0.into_owned())))
        };
        self.ask(Line::op("invite"), self.link.timeout(), |event, _| read(event)).await
    }

    /// Makes the daemon read its configuration again. A mistake in it is an [`Error::Refused`], and nothing has changed.
    pub async fn reload(&mut self) -> Result<Reloaded<'static>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            reload: Reloaded<'static>,
        }
        let read = |line: &[u8]| serde_json::from_slice::<Answer>(line).map(|answer| answer.reload);
        let request = Line::op("reload");
        self.ask(request, self.link.timeout(), |_, line| Found::Break(read(line).map_err(odd))).await
    }

    async fn ask_network(&mut self, request: Line<'_>) -> Result<NetworkInfo<'static>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            network: NetworkInfo<'static>,
        }
        let read = |line: &[u8]| serde_json::from_slice::<Answer>(line).map(|answer| answer.network);
        self.ask(request, self.link.timeout(), |_, line| Found::Break(read(line).map_err(odd))).await
    }
}
