//! Two homes on the two sides of an internet, a member of one network in each, and how they reach each other.

use serde_json::Value;

use crate::internet::{Internet, Server, Side, Site};
use crate::kinds::Kind;
use crate::lab::{Daemon, Host, Lab};

/// The pair, and the server that introduces them.
pub(crate) struct Homes<'lab> {
    pub(crate) internet: Internet<'lab>,
    pub(crate) server: Option<Server>,
    pub(crate) sites: [Site<'lab>; 2],
    pub(crate) hosts: [Host; 2],
    pub(crate) secret: String,
}

impl<'lab> Homes<'lab> {
    /// One home behind a router of each of these kinds.
    pub(crate) fn new(lab: &'lab Lab, kinds: [Kind; 2]) -> Self {
        let internet = Internet::new(lab);
        let [west, east] = kinds;
        let sites = [internet.site(Side::West, west), internet.site(Side::East, east)];
        Self::at(internet, sites)
    }

    pub(crate) fn at(internet: Internet<'lab>, sites: [Site<'lab>; 2]) -> Self {
        let server = Some(internet.start_server());
        let hosts = [sites[0].host("attic"), sites[1].host("kitchen")];
        let secret = internet.lab.new_network("secret");
        Self { internet, server, sites, hosts, secret }
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn daemon(&self, number: usize) -> Daemon {
        self.sites[number].daemon(self.hosts[number], &self.secret, self.server(), &[])
    }

    /// The same, with a port of its own: by these the lab's carriers tell their customers apart.
    pub(crate) fn customer(&self, number: usize) -> Daemon {
        let port = ["28282", "28284"][number];
        let daemon =
            self.sites[number].daemon(self.hosts[number], &self.secret, self.server(), &["--port", port]);
        await_registered(&daemon);
        daemon
    }

    /// The same, with this name.
    pub(crate) fn member(&self, number: usize, name: &str) -> Daemon {
        let line = &self.server().lines[0];
        self.hosts[number].daemon_named(name, &["--network-secret-file", &self.secret, "--rendezvous", line])
    }

    /// Both members, the second of them when the server knows the first.
    pub(crate) fn pair(&self) -> [Daemon; 2] {
        let first = self.daemon(0);
        await_registered(&first);
        [first, self.daemon(1)]
    }

    /// A third member, at home with a router of this kind.
    pub(crate) fn third(&self, kind: Kind) -> Daemon {
        let site = self.internet.site(Side::West, kind);
        site.daemon(site.host("garage"), &self.secret, self.server(), &[])
    }

    /// Lets nothing pass from one home to the other.
    pub(crate) fn part(&self) {
        self.sites[0].block(&self.sites[1].wan);
    }

    pub(crate) fn join(&self) {
        self.sites[0].unblock();
    }
}

/// How `peer` is listed.
pub(crate) fn listed<'peers>(peers: &'peers [Value], peer: &str) -> Option<&'peers Value> {
    peers.iter().find(|known| known["name"] == peer)
}

/// Waits until each of both reaches the other in this way.
pub(crate) fn await_path([one, other]: [&Daemon; 2], kind: &str) {
    for (daemon, peer) in [(one, other), (other, one)] {
        daemon.await_answer(&["peers"], |peers| {
            let peer = listed(peers, &peer.name)?;
            (peer["state"] == "online" && peer["path"]["kind"] == kind).then_some(())
        });
    }
}

/// Waits until the first server is in this state.
pub(crate) fn await_server(daemon: &Daemon, state: &str) {
    daemon.await_answer(&["status"], |status| (status[0]["rendezvous"][0]["state"] == state).then_some(()));
}

/// Waits until the server knows this member.
pub(crate) fn await_registered(daemon: &Daemon) {
    await_server(daemon, "registered");
}
