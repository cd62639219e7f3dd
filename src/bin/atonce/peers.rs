//! `atonce peers`: who is there, how we reach them, and what they listen to.

use std::io;

use atonce::Client;
use atonce::client::{PathInfo, PathKind, PeerInfo, PeerState};
use clap::Args;
use jiff::Timestamp;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::human;
use crate::input::parse_topic;
use crate::output::{Output, escape};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Those that are offline too
    #[arg(long)]
    all: bool,
    /// Only those that listen to this topic
    #[arg(long, value_name = "TOPIC", value_parser = parse_topic)]
    topic: Option<String>,
}

pub(crate) async fn run(client: &mut Client, options: &Options, output: &Output) -> Result<Exit, Failure> {
    let mut peers = client.peers().await?;
    let all = peers.clone();
    peers.retain(|peer| options.all || peer.state != PeerState::Offline);
    if let Some(topic) = &options.topic {
        peers.retain(|peer| peer.topics.iter().any(|listened| listened == topic));
    }
    peers.sort_by(|one, other| (&one.name, one.id).cmp(&(&other.name, other.id)));
    if output.is_json() {
        for peer in &peers {
            output.event("peer", peer)?;
        }
        return Ok(Exit::Ok);
    }
    table(&peers, &all, output)?;
    for peer in &peers {
        remark(peer, owner(&peer.name, &all).as_deref(), output);
    }
    if peers.is_empty() {
        output.note(&nobody(options, &all));
    }
    Ok(Exit::Ok)
}

/// Why the list is empty.
fn nobody(options: &Options, all: &[PeerInfo<'_>]) -> String {
    if all.is_empty() {
        return "nobody else is known yet; start atonced on another host of this network, or, if it runs there: a firewall \
                must let UDP 28281, 28282 and 5353 in, and where multicast is blocked atonced needs --peer"
            .to_owned();
    }
    match &options.topic {
        Some(topic) if options.all => format!("no peer listens to {topic}"),
        Some(topic) => format!("no peer that is online listens to {topic}"),
        None => format!("no peers are online; atonce peers --all shows {} offline", all.len()),
    }
}

const COLUMNS: [&str; 6] = ["PEER", "STATE", "PATH", "RTT", "SEEN", "TOPICS"];
/// Characters that a column has at least, so that the columns stay where they are from call to call.
const WIDTHS: [usize; 6] = [12, 10, 24, 7, 4, 0];

fn table(peers: &[PeerInfo<'_>], all: &[PeerInfo<'_>], output: &Output) -> io::Result<()> {
    let now = Timestamp::now();
    let rows: Vec<[String; 6]> = std::iter::once(COLUMNS.map(str::to_owned))
        .chain(peers.iter().map(|peer| cells(peer, all, now).map(|cell| escape(&cell).into_owned())))
        .collect();
    let mut widths = WIDTHS;
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        output.line(cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn cells(peer: &PeerInfo<'_>, all: &[PeerInfo<'_>], now: Timestamp) -> [String; 6] {
    let unknown = || "-".to_owned();
    let state = state_word(peer.state);
    [
        peer.name.clone().into_owned(),
        if peer.conflict { format!("{state},conflict") } else { state.to_owned() },
        peer.path.as_ref().map_or_else(unknown, |way| path(way, all)),
        peer.rtt_us.map_or_else(unknown, human::round_trip),
        peer.last_seen.as_deref().and_then(|time| human::age(time, now)).unwrap_or_else(unknown),
        if peer.topics.is_empty() { unknown() } else { peer.topics.join(", ") },
    ]
}

fn path(path: &PathInfo, all: &[PeerInfo<'_>]) -> String {
    let kind = path_word(path.kind);
    let named =
        |via: &str| all.iter().find(|peer| peer.id.to_string() == via).map(|peer| peer.name.to_string());
    match &path.via {
        Some(via) => {
            let relay = named(via).unwrap_or_else(|| via.chars().take(8).collect());
            format!("{kind} {} via {relay}", human::address(path.addr))
        }
        None => format!("{kind} {}", human::address(path.addr)),
    }
}

/// The short id of the peer that messages by `name` go to.
fn owner(name: &str, all: &[PeerInfo<'_>]) -> Option<String> {
    all.iter().find(|peer| peer.name == name && !peer.conflict).map(|peer| peer.id.short())
}

fn remark(peer: &PeerInfo<'_>, owner: Option<&str>, output: &Output) {
    if peer.conflict {
        output.note(&format!(
            "{name} with the id {short} is not who had that name first: messages to {name} go to the other{owner}, to {short} here; \
             atonce forget {forget} gives it the name",
            name = peer.name,
            short = peer.id.short(),
            owner = owner.map(|id| format!(" ({id})")).unwrap_or_default(),
            forget = owner.unwrap_or("OTHER-ID"),
        ));
    }
    match (peer.state, peer.why.as_deref()) {
        (PeerState::Connecting, Some(why)) => output.note(&format!("{} is connecting: {why}", peer.name)),
        (PeerState::Offline, Some(why)) => output.detail(&format!("{} is offline: {why}", peer.name)),
        _ => {}
    }
}

const fn state_word(state: PeerState) -> &'static str {
    match state {
        PeerState::Online => "online",
        PeerState::Connecting => "connecting",
        PeerState::Offline => "offline",
    }
}

/// How a peer is reached, in a word.
pub(crate) const fn path_word(path: PathKind) -> &'static str {
    match path {
        PathKind::Local => "local",
        PathKind::Lan => "lan",
        PathKind::Direct => "direct",
        PathKind::Relay => "relay",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atonce::id::NodeId;

    fn offline() -> PeerInfo<'static> {
        PeerInfo {
            id: NodeId([7; 32]),
            name: "garage".into(),
            state: PeerState::Offline,
            why: None,
            path: None,
            rtt_us: None,
            last_seen: None,
            topics: vec![],
            conflict: false,
            old_secret: false,
        }
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_never_blank() {
        assert_eq!(
            cells(&offline(), &[], Timestamp::now()),
            ["garage", "offline", "-", "-", "-", "-"].map(String::from)
        );
    }

    #[test]
    fn a_peer_that_took_the_name_of_another_is_told_apart() {
        let path = PathInfo { kind: PathKind::Lan, addr: "192.168.1.42:28282".parse().unwrap(), via: None };
        let peer = PeerInfo {
            state: PeerState::Online,
            path: Some(path),
            rtt_us: Some(412),
            last_seen: Some("2026-11-23T16:00:00Z".into()),
            topics: vec!["chat".into(), "files".into()],
            conflict: true,
            ..offline()
        };
        let now = "2026-11-23T16:00:05Z".parse().unwrap();
        let expected = ["garage", "online,conflict", "lan 192.168.1.42:28282", "0.4 ms", "5s", "chat, files"];
        assert_eq!(cells(&peer, &[], now), expected.map(String::from));
    }
}
