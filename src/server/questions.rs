//! What nodes ask, and what they get: never more bytes than they sent, and nothing kept before they proved that they
//! receive where they send from.

use std::time::Duration;

use super::counts::Dropped;
use super::echoes::Owed;
use super::limits::{GUESSES, INTROS, KEY_EXCHANGES, KNOCKS, KNOCKS_TO_SOURCE, REGISTERS};
use super::members::{LEASE, MemberIndex};
use super::namespaces::NamespaceIndex;
use super::wheel::Second;
use super::{Asker, Server};
use crate::crypto::claim;
use crate::crypto::namespace::NamespaceKeys;
use crate::route::Route;
use crate::source::Source;
use crate::wire::rendezvous::{
    Bye, Echo, Entries, FromServer, Handle, Here, Intro, Keep, Kept, Knock, List, Namespace, Nonce, Nope,
    PROBE_SECONDS_MAX, Page, Probe, Refusal, Register, Retry, Token, Welcome, size,
};

/// The usual pause between two keeps: below the 30 s after which the strictest usual translators forget.
const KEEP_SECONDS: usize = 25;
/// The longest that the server wishes under load: a lease still has room for a lost one.
const KEEP_SECONDS_MAX: usize = 50;
/// Keeps in a second that are no load.
const KEEPS_PER_SECOND: usize = 20_000;
/// After which who is over a limit may try again: a limit of its own address; another one.
const AGAIN_SECONDS: u16 = 5;
const AGAIN_FULL_SECONDS: u16 = 60;
const LEASE_SECONDS: u16 = LEASE.as_secs() as u16;

/// What keep, list and intro say of their sender.
struct Claim {
    nonce: Nonce,
    namespace: Namespace,
    handle: Handle,
    token: Token,
}

impl Server {
    pub(super) fn on_hail(&mut self, asker: Asker, nonce: Nonce) -> Result<(), Dropped> {
        self.retry(asker, nonce)
    }

    pub(super) fn on_register(
        &mut self,
        asker: Asker,
        register: &Register<'_>,
        datagram: &[u8],
    ) -> Result<(), Dropped> {
        let &Register { nonce, handle, reveal, seq, known, .. } = register;
        if !self.proofs.check_cookie(register.cookie, asker.addr, self.now) {
            self.retry(asker, nonce)?;
            return Err(Dropped::Cookie);
        }
        let there = self.namespaces.find(&register.namespace);
        if !self.registers.take(asker.source, REGISTERS, self.now) || !self.census.admits(asker.source, there)
        {
            return self.refuse(asker, nonce, Refusal::Address);
        }
        let new_keys = self.keys_of_register(asker, register, there, datagram)?;
        // Each member has the keys of all; its handle has it alone.
        if !claim::is_of_owner(&register.namespace, handle, seq, reveal) {
            return Err(Dropped::Forged);
        }
        let member = there.and_then(|index| self.members.find(index, handle));
        if let Some(member) = member.and_then(|index| self.members.get(index))
            && member.is_listed()
            && seq <= member.seq
        {
            return Err(Dropped::Repeated);
        }
        let (namespace, member) = match self.enter(asker, there, new_keys, member, handle) {
            Ok(entered) => entered,
            Err(refusal) => return self.refuse(asker, nonce, refusal),
        };
        self.hear(member, asker);
        self.list_member(namespace, member, register);

        let mut entries = std::mem::take(&mut self.entries);
        let known = self.sensible(namespace, known);
        let room = datagram.len() - size::WELCOME;
        let upto = self.collect(namespace, known, room, Some(handle), &mut entries);
        let (version, members) = self.version_and_members(namespace);
        let welcome = FromServer::Welcome(Welcome {
            nonce,
            seen: asker.addr,
            token: self.proofs.token(&register.namespace, handle, asker.addr, self.wall()),
            time: self.time(),
            lease_seconds: LEASE_SECONDS,
            keep_seconds: self.keep_seconds(),
            second_port: self.config.second_port,
            version,
            upto,
            members,
            entries: Entries::parse(&entries).unwrap_or_default(),
        });
        let answered = self.answer(asker, &welcome, Some(namespace));
        self.entries = entries;
        answered
    }

    pub(super) fn on_keep(&mut self, asker: Asker, keep: Keep) -> Result<(), Dropped> {
        let Keep { nonce, namespace, handle, token, known, answer } = keep;
        let (index, member) = self.member(asker, &Claim { nonce, namespace, handle, token })?;
        let (version, _) = self.version_and_members(index);
        let register_after_seconds = self.register_after(member);
        if !answer && known == version && register_after_seconds.is_none() {
            return Ok(());
        }
        let kept = FromServer::Kept(Kept {
            nonce,
            seen: asker.addr,
            token: self.proofs.token(&namespace, handle, asker.addr, self.wall()),
            time: self.time(),
            lease_seconds: LEASE_SECONDS,
            keep_seconds: self.keep_seconds(),
            version,
            register_after_seconds,
        });
        self.answer(asker, &kept, Some(index))
    }

    pub(super) fn on_list(&mut self, asker: Asker, list: List) -> Result<(), Dropped> {
        let List { nonce, namespace, handle, token, known } = list;
        let (index, _) = self.member(asker, &Claim { nonce, namespace, handle, token })?;
        let mut entries = std::mem::take(&mut self.entries);
        let known = self.sensible(index, known);
        let room = asker.length - size::PAGE;
        let upto = self.collect(index, known, room, Some(handle), &mut entries);
        let (version, members) = self.version_and_members(index);
        let parsed = Entries::parse(&entries).unwrap_or_default();
        let page = FromServer::Page(Page { nonce, version, upto, members, entries: parsed });
        let answered = self.answer(asker, &page, Some(index));
        self.entries = entries;
        answered
    }

    pub(super) fn on_intro(&mut self, asker: Asker, intro: &Intro<'_>) -> Result<(), Dropped> {
        let &Intro { nonce, namespace, handle, token, target, payload } = intro;
        let (index, member) = self.member(asker, &Claim { nonce, namespace, handle, token })?;
        let now = self.now;
        if !self.members.get_mut(member).is_some_and(|member| member.intros.take(INTROS, now)) {
            return Err(Dropped::OverLimit);
        }
        let target = self.members.find(index, target).filter(|target| *target != member);
        let target = target.and_then(|target| self.members.get_mut(target)).ok_or(Dropped::Nobody)?;
        let to = target.route(&self.locals).ok_or(Dropped::Nobody)?;
        let source = Source::of(to.remote.ip());
        if !target.knocks.take(KNOCKS, now) || !self.knocks_to.take(source, KNOCKS_TO_SOURCE, now) {
            return Err(Dropped::OverLimit);
        }
        let knock = Knock { namespace: namespace.tag(), nonce, from: handle, payload };
        self.send(to, &FromServer::Knock(knock), Some(index), asker.length)
    }

    pub(super) fn on_bye(&mut self, asker: Asker, bye: Bye) -> Result<(), Dropped> {
        let Bye { namespace, handle, token, .. } = bye;
        if !self.proofs.check_token(token, &namespace, handle, asker.addr, self.wall()) {
            return Err(Dropped::Token);
        }
        let index = self.namespaces.find(&namespace).ok_or(Dropped::Nobody)?;
        let member = self.members.find(index, handle).ok_or(Dropped::Nobody)?;
        let speaks = |member: &super::members::Member| member.addr_like(asker.addr) == Some(asker.addr);
        if !self.members.get(member).is_some_and(speaks) {
            return Err(Dropped::Token);
        }
        self.remove(member);
        Ok(())
    }

    pub(super) fn on_probe(&mut self, asker: Asker, probe: Probe) -> Result<(), Dropped> {
        let Probe { nonce, cookie, after_seconds } = probe;
        if !self.proofs.check_cookie(cookie, asker.addr, self.now) {
            // No retry: whoever measures its translator is not to hear of us before the time.
            return Err(Dropped::Cookie);
        }
        if !(1..=PROBE_SECONDS_MAX).contains(&after_seconds) {
            return Err(Dropped::OverLimit);
        }
        let at = Second::after(self.now + Duration::from_secs(after_seconds.into()));
        let owed = Owed::new(nonce, asker.addr, self.locals.number(asker.route.local));
        if self.echoes.add(at, owed) { Ok(()) } else { Err(Dropped::OverLimit) }
    }

    /// Nothing is kept or proved for it: the answer is as long as the question, and goes where that came from.
    pub(super) fn on_where(&mut self, asker: Asker, nonce: Nonce) -> Result<(), Dropped> {
        self.answer(asker, &FromServer::Here(Here { nonce, seen: asker.addr }), None)
    }

    /// Sends the echoes that are due.
    pub(super) fn tell_echoes(&mut self) {
        let mut given = 0;
        while let Some(owed) = self.echoes.pop(self.now, &mut given) {
            let to = Route { local: self.locals.get(owed.local), ..Route::to(owed.to()) };
            let echo = FromServer::Echo(Echo { nonce: owed.nonce(), seen: owed.to() });
            if let Err(reason) = self.send(to, &echo, None, size::PROBE) {
                self.counts.count_dropped(reason);
            }
        }
    }

    /// The member that says so and has the token for it; its lease begins anew. One that the server forgot, since it
    /// restarted, is a member again.
    fn member(&mut self, asker: Asker, claim: &Claim) -> Result<(NamespaceIndex, MemberIndex), Dropped> {
        let &Claim { nonce, namespace, handle, token } = claim;
        if !self.proofs.check_token(token, &namespace, handle, asker.addr, self.wall()) {
            self.retry(asker, nonce)?;
            return Err(Dropped::Token);
        }
        let there = self.namespaces.find(&namespace);
        let member = there.and_then(|index| self.members.find(index, handle));
        let known = member.and_then(|member| self.members.get(member));
        if known.and_then(|known| known.addr_like(asker.addr)).is_some_and(|addr| addr != asker.addr) {
            // It has moved: what comes from where it was before is late, or somebody's recording.
            self.retry(asker, nonce)?;
            return Err(Dropped::Token);
        }
        let new_keys = match there {
            Some(_) => None,
            // Each namespace costs a key exchange: so it counts like a register.
            None if self.registers.take(asker.source, REGISTERS, self.now) => Some(self.keys_of(&namespace)?),
            None => return Err(self.refused(asker, nonce, Refusal::Address)),
        };
        if known.is_none() && !self.census.admits(asker.source, there) {
            return Err(self.refused(asker, nonce, Refusal::Address));
        }
        let (index, member) = match self.enter(asker, there, new_keys, member, handle) {
            Ok(entered) => entered,
            Err(refusal) => return Err(self.refused(asker, nonce, refusal)),
        };
        self.hear(member, asker);
        Ok((index, member))
    }

    /// After how many seconds a member without a blob is to register: when those who came before it have.
    fn register_after(&mut self, member: MemberIndex) -> Option<u16> {
        let member = self.members.get_mut(member).filter(|member| !member.is_listed())?;
        let second = self.now.since_origin().as_secs();
        // It keeps the turn that it has, so that it takes those of the others by no number of keeps.
        if u64::from(member.seq) < second {
            member.seq = u32::try_from(self.turns.take(self.now)).unwrap_or(u32::MAX);
        }
        u16::try_from(u64::from(member.seq) - second).ok()
    }

    /// The keys of a namespace that is not there yet, if whoever registers in it knows them; none for one that is there,
    /// likewise. Both look alike to whoever does not.
    fn keys_of_register(
        &mut self,
        asker: Asker,
        register: &Register<'_>,
        there: Option<NamespaceIndex>,
        datagram: &[u8],
    ) -> Result<Option<NamespaceKeys>, Dropped> {
        let new_keys = if there.is_some() {
            None
        } else if self.guesses.has(asker.source, GUESSES, self.now)
            && self.key_exchanges.take(KEY_EXCHANGES, self.now)
        {
            Some(self.keys_of(&register.namespace))
        } else {
            return Err(Dropped::OverLimit);
        };
        let known = there.and_then(|index| self.namespaces.get(index)).map(|record| &record.keys);
        let keys = known.or_else(|| new_keys.as_ref()?.as_ref().ok());
        if keys.is_some_and(|keys| keys.check_register(asker.addr, datagram)) {
            return Ok(new_keys.and_then(Result::ok));
        }
        if there.is_none() {
            self.guesses.take(asker.source, GUESSES, self.now);
        }
        Err(Dropped::Forged)
    }

    fn keys_of(&self, namespace: &Namespace) -> Result<NamespaceKeys, Dropped> {
        NamespaceKeys::of_server(&self.key, namespace).ok_or(Dropped::Forged)
    }

    /// Who knows more than there is knows something else: the clock went back, or it was another server.
    fn sensible(&self, index: NamespaceIndex, known: u64) -> u64 {
        if known > self.version_and_members(index).0 { 0 } else { known }
    }

    fn version_and_members(&self, index: NamespaceIndex) -> (u64, u16) {
        let of = |record: &super::namespaces::Record| {
            (record.version, u16::try_from(record.roll.listed()).unwrap_or(u16::MAX))
        };
        self.namespaces.get(index).map_or((0, 0), of)
    }

    fn keep_seconds(&self) -> u16 {
        let seconds = (self.members.len() / KEEPS_PER_SECOND).clamp(KEEP_SECONDS, KEEP_SECONDS_MAX);
        u16::try_from(seconds).unwrap_or(u16::MAX)
    }

    fn retry(&mut self, asker: Asker, nonce: Nonce) -> Result<(), Dropped> {
        let retry = FromServer::Retry(Retry {
            nonce,
            cookie: self.proofs.cookie(asker.addr, self.now),
            seen: asker.addr,
            server: self.key.public(),
            time: self.time(),
        });
        self.answer(asker, &retry, None)
    }

    fn refuse(&mut self, asker: Asker, nonce: Nonce, refusal: Refusal) -> Result<(), Dropped> {
        Err(self.refused(asker, nonce, refusal))
    }

    fn refused(&mut self, asker: Asker, nonce: Nonce, refusal: Refusal) -> Dropped {
        let again_seconds = if refusal == Refusal::Address { AGAIN_SECONDS } else { AGAIN_FULL_SECONDS };
        let nope = FromServer::Nope(Nope { nonce, refusal, again_seconds });
        self.answer(asker, &nope, None).err().unwrap_or(Dropped::OverLimit)
    }

    /// Answers what was asked, with at most as many bytes.
    fn answer(
        &mut self,
        asker: Asker,
        message: &FromServer<'_>,
        namespace: Option<NamespaceIndex>,
    ) -> Result<(), Dropped> {
        self.send(asker.route, message, namespace, asker.length)
    }
}
