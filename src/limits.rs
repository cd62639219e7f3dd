//! Every bound of the daemon in one place, each with its unit and its reason.
//!
//! What a peer or an app can make us remember, queue or send is bounded by a line of this file.

use std::time::Duration;

pub use crate::places::Places;

/// Bytes of one message's payload.
pub const PAYLOAD_BYTES: usize = 60 * 1024;
/// Bytes of a payload that fits one datagram that every path carries (see [`DATAGRAM_BYTES`]).
pub const SMALL_PAYLOAD_BYTES: usize = 1152;
/// Bytes of the largest datagram we send: IPv6's minimum MTU of 1280 less its headers is 1232; 1200 leaves room for
/// a tunnel or for a relay's four bytes.
pub const DATAGRAM_BYTES: usize = 1200;
/// Bytes of the smallest datagram that we go down to where a path carries no more: IPv4's hosts take packets of 576, less
/// the headers. Nobody in a network can make them smaller by saying so.
pub const SMALLEST_DATAGRAM_BYTES: usize = 548;
/// Bytes of the largest datagram that we send where the path carries it: Ethernet's jumbo frames of 9000 less the headers.
pub const LARGE_DATAGRAM_BYTES: usize = 8972;
/// Bytes of the largest UDP datagram that can exist; the receive buffer holds one.
pub const DATAGRAM_MAX_BYTES: usize = 65_507;
/// Datagrams in one send: the kernel's own limit (UDP_MAX_SEGMENTS is 64 on every kernel that has GSO).
pub const TRAIN_DATAGRAMS: usize = 64;
/// Bytes in one send: below the 65,507 that one UDP send may carry.
pub const TRAIN_BYTES: usize = 65_000;
/// Trains waiting for the edge; it drains after every batch of inputs, so more means that something is stuck.
pub const TRAINS_QUEUED: usize = 4096;

/// Bytes of a topic name and of a node name: one DNS label.
pub const NAME_BYTES: usize = 63;
/// Apps connected at once, of whatever users.
pub const CLIENTS: usize = 64;
/// Beyond these, places for users who have fewer than four apps: one who has all the others keeps nobody out.
pub const APP_PLACES: Places = Places { open: CLIENTS, kept: 16, few: 4 };
/// Beyond these, connections that only administer the daemon, of one user: a person at a terminal, a timer, a reload.
pub const ADMIN_PLACES: usize = 4;
/// All connections: those who may administer are root and the daemon's own user.
pub const CONNECTIONS: usize = CLIENTS + APP_PLACES.kept + 2 * ADMIN_PLACES;
/// Series of pings that one app may run at once.
pub const PINGS_PER_CLIENT: usize = 16;
/// Topics one app may listen to.
pub const TOPICS_PER_CLIENT: usize = 64;
/// Topics one node may listen to, all its apps together.
pub const TOPICS_PER_NODE: usize = 256;
/// Beyond these, topics for users who have fewer than sixteen: one who has all the others keeps nobody from listening.
pub const TOPIC_PLACES: Places = Places { open: TOPICS_PER_NODE, kept: 64, few: 16 };
/// How many of a peer's topics we remember: all that it may have.
pub const TOPICS_OF_A_PEER: usize = TOPICS_PER_NODE + TOPIC_PLACES.kept;
/// Bytes of the names of all peers' topics, with what keeping them costs: eighteen topics of each of 4096 peers. Beyond, a
/// list is known to be cut.
pub const REMOTE_TOPIC_BYTES_IN_ALL: usize = 8 << 20;
/// Peers remembered, offline ones included.
pub const PEERS: usize = 4096;
/// Of these, how many that an app meant by name or id never make room for others: a fleet is addressed through topics, a
/// person has fewer devices, and who answers every stranger by name still leaves room to newcomers.
pub const PEERS_USED: usize = 3072;
/// Of these, how many who have not been here for ten seconds may push others out: newcomers by the hundred at once.
pub const PEERS_PASSING: usize = 512;
/// Names that stay with peers which had to make room: as many again as peers, in less than a megabyte.
pub const PINS_APART: usize = 4096;
/// Peers online up to which a session is kept with each; above, with neighbours on the ring and peers in use only: 128
/// sessions are 300 kB and a handshake in 4 s, which the smallest device minds no more than a larger network's part.
pub const SESSIONS_KEPT: usize = 128;
/// Candidate addresses of one peer, of each kind of source but the configuration: where it was reached, what multicast,
/// relays, itself through a server and other peers say. Twelve are what two interfaces at both ends of one network make
/// with an IPv4, a link-local and another IPv6 address at each.
pub const LEARNT_CANDIDATES: usize = 12;
/// Pairs of peers that one node relays for: two networks of thirty devices each.
pub const RELAY_CHANNELS: usize = 1024;
/// Of these, how many one peer may have asked for: it keeps no more sessions (see [`SESSIONS_KEPT`]).
pub const RELAY_CHANNELS_A_PEER: usize = 128;
/// Bytes that one node passes on for others, a second and at once: a relay is a help in need, and a home's uplink has
/// other work.
pub const RELAY_BYTES_A_SECOND: usize = 1 << 20;
/// The same in a burst.
pub const RELAY_BURST_BYTES: usize = 1 << 20;
/// Rendezvous servers in the configuration; each member registers with two of them.
pub const RENDEZVOUS_SERVERS: usize = 8;
/// Members of a namespace up to which each of them is told of a newcomer by the server (rendezvous.md, 3.2).
pub const MEMBERS_TOLD: usize = 256;
/// Handshakes that we answered and that have not yet proved to be alive.
pub const HALF_OPEN: usize = 1024;
/// Half-open handshakes of one source address that has not proved to receive there: a LAN host has a few restarts at most, a
/// flooder has thousands. Who proves it has a share of the work instead.
pub const HALF_OPEN_PER_SOURCE: usize = 16;
/// Boot ids that a peer had before and may not have again: an old recording must not revive an old life.
pub const PAST_BOOTS: usize = 8;
/// Sources whose copy of one first message gets the stored answer: one per interface of a usual host.
pub const ANSWER_COPIES: usize = 4;

/// Bytes of the path of a Unix socket: `sun_path` has 108, the last one a zero (unix(7)).
pub const SOCKET_PATH_BYTES: usize = 107;
/// Messages between one app and the daemon, each way.
pub const CLIENT_QUEUE_MESSAGES: usize = 1024;
/// Bytes between one app and the daemon, each way.
pub const CLIENT_QUEUE_BYTES: usize = 1 << 20;
/// Bytes of one JSON line, its newline included.
pub const LINE_BYTES: usize = 96 * 1024;
/// Bytes of the body of one frame: what a line may say a frame may say too.
pub const FRAME_BODY_BYTES: usize = LINE_BYTES;
/// Destinations to which one app may have opened a channel: a quarter of a megabyte at most.
pub const CHANNELS: usize = 1024;
/// Sources of messages that one app knows by a number; an older one is announced anew when it comes again. They are a
/// quarter of a megabyte at most.
pub const SOURCES: usize = 1024;
/// Bytes that each app may make us keep whatever the others do: what it has to read, what it asked, its channels.
pub const APP_BYTES: usize = 64 * 1024;
/// Bytes that all apps may make us keep beyond that: a dozen that do not read, with a full queue each, or more with less.
pub const APP_BYTES_IN_ALL: usize = 12 << 20;
/// Changes of peers that are kept for apps which watch and do not read, all together: four megabytes. One app alone has
/// not more than there are peers.
pub const CHANGES_KEPT: usize = 64 * 1024;
/// Replies that one request may wait for: what the queue of its app holds.
pub const REPLIES: u32 = 1024;
/// An app that takes no byte for this long while its queue is full is closed.
pub const SLOW_CONSUMER: Duration = Duration::from_secs(10);

/// Messages numbered for one receiver that may be outstanding: the size of its memory of what it has seen.
pub const TRACKED_WINDOW: u64 = 8192;
/// Messages on the way to one peer at once: 512 full ones are 600 kB, what a default socket buffer holds.
pub const TRACKED_IN_FLIGHT: usize = 512;
/// Messages held back for one peer until an earlier one of their stream arrives.
pub const HELD_MESSAGES: usize = 512;
/// Bytes held back for one peer, with what keeping them costs.
pub const HELD_BYTES: usize = 256 * 1024;
/// Bytes held back for all peers: a dozen that lose much at the same moment, or more with less.
pub const HELD_BYTES_IN_ALL: usize = 4 << 20;
/// Bytes that all tables and queues of a node take together at the very most.
pub const NODE_BYTES: usize = 80 << 20;
/// Packets with messages under way to one peer: half of what its memory of packets holds (see [`REPLAY_WINDOW`]).
pub const PACKETS_IN_FLIGHT: usize = 4096;
/// Messages of several datagrams that one peer may have sent in part.
pub const REASSEMBLED_MESSAGES: usize = 4;
/// Bytes of these.
pub const REASSEMBLED_BYTES: usize = 256 * 1024;
/// Bytes of all messages that are put together for all peers, with what keeping them costs.
pub const REASSEMBLED_BYTES_IN_ALL: usize = 6 << 20;
/// Runs of bytes of one such message that have come: pieces overtake each other, but not at will.
pub const REASSEMBLED_RUNS: usize = 128;
/// A message of which nothing came for so long is not waited for.
pub const REASSEMBLY_LIFE: Duration = Duration::from_secs(30);
/// Runs of packets that a receipt tells of.
pub const RECEIPT_RUNS: usize = 32;
/// How long nobody is told that nobody listens, or that nobody has a name, after a daemon has started, a peer has come,
/// or an app that listened has gone: an app whose daemon was restarted tries to connect again every 2 s at the latest, and
/// then has to be greeted and to listen.
pub const LISTENER_GRACE: Duration = Duration::from_millis(2500);
/// Topics without a listener that are remembered of one peer for that time, by their digests: those of one app.
pub const RECENT_TOPICS: usize = TOPICS_PER_CLIENT;
/// A message's deadline when its app names none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest deadline an app may name: a queue is not a store.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// Packets that may arrive out of order before an old one is refused: must cover a change of path at full rate.
pub const REPLAY_WINDOW: u64 = 8192;
/// Bytes of the DNS-SD TXT record: with PTR, SRV, A and AAAA it still is one packet.
pub const TXT_BYTES: usize = 200;

/// Members of one namespace of a rendezvous server: a larger fleet is several networks.
pub const NAMESPACE_MEMBERS: usize = 4096;
/// Members of a rendezvous server, all namespaces together: about half a gigabyte of usual ones; of the largest and most
/// scattered ones as much as its unit allows (tests/server/memory.rs).
pub const SERVER_MEMBERS: usize = 1_000_000;
/// Members of a rendezvous server that wait to be looked at, whether they are still there: those who come and leave at once
/// are waited for until their lease would have been over. Four bytes each.
pub const LEASES_LOOKED_AT: usize = 4 * SERVER_MEMBERS;
/// Namespaces in which one source may have members. This and the next ones are for an IPv4 address or an IPv6 /64, for the
/// /56 and for the /48 around that: carrier NAT has many homes behind one address, and a carrier's /48 many phones with a
/// /64 each. Above a /48 nothing is counted: the /32 of a carrier is a million homes.
pub const NAMESPACES_PER_SOURCE: [usize; 3] = [64, 128, 512];
/// Members that one source may have in one namespace: of a fleet behind carrier NAT several hundred share an address, and
/// three quarters of the namespace are left to members elsewhere, or half of it if they are all of one site.
pub const NAMESPACE_MEMBERS_PER_SOURCE: [usize; 3] = [1024, 1536, 2048];
/// Members that one source may have in all: a few such fleets. To take half of a server of [`SERVER_MEMBERS`] it takes 123
/// IPv4 addresses or 62 /48s; from there on each may have less, see [`SHARE_SHRINKS`].
pub const MEMBERS_PER_SOURCE: [usize; 3] = [4096, 6144, 8192];
/// What a source may have of a server that gets full shrinks in proportion to what is free, down to this part of its
/// [`MEMBERS_PER_SOURCE`]: 64 for an IPv4 address, a home with many devices. So it takes 15,000 IPv4 addresses or 7,500 /48s
/// to fill a server, and a thousand leave a tenth of it to others.
pub const SHARE_SHRINKS: usize = 64;
/// Echoes that one source may wait for: a measurement has one or two on the way, and few homes measure at once.
pub const ECHOES_PER_SOURCE: [usize; 3] = [4, 8, 32];
/// Echoes that a rendezvous server owes, to all together: less than ten megabytes.
pub const ECHOES: usize = 65_536;
/// Answers of a rendezvous server that wait for the edge; it drains after every batch of inputs.
pub const ANSWERS_QUEUED: usize = 4096;
/// Members of a namespace that all hear each event; above that so many at random do, see [`EVENT_SAMPLE`].
pub const EVENT_MEMBERS: usize = 256;
/// Members who hear an event of a large namespace; they tell the others.
pub const EVENT_SAMPLE: usize = 64;
/// Departures that a small namespace remembers for those who ask what changed; a larger one as many as its members.
pub const DEPARTURES: usize = 64;
/// Departures that all namespaces together remember; then each has room for the last [`DEPARTURES_LEAST`] only. 24 bytes each.
pub const DEPARTURES_IN_ALL: usize = 1_000_000;
/// Departures that a namespace remembers whatever the others do: enough for the event that tells of them.
pub const DEPARTURES_LEAST: usize = 2;
/// Own addresses of a rendezvous server that are told apart when it sends unasked.
pub const SERVER_ADDRS: usize = 255;
