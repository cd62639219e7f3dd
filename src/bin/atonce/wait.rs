//! `atonce wait`: nothing to see, but an end when somebody is there.

use std::time::Duration;

use atonce::Client;
use atonce::client::{ErrorCode, Event, PeerRef};
use atonce::id::{NodeId, Topic};
use clap::Args;
use tokio::time::timeout;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::{human, lookup};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A name or an id, or the beginning of one; with a topic, until an app there listens to it
    #[arg(value_name = "PEER[/TOPIC]")]
    target: String,
}

/// For whom we wait.
struct Target<'a> {
    peer: &'a str,
    topic: Option<&'a str>,
    /// Its id, if it is known already.
    id: Option<NodeId>,
    /// The peer itself, while it is there.
    online: Option<PeerRef<'static>>,
}

pub(crate) async fn run(client: &mut Client, options: &Options, patience: Duration) -> Result<Exit, Failure> {
    let (peer, topic) = split(&options.target);
    let mut target = Target { peer, topic, id: None, online: None };
    match timeout(patience, target.arrival(client)).await {
        Ok(arrived) => arrived.map(|()| Exit::Ok),
        Err(_) => Err(target.late(&options.target, patience)),
    }
}

impl Target<'_> {
    async fn arrival(&mut self, client: &mut Client) -> Result<(), Failure> {
        client.watch_all().await?;
        match lookup::find_now(client, self.peer).await {
            Ok(found) => self.id = Some(found.peer.id),
            // It may come yet.
            Err(failure) if failure.code == Some(ErrorCode::NoPeer) => {}
            Err(failure) => return Err(failure),
        }
        let own = client.hello().node.clone();
        if self.id == Some(own.id) {
            if self.topic.is_none() {
                return Ok(());
            }
            self.online = Some(own.clone());
        }
        loop {
            let event = client.next_event().await?;
            if self.is_met_by(&event) {
                return Ok(());
            }
            self.follow(event, own.id);
        }
    }

    /// Whether it is online, and only nobody there listens.
    fn follow(&mut self, event: Event, own: NodeId) {
        if let Event::Enter { peer, .. } = event {
            if self.is(&peer) {
                self.online = Some(peer);
            }
        } else if let Event::Exit { peer, .. } = event {
            self.online.take_if(|online| online.id == peer.id);
        } else if let Event::Disconnected = event {
            // Who is there is told anew when the daemon is back.
            self.online.take_if(|online| online.id != own);
        }
    }

    fn late(&self, target: &str, patience: Duration) -> Failure {
        let within = human::duration(patience);
        if let (Some(PeerRef { name, .. }), Some(topic)) = (&self.online, self.topic) {
            return Failure::new(
                Exit::TimedOut,
                format!("nobody listened to {topic} on {name} within {within}"),
            )
            .because("it is online, but no app there listens to that topic")
            .try_this(format!("atonce listen {topic}   (on {name})"));
        }
        Failure::new(Exit::TimedOut, format!("{target} did not come within {within}"))
            .try_this("atonce peers --all, or a longer --timeout")
    }

    fn is_met_by(&self, event: &Event) -> bool {
        match (event, self.topic) {
            (Event::Enter { peer, .. }, None) => self.is(peer),
            (Event::Listen { peer, topic, .. }, Some(awaited)) => topic == awaited && self.is(peer),
            _ => false,
        }
    }

    fn is(&self, peer: &PeerRef<'_>) -> bool {
        self.id.map_or_else(|| lookup::may_mean(self.peer, peer), |id| id == peer.id)
    }
}

/// A topic has no slash, but a name may have one.
fn split(target: &str) -> (&str, Option<&str>) {
    match target.rsplit_once('/') {
        Some((peer, topic)) if Topic::check(topic).is_ok() => (peer, Some(topic)),
        _ => (target, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atonce::client::PathKind;

    fn enter(name: &'static str) -> Event {
        Event::Enter {
            peer: PeerRef { name: name.into(), id: NodeId([1; 32]) },
            path: PathKind::Lan,
            snapshot: false,
        }
    }

    #[test]
    fn a_peer_is_awaited_by_name_and_a_known_one_by_its_id() {
        let by_name = Target { peer: "pi", topic: None, id: None, online: None };
        assert!(by_name.is_met_by(&enter("pi")));
        assert!(!by_name.is_met_by(&enter("garage")));
        let by_id = Target { peer: "pi", topic: None, id: Some(NodeId([2; 32])), online: None };
        assert!(!by_id.is_met_by(&enter("pi")));
    }

    #[test]
    fn a_topic_is_awaited_on_that_peer_only() {
        let target = Target { peer: "pi", topic: Some("chat"), id: None, online: None };
        let listen = |name: &'static str, topic: &str| Event::Listen {
            peer: PeerRef { name: name.into(), id: NodeId([1; 32]) },
            topic: topic.to_owned(),
            snapshot: true,
        };
        assert!(target.is_met_by(&listen("pi", "chat")));
        assert!(!target.is_met_by(&listen("pi", "chats")));
        assert!(!target.is_met_by(&listen("garage", "chat")));
        assert!(!target.is_met_by(&enter("pi")));
    }

    #[test]
    fn only_a_legal_topic_is_taken_off_a_name() {
        assert_eq!(split("pi/chat"), ("pi", Some("chat")));
        assert_eq!(split("Living/Room"), ("Living/Room", None));
        assert_eq!(split("a/b/c"), ("a/b", Some("c")));
        assert_eq!(split("pi"), ("pi", None));
    }
}
