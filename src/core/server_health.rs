//! What `status` says of rendezvous servers that are not as they should be.

use crate::core::Node;
use crate::core::rendezvous::{Server, ServerId};
use crate::core::server_clock::ServerClock;
use crate::wire::local::{Health, HealthState};

impl Node {
    /// Another server that is more than a day apart from this one, if this is the one of both to be told of: with it fewer
    /// servers agree, or as many and it comes first.
    fn odd_one_out(&self, id: ServerId) -> Option<&str> {
        let (all, now) = (&self.rendezvous.servers, self.now);
        let clock = |id: ServerId| all.get(&id).map(|server| server.clock).filter(ServerClock::is_heard);
        let own = clock(id)?;
        let same = |clock: ServerClock| all.values().filter(|it| clock.agrees(&it.clock, now)).count();
        let is_odd = |other: ServerId, clock: ServerClock| (same(own), id) < (same(clock), other);
        let mut others = all.iter().filter_map(|(other, server)| Some((*other, clock(*other)?, server)));
        let found = others.find(|(other, clock, _)| own.disagrees(clock, now) && is_odd(*other, *clock));
        found.map(|(_, _, other)| &*other.name)
    }

    pub(crate) fn rendezvous_health(&self) -> Vec<Health<'static>> {
        let now = self.now;
        let health = |(id, server): (&ServerId, &Server)| {
            let name = &server.name;
            let other = self.odd_one_out(*id);
            let (why, fix) = if let (Some(stranger), Some(key)) = (server.stranger(), server.key) {
                let why = format!(
                    "{name} has the key {stranger}, and not {key}: it is not the server that we know"
                );
                (
                    why,
                    "if its operator changed the key, write the new line into the configuration: --rendezvous HOST:PORT#KEY; or, if \
                     it came with an invitation: atonce network join, with a line of atonce invite from a member that knows \
                     the new key",
                )
            } else if server.links.iter().all(|link| link.addr.is_none()) {
                (format!("{name} has no address"), "correct --rendezvous; it is looked up again every minute")
            } else if server.is_gone() {
                let fix = "see whether it runs, and whether this network lets UDP out";
                (format!("{name} does not answer"), fix)
            } else if let Some(other) = other {
                let fix =
                    "set the clock of the server right that is wrong: only who has the same day there is met";
                (format!("{name} and {other} are more than a day apart by their clocks"), fix)
            } else if server.clock.is_off(now) {
                let fix = "set the clock of that server right, or leave the server away if you do not trust it; members that \
                           started since may not be found there before";
                (
                    format!("{name} has a clock that went back, stands still or jumped, and is not believed"),
                    fix,
                )
            } else {
                return None;
            };
            Some(Health {
                check: "rendezvous".into(),
                state: HealthState::Warn,
                why: why.into(),
                fix: fix.into(),
            })
        };
        if !self.is_registering() {
            let any = !self.rendezvous.servers.is_empty();
            return Vec::from_iter(
                any.then(|| Health {
                    check: "rendezvous".into(),
                    state: HealthState::Warn,
                    why: "the open network is not registered at any server".into(),
                    fix: "make a private one: atonce network create, and on each device atonce network join"
                        .into(),
                }),
            );
        }
        self.rendezvous.servers.iter().filter_map(health).collect()
    }
}
