//! What members hear of each other: what changed since a version, and events of their own accord.
//!
//! The first change is told at once: both sides of it are to begin at the same moment. Those that follow closely are
//! collected and told in one datagram. If they do not fit, the latest are told: who hears of
//! those only sees by `since` that it lacks the others, and lists them. So does whoever may not be sent as much unasked:
//! it gets an event that tells of nothing but the version, and pays for the rest by asking.

use std::time::Duration;

use super::Server;
use super::limits::{EVENT_BYTES, HINT_BYTES, Rate};
use super::members::{Member, MemberIndex};
use super::moment::Moment;
use super::namespaces::{NamespaceIndex, Record};
use crate::limits;
use crate::route::Route;
use crate::source::Source;
use crate::wire::rendezvous::{Entries, Entry, Event, FromServer, Handle, size};

/// Between two events of one namespace: a member gets at most five a second.
const APART: Duration = Duration::from_millis(200);

impl Server {
    /// The version of the namespace went up by one: an event is due, now or as soon as it may be.
    pub(super) fn changed(&mut self, namespace: NamespaceIndex) {
        let Some(record) = self.namespaces.get_mut(namespace) else { return };
        if record.version - record.told > 1 {
            return;
        }
        if record.quiet_until.instant() > self.now {
            self.events.insert((record.quiet_until, namespace));
        } else {
            self.untold.push_back(namespace);
        }
    }

    /// Puts the event of a namespace into the outbox.
    pub(super) fn tell_event(&mut self, index: NamespaceIndex) {
        let Some(record) = self.namespaces.get_mut(index) else { return };
        let (told, upto) = (record.told, record.version);
        record.told = upto;
        record.quiet_until = Moment::after(self.now + APART);
        let since = self.latest_that_fit(index, told, size::MESSAGE_MAX - size::EVENT);
        let mut entries = std::mem::take(&mut self.entries);
        self.collect(index, since, size::MESSAGE_MAX - size::EVENT, None, &mut entries);
        let to = self.recipients(index);
        let parsed = Entries::parse(&entries).unwrap_or_default();
        let mut told_entries = parsed;
        let only = told_entries.next().filter(|_| told_entries.next().is_none()).map(|entry| entry.handle);
        if let Some(record) = self.namespaces.get(index) {
            let mut message = self.outbox.buffer();
            let namespace = record.keys.namespace().tag();
            FromServer::Event(Event { namespace, since, upto, entries: parsed }).write(&mut message);
            record.keys.finish(&mut message);
            let mut hint = Vec::with_capacity(size::EVENT);
            let nothing = Entries::default();
            FromServer::Event(Event { namespace, since: upto, upto, entries: nothing }).write(&mut hint);
            record.keys.finish(&mut hint);
            let mut routes = Vec::with_capacity(to.len());
            for member in to {
                let Some(route) = self.route_of(member, only) else { continue };
                // As much is left as the hint needs.
                if self.pay(member, route, EVENT_BYTES, message.len(), hint.len()) {
                    routes.push(route);
                } else {
                    self.counts.events_withheld += 1;
                    if self.pay(member, route, HINT_BYTES, hint.len(), 0) {
                        self.outbox.push(route, hint.clone());
                    }
                }
            }
            self.outbox.share(message, routes);
        }
        self.entries = entries;
    }

    /// The way of an event to a member; nobody is told `only` of itself.
    fn route_of(&self, index: MemberIndex, only: Option<Handle>) -> Option<Route> {
        self.members.get(index).filter(|member| Some(member.handle) != only)?.route(&self.locals)
    }

    /// Whether so many bytes may go unasked to a member, and so many be left; if so, they are taken from its credit and
    /// from what its source may get.
    fn pay(&mut self, index: MemberIndex, to: Route, rate: Rate, bytes: usize, left: usize) -> bool {
        let Some(member) = self.members.get_mut(index) else { return false };
        let credit = member.credit();
        let source = Source::of(to.remote.ip());
        let pays = credit.covers(bytes + left) && self.events_to.take_many(source, rate, bytes, self.now);
        if pays {
            credit.spend(bytes);
        }
        pays
    }

    /// Writes who changed after the version `after`, the oldest change first, as many as fit into `room`, and without
    /// `except`. Returns the version of the last one, or that of the namespace if all were written.
    pub(super) fn collect(
        &self,
        index: NamespaceIndex,
        after: u64,
        room: usize,
        except: Option<Handle>,
        out: &mut Vec<u8>,
    ) -> u64 {
        out.clear();
        let Some(record) = self.namespaces.get(index) else { return after };
        let mut upto = after;
        let mut here = self.changed_after(record, after).peekable();
        let mut left = record.left_after(after).peekable();
        loop {
            let next_left = left.peek().map(|(version, _)| *version);
            let is_here =
                here.peek().is_some_and(|member| next_left.is_none_or(|left| member.version < left));
            let (version, entry) = if is_here {
                let Some(member) = here.next() else { break };
                let entry = Entry { handle: member.handle, seq: member.seq, blob: Some(&member.blob) };
                (member.version, entry)
            } else {
                let Some((version, handle)) = left.next() else { break };
                (version, Entry { handle, seq: 0, blob: None })
            };
            if Some(entry.handle) != except {
                if out.len() + entry.length() > room {
                    return upto;
                }
                entry.push(out);
            }
            upto = version;
        }
        record.version
    }

    /// The version after which all changes fit into `room`; not before `told`.
    fn latest_that_fit(&self, index: NamespaceIndex, told: u64, mut room: usize) -> u64 {
        let Some(record) = self.namespaces.get(index) else { return told };
        let mut here = self.changed_after(record, told).rev().peekable();
        let mut left = record.left_after(told).rev().peekable();
        loop {
            let next_left = left.peek().map(|(version, _)| *version);
            let is_here =
                here.peek().is_some_and(|member| next_left.is_none_or(|left| member.version > left));
            let (version, length) = if is_here {
                let Some(member) = here.next() else { return told };
                (member.version, size::ENTRY + member.blob.len())
            } else {
                let Some((version, _)) = left.next() else { return told };
                (version, size::ENTRY)
            };
            match room.checked_sub(length) {
                Some(rest) => room = rest,
                None => return version,
            }
        }
    }

    /// Who hears an event: all of a small namespace, some of a large one.
    fn recipients(&mut self, index: NamespaceIndex) -> Vec<MemberIndex> {
        let Some(record) = self.namespaces.get(index) else { return Vec::new() };
        let members = record.roll.all();
        let all = members.len();
        if all <= limits::EVENT_MEMBERS {
            return members.to_vec();
        }
        // The first steps of a shuffle of positions: each is drawn at most once.
        let mut positions: Vec<usize> = (0..all).collect();
        for at in 0..limits::EVENT_SAMPLE {
            let other = at + (self.rng.next_u64() % (all - at) as u64) as usize;
            positions.swap(at, other);
        }
        positions[..limits::EVENT_SAMPLE].iter().map(|position| members[*position]).collect()
    }

    /// Those of a namespace that changed after `version`, the oldest change first.
    fn changed_after(&self, record: &Record, version: u64) -> impl DoubleEndedIterator<Item = &Member> {
        let changed = record.roll.changed_after(version, |index| self.members.version(index));
        changed.iter().filter_map(|index| self.members.get(*index))
    }
}
