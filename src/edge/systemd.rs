//! What we tell the service manager: that we are ready, how we are, that we still live.
//!
//! Without one (no `NOTIFY_SOCKET`) all of it does nothing.

use std::task::Context;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The service manager, if there is one.
#[derive(Debug)]
pub struct ServiceManager {
    /// Half of the time after which it would take us for dead, if it watches us.
    watchdog: Option<Interval>,
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
    /// Reads from the environment what it expects of us. Must be called inside a tokio runtime.
    pub fn from_env() -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|timeout| {
            let mut watchdog = interval(timeout / 2);
            // What was missed while the machine slept is not made up for.
            watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
            watchdog
        });
        Self { watchdog, told: None }
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

    /// Says that we live, whenever it is time to.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        // Until it is pending: only then it wakes us again.
        while self.watchdog.as_mut().is_some_and(|watchdog| watchdog.poll_tick(cx).is_ready()) {
            tell(&[NotifyState::Watchdog]);
        }
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
