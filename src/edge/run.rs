//! The one loop that drives the node.
//!
//! One task owns the node and everything that it talks to. Each round goes through the inputs in a fixed order, takes a
//! bounded piece of each, and then drains what the node has to say; so time comes first, and a flood on one input
//! delays the others by no more than a round.

use std::future::poll_fn;
use std::io;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use crate::core::{Config, Event, NetworkChange, Node, Transmit};
use crate::edge::alarm::Alarm;
use crate::edge::clock::Clock;
use crate::edge::config::{Given, Settings};
use crate::edge::hardware::Hardware;
use crate::edge::interfaces::Interfaces;
use crate::edge::keyfile::{StateDir, StateError};
use crate::edge::listener::{ListenError, Listener};
use crate::edge::local::Local;
use crate::edge::log::Log;
use crate::edge::mdns::{Mdns, MdnsEvent};
use crate::edge::network::Network;
use crate::edge::peerfile::{self, PeerFile};
use crate::edge::portmap::PortMapping;
use crate::edge::power::{self, SUPPLIES};
use crate::edge::reload::{self, Configuration};
use crate::edge::remember::Remembering;
use crate::edge::resolve::{ServerNames, StaticPeers};
use crate::edge::serverpins::ServerPins;
use crate::edge::systemd::{Counts, ServiceManager};
use crate::edge::udp::{Trouble, Udp, UdpError};
use crate::time::Instant;
use crate::wire::local::Reloaded;

/// Rounds in a row before the runtime's other work (names, files, signals) gets its turn.
const ROUNDS: usize = 32;
/// Hints of multicast DNS taken in one round.
const HINTS_IN_A_ROW: usize = 32;
/// How often we look at what changes without a word: the socket, which somebody may remove, and the host's name. Six
/// wakeups a minute, and two system calls each.
const LOOK: Duration = Duration::from_secs(10);
/// How long the goodbyes may wait for room in a socket.
const GOODBYES: Duration = Duration::from_millis(200);

/// A daemon that has all it needs and serves as soon as [`Daemon::run`] is awaited.
pub struct Daemon {
    clock: Clock,
    node: Node,
    udp: Udp,
    mdns: Option<Mdns>,
    local: Local,
    interfaces: Interfaces,
    static_peers: StaticPeers,
    server_names: ServerNames,
    port_mapping: Option<PortMapping>,
    remembering: Remembering,
    state: StateDir,
    network: Network,
    server_pins: ServerPins,
    configuration: Configuration,
    manager: ServiceManager,
    endings: [Signal; 2],
    hangup: Signal,
    alarm: Alarm,
    look: Interval,
    sending: Option<Transmit>,
    buffer: Vec<u8>,
}

/// Why the daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The state directory, or a secret.
    #[error(transparent)]
    State(#[from] StateError),
    /// The sockets of the sessions.
    #[error(transparent)]
    Udp(#[from] UdpError),
    /// The socket of the apps.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The operating system refused something that every process may have.
    #[error("the operating system refused: {0}")]
    Io(#[from] io::Error),
}

impl Daemon {
    /// Takes possession of all that the daemon needs. Must be called inside a tokio runtime. `settings` are those of
    /// `given`, which is kept to read the files again.
    ///
    /// # Errors
    ///
    /// Something that it cannot do without is not to be had.
    pub fn start(settings: Settings, given: Given, log: Log) -> Result<Self, StartError> {
        let configuration = Configuration::new(given, log, settings.clone());
        let clock = Clock;
        let state = StateDir::open(&settings.state_dir)?;
        let (identity, identity_health) = state.identity(&Hardware::read(Path::new("/")))?;
        let network = Network::read(&settings, &state)?;
        let (server_pins, pins_health) = ServerPins::load(state.path());
        let peer_file = PeerFile::new(state.path());
        let (known, peers_health) = peer_file.load();
        let remembering = Remembering::new(peer_file, &known);
        let listener = Listener::open(settings.socket.as_deref())?;
        // Bound before anything is announced: who hears of us may write at once.
        let mut udp = Udp::bind(&settings.bind, settings.port)?;
        let config = Config {
            name: settings.name,
            network: network.membership(),
            network_source: network.source.clone(),
            udp: udp.addrs(),
            rendezvous: server_pins.fill_in(network.all_servers(&settings.rendezvous)),
            known,
            mdns: settings.mdns,
            hello: settings.hello,
            relay: settings.relay,
            birthday_punch: settings.birthday_punch,
            metered: settings.metered,
        };
        let endings = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        let hangup = signal(SignalKind::hangup())?;

        let filter = Arc::new(settings.interfaces);
        let mut node = Node::new(config, identity, Box::new(UnwrapErr(SysRng)), clock.now());
        node.handle_wall_clock(clock.since_1970(), clock.now());
        for mistake in &settings.warnings {
            tracing::warn!("{mistake}");
        }
        let config_health = reload::health(&settings.warnings, &[] as &[&str]);
        for health in identity_health
            .into_iter()
            .chain(state.health())
            .chain(peers_health)
            .chain(pins_health)
            .chain([config_health])
        {
            node.handle_health(health);
        }
        if settings.hello {
            node.handle_health(udp.open_hellos());
        }
        let mdns = settings.mdns.then(|| Mdns::start(Arc::clone(&filter), settings.mdns_probe));
        let port = NonZeroU16::new(udp.port()).filter(|_| settings.port_mapping);
        let port_mapping = port.map(PortMapping::new);
        let mut interfaces = Interfaces::new(filter);
        if let Some(addrs) = interfaces.changed() {
            udp.set_interfaces(&addrs, interfaces.is_confined());
            node.handle_left_out(interfaces.left_out());
            node.handle_interfaces(&addrs, clock.now());
            port_mapping.iter().for_each(|mapping| mapping.set_interfaces(&addrs));
        }
        let manager = ServiceManager::from_env();
        Ok(Self {
            clock,
            node,
            udp,
            mdns,
            local: Local::new(listener)?,
            interfaces,
            static_peers: StaticPeers::new(settings.peers),
            server_names: ServerNames::new(),
            port_mapping,
            remembering,
            state,
            network,
            server_pins,
            configuration,
            manager,
            endings,
            hangup,
            alarm: Alarm::new()?,
            look: looks(),
            sending: None,
            buffer: Vec::new(),
        })
    }

    /// The line by which a person or a script learns that the daemon is ready, and where.
    pub fn ready_line(&self) -> String {
        format!(
            "atonced: {} ({}) ready, udp {}, socket {}",
            self.node.name(),
            self.node.id().short(),
            self.udp.port(),
            self.local.listener().path().display()
        )
    }

    /// Serves until the process is asked to end, and then says goodbye.
    pub async fn run(mut self) {
        self.tell_status();
        self.manager.ready();
        poll_fn(|cx| self.poll(cx)).await;
        self.end().await;
    }

    async fn end(mut self) {
        tracing::info!("ending");
        self.manager.stopping();
        let now = self.clock.now();
        // Before the goodbyes: who is here now is to be found again.
        let known = self.node.known_peers();
        self.node.handle_shutdown(now);
        let mapping = self.port_mapping.take();
        let goodbyes = poll_fn(|cx| {
            self.drain(cx, now);
            if self.sending.is_none() { Poll::Ready(()) } else { Poll::Pending }
        });
        let unmapped = async {
            if let Some(mapping) = mapping {
                mapping.end().await;
            }
        };
        let _ = tokio::join!(timeout(GOODBYES, goodbyes), timeout(GOODBYES, unmapped));
        self.local.flush(&mut self.node, now);
        if let Err(error) = self.remembering.finish(&known).await {
            tracing::warn!(reason = %error, "known peers cannot be kept");
        }
        self.local.listener().remove();
        if let Some(mdns) = self.mdns {
            mdns.shutdown();
        }
    }

    /// Ready when the process is asked to end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Before anything is sent: its jump may mean that no key may be used again.
        self.node.handle_wall_clock(self.clock.since_1970(), self.clock.now());
        for _ in 0..ROUNDS {
            let now = self.clock.now();
            let mut busy = self.poll_time(cx, now);
            busy |= self.poll_network(cx, now);
            busy |= self.poll_hints(cx, now);
            busy |= self.local.poll(cx, &mut self.node, now);
            busy |= self.poll_files(cx);
            // Until it is pending: only then it wakes us again.
            while self.look.poll_tick(cx).is_ready() {
                self.look(now);
                busy = true;
            }
            if self.endings.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
                return Poll::Ready(());
            }
            if self.hangup.poll_recv(cx).is_ready() {
                // Whatever came of it is in the log.
                let _ = self.reload(now);
                busy = true;
            }
            busy |= self.drain(cx, now);
            if !busy
                && self.alarm.poll(cx, self.node.poll_timeout().map(|(deadline, _)| deadline)).is_pending()
            {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_time(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        self.manager.poll(cx);
        let due = self.node.poll_timeout().is_some_and(|(deadline, _)| deadline <= now);
        if due {
            self.node.handle_timeout(now);
        }
        due
    }

    fn poll_network(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let node = &mut self.node;
        let received = self.udp.poll_recv(cx, |route, datagram| {
            if let Err(reason) = node.handle_datagram(route, datagram, now) {
                tracing::trace!(from = %route.remote, %reason, "a datagram was dropped");
            }
        });
        let Poll::Ready(trouble) = self.udp.poll_trouble(cx) else { return received.is_ready() };
        match trouble {
            Trouble::Unreachable(remote) => self.node.handle_unreachable(remote, now),
            Trouble::TooLarge { remote, mtu, here } => self.node.handle_too_large(remote, mtu, here, now),
        }
        true
    }

    fn poll_hints(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut busy = false;
        if let Some(mdns) = &mut self.mdns {
            for _ in 0..HINTS_IN_A_ROW {
                match mdns.poll(cx) {
                    Poll::Ready(MdnsEvent::Sighting(sighting)) => self.node.handle_sighting(sighting, now),
                    Poll::Ready(MdnsEvent::Health(health)) => self.node.handle_health(health),
                    Poll::Pending => break,
                }
                busy = true;
            }
        }
        if let Poll::Ready(addrs) = self.interfaces.poll_changed(cx) {
            self.udp.set_interfaces(&addrs, self.interfaces.is_confined());
            self.node.handle_left_out(self.interfaces.left_out());
            self.node.handle_interfaces(&addrs, now);
            self.with_mdns(Mdns::look);
            self.port_mapping.iter().for_each(|mapping| mapping.set_interfaces(&addrs));
            busy = true;
        }
        if let Poll::Ready(health) = self.udp.poll_hellos(cx) {
            self.node.handle_health(health);
            busy = true;
        }
        if let Poll::Ready(found) = self.static_peers.poll(cx) {
            self.node.handle_static_peers(&found.addrs, now);
            self.node.handle_health(found.health());
            busy = true;
        }
        if let Poll::Ready((server, addrs)) = self.server_names.poll(cx) {
            self.node.handle_server_addrs(&server, &addrs, now);
            busy = true;
        }
        if let Some(mapping) = &mut self.port_mapping {
            mapping.open(self.node.is_on_internet());
            if let Poll::Ready(told) = mapping.poll(cx) {
                self.node.handle_mapped(told.addr, now);
                self.node.handle_health(told.health());
                busy = true;
            }
        }
        busy
    }

    /// Looks at what changes without a word.
    fn look(&mut self, now: Instant) {
        if let Some(health) = self.local.look() {
            self.node.handle_health(health);
        }
        self.follow_name(now);
    }

    /// Takes the host's name if it is ours and has changed; tells whether it has.
    fn follow_name(&mut self, now: Instant) -> bool {
        let Some(name) = self.configuration.current().followed_name() else { return false };
        let changed = name != *self.node.name();
        if changed {
            tracing::info!("the host has another name, and this node with it");
            tracing::debug!(before = %self.node.name(), now = %name, "another name");
            self.node.handle_name(name, now);
        }
        changed
    }

    fn poll_files(&mut self, cx: &mut Context<'_>) -> bool {
        let node = &self.node;
        let Poll::Ready(outcome) = self.remembering.poll(cx, || node.known_peers()) else { return false };
        if let Err(error) = &outcome {
            tracing::warn!(reason = %error, "known peers cannot be kept");
        }
        self.node.handle_health(peerfile::stored_health(&outcome, self.state.path()));
        true
    }

    /// Does what the node wants and sends what it has; tells whether there was anything.
    fn drain(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = false;
        while let Some(event) = self.node.poll_event() {
            any = true;
            self.on_event(event, now);
        }
        loop {
            if self.sending.is_none() {
                self.sending = self.node.poll_transmit(&mut self.buffer);
            }
            let Some(transmit) = &self.sending else { break };
            // A full socket holds up the rest: the node's queue is bounded, the kernel's is empty within a moment.
            if self.udp.poll_send(cx, transmit, &self.buffer).is_pending() {
                break;
            }
            self.sending = None;
            any = true;
        }
        self.tell_status();
        any
    }

    fn tell_status(&mut self) {
        let counts = Counts { online: self.node.online(), apps: self.local.count() };
        self.manager.status(self.node.name().as_str(), counts);
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Output(client) => self.local.on_output(client),
            Event::Close(client) => self.local.on_close(client),
            Event::AskBattery => self.node.handle_battery(power::is_on_battery(Path::new(SUPPLIES)), now),
            Event::OpenPort(port) => self.udp.open(port),
            Event::ClosePort(port) => self.udp.close(port),
            Event::Resolve(server) => self.server_names.look_up(server),
            Event::Remember => self.remembering.changed(),
            Event::RememberServers => {
                self.server_pins.keep(&self.node.known_servers(), self.node.proved_servers());
            }
            Event::Network { client, id, change } => {
                let outcome = self.change_network(change, now);
                let outcome = outcome.map(|()| (self.network.membership(), self.network.source.clone()));
                self.node.handle_network(client, id, outcome, now);
            }
            Event::Invite { client, id } => {
                let line = self.network.invitation(self.node.known_servers());
                self.node.handle_invitation(client, id, line.as_ref().map(|line| line.as_str()), now);
            }
            Event::Reload { client, id } => {
                let outcome = self.reload(now);
                self.node.handle_reload(client, id, outcome, now);
            }
            Event::Announce(advert) => self.with_mdns(|mdns| mdns.announce(advert)),
            Event::Withdraw => self.with_mdns(Mdns::withdraw),
            Event::Browse => self.with_mdns(Mdns::browse),
            Event::Ask => self.with_mdns(Mdns::ask),
            Event::StopBrowse => self.with_mdns(Mdns::stop_browse),
        }
    }

    fn with_mdns(&mut self, act: impl FnOnce(&mut Mdns)) {
        if let Some(mdns) = &mut self.mdns {
            act(mdns);
        }
    }

    fn change_network(&mut self, change: NetworkChange, now: Instant) -> Result<(), String> {
        self.network = Network::change(change, self.configuration.current(), &self.state)?;
        self.use_servers(now);
        Ok(())
    }

    /// Makes the node use the servers of the configuration and of the network, and keeps what it knows of them.
    fn use_servers(&mut self, now: Instant) {
        let servers = self.network.all_servers(&self.configuration.current().rendezvous);
        self.node.handle_servers(&self.server_pins.fill_in(servers), now);
        self.server_pins.keep(&self.node.known_servers(), self.node.proved_servers());
    }
}

fn looks() -> Interval {
    let mut look = interval(LOOK);
    // What was missed while the machine slept is not made up for.
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look
}

impl Daemon {
    /// Reads the configuration again and follows it. With any mistake in it nothing changes.
    fn reload(&mut self, now: Instant) -> Result<Reloaded<'static>, String> {
        self.manager.reloading();
        let outcome = self.try_reload(now);
        match &outcome {
            Ok(Reloaded { changed, restart }) => {
                tracing::info!(?changed, ?restart, "the configuration was read again")
            }
            Err(reason) => {
                tracing::error!("the configuration stays as it was: {reason}");
                self.node.handle_health(reload::unreadable(reason));
            }
        }
        self.manager.ready();
        outcome
    }

    fn try_reload(&mut self, now: Instant) -> Result<Reloaded<'static>, String> {
        // Whatever the files say: it is asked for where apps find no socket.
        if let Some(health) = self.local.look() {
            self.node.handle_health(health);
        }
        let settings = self.configuration.read().map_err(|mistakes| mistakes.to_string())?;
        let network = Network::read(&settings, &self.state).map_err(|error| error.to_string())?;
        for mistake in &settings.warnings {
            tracing::warn!("{mistake}");
        }
        let peers = (settings.peers != self.configuration.current().peers).then(|| settings.peers.clone());
        let (mut reloaded, health) = self.configuration.replace(settings);
        if let Some(peers) = peers {
            self.node.handle_static_peers(&[], now);
            self.static_peers = StaticPeers::new(peers);
        }
        let key = "network_secret_file";
        let other_servers = network.servers() != self.network.servers();
        self.network = network;
        let other_secret =
            self.node.follow_network(self.network.membership(), self.network.source.clone(), now);
        self.use_servers(now);
        if (other_secret || other_servers) && !reloaded.changed.iter().any(|changed| changed == key) {
            // Its path is the same, what is in it is not.
            reloaded.changed.push(key.into());
        }
        if self.follow_name(now) {
            reloaded.changed.push("name".into());
        }
        for key in &reloaded.restart {
            tracing::warn!("{key} has changed: the daemon must be restarted for it");
        }
        self.node.handle_health(health);
        Ok(reloaded)
    }
}
