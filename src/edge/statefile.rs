//! Files of the state directory: readable by nobody else, written whole or not at all, never silently replaced.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::pasted;

/// Bytes of the largest file that we read: 4096 peers with ten addresses each and the names of as many others stay below it.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Room behind the end of a file: a reader that has none for another try grows.
const READ_BYTES_MORE: usize = 64;

const NONBLOCK: i32 = OFlags::NONBLOCK.bits().cast_signed();

/// Creates a directory, and those above it, for nobody but ourselves. One that exists stays as it is.
pub(super) fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Replaces the file by `bytes`. Whenever this is interrupted, the old or the new content is there, whole.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = temporary(path)?;
    remove(&temporary)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // Without this the rename itself may be lost with the power.
    File::open(dir)?.sync_all()
}

/// The file's text without a byte order mark; `None` if there is none. An error of kind `InvalidData` means that it is
/// none of ours.
pub(super) fn read(path: &Path) -> io::Result<Option<Zeroizing<String>>> {
    // A pipe without a writer would keep us waiting, a device might never end.
    let file = match OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let none_of_ours =
        |why: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, why.to_string());
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(none_of_ours(&"it is no file"));
    }
    // As long as the file from the start: growing would leave a copy behind that is not wiped.
    let expected = usize::try_from(metadata.len().min(FILE_BYTES_MAX)).unwrap_or_default() + READ_BYTES_MORE;
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(none_of_ours(&format_args!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    let text = pasted::decoded(&bytes).map_err(|error| none_of_ours(&error))?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// Removes the file if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        // Where nothing can be removed that is told first, also of what is not there.
        Err(_) if matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound) => {
            Ok(())
        }
        removed => removed,
    }
}

/// Gives a file that we cannot read another name, so that nothing is lost, and tells which.
pub(super) fn keep_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = free_name(path, "bad")?;
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// A name beside the file that nothing has, with a word that says why it is there.
pub(super) fn free_name(path: &Path, word: &str) -> io::Result<PathBuf> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{word}-{number}"));
        PathBuf::from(name)
    };
    let free = (1..=u32::MAX).map(numbered).find(|name| fs::symlink_metadata(name).is_err());
    free.ok_or_else(|| io::ErrorKind::AlreadyExists.into())
}

/// Whether nobody but ourselves, and root who can do anything, can put something else in the place of what is in this
/// directory.
pub(super) fn is_ours_alone(dir: &Path) -> io::Result<bool> {
    let metadata = fs::metadata(dir)?;
    let is_trusted = metadata.uid() == geteuid().as_raw() || metadata.uid() == 0;
    Ok(metadata.is_dir() && is_trusted && metadata.mode() & 0o022 == 0)
}

/// Whether files can be made and filled in this directory now.
pub(super) fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(".probe");
    remove(&path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let written = file.write_all(b"\n");
    remove(&path)?;
    written
}

/// Takes away what others may do with the file; tells whether there was anything to take.
pub(super) fn tighten(path: &Path) -> io::Result<bool> {
    let open = fs::metadata(path)?.mode() & 0o077 != 0;
    if open {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    Ok(open)
}

fn temporary(path: &Path) -> io::Result<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(".new");
    Ok(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_or_endless_is_none_of_ours_and_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        for path in [&pipe, Path::new("/dev/zero"), dir.path()] {
            assert_eq!(read(path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{}", path.display());
        }
    }

    #[test]
    fn a_write_that_was_cut_before_its_rename_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, b"old").unwrap();
        fs::write(temporary(&path).unwrap(), b"ne").unwrap();

        assert_eq!(read(&path).unwrap().as_deref().map(String::as_str), Some("old"));
        write(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap().as_deref().map(String::as_str), Some("new"));
        assert!(!temporary(&path).unwrap().exists());
    }

    #[test]
    fn a_file_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, b"x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(!tighten(&path).unwrap());
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(tighten(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_kept_aside_replaces_nothing_that_was_kept_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for number in 1..=3 {
            write(&path, format!("{number}").as_bytes()).unwrap();
            let aside = keep_aside(&path).unwrap();
            assert!(aside.to_str().unwrap().ends_with(&format!("file.bad-{number}")));
            assert_eq!(read(&aside).unwrap().map(|text| text.to_string()), Some(number.to_string()));
        }
        assert_eq!(read(&path).unwrap(), None);
    }
}
