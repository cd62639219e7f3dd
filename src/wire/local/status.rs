//! What the daemon tells of itself: who it is, its network, how it is (socket.md).

use std::borrow::Cow;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::PeerRef;
use super::event::id_text;
use crate::id::NodeId;

/// The answer to `hello`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// The version of this protocol.
    pub v: u32,
    /// The daemon's version.
    pub version: Cow<'a, str>,
    /// The node.
    #[serde(borrow)]
    pub node: PeerRef<'a>,
    /// Bytes of the largest payload.
    pub payload_bytes: u64,
    /// Bytes of the longest line.
    pub line_bytes: u64,
}

/// The answer to `network`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkInfo<'a> {
    /// `open` or `private`.
    pub kind: Cow<'a, str>,
    /// Eight characters that are equal on all members, and tell nothing of the secret.
    pub fingerprint: Option<Cow<'a, str>>,
    /// The same of the network of before, whose members are still answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also: Option<Cow<'a, str>>,
    /// Where the secret comes from: `state`, or the file that was named at start; none in the open network.
    pub source: Option<Cow<'a, str>>,
    /// The rendezvous servers, each as `host:port`, with `#` and its key if that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Cow<'a, str>>,
}

/// The answer to `reload`: keys of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded<'a> {
    /// What has changed, and is so now.
    pub changed: Vec<Cow<'a, str>>,
    /// What has changed since the daemon started, and will be so when it is restarted.
    pub restart: Vec<Cow<'a, str>>,
}

/// The answer to `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status<'a> {
    /// The version of this object's shape.
    pub v: u32,
    /// The node's name.
    pub name: Cow<'a, str>,
    /// Its id.
    #[serde(with = "id_text")]
    pub id: NodeId,
    /// `open` or `private`.
    pub network: Cow<'a, str>,
    /// Of a private network, the eight characters that are equal on all members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Cow<'a, str>>,
    /// The daemon's version.
    pub version: Cow<'a, str>,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The addresses that its session sockets are bound to.
    pub udp: Vec<SocketAddr>,
    /// The interfaces it uses.
    pub interfaces: Vec<InterfaceInfo<'a>>,
    /// The servers that introduce it to members elsewhere.
    pub rendezvous: Vec<RendezvousInfo<'a>>,
    /// How many peers.
    pub peers: PeerCounts,
    /// While nobody is online: how we look for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looking: Option<LookingInfo>,
    /// How many apps are connected, the asker included.
    pub apps: u64,
    /// Everything that was dropped or refused, by reason.
    pub counters: Vec<(Cow<'a, str>, u64)>,
    /// What is well and what is not.
    pub health: Vec<Health<'a>>,
}

/// A rendezvous server, and how we are with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RendezvousInfo<'a> {
    /// `host:port`.
    pub server: Cow<'a, str>,
    /// `registered`, `registering`, `connecting`, `no-address`, `wrong-key` or `open-network`.
    pub state: Cow<'a, str>,
    /// How it sees this node.
    pub reflexive: Option<SocketAddr>,
    /// How many members it told of.
    pub members: u64,
}

/// One interface and its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceInfo<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its addresses.
    pub addrs: Vec<std::net::IpAddr>,
}

/// How many peers are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCounts {
    /// With a session.
    pub online: u64,
    /// Without one, but we are trying.
    #[serde(default)]
    pub connecting: u64,
    /// Without one.
    pub offline: u64,
}

/// Looking for others in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookingInfo {
    /// For how many seconds: since the start, or since the network changed or somebody was lost.
    pub for_s: u64,
    /// How often everybody was called in that time, after the first seconds.
    pub tries: u64,
}

/// One check of the daemon's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health<'a> {
    /// What was looked at.
    pub check: Cow<'a, str>,
    /// How it is.
    pub state: HealthState,
    /// Why.
    pub why: Cow<'a, str>,
    /// What mends it; empty if nothing needs to be mended.
    pub fix: Cow<'a, str>,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// As it should be.
    Ok,
    /// It works, but not as it should.
    Warn,
    /// It does not work.
    Fail,
}
