//! The loop that drives a rendezvous server: one task, its sockets, its page of counters.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, interval};

use crate::core::{Destination, Transmit};
use crate::edge::alarm::Alarm;
use crate::edge::clock::Clock;
use crate::edge::config::rendezvous::{Settings, next};
use crate::edge::interfaces::{InterfaceFilter, Interfaces};
use crate::edge::keyfile::{StateDir, StateError};
use crate::edge::metrics::Metrics;
use crate::edge::serverkey;
use crate::edge::systemd::ServiceManager;
use crate::edge::udp::{Udp, UdpError};
use crate::limits;
use crate::route::{OwnPort, Route};
use crate::server::{Config, Dropped, SECOND_PORT, Server};
use crate::time::Instant;
use crate::wire::rendezvous::Kind;

/// Rounds in a row before the runtime's other work gets its turn.
const ROUNDS: usize = 32;
/// How often the status line is looked at: numbers of members change all the time.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// A server that has all it needs and serves as soon as [`Rendezvous::run`] is awaited.
pub struct Rendezvous {
    clock: Clock,
    server: Server,
    started: Instant,
    udp: Udp,
    /// That of the second port, if there is one.
    second: Option<Udp>,
    interfaces: Interfaces,
    metrics: Option<Metrics>,
    manager: ServiceManager,
    endings: [Signal; 2],
    alarm: Alarm,
    status: Interval,
    told: String,
    sending: Option<Transmit>,
    /// It is for the second port.
    at_second: bool,
    buffer: Vec<u8>,
    _state: StateDir,
}

/// Why the server does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The state directory, or the key in it.
    #[error(transparent)]
    State(#[from] StateError),
    /// The port is not free.
    #[error(
        "UDP port {0} is taken\ntry: another port in --bind, or `ss -lunp sport = :{0}` to see who has it"
    )]
    Taken(u16),
    /// The sockets.
    #[error(transparent)]
    Udp(UdpError),
    /// The page of counters.
    #[error("cannot listen on {addr}: {error}\ntry: another --metrics ADDR:PORT")]
    Metrics {
        /// Where.
        addr: SocketAddr,
        /// Its reason.
        error: io::Error,
    },
    /// The operating system refused something that every process may have.
    #[error("the operating system refused: {0}")]
    Io(#[from] io::Error),
}

impl From<UdpError> for StartError {
    fn from(error: UdpError) -> Self {
        match error {
            UdpError::Taken(port) => Self::Taken(port),
            other => Self::Udp(other),
        }
    }
}

impl Rendezvous {
    /// Takes possession of all that the server needs.
    ///
    /// # Errors
    ///
    /// Something that it cannot do without is not to be had.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        for mistake in &settings.warnings {
            tracing::warn!("{mistake}");
        }
        let clock = Clock;
        let state = StateDir::open(&settings.state_dir)?;
        let secrets = serverkey::secrets(&state)?;
        let ips: Vec<IpAddr> = settings.bind.iter().map(SocketAddr::ip).collect();
        let port = settings.bind.first().map(SocketAddr::port);
        let udp = Udp::bind(&ips, port)?;
        let metrics = match settings.metrics {
            None => None,
            Some(addr) => {
                Some(Metrics::open(addr).await.map_err(|error| StartError::Metrics { addr, error })?)
            }
        };
        let started = clock.now();
        let second = second_port(settings.second_port.or_else(|| next(udp.port())), &ips);
        let second_port = second.as_ref().and_then(|second| NonZeroU16::new(second.port()));
        let config = Config { second_port, ..Config::default() };
        let mut server = Server::new(config, secrets, Box::new(UnwrapErr(SysRng)), started);
        server.handle_wall_clock(clock.since_1970(), started);
        let manager = ServiceManager::from_env();
        // Every address of ours may be spoken to, those of tunnels too.
        let filter = InterfaceFilter::new(Vec::new(), Some(Vec::new()), &ips);
        let mut rendezvous = Self {
            clock,
            server,
            started,
            udp,
            second,
            interfaces: Interfaces::new(Arc::new(filter)),
            metrics,
            manager,
            endings: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
            alarm: Alarm::new()?,
            status: interval(STATUS_INTERVAL),
            told: String::new(),
            sending: None,
            at_second: false,
            buffer: Vec::new(),
            _state: state,
        };
        if let Some(addrs) = rendezvous.interfaces.changed() {
            rendezvous.ports().for_each(|udp| udp.set_interfaces(&addrs, false));
        }
        Ok(rendezvous)
    }

    /// The sockets of each port.
    fn ports(&mut self) -> impl Iterator<Item = &mut Udp> {
        std::iter::once(&mut self.udp).chain(&mut self.second)
    }

    /// Where nodes find it: `host:port#key`, a line for each address. In the place of all addresses stand those that this
    /// machine has, but for loopback, link-local ones and those of virtual interfaces, if it has others.
    pub fn ready_lines(&self) -> Vec<String> {
        let key = self.server.key();
        let addrs = self.udp.addrs();
        let own = own_addrs();
        let mut lines = BTreeSet::new();
        for bound in addrs {
            let of_family = |ip: &&IpAddr| ip.is_ipv4() == bound.is_ipv4();
            let named: Vec<IpAddr> = if bound.ip().is_unspecified() {
                own.iter().filter(of_family).copied().collect()
            } else {
                vec![bound.ip()]
            };
            lines.extend(named.into_iter().map(|ip| format!("{}#{key}", SocketAddr::new(ip, bound.port()))));
        }
        if lines.is_empty() {
            // At least the port and the key are told.
            lines.extend(self.udp.addrs().into_iter().map(|addr| format!("{addr}#{key}")));
        }
        lines.into_iter().collect()
    }

    /// Where the counters are shown.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Metrics::addr)
    }

    /// Serves until the process is asked to end.
    pub async fn run(mut self) {
        self.manager.ready();
        poll_fn(|cx| self.poll(cx)).await;
        tracing::info!("ending");
        self.manager.stopping();
    }

    /// Ready when the process is asked to end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.server.handle_wall_clock(self.clock.since_1970(), self.clock.now());
        for _ in 0..ROUNDS {
            let now = self.clock.now();
            let mut busy = self.poll_time(cx, now);
            busy |= self.poll_network(cx, now);
            if let Some(Poll::Ready(ask)) = self.metrics.as_mut().map(|metrics| metrics.poll(cx)) {
                // Who asked may have gone.
                let _ = ask.send(page(&self.server, now.since(self.started)));
                busy = true;
            }
            if self.endings.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
                return Poll::Ready(());
            }
            busy |= self.drain(cx);
            if !busy
                && self.alarm.poll(cx, self.server.poll_timeout().map(|(deadline, _)| deadline)).is_pending()
            {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_time(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        self.manager.poll(cx);
        // Until it is pending: only then it wakes us again.
        while self.status.poll_tick(cx).is_ready() {
            let (members, namespaces) = (self.server.members(), self.server.namespaces());
            let line = format!("{members} registrations in {namespaces} networks");
            if line != self.told {
                self.manager.say(&line);
                self.told = line;
            }
        }
        let due = self.server.poll_timeout().is_some_and(|(deadline, _)| deadline <= now);
        if due {
            self.server.handle_timeout(now);
        }
        due
    }

    fn poll_network(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let server = &mut self.server;
        let mut any = false;
        let ports = [(OwnPort::USUAL, Some(&mut self.udp)), (SECOND_PORT, self.second.as_mut())];
        for (port, udp) in ports.into_iter().filter_map(|(port, udp)| Some((port, udp?))) {
            let received = udp.poll_recv(cx, |route, datagram| {
                // Answered as the system routes: who is behind a router may be reached by another interface.
                let route = Route { interface: None, port, ..route };
                if let Err(reason) = server.handle_datagram(route, datagram, now) {
                    tracing::trace!(from = %route.remote, %reason, "a datagram was dropped");
                }
            });
            // A node that went away is forgotten by its lease.
            any |= received.is_ready() | udp.poll_trouble(cx).is_ready();
        }
        if let Poll::Ready(addrs) = self.interfaces.poll_changed(cx) {
            self.ports().for_each(|udp| udp.set_interfaces(&addrs, false));
        }
        any
    }

    /// Sends what the server has to say; tells whether there was anything.
    fn drain(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        loop {
            if self.sending.is_none() {
                let segment_bytes = |buffer: &[u8]| buffer.len().max(1);
                self.sending = self.server.poll_transmit(&mut self.buffer).map(|route: Route| {
                    self.at_second = route.port == SECOND_PORT;
                    Transmit {
                        // Each port has sockets of its own, and there it is the usual one.
                        to: Destination::One(Route { port: OwnPort::USUAL, ..route }),
                        segment_bytes: segment_bytes(&self.buffer),
                        hops: None,
                        // A list of members cannot be shorter.
                        cut: self.buffer.len() > limits::SMALLEST_DATAGRAM_BYTES,
                    }
                });
            }
            let Some(transmit) = &self.sending else { break };
            let udp = self.second.as_mut().filter(|_| self.at_second).unwrap_or(&mut self.udp);
            // A full socket holds up the rest: the server's queue is bounded, the kernel's is empty within a moment.
            if udp.poll_send(cx, transmit, &self.buffer).is_pending() {
                break;
            }
            self.sending = None;
            any = true;
        }
        any
    }
}

/// The sockets of the second port. Without them the server does all else.
fn second_port(port: Option<u16>, ips: &[IpAddr]) -> Option<Udp> {
    let port = port.filter(|port| *port != 0)?;
    let bound = Udp::bind(ips, Some(port));
    if let Err(error) = &bound {
        let reason = match error {
            UdpError::Taken(_) => "somebody else has it".to_owned(),
            UdpError::Bind { error, .. } => error.to_string(),
        };
        tracing::warn!(
            port,
            reason,
            "the second port cannot be had, so members do not learn from this server alone whether their routers give each \
             destination another port; try --second-port"
        );
    }
    bound.ok()
}

/// The addresses at which others may reach this machine.
fn own_addrs() -> Vec<IpAddr> {
    let filter = InterfaceFilter::new(Vec::new(), None, &[]);
    let Ok(found) = if_addrs::get_if_addrs() else { return Vec::new() };
    let found = found.iter().filter(|interface| filter.uses(interface) && !interface.is_link_local());
    let (loopback, others): (Vec<_>, Vec<_>) =
        found.map(if_addrs::Interface::ip).partition(IpAddr::is_loopback);
    if others.is_empty() { loopback } else { others }
}

/// The counters, as Prometheus reads them.
fn page(server: &Server, uptime: Duration) -> String {
    let mut text = String::new();
    let mut one = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
        let _ =
            writeln!(text, "# HELP atonce_rendezvous_{name} {help}\n# TYPE atonce_rendezvous_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "atonce_rendezvous_{name}{labels} {value}");
        }
    };
    let plain = |value: u64| [(String::new(), value)];
    let counts = server.counts();
    one("registrations", "gauge", "Members that are registered now.", &plain(server.members() as u64));
    one("namespaces", "gauge", "Namespaces that have members now.", &plain(server.namespaces() as u64));
    one("echoes_waiting", "gauge", "Probes that wait for their answer.", &plain(server.echoes() as u64));
    one("uptime_seconds", "gauge", "Time since the start.", &plain(uptime.as_secs()));
    let by_kind = |way: &str, count: &dyn Fn(Kind) -> u64| {
        let line = |kind: Kind| (format!("{{way=\"{way}\",kind=\"{}\"}}", kind.as_str()), count(kind));
        Kind::ALL.map(line)
    };
    let messages: Vec<_> = by_kind("in", &|kind| counts.received(kind))
        .into_iter()
        .chain(by_kind("out", &|kind| counts.sent(kind)))
        .collect();
    one("messages_total", "counter", "Messages by their way and kind.", &messages);
    let bytes = [("in", counts.bytes_in), ("out", counts.bytes_out)]
        .map(|(way, bytes)| (format!("{{way=\"{way}\"}}"), bytes));
    one("bytes_total", "counter", "Bytes of UDP payload.", &bytes);
    one(
        "events_withheld_total",
        "counter",
        "Events of which a member got a hint at most, since it or its source had its share.",
        &plain(counts.events_withheld),
    );
    let drops =
        Dropped::ALL.map(|reason| (format!("{{reason=\"{}\"}}", reason.as_str()), counts.dropped(reason)));
    one("dropped_total", "counter", "Messages without effect, by reason.", &drops);
    text
}
