//! What we tell the service manager: that we are ready, how we are, that we still live.
//!
//! Without one (no `NOTIFY_SOCKET`) all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct ServiceManager {
    watchdog: Option<Duration>,
    status: String,
}

impl ServiceManager {
    /// Reads from the environment what it expects of us.
    pub fn from_env() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), status: String::new() }
    }

    /// Half of the time after which it would take us for dead, if it watches us.
    pub fn ping_interval(&self) -> Option<Duration> {
        self.watchdog.map(|timeout| timeout / 2)
    }

    /// We serve.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// We live.
    pub fn ping(&self) {
        tell(&[NotifyState::Watchdog]);
    }

    /// What `systemctl status` shows; told only when it changes.
    pub fn status(&mut self, status: String) {
        if self.status != status {
            tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// We end.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(reason = %error, "the service manager cannot be told");
    }
}
