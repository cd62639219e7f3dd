//! What we tell the service manager: that we are ready, how we are, that we still live.
//!
//! Without one (no `NOTIFY_SOCKET`) all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct ServiceManager {
    watchdog: Option<Duration>,
    /// What the status line says.
    told: Option<Counts>,
}

/// What changes in the status line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Peers with a session.
    pub online: usize,
    /// Connected apps.
    pub apps: usize,
}

impl ServiceManager {
    /// Reads from the environment what it expects of us.
    pub fn from_env() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), told: None }
    }

    /// Half of the time after which it would take us for dead, if it watches us.
    pub fn ping_interval(&self) -> Option<Duration> {
        self.watchdog.map(|timeout| timeout / 2)
    }

    /// We serve.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
    }

    /// We read the configuration again, until we are ready again.
    pub fn reloading(&self) {
        let Ok(now) = NotifyState::monotonic_usec_now() else { return };
        tell(&[NotifyState::Reloading, now]);
    }

    /// We live.
    pub fn ping(&self) {
        tell(&[NotifyState::Watchdog]);
    }

    /// What `systemctl status` shows; told only when it changes.
    pub fn status(&mut self, name: &str, counts: Counts) {
        if self.told != Some(counts) {
            self.told = Some(counts);
            tell(&[NotifyState::Status(&status_line(name, counts))]);
        }
    }

    /// What `systemctl status` shows from now on.
    pub fn say(&self, line: &str) {
        tell(&[NotifyState::Status(line)]);
    }

    /// We end.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn status_line(name: &str, Counts { online, apps }: Counts) -> String {
    let plural = |count| if count == 1 { "" } else { "s" };
    format!("{name}: {online} peer{} online, {apps} app{}", plural(online), plural(apps))
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(reason = %error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_counts_like_a_person() {
        assert_eq!(status_line("pi", Counts { online: 3, apps: 2 }), "pi: 3 peers online, 2 apps");
        assert_eq!(status_line("pi", Counts { online: 1, apps: 1 }), "pi: 1 peer online, 1 app");
        assert_eq!(status_line("pi", Counts { online: 0, apps: 0 }), "pi: 0 peers online, 0 apps");
    }
}
