//! Where the daemon's socket is.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the daemon listens when systemd runs it.
const SYSTEM_SOCKET: &str = "/run/atonce/atonced.sock";

/// The daemon's socket, where nothing else was said: `$ATONCE_SOCKET`, `/run/atonce/atonced.sock` when it exists,
/// `$XDG_RUNTIME_DIR/atonce/atonced.sock`, `/tmp/atonce-$UID/atonced.sock`.
pub fn default_socket() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set("ATONCE_SOCKET") {
        return path;
    }
    let system = PathBuf::from(SYSTEM_SOCKET);
    if !matches!(system.try_exists(), Ok(false)) {
        return system;
    }
    let directory = set("XDG_RUNTIME_DIR").map_or_else(shared_directory, |runtime| runtime.join("atonce"));
    directory.join("atonced.sock")
}

fn shared_directory() -> PathBuf {
    PathBuf::from(format!("/tmp/atonce-{}", rustix::process::getuid().as_raw()))
}

/// Anybody may create a directory in /tmp: what another user put there is not our daemon.
pub(super) fn check_owner(socket: &Path) -> io::Result<()> {
    let directory = shared_directory();
    if socket.starts_with(&directory)
        && let Ok(found) = std::fs::metadata(&directory)
        && found.uid() != rustix::process::getuid().as_raw()
    {
        return Err(io::Error::other(format!("{} belongs to another user", directory.display())));
    }
    Ok(())
}
