//! The state directory: whose it is, and the secrets in it.
//!
//! One daemon owns it for as long as it lives (the directory and the file `lock` are locked, with its process id in the
//! file). Where nothing can be written (a root that was made read-only, a full disk, another owner) it still serves with
//! the key that is there, and remembers nothing. `identity.key` holds the node's key,
//! bound to the machine (`keytext`, `hardware`), so that a cut or foreign file is told from a key, and a copied one from
//! ours; `network.secret` holds the line of the
//! private network that an app made us join. What cannot be read is kept aside under another name and told.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use getrandom::SysRng;
use rand_core::TryRng;
use rustix::fs::{FlockOperation, OFlags, flock};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::crypto::identity::Identity;
use crate::crypto::invitation::without_secrets;
use crate::crypto::membership::NetworkSecrets;
use crate::edge::hardware::{Binding, Hardware};
use crate::edge::keytext::StoredKey;
use crate::edge::statefile;
use crate::wire::local::{Health, HealthState};

const KEY_FILE: &str = "identity.key";
const SECRET_FILE: &str = "network.secret";
const LOCK_FILE: &str = "lock";

/// The directory in which a daemon keeps what must outlive it; ours alone until this value is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Why nothing can be written, as far as it was seen at the start.
    unwritable: Option<String>,
    /// The kernel releases the locks when these are closed, whatever became of the process.
    _locks: Vec<File>,
}

/// Why the state directory cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// Another daemon has it.
    #[error(
        "the state directory {} belongs to another one that runs{}\ntry: stop that one, or give this one its own --state-dir",
        path.display(), owner(*pid)
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Its owner, if the lock file names one.
        pid: Option<u32>,
    },
    /// Others could put files of theirs in the place of ours.
    #[error("the state directory {} belongs to somebody else, or others may write to it\ntry: chmod go-w and chown it to this user, or name another --state-dir", .0.display())]
    Unsafe(PathBuf),
    /// The operating system refused.
    #[error("cannot {doing} {}: {error}\ntry: a --state-dir that this user may write to, on a disk with room", path.display())]
    Io {
        /// What we wanted to do.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Its reason.
        error: io::Error,
    },
    /// The key of a rendezvous server, which nodes know it by, is cut or foreign.
    #[error("the key in {} is cut or foreign\ntry: put a good copy back, or move the file away for a new key; nodes that know the old one then stay away until they are told the new one", .0.display())]
    BadKey(PathBuf),
    /// There is no key yet, or none of ours, and a new one cannot be kept.
    #[error(
        "{why}, and a new key cannot be written to {}: {error}\ntry: start once while it can be written, so that the key is made; or another --state-dir",
        dir.display()
    )]
    NoKey {
        /// Why there has to be a new one.
        why: String,
        /// The directory.
        dir: PathBuf,
        /// The operating system's reason.
        error: io::Error,
    },
    /// There is no randomness.
    #[error("the operating system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// A file that the user named cannot be read.
    #[error("cannot read the network secret in {}: {reason}\ntry: a file that this user may read, with the line of `atonce network create` or `atonce invite`", path.display())]
    Secret {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file that the user named holds no network secret.
    #[error(
        "{} holds no network secret: {reason}\ntry: a file with the one line that `atonce network create` or `atonce invite` prints",
        path.display()
    )]
    BadSecret {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl StateDir {
    /// Takes possession of the directory; creates it if need be.
    ///
    /// # Errors
    ///
    /// It belongs to another daemon, or cannot be written.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        statefile::create_private_dir(path).map_err(failed("create", path))?;
        if !statefile::is_ours_alone(path).map_err(failed("read", path))? {
            return Err(StateError::Unsafe(path.to_owned()));
        }
        let mut unwritable = statefile::probe(path).err();
        let lock_path = path.join(LOCK_FILE);
        let mut locks = Vec::new();
        // The file may be missing where it cannot be made, so the directory is locked too; but not one that others may
        // open: they could keep us from starting.
        let directory = File::open(path).map_err(failed("open", path))?;
        let is_private = directory.metadata().map_err(failed("read", path))?.mode() & 0o044 == 0;
        let lock = match open_lock(&lock_path, true) {
            Ok(lock) => Some(lock),
            Err(error) if !is_refused(&error) => return Err(failed("open", &lock_path)(error)),
            Err(error) => {
                unwritable.get_or_insert(error);
                open_lock(&lock_path, false).ok()
            }
        };
        if is_private || lock.is_none() {
            take_lock(&directory, path, &lock_path)?;
            locks.push(directory);
        }
        if let Some(mut lock) = lock {
            take_lock(&lock, path, &lock_path)?;
            if unwritable.is_none() {
                let pid = format!("{}\n", std::process::id());
                unwritable = lock.set_len(0).and_then(|()| lock.write_all(pid.as_bytes())).err();
            }
            locks.push(lock);
        }
        let unwritable = unwritable.map(|error| error.to_string());
        if let Some(reason) = &unwritable {
            tracing::warn!(dir = %path.display(), reason, "the state directory cannot be written: nothing is remembered");
        }
        Ok(Self { path: path.to_owned(), unwritable, _locks: locks })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// That nothing is remembered, if it is so.
    pub fn health(&self) -> Option<Health<'static>> {
        let reason = self.unwritable.as_ref()?;
        Some(Health {
            check: "state-dir".into(),
            state: HealthState::Warn,
            why: format!(
                "{} cannot be written ({reason}): the key in it is used, and nothing is remembered, neither peers nor the \
                 network that is joined",
                self.path.display()
            )
            .into(),
            fix: "make it writable and restart the daemon; or leave it so, if that is meant".into(),
        })
    }

    /// The node's key: the one of earlier runs, else a new one; a key that belongs to another machine is kept aside.
    /// Whatever a person should know comes as health.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a new key cannot be written. A key that is not stored would be another one at the next
    /// start, and all that others know of this node would be void: so there is no daemon without the file.
    pub fn identity(&self, hardware: &Hardware) -> Result<(Identity, Vec<Health<'static>>), StateError> {
        let path = self.path.join(KEY_FILE);
        let text = match statefile::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Some(Zeroizing::new(String::new())),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let Some(text) = text else {
            return self.new_identity(
                hardware,
                Vec::new(),
                &format!("there is no key in {}", self.path.display()),
            );
        };
        let Some(stored) = StoredKey::parse(&text) else {
            let why = format!("the key in {} is cut or foreign", path.display());
            let aside = statefile::keep_aside(&path).map_err(self.no_key(&why))?;
            tracing::error!(
                file = %path.display(),
                aside = %aside.display(),
                "the key file is cut or foreign: it was kept aside and a new key made; other nodes see a new peer"
            );
            return self.new_identity(hardware, vec![replaced(&path, "was cut or foreign", &aside)], &why);
        };
        let mut told: Vec<_> = self.tighten(&path).into_iter().collect();
        let now = hardware.binding(&stored.secret);
        if stored.binding.is_other(&now) {
            // Bound to nothing: whoever puts it back means that it belongs here.
            let unbound = StoredKey { binding: Binding::default(), ..stored };
            let why =
                format!("the key in {} belongs to another machine (is this disk a copy?)", path.display());
            let aside = statefile::free_name(&path, "other-machine").map_err(self.no_key(&why))?;
            statefile::write(&aside, unbound.to_text().as_bytes()).map_err(self.no_key(&why))?;
            tracing::error!(
                file = %path.display(),
                aside = %aside.display(),
                "the key belongs to another machine (is this disk a copy?): it was kept aside and a new key made; \
                 other nodes see a new peer"
            );
            told.push(replaced(&path, "belongs to another machine (is this disk a copy?)", &aside));
            return self.new_identity(hardware, told, &why);
        }
        let before = stored.binding.clone();
        let stored = StoredKey { binding: stored.binding.renewed(now), ..stored };
        told.push(bound_health(&stored.binding));
        if stored.binding != before
            && let Err(error) = statefile::write(&path, stored.to_text().as_bytes())
        {
            // The key is there, whole, and good: what it is bound to can be written at another start.
            tracing::warn!(file = %path.display(), %error, "what the key is bound to cannot be written");
        }
        Ok((Identity::from_secret(*stored.secret), told))
    }

    /// The secrets that an app made us store, if any. One that cannot be read is kept aside and told.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or it is damaged: a member of a private network must not fall back to the open one.
    pub fn network_secrets(&self) -> Result<Option<NetworkSecrets>, StateError> {
        let path = self.path.join(SECRET_FILE);
        match statefile::read(&path) {
            Ok(None) => return Ok(None),
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                return Err(failed("read", &path)(error));
            }
            _ => {}
        }
        let _ = self.tighten(&path);
        read_secrets(&path).map(Some)
    }

    /// Stores the secrets of the network that we joined.
    ///
    /// # Errors
    ///
    /// It cannot be written; the old one is still there then.
    pub fn store_network_secrets(&self, secrets: &NetworkSecrets) -> Result<(), StateError> {
        let path = self.path.join(SECRET_FILE);
        statefile::write(&path, secrets.to_lines().as_bytes()).map_err(failed("write", &path))
    }

    /// Forgets the network that we left.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn remove_network_secret(&self) -> Result<(), StateError> {
        let path = self.path.join(SECRET_FILE);
        statefile::remove(&path).map_err(failed("remove", &path))
    }

    fn new_identity(
        &self,
        hardware: &Hardware,
        mut told: Vec<Health<'static>>,
        why: &str,
    ) -> Result<(Identity, Vec<Health<'static>>), StateError> {
        let path = self.path.join(KEY_FILE);
        let mut secret = Zeroizing::new([0; 32]);
        SysRng.try_fill_bytes(&mut *secret).map_err(StateError::Random)?;
        let stored = StoredKey { binding: hardware.binding(&secret), secret };
        statefile::write(&path, stored.to_text().as_bytes()).map_err(self.no_key(why))?;
        told.push(bound_health(&stored.binding));
        Ok((Identity::from_secret(*stored.secret), told))
    }

    /// A new key is needed, as `why` says, and cannot be kept.
    pub(super) fn no_key(&self, why: &str) -> impl FnOnce(io::Error) -> StateError {
        let (why, dir) = (why.to_owned(), self.path.clone());
        move |error| StateError::NoKey { why, dir, error }
    }

    fn tighten(&self, path: &Path) -> Option<Health<'static>> {
        let (why, fix) = match statefile::tighten(path) {
            Ok(false) => return None,
            Ok(true) => (
                format!("others could read {}; now they cannot", path.display()),
                "if somebody may have copied it, stop the daemon, remove it and start again with a new one"
                    .to_owned(),
            ),
            Err(error) => (
                format!("others can read {}, and that cannot be changed: {error}", path.display()),
                format!("chmod 600 {}", path.display()),
            ),
        };
        tracing::warn!(file = %path.display(), "a secret file was readable by others");
        Some(Health { check: "identity".into(), state: HealthState::Warn, why: why.into(), fix: fix.into() })
    }
}

fn open_lock(path: &Path, write: bool) -> io::Result<File> {
    // Its content is replaced: a link of somebody else's making is not followed.
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new()
        .read(true)
        .write(write)
        .create(write)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
}

/// Locks `file` for the owner of the state directory `dir`.
fn take_lock(file: &File, dir: &Path, lock_path: &Path) -> Result<(), StateError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(StateError::Locked { path: dir.to_owned(), pid: lock_owner(lock_path) })
        }
        Err(error) => Err(failed("lock", lock_path)(error.into())),
    }
}

/// Who wrote the lock file, if that process lives: an owner that could not write left the number of another one there.
fn lock_owner(path: &Path) -> Option<u32> {
    let pid: u32 = statefile::read(path).ok()??.trim().parse().ok()?;
    Path::new("/proc").join(pid.to_string()).exists().then_some(pid)
}

/// Whether only the writing is refused, so that what is there may still be read.
fn is_refused(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

/// The network secret in a file that the user named, and the one of before if there is a second line.
///
/// # Errors
///
/// The file cannot be read or holds something else.
pub fn read_secrets(path: &Path) -> Result<NetworkSecrets, StateError> {
    let text = statefile::read(path);
    // Somebody may have given the secret where the file is to be named.
    let path = Path::new(&*without_secrets(&path.to_string_lossy())).to_owned();
    let text = match text {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(StateError::BadSecret { path, reason: error.to_string() });
        }
        Err(error) => return Err(StateError::Secret { path, reason: error.to_string() }),
    };
    let missing = || StateError::Secret { path: path.clone(), reason: "there is no such file".to_owned() };
    let text = text.ok_or_else(missing)?;
    text.parse().map_err(|error: crate::crypto::network::BadSecret| StateError::BadSecret {
        path: path.clone(),
        reason: error.to_string(),
    })
}

/// A new key was made, since the old one `what`.
fn replaced(path: &Path, what: &str, aside: &Path) -> Health<'static> {
    let (path, aside) = (path.display(), aside.display());
    Health {
        check: "identity".into(),
        state: HealthState::Warn,
        why: format!("the key in {path} {what}, so this node made a new one; the old one is kept as {aside}").into(),
        fix: format!(
            "nothing, if this is a new device; else put a good copy of the old key back as {path} and restart the daemon"
        )
        .into(),
    }
}

/// Whether a copy of the key file would be noticed.
fn bound_health(binding: &Binding) -> Health<'static> {
    let why = if binding.is_empty() {
        "unbound: this machine shows neither a serial number nor a product UUID nor a network card of its own, so a copy \
         of the key would work on another one too"
            .to_owned()
    } else {
        format!("the key belongs to this machine, known by {}", binding.describe())
    };
    Health { check: "hardware".into(), state: HealthState::Ok, why: why.into(), fix: "".into() }
}

pub(super) fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StateError + 'a {
    move |error| StateError::Io { doing, path: path.to_owned(), error }
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::edge::hardware::tests::{machine, with_card};

    fn with_key_file(change: impl FnOnce(String) -> String) -> (tempfile::TempDir, crate::id::NodeId) {
        let dir = tempfile::tempdir().unwrap();
        let id = StateDir::open(dir.path()).unwrap().identity(&Hardware::default()).unwrap().0.id();
        let file = dir.path().join(KEY_FILE);
        fs::write(&file, change(fs::read_to_string(&file).unwrap())).unwrap();
        (dir, id)
    }

    #[test]
    fn the_key_of_the_first_start_is_the_key_of_the_second() {
        let (dir, id) = with_key_file(|text| text);
        let (identity, health) = StateDir::open(dir.path()).unwrap().identity(&Hardware::default()).unwrap();
        assert_eq!(identity.id(), id);
        assert_eq!(health.len(), 1, "{health:?}");
        assert!(health[0].why.starts_with("unbound: "), "{health:?}");
        assert_eq!(fs::metadata(dir.path().join(KEY_FILE)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_cut_or_foreign_key_file_is_kept_aside_and_told() {
        let cuts: [fn(String) -> String; 5] = [
            |text| text[..text.len() / 2].to_owned(),
            |_| String::new(),
            |_| "-----BEGIN OPENSSH PRIVATE KEY-----\n".to_owned(),
            |text| text.replacen('a', "b", 1).replacen("btonce", "atonce", 1).to_uppercase(),
            |text| format!("{text}more\n"),
        ];
        for cut in cuts {
            let (dir, id) = with_key_file(cut);
            let left = fs::read_to_string(dir.path().join(KEY_FILE)).unwrap();
            let state = StateDir::open(dir.path()).unwrap();
            let (identity, health) = state.identity(&Hardware::default()).unwrap();
            assert_ne!(identity.id(), id);
            let health = &health[0];
            assert_eq!((health.check.as_ref(), health.state), ("identity", HealthState::Warn));
            assert!(health.why.contains("identity.key.bad-1"), "{}", health.why);
            assert_eq!(fs::read_to_string(dir.path().join("identity.key.bad-1")).unwrap(), left);
            assert_eq!(state.identity(&Hardware::default()).unwrap().0.id(), identity.id());
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_hidden_and_told() {
        let (dir, id) = with_key_file(|text| text);
        let file = dir.path().join(KEY_FILE);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let (identity, health) = StateDir::open(dir.path()).unwrap().identity(&Hardware::default()).unwrap();
        assert_eq!(identity.id(), id);
        assert_eq!(health[0].check, "identity");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_cloned_card_makes_itself_a_key_and_keeps_the_old_one_aside_for_who_wants_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (original, clone) = (with_card("b8:27:eb:00:00:01"), with_card("b8:27:eb:00:00:02"));
        let (first, told) = state.identity(&original).unwrap();
        assert!(told[0].why.ends_with("known by its network card"), "{told:?}");
        let (second, told) = state.identity(&clone).unwrap();
        assert_ne!(first.id(), second.id());
        assert_eq!((told[0].check.as_ref(), told[0].state), ("identity", HealthState::Warn));
        assert!(told[0].why.contains("identity.key.other-machine-1"), "{told:?}");
        let aside = dir.path().join("identity.key.other-machine-1");
        assert_eq!(fs::metadata(&aside).unwrap().mode() & 0o777, 0o600);
        // Only at the first start: from now on the new key is its own.
        let (third, told) = state.identity(&clone).unwrap();
        assert_eq!((third.id(), told.len()), (second.id(), 1));
        fs::rename(&aside, dir.path().join(KEY_FILE)).unwrap();
        for _ in 0..2 {
            let (back, told) = state.identity(&clone).unwrap();
            assert_eq!((back.id(), told.len()), (first.id(), 1));
        }
        assert_ne!(state.identity(&original).unwrap().0.id(), first.id());
    }

    #[test]
    fn a_key_without_parts_is_bound_at_the_next_start_and_a_part_that_is_exchanged_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let id = state.identity(&Hardware::default()).unwrap().0.id();
        let serial = ("sys/firmware/devicetree/base/serial-number", "10000000abcd\0");
        let board = machine(&[serial]);
        assert_eq!(state.identity(&board).unwrap().0.id(), id);
        let other = machine(&[(serial.0, "10000000abce\0")]);
        assert_eq!(
            state.identity(&Hardware::default()).unwrap().0.id(),
            id,
            "nothing can be read: no difference"
        );
        assert_ne!(state.identity(&other).unwrap().0.id(), id);
    }

    #[test]
    fn a_second_daemon_is_told_whose_the_directory_is() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let error = StateDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        drop(state);
        assert!(StateDir::open(dir.path()).is_ok());
    }

    #[test]
    fn two_daemons_are_kept_apart_whether_or_not_there_is_a_lock_file() {
        for is_there in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
            let state = StateDir::open(dir.path()).unwrap();
            if !is_there {
                fs::remove_file(dir.path().join(LOCK_FILE)).unwrap();
            }
            assert!(matches!(StateDir::open(dir.path()), Err(StateError::Locked { .. })), "{is_there}");
            drop(state);
        }
    }

    #[test]
    fn a_stored_secret_comes_back_and_a_damaged_one_never_becomes_the_open_network() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert!(state.network_secrets().unwrap().is_none());
        let line = format!("atonce-secret-{}", "a".repeat(52));
        state.store_network_secrets(&line.parse().unwrap()).unwrap();
        assert_eq!(*state.network_secrets().unwrap().unwrap().to_lines(), format!("{line}\n"));
        fs::write(dir.path().join(SECRET_FILE), "atonce-secret-aaa").unwrap();
        assert!(matches!(state.network_secrets(), Err(StateError::BadSecret { .. })));
        state.remove_network_secret().unwrap();
        state.remove_network_secret().unwrap();
        assert!(state.network_secrets().unwrap().is_none());
    }
}
