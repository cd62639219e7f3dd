//! How a command ends, as scripts see it.

use std::process::ExitCode;

/// The exit codes, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Ok = 0,
    Other = 1,
    Usage = 2,
    Unreachable = 3,
    NoPeer = 4,
    TimedOut = 5,
    Denied = 6,
    NotTrusted = 7,
    Refused = 8,
    Interrupted = 130,
}

impl Exit {
    const ALL: [(Self, &str); 10] = [
        (Self::Ok, "done"),
        (Self::Other, "something else failed"),
        (Self::Usage, "wrong usage"),
        (Self::Unreachable, "the daemon is not reachable"),
        (Self::NoPeer, "no such peer or topic, or more than one"),
        (Self::TimedOut, "timed out, or the peer is unreachable"),
        (Self::Denied, "permission denied"),
        (Self::NotTrusted, "not trusted"),
        (Self::Refused, "refused: nobody listens, too busy, or too big"),
        (Self::Interrupted, "interrupted"),
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The exit codes for the help.
pub(crate) fn table() -> String {
    let lines = Exit::ALL.map(|(exit, meaning)| format!("  {:<4} {meaning}", exit as u8));
    format!("Exit codes:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_that_scripts_rely_on_are_as_they_are_written_down() {
        let numbers = Exit::ALL.map(|(exit, _)| exit as u8);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 130]);
        assert_eq!(Exit::Denied as u8, 6);
        assert_eq!(Exit::Refused as u8, 8);
    }

    #[test]
    fn the_help_tells_every_exit_code() {
        let table = table();
        assert_eq!(table.lines().count(), 11);
        assert!(table.contains("\n  3    the daemon is not reachable\n"), "{table}");
        assert!(table.ends_with("\n  130  interrupted"), "{table}");
    }
}
