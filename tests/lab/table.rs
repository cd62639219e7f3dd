//! The table of translators: a router of each kind on either side of an internet, and all pairs of them.

use crate::internet::{Internet, Server, Side, Site};
use crate::kinds::{KINDS, can_meet};
use crate::lab::{Daemon, Host, Lab};

/// One pair of the table, still without daemons.
pub(crate) struct Cell {
    pub(crate) row: usize,
    pub(crate) column: usize,
    /// The file of their network's secret.
    pub(crate) secret: String,
    pub(crate) hosts: [Host; 2],
}

/// The routers, and one host behind each of them, with a daemon for each pair.
pub(crate) struct Table<'lab> {
    pub(crate) internet: Internet<'lab>,
    servers: Vec<Server>,
    places: [Vec<(Site<'lab>, Host)>; 2],
    last_port: u16,
}

impl Cell {
    pub(crate) fn kinds(&self) -> String {
        format!("{} and {}", KINDS[self.row].0, KINDS[self.column].0)
    }

    /// What its daemon on one side is called.
    pub(crate) fn name(&self, side: usize) -> String {
        format!("{}-{}-{}", ["west", "east"][side], self.row, self.column)
    }
}

impl<'lab> Table<'lab> {
    /// With so many servers.
    pub(crate) fn new(lab: &'lab Lab, servers: usize) -> Self {
        let internet = Internet::new(lab);
        let servers = internet.start_servers(servers);
        let places = Side::BOTH.map(|side| {
            let place = |(_, kind)| {
                let site = internet.site(side, kind);
                let host = site.host(format!("in-{}", site.router.name).leak());
                (site, host)
            };
            KINDS.map(place).into_iter().collect()
        });
        Self { internet, servers, places, last_port: 30_000 }
    }

    /// A daemon with a port of its own: some routers need that.
    pub(crate) fn daemon(&mut self, host: Host, name: &str, secret: &str) -> Daemon {
        self.last_port += 1;
        let port = self.last_port.to_string();
        let servers: Vec<_> =
            self.servers.iter().flat_map(|server| ["--rendezvous", server.lines[0].as_str()]).collect();
        host.daemon_named(name, &[&["--network-secret-file", secret, "--port", &port], &servers[..]].concat())
    }

    /// All pairs for which the table says so.
    pub(crate) fn cells(&self, meet: bool) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (row, (_, kind)) in KINDS.into_iter().enumerate() {
            for (column, (_, other)) in KINDS.into_iter().enumerate().skip(row) {
                if can_meet(kind, other, self.servers.len()) == meet {
                    let secret = self.internet.lab.new_network(&format!("secret-{row}-{column}"));
                    let hosts = [self.places[0][row].1, self.places[1][column].1];
                    cells.push(Cell { row, column, secret, hosts });
                }
            }
        }
        cells
    }

    /// Starts one side of a pair.
    pub(crate) fn start(&mut self, cell: &Cell, side: usize) -> Daemon {
        self.daemon(cell.hosts[side], &cell.name(side), &cell.secret)
    }

    /// Starts all pairs for which the table says so; which side begins changes from pair to pair.
    pub(crate) fn pairs(&mut self, meet: bool) -> Vec<(Cell, [Daemon; 2])> {
        let cells = self.cells(meet).into_iter().enumerate();
        cells
            .map(|(number, cell)| {
                let first = self.start(&cell, number % 2);
                let second = self.start(&cell, 1 - number % 2);
                let pair = if number % 2 == 0 { [first, second] } else { [second, first] };
                (cell, pair)
            })
            .collect()
    }
}
