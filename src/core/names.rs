//! Names: whom each belongs to, and how people settle it (socket.md, 3).
//!
//! A name belongs to the key that had it first. Another key under it is another peer, told as a conflict; messages by
//! the name never go there. To give the name away, a person forgets its owner.

use crate::core::Node;
use crate::id::{ClientId, RequestId};
use crate::wire::local::{ErrorCode, Health, HealthState};

impl Node {
    /// Forgets a peer for an app. One that is there is parted from, and comes back as a new one.
    pub(crate) fn forget(&mut self, client: ClientId, id: Option<RequestId>, to: &str) {
        if !self.may_administer(client, id, "forgetting a peer") {
            return;
        }
        let Some(peer) = self.find(to) else { return self.refuse_unknown(client, id, to) };
        if peer == self.id {
            let hint = "atonce peers --all lists those that can be forgotten";
            return self.refuse(
                client,
                id,
                ErrorCode::BadRequest,
                "this node is no peer of its own".into(),
                hint,
            );
        }
        // Nobody waits for it any more, so that leaving does not seek it at once.
        self.end_messages(peer);
        for (client, number) in self.pings.of_peer(&peer) {
            self.end_ping(client, number);
        }
        self.say_goodbye(peer);
        self.exit(peer, "it was forgotten");
        self.give_up(peer, "forgotten");
        self.peers.forget(peer);
        self.remember_now();
        self.ok(client, id);
        // If it is still there it hears us, and comes back.
        self.kick("a peer was forgotten");
    }

    /// The conflicts about names, if any: at most one check, whatever their number.
    pub(crate) fn names_health(&self) -> Option<Health<'static>> {
        let mut conflicts = self.peers.known().filter(|(id, _)| !self.peers.is_pinned(id));
        let (id, peer) = conflicts.next()?;
        let owner = self.peers.by_name(peer.name.as_str());
        let more = match conflicts.count() {
            0 => String::new(),
            count => format!(", and {count} more conflicts like this"),
        };
        let (short, name) = (id.short(), &peer.name);
        let (why, fix) = match owner {
            Some(owner) => {
                let owner = owner.short();
                (
                    format!(
                        "{name} is the name of {owner} and, later, of {short}: messages to {name} go to {owner}{more}"
                    ),
                    format!(
                        "atonce forget {owner} gives the name to {short}; or rename one by --name, or send to the id"
                    ),
                )
            }
            None => return None,
        };
        Some(Health { check: "names".into(), state: HealthState::Warn, why: why.into(), fix: fix.into() })
    }
}
