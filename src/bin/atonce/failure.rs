//! Why a command ends without what was asked for: what failed, why, and what to try.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use atonce::client::{Error, ErrorCode};
use atonce::crypto::invitation::without_secrets;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use serde::Serialize;

use crate::exit::Exit;
use crate::output::Output;

/// Bytes that are read of a file with the number of a process.
const PID_BYTES: u64 = 32;

/// What is told on standard error, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What failed; empty if nothing is left to say.
    pub(crate) what: String,
    pub(crate) why: Vec<String>,
    pub(crate) tries: Option<String>,
    /// The daemon's word for it, for programs.
    pub(crate) code: Option<ErrorCode>,
}

/// A failure as the socket tells it.
#[derive(Serialize)]
struct Told<'a> {
    code: ErrorCode,
    message: &'a str,
    hint: &'a str,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: Vec::new(), tries: None, code: None }
    }

    /// Ends without a word.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// A message that does not fit. How long it is, nobody knows: reading stopped where it became too long.
    pub(crate) fn too_big(most: u64) -> Self {
        Self::new(Exit::Refused, "the message is too big")
            .because(format!("a message has at most {most} bytes"))
            .try_this("sending it in pieces")
    }

    pub(crate) fn because(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    pub(crate) fn try_this(mut self, command: impl Into<String>) -> Self {
        self.tries = Some(command.into());
        self
    }

    pub(crate) fn with_code(mut self, code: ErrorCode) -> Self {
        self.code = Some(code);
        self
    }

    /// Tells it, to programs only what the daemon says or would say.
    pub(crate) fn report(self, output: &Output) -> Exit {
        if let Some(code) = self.code
            && output.is_json()
        {
            let hint = self.tries.as_deref().unwrap_or_default();
            // It fails already.
            let _ = output.event("error", &Told { code, message: &self.what, hint });
        }
        if !self.what.is_empty() {
            output.error(&self.what, &self.why, self.tries.as_deref());
        }
        self.exit
    }
}

/// Ends what was called wrongly, or was asked for help, without a secret that may have been given there.
pub(crate) fn misused(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    match without_secrets(&text) {
        Cow::Borrowed(_) => error.exit(),
        Cow::Owned(text) => {
            // Nobody is left to be told.
            let _ = io::stderr().lock().write_all(text.as_bytes());
            Exit::Usage.into()
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let what = error.to_string();
        match error {
            Error::Unreachable { path, source } => unreachable(&path, &source),
            Error::Refused { code, hint, .. } => {
                let failure = Self::new(exit_of(code), what).with_code(code);
                if hint.is_empty() { failure } else { failure.try_this(hint) }
            }
            Error::TooBig { most, .. } => Self::too_big(most as u64),
            Error::Closed => Self::new(Exit::Unreachable, what)
                .because("it stopped, or this program did not read fast enough")
                .try_this("atonce status"),
            Error::Timeout(_) => Self::new(Exit::TimedOut, what)
                .because("it is very busy, or stopped by a signal")
                .try_this("a longer --timeout"),
            Error::Protocol(_) => Self::new(Exit::Other, what)
                .because("is it the socket of another program, or of an atonced of another version?")
                .try_this("atonce --version; atonced --version"),
            Error::NotDelivered(_) | Error::Behind => Self::new(Exit::Other, what),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // Whoever read our output has enough.
            return Self::silent(Exit::Ok);
        }
        Self::new(Exit::Other, format!("cannot read the input or write the output: {error}"))
            .try_this("another file or terminal for it")
    }
}

fn exit_of(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::NoPeer | ErrorCode::Ambiguous => Exit::NoPeer,
        ErrorCode::Denied => Exit::Denied,
        ErrorCode::Limit | ErrorCode::TooLong => Exit::Refused,
        ErrorCode::BadJson
        | ErrorCode::UnknownOp
        | ErrorCode::BadRequest
        | ErrorCode::SlowConsumer
        | ErrorCode::Internal => Exit::Other,
    }
}

fn unreachable(path: &Path, source: &io::Error) -> Failure {
    let at = path.display().to_string();
    let kind = source.kind();
    if kind == io::ErrorKind::PermissionDenied {
        return Failure::new(Exit::Denied, format!("permission denied on {at}"))
            .because(
                "only its owner and the members of its group, usually \"atonce\", may talk to the daemon",
            )
            .try_this(match service() {
                Some(_) => "sudo usermod -aG atonce $USER   (then log in again)",
                None => "the user who started atonced, or sudo",
            });
    }
    if let (io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused, Some(pid)) = (kind, running()) {
        return unreached(&at, &source.to_string())
            .because(format!("an atonced runs (pid {pid}) and serves at another path, or its socket was removed: then it makes it again within seconds"))
            .try_this(format!("kill -HUP {pid}   (makes the socket again at once); or --socket with the path of that one"));
    }
    if kind == io::ErrorKind::InvalidInput {
        return unreached(&at, &source.to_string()).try_this("a shorter --socket, here and for atonced");
    }
    if kind == io::ErrorKind::NotFound {
        let how = if service().is_some() {
            "the service is installed but not running"
        } else {
            "it is not running"
        };
        return unreached(&at, "no such file")
            .because(format!("{how}, or its socket is elsewhere (--socket PATH)"))
            .try_this(how_to_start());
    }
    if kind == io::ErrorKind::ConnectionRefused {
        return unreached(&at, "connection refused")
            .because("a daemon left its socket behind and does not run any more, or it is no socket at all")
            .try_this(how_to_start());
    }
    unreached(&at, &source.to_string())
}

fn unreached(path: &str, why: &str) -> Failure {
    Failure::new(Exit::Unreachable, format!("cannot reach the daemon at {path} ({why})"))
}

fn how_to_start() -> &'static str {
    match service() {
        Some(_) => "sudo systemctl start atonced",
        None => "atonced &   (with the same --socket, if you gave one)",
    }
}

/// The process that has the usual state directory of this user, or of the host, to itself: starting another one would
/// fail.
fn running() -> Option<u32> {
    let home = |name: &str, below: &str| {
        std::env::var_os(name).filter(|value| !value.is_empty()).map(|value| Path::new(&value).join(below))
    };
    let own = home("XDG_STATE_HOME", "atonce").or_else(|| home("HOME", ".local/state/atonce"));
    own.into_iter().chain([PathBuf::from("/var/lib/atonce")]).find_map(|state| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let lock = File::from(open(state.join("lock"), flags, Mode::empty()).ok()?);
        let held = flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
        let mut text = String::new();
        lock.take(PID_BYTES).read_to_string(&mut text).ok().filter(|_| held)?;
        text.trim().parse().ok()
    })
}

/// The service's unit file, if the daemon is installed as one.
fn service() -> Option<PathBuf> {
    let directories = [
        "/etc/systemd/system",
        "/usr/local/lib/systemd/system",
        "/usr/lib/systemd/system",
        "/lib/systemd/system",
    ];
    directories
        .iter()
        .map(|directory| Path::new(directory).join("atonced.service"))
        .find(|unit| unit.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ErrorCode) -> Exit {
        Failure::from(Error::Refused { code, message: "no".into(), hint: String::new() }).exit
    }

    #[test]
    fn each_refusal_of_the_daemon_has_its_exit_code() {
        assert_eq!(refused(ErrorCode::NoPeer), Exit::NoPeer);
        assert_eq!(refused(ErrorCode::Ambiguous), Exit::NoPeer);
        assert_eq!(refused(ErrorCode::Denied), Exit::Denied);
        assert_eq!(refused(ErrorCode::Limit), Exit::Refused);
        assert_eq!(refused(ErrorCode::Internal), Exit::Other);
    }

    #[test]
    fn an_unreachable_daemon_and_a_forbidden_one_are_told_apart() {
        let failure = |kind: io::ErrorKind| {
            Failure::from(Error::Unreachable { path: "/x".into(), source: io::Error::from(kind) })
        };
        assert_eq!(failure(io::ErrorKind::NotFound).exit, Exit::Unreachable);
        assert_eq!(failure(io::ErrorKind::NotFound).what, "cannot reach the daemon at /x (no such file)");
        assert_eq!(
            failure(io::ErrorKind::ConnectionRefused).what,
            "cannot reach the daemon at /x (connection refused)"
        );
        assert_eq!(failure(io::ErrorKind::PermissionDenied).exit, Exit::Denied);
    }
}
