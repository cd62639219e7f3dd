//! `rendezvous.pins`: the keys of the rendezvous servers in use, one `HOST:PORT#KEY` a line, so that a server which was
//! named without its key is still held to the first one that it showed after a restart.

use std::path::{Path, PathBuf};

use crate::core::RendezvousServer;
use crate::edge::statefile;
use crate::limits;
use crate::wire::local::{Health, HealthState};

/// The file, and what is in it.
#[derive(Debug)]
pub(super) struct ServerPins {
    path: PathBuf,
    kept: Vec<RendezvousServer>,
    /// They could not be written, which was told.
    is_failing: bool,
}

impl ServerPins {
    /// Reads the file in a state directory. One that cannot be read is kept aside and told.
    pub(super) fn load(state_dir: &Path) -> (Self, Option<Health<'static>>) {
        let path = state_dir.join("rendezvous.pins");
        let reason = match statefile::read(&path) {
            Ok(None) => return (Self { path, kept: Vec::new(), is_failing: false }, None),
            Ok(Some(text)) => match parse(&text) {
                Some(kept) => return (Self { path, kept, is_failing: false }, None),
                None => "it is cut or foreign".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        let aside = statefile::keep_aside(&path).unwrap_or_else(|_| path.clone());
        tracing::warn!(file = %path.display(), reason, aside = %aside.display(), "the known keys of rendezvous servers cannot be read");
        let why = format!(
            "the known keys of rendezvous servers in {} cannot be read ({reason}): the file is kept as {}, and the next \
             key that a server shows is believed",
            path.display(),
            aside.display()
        );
        let health = Health {
            check: "rendezvous".into(),
            state: HealthState::Warn,
            why: why.into(),
            fix: "name the servers with their keys: --rendezvous HOST:PORT#KEY".into(),
        };
        (Self { path, kept: Vec::new(), is_failing: false }, Some(health))
    }

    /// The servers, each with its key of before where none is named.
    pub(super) fn fill_in(&self, servers: Vec<RendezvousServer>) -> Vec<RendezvousServer> {
        let pinned = |name: &str| self.kept.iter().find(|pin| pin.name == name)?.key;
        let filled = servers.into_iter().map(|server| {
            let key = server.key.or_else(|| pinned(&server.name));
            RendezvousServer { key, ..server }
        });
        filled.collect()
    }

    /// Keeps the keys of the servers in use that were `proved`, now or in an earlier run, and no others: a mistyped one is
    /// forgotten with its configuration.
    pub(super) fn keep(&mut self, in_use: &[RendezvousServer], proved: Vec<RendezvousServer>) {
        let renewed = |pin: &RendezvousServer| proved.iter().any(|server| server.name == pin.name);
        let before = self.kept.iter().filter(|pin| in_use.contains(pin) && !renewed(pin)).cloned();
        let mut known: Vec<_> = before.chain(proved.iter().cloned()).collect();
        known.retain(|server| server.key.is_some());
        known.sort();
        if known == self.kept {
            return;
        }
        let text: String = known.iter().map(|server| format!("{server}\n")).collect();
        match statefile::write(&self.path, text.as_bytes()) {
            Ok(()) => {
                self.kept = known;
                self.is_failing = false;
            }
            Err(_) if self.is_failing => {}
            Err(error) => {
                self.is_failing = true;
                tracing::warn!(file = %self.path.display(), %error, "the keys of rendezvous servers cannot be kept");
            }
        }
    }
}

fn parse(text: &str) -> Option<Vec<RendezvousServer>> {
    if !text.is_empty() && !text.ends_with('\n') {
        return None;
    }
    let mut kept = Vec::new();
    for line in text.lines().take(limits::RENDEZVOUS_SERVERS) {
        kept.push(line.parse::<RendezvousServer>().ok().filter(|pin| pin.key.is_some())?);
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn servers(texts: &[&str]) -> Vec<RendezvousServer> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_key_that_was_learnt_is_known_again_and_one_that_is_named_goes_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = ("b".repeat(51) + "a", "c".repeat(51) + "a");
        let learnt = servers(&[&format!("a:1#{one}"), "b:2"]);
        ServerPins::load(dir.path()).0.keep(&learnt.clone(), learnt);
        let file = dir.path().join("rendezvous.pins");
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("a:1#{one}\n"));
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);

        let (mut pins, health) = ServerPins::load(dir.path());
        assert_eq!(health, None);
        let filled = pins.fill_in(servers(&["a:1", "b:2", &format!("c:3#{two}")]));
        assert_eq!(filled, servers(&[&format!("a:1#{one}"), "b:2", &format!("c:3#{two}")]));
        let named = servers(&[&format!("a:1#{two}")]);
        assert_eq!(pins.fill_in(named.clone()), named);

        // In use and silent now: still known. Then mistyped: neither is.
        pins.keep(&servers(&[&format!("a:1#{one}")]), Vec::new());
        assert_eq!(pins.fill_in(servers(&["a:1"])), servers(&[&format!("a:1#{one}")]));
        pins.keep(&named, Vec::new());
        assert_eq!(ServerPins::load(dir.path()).0.fill_in(servers(&["a:1"])), servers(&["a:1"]));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_kept_aside_and_told() {
        let key = "b".repeat(51) + "a";
        for bytes in [&b"\xff\n"[..], b"junk\n", b"a:1\n", format!("a:1#{key}").as_bytes(), &[b'a'; 65_536]] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("rendezvous.pins");
            fs::write(&file, bytes).unwrap();
            let (pins, health) = ServerPins::load(dir.path());
            assert_eq!(pins.kept, []);
            assert!(health.unwrap().why.contains("rendezvous.pins.bad-1"));
            assert_eq!(fs::read(file.with_extension("pins.bad-1")).unwrap(), bytes);
        }
    }
}
