//! The Unix socket at which apps find us: given by systemd, or made by us and removed by us.

use std::env;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use listenfd::ListenFd;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Gid, geteuid};
use thiserror::Error;

use crate::edge::statefile;

/// Who is in this group may talk to the daemon.
const GROUP: &str = "atonce";
const FILE: &str = "atonced.sock";
/// How long a beginner waits for another one in the same directory, which needs some milliseconds.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A listening socket and where it is.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub(super) socket: UnixListener,
    path: PathBuf,
    /// Device and number of the file that we made: only that one is removed at the end.
    made: Option<(u64, u64)>,
}

/// Why apps cannot be served.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another daemon serves there.
    #[error(
        "the socket {} is served by another process{}\ntry: stop that one, or give this one its own --socket, --state-dir and --name",
        path.display(), pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
    )]
    Live {
        /// Where.
        path: PathBuf,
        /// Which.
        pid: Option<i32>,
    },
    /// Something else has that name.
    #[error("{} is no socket, so it was left alone\ntry: another --socket", .0.display())]
    NoSocket(PathBuf),
    /// Others could put a socket of theirs in its place.
    #[error("the directory {} belongs to somebody else, or others may write to it\ntry: remove it, or name another --socket", .0.display())]
    Unsafe(PathBuf),
    /// The operating system refused.
    #[error("cannot serve apps at {}: {error}\ntry: a --socket in a directory that this user may write to", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Its reason.
        error: io::Error,
    },
}

impl Listener {
    /// The socket that systemd passed; else the one that was named; else the usual one of this user.
    ///
    /// # Errors
    ///
    /// Another daemon serves there, or the place cannot be used.
    pub fn open(named: Option<&Path>) -> Result<Self, ListenError> {
        if let Some(socket) = passed()? {
            let path = socket.local_addr().ok().and_then(|addr| addr.as_pathname().map(Path::to_owned));
            return Ok(Self { socket, path: path.unwrap_or_default(), made: None });
        }
        let path = match (named, env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty())) {
            (Some(path), _) => path.to_owned(),
            (None, Some(dir)) => PathBuf::from(dir).join("atonce").join(FILE),
            (None, None) => {
                let dir = PathBuf::from(format!("/tmp/atonce-{}", geteuid().as_raw()));
                own_dir(&dir)?;
                dir.join(FILE)
            }
        };
        Self::bind(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, if it still is the one that we made.
    pub fn remove(&self) {
        if self.made.is_some() && identity(&self.path).ok() == self.made {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn bind(path: PathBuf) -> Result<Self, ListenError> {
        let failed = |error| ListenError::Io { path: path.clone(), error };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        statefile::create_private_dir(dir).map_err(failed)?;
        // Between the look at a socket that may be stale and its replacement nobody else may do the same.
        let _only_one = lock(dir);
        clear(&path)?;
        // Made beside its place, and put there when its permissions are right.
        let new = dir.join(format!(".{FILE}.{}", std::process::id()));
        let _ = fs::remove_file(&new);
        let socket = UnixListener::bind(&new).map_err(failed)?;
        let placed = place(&new, &path);
        if placed.is_err() {
            let _ = fs::remove_file(&new);
        }
        placed.map_err(failed)?;
        let made = Some(identity(&path).map_err(failed)?);
        Ok(Self { socket, path, made })
    }
}

fn place(new: &Path, path: &Path) -> io::Result<()> {
    fs::set_permissions(new, Permissions::from_mode(0o660))?;
    if let Some(group) = group_id(GROUP)
        && let Err(error) = rustix::fs::chown(new, None, Some(group))
    {
        tracing::debug!(reason = %error, "the socket stays with our own group");
    }
    fs::rename(new, path)
}

/// Waits for the other daemons that begin in this directory, but not for ever: anybody may lock a directory.
fn lock(dir: &Path) -> Option<File> {
    let dir = File::open(dir).ok()?;
    for _ in 0..LOCK_TRIES {
        if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Some(dir);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    None
}

fn passed() -> Result<Option<UnixListener>, ListenError> {
    let failed = |error| ListenError::Io { path: "(the socket passed by systemd)".into(), error };
    ListenFd::from_env().take_unix_listener(0).map_err(failed)
}

/// Removes a socket that nobody serves any more.
fn clear(path: &Path) -> Result<(), ListenError> {
    let failed = |error| ListenError::Io { path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let probe = probe.map_err(|error| failed(error.into()))?;
    let addr = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    match connect(&probe, &addr) {
        Ok(()) => {
            let pid = socket_peercred(&probe).ok().map(|owner| owner.pid.as_raw_nonzero().get());
            Err(ListenError::Live { path: path.to_owned(), pid })
        }
        // It has as many connections waiting as it may have.
        Err(Errno::AGAIN) => Err(ListenError::Live { path: path.to_owned(), pid: None }),
        Err(Errno::CONNREFUSED) => {
            tracing::debug!("a socket that nobody serves any more is replaced");
            statefile::remove(path).map_err(failed)
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// In a directory where everybody may create files, ours must be ours alone.
fn own_dir(dir: &Path) -> Result<(), ListenError> {
    let failed = |error| ListenError::Io { path: dir.to_owned(), error };
    statefile::create_private_dir(dir).map_err(failed)?;
    let metadata = fs::symlink_metadata(dir).map_err(failed)?;
    let ours = metadata.is_dir() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 == 0;
    if ours { Ok(()) } else { Err(ListenError::Unsafe(dir.to_owned())) }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn group_id(name: &str) -> Option<Gid> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    let mut fields = groups.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let found = fields.next() == Some(name);
        found.then_some(fields)
    })?;
    fields.nth(1)?.parse().ok().map(Gid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_names_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/a.sock");
        drop(Listener::bind(path.clone()).unwrap());
        assert!(path.exists());

        let live = Listener::bind(path.clone()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        let error = Listener::bind(path.clone()).unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        live.remove();
        assert!(!path.exists());
    }

    #[test]
    fn of_many_that_begin_at_once_on_a_stale_socket_one_serves() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.sock");
            drop(Listener::bind(path.clone()).unwrap());
            let begin = || Listener::bind(path.clone());
            let served: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(begin)).collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
            });
            assert_eq!(served.len(), 1);
            assert!(UnixStream::connect(&path).is_ok());
        }
    }

    #[test]
    fn nothing_but_our_own_socket_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::bind(path.clone()), Err(ListenError::NoSocket(_))));
        fs::remove_file(&path).unwrap();

        let ours = Listener::bind(path.clone()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        ours.remove();
        assert!(path.exists());
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        assert!(own_dir(&open).is_ok());
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(own_dir(&open), Err(ListenError::Unsafe(_))));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(own_dir(&link).is_err());
    }
}
