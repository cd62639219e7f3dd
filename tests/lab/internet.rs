//! An internet: two sides of it, two hops apart, a rendezvous server in the middle, and the routers of people on either
//! side.
//!
//! ```text
//!  hosts - router - west - core - east - router - hosts
//!                           |
//!                         server
//! ```
//!
//! What is to end after three hops opens a translator, or two in a row, and reaches no router of the other side.

use std::cell::Cell;
use std::io::Write;
use std::process::Stdio;

use rustix::process::Signal;

use crate::kinds::Kind;
use crate::lab::cable::{Cable, Lan};
use crate::lab::{Daemon, FILES, Host, Lab, Program, script};
use crate::recipes;

/// Of the first server and of the second one.
const SERVERS: [[&str; 2]; 2] = [["192.0.2.10", "2001:db8::10"], ["192.0.2.11", "2001:db8::11"]];

/// Which side of the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    West,
    East,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::West, Self::East];

    /// Of the addresses of routers.
    fn outside(self) -> &'static str {
        ["198.51.100", "203.0.113"][self as usize]
    }

    /// Of the public addresses of hosts.
    fn inside(self) -> &'static str {
        ["198.18", "198.19"][self as usize]
    }

    /// Of all IPv6.
    fn v6(self) -> &'static str {
        ["2001:db8:1", "2001:db8:2"][self as usize]
    }
}

/// The internet of a lab.
pub(crate) struct Internet<'lab> {
    pub(crate) lab: &'lab Lab,
    edges: [Host; 2],
    sides: [Lan; 2],
    /// Where the server is.
    pub(crate) core: Lan,
    pub(crate) server: Host,
    sites: Cell<u8>,
}

/// A router, and what is behind it.
pub(crate) struct Site<'lab> {
    lab: &'lab Lab,
    pub(crate) router: Host,
    /// Its address outside.
    pub(crate) wan: String,
    pub(crate) wan_cable: Cable,
    gateway: String,
    inside: Lan,
    prefix: String,
}

/// A running rendezvous server.
pub(crate) struct Server {
    program: Program,
    /// What nodes are told: its address and key, by IPv4 and by IPv6.
    pub(crate) lines: [String; 2],
}

fn forward(router: Host) {
    router.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
}

impl<'lab> Internet<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Self {
        let (core, sides) = (lab.lan(), [(); 2].map(|()| lab.lan()));
        let edges = ["west", "east"].map(|name| lab.bare_host(name));
        let server = lab.bare_host("server");
        let cable = lab.plug(server, core, "eth0");
        SERVERS.iter().flatten().for_each(|addr| cable.give(addr));
        for side in Side::BOTH {
            let (edge, number) = (edges[side as usize], side as usize + 1);
            forward(edge);
            let inner = lab.plug(edge, core, "core0");
            inner.give(&format!("192.0.2.{number}"));
            inner.give(&format!("2001:db8::{number}"));
            let outer = lab.plug(edge, sides[side as usize], "side1");
            outer.give(&format!("{}.254", side.outside()));
            outer.give(&format!("{}:ffff::254", side.v6()));
        }
        for (side, other) in [(Side::West, Side::East), (Side::East, Side::West)] {
            let number = side as usize + 1;
            for from in [server, edges[other as usize]] {
                for to in [format!("{}.0/24", side.outside()), format!("{}.0.0/16", side.inside())] {
                    from.sh(&format!("ip route add {to} via 192.0.2.{number}"));
                }
                from.sh(&format!("ip route add {}::/48 via 2001:db8::{number}", side.v6()));
            }
        }
        Self { lab, edges, sides, core, server, sites: Cell::new(0) }
    }

    /// A router of this kind, with a network of its own behind it. All translated ones have the same addresses inside.
    pub(crate) fn site(&self, side: Side, kind: Kind) -> Site<'lab> {
        let inside = if kind.firewall {
            format!("{}.{}", side.inside(), self.sites.get() + 1)
        } else {
            "192.168.1".to_owned()
        };
        self.site_with(side, kind, inside)
    }

    /// A router of a carrier: its customers have routers of their own.
    pub(crate) fn carrier(&self, side: Side, kind: Kind) -> Site<'lab> {
        self.site_with(side, kind, format!("100.64.{}", self.sites.get() + 1))
    }

    /// A customer's router behind a carrier's; `net` tells the networks behind several of them apart.
    pub(crate) fn customer(&self, carrier: &Site<'lab>, kind: Kind, net: u8) -> Site<'lab> {
        let wan = format!("{}.{}", carrier.prefix, self.next_site());
        let gateway = format!("{}.254", carrier.prefix);
        self.router(carrier.inside, wan, gateway, kind, format!("192.168.{net}"))
    }

    /// A network that has IPv6 only, behind a firewall.
    pub(crate) fn site_v6(&self, side: Side) -> Site<'lab> {
        let number = self.next_site();
        let wan = format!("{}:ffff::{number}", side.v6());
        let inside = format!("{}:{number}", side.v6());
        let gateway = format!("{}:ffff::254", side.v6());
        self.edges[side as usize].sh(&format!("ip route add {inside}::/64 via {wan}"));
        self.router(self.sides[side as usize], wan, gateway, Kind::FIREWALL, inside)
    }

    fn site_with(&self, side: Side, kind: Kind, inside: String) -> Site<'lab> {
        let wan = format!("{}.{}", side.outside(), self.next_site());
        if kind.firewall {
            self.edges[side as usize].sh(&format!("ip route add {inside}.0/24 via {wan}"));
        }
        self.router(self.sides[side as usize], wan, format!("{}.254", side.outside()), kind, inside)
    }

    fn next_site(&self) -> u8 {
        self.sites.set(self.sites.get() + 1);
        self.sites.get()
    }

    fn router(&self, outside: Lan, wan: String, gateway: String, kind: Kind, prefix: String) -> Site<'lab> {
        let router = self.lab.bare_host(format!("router{}", self.sites.get()).leak());
        let (wan_cable, inside) = (self.lab.plug(router, outside, "wan0"), self.lab.lan());
        wan_cable.give(&wan);
        let site = Site { lab: self.lab, router, wan, wan_cable, gateway, inside, prefix };
        self.lab.plug(router, inside, "lan1").give(&site.addr(254));
        forward(router);
        site.route_out();
        site.obey(&recipes::rules(kind, &site.wan));
        site
    }

    /// A host in the middle of a side, without a router of its own.
    pub(crate) fn host(&self, side: Side, name: &'static str) -> (Host, String) {
        let host = self.lab.bare_host(name);
        let addr = format!("{}.{}", side.outside(), self.next_site());
        self.lab.plug(host, self.sides[side as usize], "eth0").give(&addr);
        host.sh(&format!("ip route add default via {}.254", side.outside()));
        (host, addr)
    }

    /// The same, with an address of either family.
    pub(crate) fn dual_host(&self, side: Side, name: &'static str) -> Host {
        let (host, _) = self.host(side, name);
        let (addr, gateway) =
            (format!("{}:ffff::{}", side.v6(), self.next_site()), format!("{}:ffff::254", side.v6()));
        host.sh(&format!("ip address add {addr}/64 dev eth0 nodad && ip route add default via {gateway}"));
        host
    }

    /// Starts the server: with the same key each time.
    pub(crate) fn start_server(&self) -> Server {
        self.start_server_number(0)
    }

    /// Starts one or two servers: by two of them members learn also whether their ports vary with the address only.
    pub(crate) fn start_servers(&self, count: usize) -> Vec<Server> {
        (0..count).map(|number| self.start_server_number(number)).collect()
    }

    fn start_server_number(&self, number: usize) -> Server {
        let mut command = self.server.command(env!("CARGO_BIN_EXE_atonce-rendezvous"));
        let [v4, v6] = SERVERS[number];
        command.args(["--state-dir", &format!("{FILES}/server{number}.state"), "--log", "atonce=debug,info"]);
        command.args(["--bind", &format!("{v4}:28283"), "--bind", &format!("[{v6}]:28283")]);
        let program = Program::start(command, "atonce-rendezvous".to_owned());
        let lines = [(); 2].map(|()| program.line(|line| line.contains('#')));
        Server { program, lines }
    }
}

impl Site<'_> {
    fn addr(&self, number: u8) -> String {
        let point = if self.prefix.contains(':') { "::" } else { "." };
        format!("{}{point}{number}", self.prefix)
    }

    /// One more host behind this router, and its address.
    pub(crate) fn host(&self, name: &'static str) -> Host {
        self.plug(self.lab.bare_host(name), "eth0")
    }

    /// Plugs a host in here as well.
    pub(crate) fn plug(&self, host: Host, device: &'static str) -> Host {
        self.lab.plug(host, self.inside, device).give(&self.addr_of(host));
        let family = if self.prefix.contains(':') { "-6" } else { "-4" };
        // A second network is not the way out.
        let _ = host
            .command("ip")
            .args([family, "route", "add", "default", "via", &self.addr(254)])
            .stderr(Stdio::null())
            .status();
        host
    }

    pub(crate) fn addr_of(&self, host: Host) -> String {
        self.addr(host.number)
    }

    /// Lets the router map ports as it is asked to, in one of the ways of `router.py`.
    pub(crate) fn map_ports(&self, how: &str) -> Program {
        let mut command = self.router.command("python3");
        command.arg(script("router.py")).args([how, &self.wan, &self.prefix]);
        let program = Program::start(command, format!("router.py {how}"));
        program.line(|line| line == "ready");
        program
    }

    fn route_out(&self) {
        self.router.sh(&format!("ip route add default via {}", self.gateway));
    }

    /// Adds rules to the router, in the words of nft.
    pub(crate) fn obey(&self, rules: &str) {
        let mut nft = self.router.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft refused:\n{rules}");
    }

    /// Lets nothing pass to or from `addr`, until [`Site::unblock`].
    pub(crate) fn block(&self, addr: &str) {
        let chain = "type filter hook forward priority -10";
        let rules = format!("ip saddr {addr} drop\nip daddr {addr} drop");
        self.obey(&format!("table inet cut {{\nchain passing {{\n{chain}\n{rules}\n}}\n}}\n"));
    }

    pub(crate) fn unblock(&self) {
        self.router.sh("nft delete table inet cut");
    }

    /// Power off and on: a masquerade forgets all, and the router has this address from now on.
    pub(crate) fn reboot(&mut self, wan: &str) {
        self.router.sh("ip link set wan0 down");
        self.wan_cable.take(&self.wan);
        self.wan = wan.to_owned();
        self.wan_cable.give(wan);
        self.router.sh("ip link set wan0 up");
        self.route_out();
    }

    /// Starts a daemon here that is a member of the network, and asks `server`.
    pub(crate) fn daemon(&self, host: Host, secret: &str, server: &Server, more: &[&str]) -> Daemon {
        let line = &server.lines[usize::from(self.prefix.contains(':'))];
        let args = ["--network-secret-file", secret, "--rendezvous", line];
        host.daemon(&[&args, more].concat())
    }
}

impl Server {
    /// Ends it as an operator does.
    pub(crate) fn stop(self) {
        self.program.ask_to_end(Signal::TERM);
        self.program.rest();
    }
}
