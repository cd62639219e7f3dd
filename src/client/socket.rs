//! Where the daemon's socket is, and whether it can be the daemon's.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::symlink_metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::{limits, pasted};

/// Where the daemon listens when systemd runs it.
const SYSTEM_SOCKET: &str = "/run/atonce/atonced.sock";
/// Links on the way to a socket: as many as the system follows (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Others than the owner and the group may make, replace and remove what is in the directory.
const BY_ALL: u32 = 0o002;
/// The group may.
const BY_GROUP: u32 = 0o020;
/// But each only what is its own.
const STICKY: u32 = 0o1000;

/// The daemon's socket, where nothing else was said: `$ATONCE_SOCKET`, `/run/atonce/atonced.sock` when it exists,
/// `$XDG_RUNTIME_DIR/atonce/atonced.sock`, `/tmp/atonce-$UID/atonced.sock`.
pub fn default_socket() -> PathBuf {
    if let Some(path) = variable("ATONCE_SOCKET") {
        return path;
    }
    let system = PathBuf::from(SYSTEM_SOCKET);
    if !matches!(system.try_exists(), Ok(false)) {
        return system;
    }
    runtime_directory().unwrap_or_else(shared_directory).join("atonced.sock")
}

/// The path in a variable; none if there is nothing in it.
fn variable(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name)?;
    let cleaned = value.to_str().map(|text| OsString::from(pasted::cleaned(text)));
    cleaned.or(Some(value)).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn runtime_directory() -> Option<PathBuf> {
    variable("XDG_RUNTIME_DIR").map(|runtime| runtime.join("atonce"))
}

fn shared_directory() -> PathBuf {
    PathBuf::from(format!("/tmp/atonce-{}", rustix::process::getuid().as_raw()))
}

/// Refuses a socket that nobody can serve at, and one that may be somebody else's (socket.md, 1).
pub(super) fn check(socket: &Path) -> io::Result<()> {
    let (bytes, most) = (socket.as_os_str().len(), limits::SOCKET_PATH_BYTES);
    if bytes > most {
        let why = format!("its path has {bytes} bytes, and the system takes at most {most}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let usual = [Some(shared_directory()), runtime_directory()];
    let is_usual = usual.iter().flatten().any(|directory| socket.starts_with(directory));
    check_parts(socket, is_usual, rustix::process::getuid().as_raw())
}

/// Follows the way to the socket part by part, as the system would. `is_usual`: nobody named the path, so every part that
/// another user could have put there has to be ours, or root's.
fn check_parts(socket: &Path, is_usual: bool, mine: u32) -> io::Result<()> {
    let mut at = if socket.is_absolute() { PathBuf::new() } else { std::env::current_dir()? };
    let mut parts: VecDeque<OsString> = parts_of(socket).collect();
    let mut links = 0;
    while let Some(part) = parts.pop_front() {
        if part == "/" {
            at = PathBuf::from("/");
            continue;
        }
        if part == ".." {
            at.pop();
            continue;
        }
        let path = at.join(&part);
        // What is missing or hidden is told by the connection that fails for it.
        let (Ok(directory), Ok(found)) = (symlink_metadata(&at), symlink_metadata(&path)) else {
            return Ok(());
        };
        let is_trusted = |owner: u32| owner == mine || owner == 0;
        let by_all = directory.mode() & BY_ALL != 0;
        if is_usual && directory.mode() & (BY_ALL | BY_GROUP) != 0 {
            if directory.mode() & STICKY == 0 {
                return Err(io::Error::other(format!("others may write to {}", at.display())));
            }
            if !is_trusted(found.uid()) {
                return Err(io::Error::other(format!("{} belongs to another user", path.display())));
            }
        }
        if !found.file_type().is_symlink() {
            at = path;
            continue;
        }
        // As with fs.protected_symlinks of the kernel, which not every system has switched on.
        if by_all && !is_trusted(found.uid()) && found.uid() != directory.uid() {
            let why = format!("{} is a link that belongs to another user", path.display());
            return Err(io::Error::other(why));
        }
        links += 1;
        let Some(target) = std::fs::read_link(&path).ok().filter(|_| links <= LINKS_MAX) else {
            return Ok(());
        };
        parts = parts_of(&target).chain(parts).collect();
    }
    Ok(())
}

fn parts_of(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    let is_here = |part: &Component<'_>| matches!(part, Component::CurDir);
    path.components().filter(move |part| !is_here(part)).map(|part| part.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    const ME: u32 = 1234;
    const OTHER: u32 = 4321;

    /// `/tmp` as everybody may write to it, in which there are a directory of mine, of another one, and links of both.
    /// Giving files away needs root, as all of the suite does.
    fn shared() -> tempfile::TempDir {
        let shared = tempfile::tempdir().unwrap();
        fs::set_permissions(shared.path(), Permissions::from_mode(0o1777)).unwrap();
        for (name, owner) in [("mine", ME), ("other", OTHER)] {
            let directory = shared.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
            fs::write(directory.join("s"), "").unwrap();
            for path in [&directory, &directory.join("s")] {
                chown(path, Some(owner), Some(owner)).unwrap();
            }
            for target in ["mine", "other", "."] {
                let link = shared.path().join(format!("{name}-to-{target}"));
                symlink(target, &link).unwrap();
                std::os::unix::fs::lchown(&link, Some(owner), Some(owner)).unwrap();
            }
        }
        shared
    }

    fn told(shared: &tempfile::TempDir, path: &str, is_usual: bool) -> String {
        let checked = check_parts(&shared.path().join(path), is_usual, ME);
        checked
            .err()
            .map(|error| error.to_string().replace(&shared.path().display().to_string(), ""))
            .unwrap_or_default()
    }

    #[test]
    fn the_usual_socket_is_taken_only_where_nobody_else_could_have_put_it() {
        let shared = shared();
        for path in ["mine/s", "mine-to-mine/s", "mine/../mine/s", "mine/none", "none/s"] {
            assert_eq!(told(&shared, path, true), "", "{path}");
        }
        for (path, why) in [
            ("other/s", "/other belongs to another user"),
            ("mine-to-other/s", "/other belongs to another user"),
            ("other-to-mine/s", "/other-to-mine belongs to another user"),
            ("other-to-./mine/s", "/other-to-. belongs to another user"),
            ("mine/../other/s", "/other belongs to another user"),
        ] {
            assert_eq!(told(&shared, path, true), why, "{path}");
        }
        for mode in [0o777, 0o770] {
            fs::set_permissions(shared.path().join("mine"), Permissions::from_mode(mode)).unwrap();
            assert_eq!(told(&shared, "mine/s", true), "others may write to /mine");
        }
    }

    #[test]
    fn a_socket_that_was_named_is_taken_but_not_through_the_link_of_another_user() {
        let shared = shared();
        for path in ["mine/s", "other/s", "mine-to-other/s", "mine-to-./other/s"] {
            assert_eq!(told(&shared, path, false), "", "{path}");
        }
        for path in ["other-to-mine/s", "other-to-other/s", "mine-to-./other-to-./mine/s"] {
            let told = told(&shared, path, false);
            assert!(told.ends_with(" is a link that belongs to another user"), "{path}: {told}");
        }
    }

    #[test]
    fn links_in_a_circle_end() {
        let shared = shared();
        symlink("circle", shared.path().join("circle")).unwrap();
        assert_eq!(told(&shared, "circle/s", false), "");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_told_with_the_limit() {
        let error = check(Path::new(&format!("/{}", "a".repeat(107)))).unwrap_err().to_string();
        assert_eq!(error, "its path has 108 bytes, and the system takes at most 107");
        assert!(check(Path::new(&format!("/{}", "a".repeat(106)))).is_ok());
    }
}
