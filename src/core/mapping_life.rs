//! How long our address translator or firewall lets in what comes after a silence of ours (rendezvous.md, 3.3).
//!
//! ```text
//! a port of its own:  hail -- retry --> probe(30 s) ... silence ... echo?   yes: 45, 60, 90, 120 s
//!                                                                           no:  20, 15, 10 s
//! ```
//!
//! The longest silence that was proved, less a little, is the pause between the packets that keep our ways open. Until it
//! is known, and where nothing answers, that is half of what the most forgetful usual routers keep.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::{Dropped, OwnPort, Route};
use crate::core::extra_ports::Use;
use crate::core::timers::Timer;
use crate::time::Instant;
use crate::wire::rendezvous::{FromNode, FromServer, Nonce, Probe};

/// Where routers differ: 30 s after one packet, 60 s and more in those that follow RFC 4787, 120 s in Linux.
const LONGER: [u16; 5] = [30, 45, 60, 90, 120];
const SHORTER: [u16; 3] = [20, 15, 10];
/// So much sooner than a proved silence the next packet leaves.
const SOONER: Duration = Duration::from_secs(5);
/// The pause where nothing is known.
pub(crate) const UNKNOWN: Duration = Duration::from_secs(25);
/// However long a mapping lives: a server waits for 120 s before it takes a member for gone, so one lost keep costs nothing.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(50);
/// When we have been registered for so long it is measured, and once a day.
const FIRST: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(86_400);
/// A server that does not answer is asked so often in a row, and tried again later.
const HAILS: u32 = 3;
const HAIL_AGAIN: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(3600);
/// An echo leaves within a second of its time; the way takes some more.
const ON_THE_WAY: Duration = Duration::from_secs(3);
/// One echo may be lost: a silence is too long if so many in a row do not come.
const MISSES: u32 = 2;

/// What is known, and what is being tried.
#[derive(Debug, Default)]
pub(crate) struct MappingLife {
    proved: Option<Duration>,
    trial: Option<Trial>,
}

/// One silence after the other.
#[derive(Debug)]
struct Trial {
    server: SocketAddr,
    port: OwnPort,
    nonce: Nonce,
    /// The silences that are still to be tried, the next one first.
    silences: &'static [u16],
    /// How often the first of them was tried in vain.
    misses: u32,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A server is to say that it is there, and to give a cookie; it was asked so often.
    Hailed(u32),
    /// It will answer once more; it was asked to at this time.
    Probed(Instant),
}

impl MappingLife {
    /// The pause between packets that keep a way open, if it was measured.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.proved.map(|proved| (proved - SOONER).min(PAUSE_MAX))
    }
}

impl Node {
    /// A server sees us at another address than before: behind it there may be another translator.
    pub(super) fn is_elsewhere(&mut self) {
        self.end_trial();
        self.forget_birthdays();
        self.mapping_life = MappingLife::default();
        self.timers.set(Timer::MappingLife, self.now + FIRST);
    }

    pub(crate) fn on_mapping_life_timer(&mut self) {
        let Some(trial) = &mut self.mapping_life.trial else {
            let server = self.links_to_servers().first().copied().filter(|_| self.is_registering());
            return match server {
                Some(server) => self.try_silence(server, &LONGER, 0),
                None => self.timers.set(Timer::MappingLife, self.now + LATER),
            };
        };
        match trial.step {
            Step::Hailed(HAILS) => return self.end_measurement(LATER),
            Step::Hailed(_) => return self.hail_for_echo(),
            Step::Probed(_) => {}
        }
        let (server, silences, misses) = (trial.server, trial.silences, trial.misses + 1);
        let too_long = silences.first().is_some_and(|seconds| *seconds > LONGER[0]);
        match silences {
            _ if misses < MISSES => self.try_silence(server, silences, misses),
            [] => self.end_measurement(AGAIN),
            _ if too_long => self.end_measurement(AGAIN),
            _ if silences == LONGER => {
                // Nor is what was proved yesterday true any more.
                self.mapping_life.proved = None;
                self.try_silence(server, &SHORTER, 0);
            }
            [_, rest @ ..] => self.try_silence(server, rest, 0),
        }
    }

    /// Tries the first of `silences`, with a mapping that nothing else uses.
    fn try_silence(&mut self, server: SocketAddr, silences: &'static [u16], misses: u32) {
        self.end_trial();
        let port = if silences.is_empty() { None } else { self.open_port(Use::Measurement) };
        let Some(port) = port else { return self.end_measurement(AGAIN) };
        let (nonce, step) = (Nonce(self.random()), Step::Hailed(0));
        self.mapping_life.trial = Some(Trial { server, port, nonce, silences, misses, step });
        self.hail_for_echo();
    }

    fn hail_for_echo(&mut self) {
        let Some(trial) = &mut self.mapping_life.trial else { return };
        if let Step::Hailed(hails) = &mut trial.step {
            *hails += 1;
        }
        let (route, hail) =
            (Route { port: trial.port, ..Route::to(trial.server) }, FromNode::Hail(trial.nonce));
        self.ask_server_by(route, &hail);
        self.timers.set(Timer::MappingLife, self.now + HAIL_AGAIN);
    }

    /// What came from a server to the port of a measurement.
    pub(super) fn on_measured(&mut self, via: Route, message: &FromServer<'_>) -> Result<(), Dropped> {
        let (now, nonce) = (self.now, Nonce(self.random()));
        let trial = self.mapping_life.trial.as_mut().filter(|trial| trial.server == via.remote);
        let trial = trial.ok_or(Dropped::Unexpected)?;
        let [seconds, rest @ ..] = trial.silences else { return Err(Dropped::Unexpected) };
        match (trial.step, message) {
            (Step::Hailed(_), FromServer::Retry(retry)) if retry.nonce == trial.nonce => {
                (trial.step, trial.nonce) = (Step::Probed(now), nonce);
                let probe = Probe { nonce, cookie: retry.cookie, after_seconds: *seconds };
                let silence = Duration::from_secs((*seconds).into());
                self.ask_server_by(via, &FromNode::Probe(probe));
                self.timers.set(Timer::MappingLife, now + silence + ON_THE_WAY);
            }
            (Step::Probed(at), FromServer::Echo(echo)) if echo.nonce == trial.nonce => {
                let proved = Duration::from_secs((*seconds).into());
                if now.since(at) < proved {
                    // It says nothing of so long a silence.
                    return Err(Dropped::Unexpected);
                }
                let (server, longer) = (trial.server, if *seconds < LONGER[0] { &[] } else { rest });
                debug!(?proved, "a mapping lives so long");
                self.mapping_life.proved = Some(proved);
                self.choose_warm();
                self.try_silence(server, longer, 0);
            }
            _ => return Err(Dropped::Unexpected),
        }
        Ok(())
    }

    fn end_measurement(&mut self, again: Duration) {
        self.end_trial();
        let again = self.jittered(again);
        self.timers.set(Timer::MappingLife, self.now + again);
    }

    fn end_trial(&mut self) {
        if let Some(trial) = self.mapping_life.trial.take() {
            self.close_ports(vec![trial.port]);
        }
    }
}
