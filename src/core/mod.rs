//! The node as a state machine: everything that one `atonced` knows and decides, without a socket, a clock, a file or
//! an operating system.
//!
//! This file only dispatches. What happens stands in the file of its noun: `prospects` seeks peers, `handshakes` answers those who seek us, `sessions`
//! carries records in them, `liveness` judges who is there, `lan` finds peers, `heard` knows which channels work, `topics` knows who listens to
//! what, `delivery` brings messages over, `clients` and `requests` serve the apps.
//!
//! The contract, each clause of it a property test in `tests/sim`:
//!
//! - Equal configuration, identity and random bytes and equal inputs give equal outputs, byte for byte.
//! - Inputs may be given in any number before the outputs are drained.
//! - Driving a node only at the deadlines that [`Node::poll_timeout`] reports gives the same trace as driving it every
//!   10 ms; after [`Node::handle_timeout`] and a drain the next deadline lies in the future.
//! - A datagram that is dropped changes nothing but a counter.
//! - No queue passes its limit (`limits.rs`).
//!
//! `now` never runs backwards; an earlier value counts as the latest one seen.

mod api;
mod arrivals;
mod asks;
mod birthday;
mod budget;
mod clients;
mod clock_text;
mod congestion;
mod copies;
mod delivery;
mod duplicates;
mod encoder;
mod extra_ports;
mod fair;
mod fates;
mod first_messages;
mod flight;
mod frames;
mod handshakes;
mod heard;
mod inbox;
mod introductions;
mod lan;
mod leases;
mod letters;
mod links;
mod listeners;
mod liveness;
mod looking;
mod mapping_life;
mod members;
mod messages;
mod names;
mod network;
mod origin;
mod outbox;
mod own_topics;
mod pace;
mod path_mtu;
mod paths;
mod peers;
mod pings;
mod pins;
mod presence;
mod prospects;
mod publications;
mod queue;
mod reassembly;
mod receipts;
mod registrations;
mod relaying;
mod relays;
mod remember;
mod rendezvous;
mod requests;
mod ring;
mod room;
mod second_port;
mod server_clock;
mod server_health;
mod sessions;
mod status;
mod timers;
mod topics;
mod transport;
mod turns;
mod waiting;
mod wake;
mod whois;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand_core::CryptoRng;

pub use self::api::*;
use self::asks::Asks;
use self::birthday::Birthday;
use self::budget::Budgets;
use self::clients::Clients;
pub use self::clients::TooManyClients;
use self::clock_text::ClockText;
use self::copies::Copies;
use self::duplicates::Duplicates;
use self::encoder::Words;
use self::extra_ports::ExtraPorts;
use self::handshakes::Handshakes;
use self::heard::Heard;
use self::introductions::Introductions;
use self::lan::Lan;
use self::links::Links;
use self::looking::Looking;
use self::mapping_life::MappingLife;
use self::outbox::Outbox;
use self::own_topics::LocalTopics;
use self::pace::Pace;
use self::peers::Peers;
use self::pings::Pings;
use self::presence::Presence;
use self::prospects::Prospects;
use self::publications::OpenPublications;
use self::relaying::Relaying;
use self::relays::{Relays, is_relayed};
use self::remember::Remembering;
use self::rendezvous::Rendezvous;
use self::requests::Publication;
use self::timers::{Timer, Timers};
use self::waiting::Waiting;
use crate::crypto::identity::Identity;
use crate::id::{BootId, ClientId, NodeId, NodeName};
use crate::time::Instant;
use crate::wire::local::frame::Frame;
use crate::wire::local::{BadLine, Health, Request};
use crate::wire::packet::Packet;
use crate::wire::rendezvous::is_rendezvous;

/// Unfinished messages that are dropped for others at once, and a second: each is a look at all peers.
const PARTS_DROPPED_AT_ONCE: u32 = 64;
const PARTS_DROPPED_A_SECOND: u32 = 64;

/// One node: see the module's description.
pub struct Node {
    config: Config,
    identity: Identity,
    id: NodeId,
    boot: BootId,
    rng: Box<dyn CryptoRng + Send>,
    /// The latest time seen.
    now: Instant,
    started: Instant,
    clock: ClockText,
    links: Links,
    peers: Peers,
    remembering: Remembering,
    handshakes: Handshakes,
    prospects: Prospects,
    duplicates: Duplicates,
    copies: Copies,
    lan: Lan,
    looking: Looking,
    heard: Heard,
    rendezvous: Rendezvous,
    introductions: Introductions,
    extra_ports: ExtraPorts,
    mapping_life: MappingLife,
    birthday: Birthday,
    relays: Relays,
    relaying: Relaying,
    topics: LocalTopics,
    /// They have changed, and peers are to be told.
    topics_untold: bool,
    clients: Clients,
    pings: Pings,
    outbox: Outbox,
    /// Peers whose open train holds something, in the order in which they were told.
    unsent: VecDeque<NodeId>,
    timers: Timers,
    events: VecDeque<Event>,
    dropped: BTreeMap<Dropped, u64>,
    /// Records that a peer sent and we could not read, or do not know.
    odd_records: u64,
    /// Messages without acknowledgement that found nobody or no room.
    unheard: u64,
    /// What all peers together make us keep.
    budgets: Budgets,
    /// Records that a peer sent too many of, and that were not read: it sends them again.
    paced_records: u64,
    /// What apps that watch are told.
    presence: Presence,
    /// Messages that found no room to wait for one before them.
    unheld: u64,
    /// Looks for the peer with most of the unfinished messages.
    parts_pace: Pace,
    /// Unfinished messages that were dropped, and pieces that found no room.
    parts_dropped: u64,
    parts_refused: u64,
    health: Vec<Health<'static>>,
    /// Publications whose outcomes are awaited.
    publications: BTreeMap<u64, Publication>,
    next_publication: u64,
    /// Of these and of others, those that may get further copies.
    open_publications: OpenPublications,
    /// What waits for somebody who may come yet.
    waiting: Waiting,
    /// Buffers of messages that have their fate, for the next ones.
    payloads: Vec<Arc<Vec<u8>>>,
    /// While something is published: its payload, once the first copy had to be kept.
    published: Option<Option<Arc<Vec<u8>>>>,
    /// To whom the publication goes that is being sent: one list for all.
    recipients: Vec<NodeId>,
    /// Requests of apps that wait for replies.
    asks: Asks,
    /// A message in words, and the apps that it was written for: kept only for their memory.
    words: Words,
    touched: Vec<ClientId>,
    /// Apps to which `Event::Output` was told and which have not been read since.
    told_output: BTreeSet<ClientId>,
    /// When neighbours were shown last which interface of ours has which address.
    interfaces_shown: Option<Instant>,
    /// Until when the ring asks more often.
    unsettled_until: Instant,
}

impl Node {
    /// A node with the given key; `rng` is the operating system's in the daemon, a seeded one in the simulation.
    pub fn new(config: Config, identity: Identity, mut rng: Box<dyn CryptoRng + Send>, now: Instant) -> Self {
        let mut node = Self {
            id: identity.id(),
            boot: BootId(rng.next_u64()),
            now,
            started: now,
            clock: ClockText::default(),
            links: Links::default(),
            peers: Peers::remembered(&config.known),
            remembering: Remembering::new(&config.known, now),
            handshakes: Handshakes::new(random(&mut *rng)),
            prospects: Prospects::default(),
            duplicates: Duplicates::default(),
            copies: Copies::default(),
            lan: Lan::default(),
            looking: Looking::default(),
            heard: Heard::default(),
            rendezvous: Rendezvous::default(),
            introductions: Introductions::default(),
            extra_ports: ExtraPorts::default(),
            mapping_life: MappingLife::default(),
            birthday: Birthday::default(),
            relays: Relays::default(),
            relaying: Relaying::default(),
            topics: LocalTopics::default(),
            topics_untold: false,
            clients: Clients::default(),
            pings: Pings::default(),
            outbox: Outbox::default(),
            unsent: VecDeque::new(),
            timers: Timers::default(),
            events: VecDeque::new(),
            dropped: BTreeMap::new(),
            odd_records: 0,
            unheard: 0,
            budgets: Budgets::default(),
            paced_records: 0,
            presence: Presence::default(),
            unheld: 0,
            parts_pace: Pace::new(PARTS_DROPPED_AT_ONCE, PARTS_DROPPED_A_SECOND),
            parts_dropped: 0,
            parts_refused: 0,
            health: Vec::new(),
            publications: BTreeMap::new(),
            next_publication: 0,
            open_publications: OpenPublications::default(),
            waiting: Waiting::default(),
            payloads: Vec::new(),
            published: None,
            recipients: Vec::new(),
            asks: Asks::default(),
            words: Words::default(),
            touched: Vec::new(),
            told_output: BTreeSet::new(),
            interfaces_shown: None,
            unsettled_until: Instant::default(),
            config,
            identity,
            rng,
        };
        node.appear();
        node.seek_remembered();
        let servers = std::mem::take(&mut node.config.rendezvous);
        node.handle_servers(&servers, now);
        node
    }

    /// What people call this node.
    pub fn name(&self) -> &NodeName {
        &self.config.name
    }

    /// This node's key.
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// How many peers are online.
    pub fn online(&self) -> usize {
        self.peers.counts().0
    }

    /// A datagram from the network, also one that came to [`HELLO_PORT`]. It is decrypted in place.
    ///
    /// # Errors
    ///
    /// Says why it was dropped; nothing but a counter changed then.
    pub fn handle_datagram(&mut self, via: Route, datagram: &mut [u8], now: Instant) -> Result<(), Dropped> {
        self.advance(now);
        let via = self.links.way_back(via);
        let outcome = if is_relayed(via.remote.ip()) {
            // Such addresses are names of our own, and no network's.
            Err(Dropped::ForeignAddress)
        } else if is_rendezvous(datagram) {
            self.on_rendezvous(via, datagram)
        } else {
            self.on_packet(via, datagram)
        };
        if let Err(reason) = outcome {
            *self.dropped.entry(reason).or_default() += 1;
        }
        outcome
    }

    fn on_packet(&mut self, via: Route, datagram: &mut [u8]) -> Result<(), Dropped> {
        match Packet::parse(datagram) {
            Ok(Packet::Initiation(packet)) => self.on_initiation(via, packet),
            Ok(Packet::Response(packet)) => self.on_response(via, packet),
            Ok(Packet::Cookie(packet)) => self.on_cookie(packet),
            Ok(Packet::Data { receiver, packet }) => self.on_data(via, receiver, packet),
            Ok(Packet::Hello(packet)) => self.on_hello(via, packet),
            Ok(Packet::Whois(packet)) => self.on_whois(via, packet),
            Ok(Packet::HereIs(packet)) => self.on_here_is(via, packet),
            Ok(Packet::Relayed { receiver, packet }) => self.on_relayed(via, receiver, packet),
            Err(bad) => Err(bad.into()),
        }
    }

    /// The network says that nobody listens at `remote`: a hint that starts the probes.
    pub fn handle_unreachable(&mut self, remote: SocketAddr, now: Instant) {
        self.advance(now);
        self.server_refused(remote);
        self.suspect_at(remote);
    }

    /// No packet of more than `mtu` bytes gets to `remote`; its port is zero where any may be meant. `here`: our own
    /// system refused one, which is certain. Else somebody in the network says so, and anybody may say that.
    pub fn handle_too_large(&mut self, remote: SocketAddr, mtu: u32, here: bool, now: Instant) {
        self.advance(now);
        self.on_too_large(remote, mtu, here);
    }

    /// The machine's own addresses, complete, whenever they change.
    pub fn handle_interfaces(&mut self, addrs: &[InterfaceAddr], now: Instant) {
        self.advance(now);
        if self.links.replace(addrs) {
            self.on_links_changed();
        }
    }

    /// The interfaces that have an address and are not used, by name: told to who looks for the reason.
    pub fn handle_left_out(&mut self, interfaces: &[String]) {
        self.links.left_out = interfaces.to_vec();
    }

    /// The addresses of the configured peers, complete, whenever they are resolved anew.
    pub fn handle_static_peers(&mut self, addrs: &[SocketAddr], now: Instant) {
        self.advance(now);
        self.ask_static(addrs);
    }

    /// What people call this node from now on.
    pub fn handle_name(&mut self, name: NodeName, now: Instant) {
        self.advance(now);
        self.rename(name);
    }

    /// mDNS saw or lost something: a hint, never the truth.
    pub fn handle_sighting(&mut self, hint: Sighting, now: Instant) {
        self.advance(now);
        self.on_sighting(hint);
    }

    /// An app of `owner` connected.
    ///
    /// # Errors
    ///
    /// There are as many apps as there may be, of this user or of all.
    pub fn handle_connect(
        &mut self,
        client: ClientId,
        owner: Owner,
        now: Instant,
    ) -> Result<(), TooManyClients> {
        self.advance(now);
        self.clients.connect(client, owner)
    }

    /// A line of an app. All answers go into its output.
    pub fn handle_request(&mut self, client: ClientId, request: Result<Request<'_>, BadLine>, now: Instant) {
        self.advance(now);
        self.on_request(client, request);
        self.tell_output(client);
    }

    /// The app began with [`PREFACE`](crate::wire::local::frame::PREFACE): from now on it speaks in frames, and so do we.
    pub fn handle_preface(&mut self, client: ClientId, now: Instant) {
        self.advance(now);
        if let Some(known) = self.clients.get_mut(client) {
            known.speak_frames();
        }
        self.tell_output(client);
    }

    /// A frame of an app, after its preface. All answers go into its output.
    pub fn handle_frame(&mut self, client: ClientId, frame: Result<Frame<'_>, BadLine>, now: Instant) {
        self.advance(now);
        self.on_frame(client, frame);
        self.tell_output(client);
    }

    /// Whether more may be read from this app: not while too much of what it asked is unanswered, or unread by it.
    pub fn accepts(&self, client: ClientId) -> bool {
        self.clients.accepts(client)
    }

    /// Whether nothing that this app asked is unanswered and it has read all.
    pub fn is_idle(&self, client: ClientId) -> bool {
        self.clients.get(client).is_none_or(clients::Client::is_idle)
    }

    /// The bytes to be written to this app.
    pub fn output(&self, client: ClientId) -> &[u8] {
        self.clients.get(client).map_or(&[], clients::Client::output)
    }

    /// The app took the first `bytes` of its output.
    pub fn handle_written(&mut self, client: ClientId, bytes: usize, now: Instant) {
        self.advance(now);
        self.on_written(client, bytes);
    }

    /// The app reads no more: it gets no replies, and what it listened to ends. What it sent is still brought over.
    pub fn handle_unheard(&mut self, client: ClientId, now: Instant) {
        self.advance(now);
        self.on_unheard(client);
    }

    /// The app went away: what it listened to and asked for ends.
    pub fn handle_hangup(&mut self, client: ClientId, now: Instant) {
        self.advance(now);
        self.on_hangup(client);
    }

    /// Time since 1970: shown to people, and a sign of a resumed snapshot when it jumps; else nothing is decided by it.
    pub fn handle_wall_clock(&mut self, since_1970: Duration, now: Instant) {
        self.advance(now);
        self.on_wall_clock(since_1970);
    }

    /// How something outside of the node is; takes the place of what was said of the same check before.
    pub fn handle_health(&mut self, health: Health<'static>) {
        self.health.retain(|known| known.check != health.check);
        self.health.push(health);
    }

    /// Does what is due. A call too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        while let Some(timer) = self.timers.pop(self.now) {
            match timer {
                Timer::Handshake(peer) => self.on_handshake_timer(peer),
                Timer::Session(peer) => self.on_session_timer(peer),
                Timer::Liveness(peer) => self.on_liveness_timer(peer),
                Timer::Delivery(peer) => self.on_delivery_timer(peer),
                Timer::Flight(peer) => self.on_flight_timer(peer),
                Timer::Receipt(peer) => self.on_receipt_timer(peer),
                Timer::Reassembly(peer) => self.on_reassembly_timer(peer),
                Timer::Lost(peer) => self.on_lost_timer(peer),
                Timer::Topics(peer) => self.on_topics_timer(peer),
                Timer::Presence(peer) => self.on_presence_timer(peer),
                Timer::Contest(peer) => self.on_contest_timer(peer),
                Timer::Copy => self.on_copy_timer(),
                Timer::Whois(addr) => self.on_whois_timer(addr),
                Timer::Ping(client, number) => self.on_ping_timer(client, number),
                Timer::SlowConsumer(client) => self.on_slow_consumer_timer(client),
                Timer::HalfOpen => self.on_half_open_timer(),
                Timer::Cookie => self.on_cookie_timer(),
                Timer::Hello => self.on_hello_timer(),
                Timer::Look => self.on_look_timer(),
                Timer::Browse => self.on_browse_timer(),
                Timer::LookUp(server) => self.on_look_up_timer(server),
                Timer::Hail(server, family) => self.on_hail_timer(server, family),
                Timer::SecondPort(server, family) => self.on_second_port_timer(server, family),
                Timer::Lease(registration) => self.on_lease_timer(registration),
                Timer::NewDay => self.update_registrations(),
                Timer::Meet(peer) => self.on_meet_timer(peer),
                Timer::Punch => self.on_punch_timer(),
                Timer::Whereabouts => self.tell_whereabouts(),
                Timer::MappingLife => self.on_mapping_life_timer(),
                Timer::Remember => self.on_remember_timer(),
                Timer::Waiting => self.on_waiting_timer(),
                Timer::Ask(token) => self.on_ask_timer(token),
            }
        }
    }

    /// Says goodbye to everyone; drain [`Node::poll_transmit`] and [`Node::poll_event`] afterwards.
    pub fn handle_shutdown(&mut self, now: Instant) {
        self.advance(now);
        self.leave_servers();
        self.leave("shutdown");
        self.events.push_back(Event::Withdraw);
    }

    /// The next datagrams to be sent. Their bytes replace those of `buffer`, whose memory is used again.
    #[must_use]
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.spread_topics();
        loop {
            if let Some(transmit) = self.outbox.pop(buffer) {
                match self.wrap(transmit, buffer) {
                    Some(transmit) => return Some(transmit),
                    None => continue,
                }
            }
            let peer = self.unsent.pop_front()?;
            self.flush(peer);
        }
    }

    /// The next thing that the edge has to do.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Node::handle_timeout`] must be called next, and why. `None`: only an input can make work.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.next()
    }

    fn random<const N: usize>(&mut self) -> [u8; N] {
        random(&mut *self.rng)
    }

    /// `duration`, up to a fifth longer or shorter: so that many nodes do not act at the same moment for ever.
    fn jittered(&mut self, duration: Duration) -> Duration {
        self.varied(duration, 20)
    }

    /// `duration`, up to a tenth longer or shorter: where what is kept alive would end soon after it.
    fn a_little_off(&mut self, duration: Duration) -> Duration {
        self.varied(duration, 10)
    }

    fn varied(&mut self, duration: Duration, percent: u32) -> Duration {
        let off = u32::try_from(self.rng.next_u64() % u64::from(2 * percent + 1)).unwrap_or(percent);
        duration * (100 - percent + off) / 100
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id)
            .field("peers", &self.peers.counts())
            .finish_non_exhaustive()
    }
}

fn random<const N: usize>(rng: &mut dyn CryptoRng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}
