//! The cases beside the table of routers: what a user should expect of each, and what was seen.

use std::time::{Duration, Instant};

use crate::homes::{await_path, await_registered, await_server, listed};
use crate::internet::{Internet, Server, Side, Site};
use crate::kinds::Kind;
use crate::lab::{Daemon, Host, Lab};
use crate::talk::Conversation;

/// After this time a peer that is not reached is told with the reason.
const APART: Duration = Duration::from_secs(18);
/// A server with a wrong key is watched for so long, and members without a server talk for so long.
const WATCHED: Duration = Duration::from_secs(30);
const ALONE: Duration = Duration::from_secs(75);
/// After this time members that have met have nothing more to ask the server.
const QUIET: Duration = Duration::from_secs(3);
/// A server's key, of another one than ours.
const OTHER_KEY: &str = "5rs3g2xyzjlkyq7p2axpo6nvndlc3ckqnqj3cpetmoaqsp6eyelq";
/// Messages of one piece of a conversation.
const MESSAGES: u64 = 50;

/// One internet for all cases; each has a network and routers of its own.
struct Cases<'lab> {
    lab: &'lab Lab,
    internet: Internet<'lab>,
    server: Option<Server>,
    lines: [String; 2],
    rows: Vec<[String; 3]>,
}

/// The network of one case.
struct Network {
    secret: String,
    number: usize,
}

pub(crate) fn print(lab: &Lab) {
    let internet = Internet::new(lab);
    let server = internet.start_server();
    let lines = server.lines.clone();
    let mut cases = Cases { lab, internet, server: Some(server), lines, rows: Vec::new() };
    cases.one_home();
    cases.one_carrier(false);
    cases.one_carrier(true);
    cases.two_translators();
    cases.ipv6_alone();
    cases.ipv6_and_ipv4();
    cases.router_moves();
    cases.udp_blocked();
    cases.wrong_key();
    cases.server_restarts();
    cases.server_dies();
    println!("| case | expected | seen |\n|---|---|---|");
    for row in cases.rows {
        println!("| {} |", row.join(" | "));
    }
}

impl Cases<'_> {
    fn network(&self) -> Network {
        let number = self.rows.len() + 1;
        Network { secret: self.lab.new_network(&format!("secret-{number}")), number }
    }

    fn row(&mut self, case: &str, expected: &str, seen: String) {
        println!("# {case}: {seen}");
        self.rows.push([case.to_owned(), expected.to_owned(), seen]);
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// A host of this case at a site, when its addresses do not change any more: each change makes members ask the server.
    fn host(site: &Site<'_>, network: &Network, name: &str) -> Host {
        let host = site.host(format!("{name}{}", network.number).leak());
        host.await_link_local();
        host
    }

    fn member(&self, site: &Site<'_>, network: &Network, name: &str, port: &str) -> Daemon {
        let host = Self::host(site, network, name);
        let daemon = site.daemon(host, &network.secret, self.server(), &["--port", port]);
        await_registered(&daemon);
        daemon
    }

    /// Ports of their own, by which the lab's carriers tell their customers apart.
    fn members(&self, sites: [&Site<'_>; 2], network: &Network) -> [Daemon; 2] {
        [self.member(sites[0], network, "attic", "28282"), self.member(sites[1], network, "kitchen", "28284")]
    }

    /// A member in the open, whom everybody reaches, by IPv4 and IPv6.
    fn helper(&self, network: &Network) -> Daemon {
        let host = self.internet.dual_host(Side::East, format!("open{}", network.number).leak());
        let [v4, v6] = &self.lines;
        host.daemon(&["--network-secret-file", &network.secret, "--rendezvous", v4, "--rendezvous", v6])
    }

    /// Both meet in this way, and talk.
    fn meet(&self, sites: [&Site<'_>; 2], network: &Network, kind: &str) -> String {
        let pair = self.members(sites, network);
        await_path(pair.each_ref(), kind);
        said(&mut Conversation::begin(&pair[0], &pair[1]));
        kind.to_owned()
    }

    /// Both are apart, with the reason, until a third member comes.
    fn helped(&self, sites: [&Site<'_>; 2], network: &Network) -> String {
        let pair = self.members(sites, network);
        std::thread::sleep(APART);
        let why = how(&pair[0], &pair[1]);
        let began = Instant::now();
        let _third = self.helper(network);
        await_path(pair.each_ref(), "relay");
        let took = began.elapsed();
        said(&mut Conversation::begin(&pair[0], &pair[1]));
        format!("alone {why}; with the third member relay, {:.1} s after its start", took.as_secs_f64())
    }

    fn one_home(&mut self) {
        let (network, site) = (self.network(), self.internet.site(Side::West, Kind::HOME));
        let seen = self.meet([&site, &site], &network, "lan");
        self.row("both behind one home router", "lan", seen);
    }

    fn one_carrier(&mut self, hairpin: bool) {
        let network = self.network();
        let carrier = self.internet.carrier(Side::West, Kind { hairpin, ..Kind::EIF });
        let sites = [1, 2].map(|net| self.internet.customer(&carrier, Kind::HOME, net));
        let sites = sites.each_ref();
        let case = "two homes behind one carrier";
        if hairpin {
            let seen = self.meet(sites, &network, "direct");
            self.row(&format!("{case} that turns packets around"), "direct", seen);
        } else {
            let seen = self.helped(sites, &network);
            let expected = "connecting, with the reason; relay with a third member";
            self.row(&format!("{case} that does not turn packets around"), expected, seen);
        }
    }

    fn two_translators(&mut self) {
        let network = self.network();
        let carriers = [(Side::West, Kind::EIF), (Side::East, Kind::HOME)];
        let sites = carriers.map(|(side, kind)| {
            let carrier = self.internet.carrier(side, kind);
            self.internet.customer(&carrier, Kind::HOME, 1)
        });
        let seen = self.meet(sites.each_ref(), &network, "direct");
        self.row("two translators in a row on both sides", "direct", seen);
    }

    fn ipv6_alone(&mut self) {
        let (network, sites) = (self.network(), Side::BOTH.map(|side| self.internet.site_v6(side)));
        let seen = self.meet(sites.each_ref(), &network, "direct");
        self.row("IPv6 alone, firewalls on both sides", "direct", seen);
    }

    fn ipv6_and_ipv4(&mut self) {
        let network = self.network();
        let sites = [self.internet.site_v6(Side::West), self.internet.site(Side::East, Kind::HOME)];
        let seen = self.helped(sites.each_ref(), &network);
        let expected = "connecting, with the reason; relay with a third member that has both";
        self.row("IPv6 alone and IPv4 alone", expected, seen);
    }

    fn router_moves(&mut self) {
        let network = self.network();
        let mut sites = Side::BOTH.map(|side| self.internet.site(side, Kind::HOME));
        let pair = self.members(sites.each_ref(), &network);
        await_path(pair.each_ref(), "direct");
        let mut conversation = Conversation::begin(&pair[0], &pair[1]);
        said(&mut conversation);
        conversation.say(MESSAGES);
        sites[0].reboot("198.51.100.177");
        let began = Instant::now();
        conversation.say(MESSAGES);
        conversation.hear();
        let took = began.elapsed();
        await_path(pair.each_ref(), "direct");
        conversation.end();
        let seen = format!(
            "direct, nothing lost or doubled, all there {:.1} s after the restart",
            took.as_secs_f64()
        );
        let expected = "direct again, and no message is lost or doubled";
        self.row("a router restarts under traffic and has another address", expected, seen);
    }

    fn udp_blocked(&mut self) {
        let network = self.network();
        let site = self.internet.site(Side::West, Kind::BLOCKED);
        let host = Self::host(&site, &network, "attic");
        let began = Instant::now();
        let daemon = site.daemon(host, &network.secret, self.server(), &[]);
        let health = daemon.await_health("rendezvous", |health| health["state"] == "warn");
        let seen = format!("after {:.0} s: {}", began.elapsed().as_secs_f64(), told(&health));
        self.row("UDP is blocked at one side", "`status` says so, and what to do", seen);
    }

    fn wrong_key(&mut self) {
        let network = self.network();
        let site = self.internet.site(Side::West, Kind::OPEN);
        let host = Self::host(&site, &network, "attic");
        let (addr, _) = self.lines[0].split_once('#').unwrap();
        let line = format!("{addr}#{OTHER_KEY}");
        let daemon = host.daemon(&["--network-secret-file", &network.secret, "--rendezvous", &line]);
        await_server(&daemon, "wrong-key");
        let capture = self.lab.capture_of(self.internet.core);
        std::thread::sleep(WATCHED);
        let own: std::net::Ipv4Addr = site.addr_of(host).parse().unwrap();
        let sent = capture.frames().iter().filter(|it| it.goes_to(28283) && it.has(&own.octets())).count();
        let seen = format!("wrong-key; packets to it in the next {} s: {sent}", WATCHED.as_secs());
        let expected = "`status` says wrong-key; nothing is sent to it but a hail every ten minutes";
        self.row("the server has another key than the known one", expected, seen);
    }

    fn server_restarts(&mut self) {
        let network = self.network();
        let sites = Side::BOTH.map(|side| self.internet.site(side, Kind::HOME));
        let pair = self.members(sites.each_ref(), &network);
        await_path(pair.each_ref(), "direct");
        let mut conversation = Conversation::begin(&pair[0], &pair[1]);
        said(&mut conversation);
        // Dropped: killed, without a word to anybody.
        self.server = None;
        said(&mut conversation);
        self.server = Some(self.internet.start_server());
        let site = self.internet.site(Side::West, Kind::HOME);
        let began = Instant::now();
        let newcomer = self.member(&site, &network, "garage", "28282");
        for daemon in &pair {
            await_path([&newcomer, daemon], "direct");
        }
        let took = began.elapsed();
        said(&mut conversation);
        conversation.end();
        let seen = format!(
            "nothing lost or doubled, nobody said to have left; the newcomer direct to both after {:.1} s",
            took.as_secs_f64()
        );
        let expected = "nobody notices; a newcomer is met within a keep, 25 s";
        self.row("the server is killed and started again while members talk", expected, seen);
    }

    fn server_dies(&mut self) {
        let network = self.network();
        let sites = Side::BOTH.map(|side| self.internet.site(side, Kind::HOME));
        let pair = self.members(sites.each_ref(), &network);
        await_path(pair.each_ref(), "direct");
        let mut conversation = Conversation::begin(&pair[0], &pair[1]);
        let before = how(&pair[0], &pair[1]);
        // So that nothing but keeps is on the way.
        std::thread::sleep(QUIET);
        self.server = None;
        let (began, mut noticed) = (Instant::now(), None);
        while began.elapsed() < ALONE {
            said(&mut conversation);
            let health = pair[0].health("rendezvous").filter(|health| health["state"] == "warn");
            if let (Some(health), None) = (health, &noticed) {
                noticed = Some(format!("after {:.0} s: {}", began.elapsed().as_secs_f64(), told(&health)));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(how(&pair[0], &pair[1]), before);
        conversation.end();
        let seen = format!(
            "{before} as before for {} s, nothing lost or doubled; `status` {}",
            ALONE.as_secs(),
            noticed.unwrap()
        );
        let expected =
            "members that have met do not notice; `status` says so within one and a half keeps, 38 s";
        self.row("the server is killed for good", expected, seen);
    }
}

/// Says some, and waits until all of it was heard once and in order.
fn said(conversation: &mut Conversation) {
    conversation.say(MESSAGES);
    conversation.hear();
}

/// How one lists the other.
fn how(one: &Daemon, other: &Daemon) -> String {
    let peers = one.json(&["peers", "--all"]);
    match listed(&peers, &other.name).or_else(|| peers.iter().find(|peer| peer["state"] != "online")) {
        Some(peer) if peer["state"] == "online" => peer["path"]["kind"].as_str().unwrap().to_owned(),
        Some(peer) => format!("{}: {}", text(&peer["state"]), text(&peer["why"])),
        None => "not listed".to_owned(),
    }
}

fn told(health: &serde_json::Value) -> String {
    format!("{}; {}", text(&health["why"]), text(&health["fix"]))
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or("-")
}
