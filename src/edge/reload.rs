//! Reading the configuration again while the daemon runs: all of it or, if anything is wrong, none of it.

use crate::edge::config::{Given, Mistake, Mistakes, Settings};
use crate::edge::log::Log;
use crate::wire::complaint;
use crate::wire::local::{Health, HealthState, Reloaded};

/// The keys that a running daemon follows; all others need a restart.
const LIVE: [&str; 4] = ["network_secret_file", "peer", "rendezvous", "log"];

/// The configuration of a running daemon.
#[derive(Debug)]
pub(super) struct Configuration {
    given: Given,
    log: Log,
    /// As it was at the start: what cannot change is still so.
    started: Settings,
    /// As it was read last.
    current: Settings,
}

impl Configuration {
    pub(super) fn new(given: Given, log: Log, started: Settings) -> Self {
        Self { given, log, current: started.clone(), started }
    }

    /// As it was read last.
    pub(super) const fn current(&self) -> &Settings {
        &self.current
    }

    /// Reads the files again; nothing has changed yet.
    pub(super) fn read(&self) -> Result<Settings, Mistakes> {
        self.given.settle()
    }

    /// Takes what was read; tells which keys have changed, and how the configuration is.
    pub(super) fn replace(&mut self, settings: Settings) -> (Reloaded<'static>, Health<'static>) {
        let named = |keys: Vec<&'static str>, live: bool| {
            keys.into_iter().filter(|key| LIVE.contains(key) == live).map(Into::into).collect()
        };
        let reloaded = Reloaded {
            changed: named(settings.differences(&self.current), true),
            restart: named(settings.differences(&self.started), false),
        };
        if settings.log != self.current.log {
            self.log.set(&settings.log);
        }
        let health = health(&settings.warnings, &reloaded.restart);
        self.current = settings;
        (reloaded, health)
    }
}

/// The configuration was to be read again, and makes no sense: a restart would fail.
pub(super) fn unreadable(reason: &str) -> Health<'static> {
    Health {
        check: "config".into(),
        state: HealthState::Fail,
        why: format!("it was not followed, and a restart would fail: {}", complaint::one_line(reason)).into(),
        fix: "correct the file, see atonced --check, and then: sudo atonce reload".into(),
    }
}

/// How the configuration is: what in it means nothing, and what is not yet so.
pub(super) fn health(warnings: &[Mistake], restart: &[impl AsRef<str>]) -> Health<'static> {
    let mut why: Vec<String> =
        warnings.iter().map(|mistake| format!("{}: {}", mistake.origin, mistake.what)).collect();
    let mut fix = "correct the file; atonced --check tells more";
    if !restart.is_empty() {
        why.push(format!(
            "changed, but the daemon must be restarted for it: {}",
            restart.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
        ));
        fix = "restart the daemon (the service: sudo systemctl restart atonced)";
    }
    let (state, fix) = if why.is_empty() { (HealthState::Ok, "") } else { (HealthState::Warn, fix) };
    Health { check: "config".into(), state, why: why.join("; ").into(), fix: fix.into() }
}
