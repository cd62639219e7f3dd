//! The Unix socket at which apps find us: given by systemd, or made by us and removed by us.
//!
//! What cleans directories of temporary files may take ours, and its directory with it. So we look at it from time to
//! time (`Listener::renew`) and make it again; what else is found in its place is left alone.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use listenfd::ListenFd;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Gid, geteuid};
use thiserror::Error;

use crate::edge::config::variable;
use crate::edge::statefile;
use crate::limits;

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
    /// Its directory is one that we make where everybody may.
    in_shared: bool,
    /// The file that we made: only that one is removed at the end.
    made: Option<Made>,
}

/// What tells a file from the next one in its place: device, number, and, since numbers are used again, when it was made.
type Made = (u64, u64, Option<SystemTime>);

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
    /// No system takes it.
    #[error(
        "the path of the socket has {} bytes, and the system takes at most {}: {}\ntry: a shorter --socket",
        .0.as_os_str().len(), limits::SOCKET_PATH_BYTES, .0.display()
    )]
    TooLong(PathBuf),
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
            return Ok(Self { socket, path: path.unwrap_or_default(), in_shared: false, made: None });
        }
        let (path, in_shared) = match (named, variable("XDG_RUNTIME_DIR")) {
            (Some(path), _) => (path.to_owned(), false),
            (None, Some(dir)) => (dir.join("atonce").join(FILE), false),
            (None, None) => (PathBuf::from(format!("/tmp/atonce-{}/{FILE}", geteuid().as_raw())), true),
        };
        Self::bind(path, in_shared, LOCK_TRIES)
    }

    /// Makes the socket again if somebody removed it, or put something else in its place. `None`: there was no need.
    pub(super) fn renew(&mut self) -> Option<Result<(), ListenError>> {
        let made = self.made.as_ref()?;
        if identity(&self.path).is_ok_and(|found| found == *made) {
            return None;
        }
        // Who waits here holds up all apps and peers: once must do, and the next look comes soon.
        let renewed = Self::bind(self.path.clone(), self.in_shared, 1);
        Some(renewed.map(|renewed| *self = renewed))
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

    fn bind(path: PathBuf, in_shared: bool, lock_tries: u32) -> Result<Self, ListenError> {
        if path.as_os_str().len() > limits::SOCKET_PATH_BYTES {
            return Err(ListenError::TooLong(path));
        }
        let failed = |error| ListenError::Io { path: path.clone(), error };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        if in_shared {
            own_dir(dir)?;
        } else {
            statefile::create_private_dir(dir).map_err(failed)?;
        }
        // Between the look at a socket that may be stale and its replacement nobody else may do the same.
        let _only_one = lock(dir, lock_tries);
        clear(&path)?;
        // Made beside its place, and put there when its permissions are right.
        let name = format!(".atonced.{}", std::process::id());
        let new = dir.join(&name);
        let _ = fs::remove_file(&new);
        let socket = bind_in(dir, &name).map_err(failed)?;
        let placed = place(&new, &path);
        if placed.is_err() {
            let _ = fs::remove_file(&new);
        }
        placed.map_err(failed)?;
        let made = Some(identity(&path).map_err(failed)?);
        Ok(Self { socket, path, in_shared, made })
    }
}

/// A socket of this name in a directory, also where both together are longer than the path of a socket may be: the final
/// name may be shorter than this one.
fn bind_in(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let direct = dir.join(name);
    if direct.as_os_str().len() <= limits::SOCKET_PATH_BYTES {
        return UnixListener::bind(direct);
    }
    let dir = File::open(dir)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
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
fn lock(dir: &Path, tries: u32) -> Option<File> {
    let dir = File::open(dir).ok()?;
    for again in 1..=tries {
        if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Some(dir);
        }
        if again < tries {
            std::thread::sleep(LOCK_PAUSE);
        }
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

fn identity(path: &Path) -> io::Result<Made> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.created().ok()))
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

    fn bind(path: &Path) -> Result<Listener, ListenError> {
        Listener::bind(path.to_owned(), false, LOCK_TRIES)
    }

    #[test]
    fn a_path_may_have_as_many_bytes_as_the_system_takes_and_of_a_longer_one_the_limit_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path_of = |bytes: usize, name: &str| {
            let fill = bytes - dir.path().as_os_str().len() - name.len() - 2;
            dir.path().join("d".repeat(fill)).join(name)
        };
        for bytes in 96..=107 {
            for name in ["s", "atonced.sock", "a-name-longer-than-the-one-that-it-is-made-under"] {
                let path = path_of(bytes, name);
                assert_eq!(path.as_os_str().len(), bytes);
                let listener = bind(&path).unwrap();
                assert!(UnixStream::connect(&path).is_ok());
                assert!(matches!(bind(&path), Err(ListenError::Live { .. })));
                listener.remove();
            }
        }
        let error = bind(&path_of(108, "s")).unwrap_err().to_string();
        assert!(error.contains("has 108 bytes, and the system takes at most 107: /"), "{error}");
    }

    #[test]
    fn a_socket_that_somebody_removed_is_made_again_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/a.sock");
        let mut listener = bind(&path).unwrap();
        assert!(listener.renew().is_none());
        let is_made_again = |listener: &mut Listener| {
            assert!(listener.renew().unwrap().is_ok());
            assert!(UnixStream::connect(&path).is_ok() && listener.socket.accept().is_ok());
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
            assert!(listener.renew().is_none());
        };
        fs::remove_file(&path).unwrap();
        is_made_again(&mut listener);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        is_made_again(&mut listener);
        fs::rename(&path, dir.path().join("moved")).unwrap();
        is_made_again(&mut listener);

        // A file of somebody else, a daemon of somebody else: left alone, and taken again when they are gone.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(listener.renew(), Some(Err(ListenError::NoSocket(_)))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        let other = bind(&path).unwrap();
        assert!(matches!(listener.renew(), Some(Err(ListenError::Live { .. }))));
        assert!(UnixStream::connect(&path).is_ok() && other.socket.accept().is_ok());
        drop(other);
        is_made_again(&mut listener);

        // What systemd passed is systemd's.
        fs::remove_file(&path).unwrap();
        let mut passed = Listener { made: None, ..listener };
        assert!(passed.renew().is_none() && !path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_names_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/a.sock");
        drop(bind(&path).unwrap());
        assert!(path.exists());

        let live = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        let error = bind(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        live.remove();
        assert!(!path.exists());
    }

    #[test]
    fn of_many_that_begin_at_once_on_a_stale_socket_one_serves() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.sock");
            drop(bind(&path).unwrap());
            let begin = || bind(&path);
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
        assert!(matches!(bind(&path), Err(ListenError::NoSocket(_))));
        fs::remove_file(&path).unwrap();

        let ours = bind(&path).unwrap();
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
