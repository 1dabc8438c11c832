//! Files that others may be reading: private folders, atomic replacement, advisory locks.
//!
//! Knows nothing of what is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// A lock on one byte of a file; it ends with this value, or with the process.
#[derive(Debug)]
pub struct Held {
    _file: File,
}

/// Makes `folder` and its parents, itself 0700.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    if let Some(above) = folder.parent() {
        fs::create_dir_all(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Replaces a file of mode 0600 atomically: readers see the old or the new one, never half of it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Keeps the `most` newest files of `folder` that end in `.ending`, and removes the others.
///
/// # Errors
/// The folder cannot be read, or a file not removed.
pub fn thin_out(folder: &Path, ending: &str, most: usize) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|has| has == ending) {
            found.push((entry.metadata()?.modified()?, path));
        }
    }
    found.sort();
    let excess = found.len().saturating_sub(most);
    found.into_iter().take(excess).try_for_each(|(_, path)| fs::remove_file(path))
}

/// Locks byte `at` of the file at `path`, which is made if it is missing; `None` while somebody else holds it. Several
/// names can share one file that is never removed (`fcntl(2)`, open file description locks, Linux 3.15).
///
/// # Errors
/// The folder is not there, or the file cannot be opened.
#[expect(unsafe_code, reason = "std locks whole files only")]
pub fn hold(path: &Path, at: u64) -> io::Result<Option<Held>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let byte = libc::off_t::try_from(at & (u64::MAX >> 2)).unwrap_or(0);
    // SAFETY: a flock of zeros is a valid value; the fields that matter are set below.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = libc::c_short::try_from(libc::F_WRLCK).unwrap_or(0);
    range.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or(0);
    range.l_start = byte;
    range.l_len = 1;
    // SAFETY: the descriptor is open and `range` outlives the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
    Ok((done == 0).then_some(Held { _file: file }))
}
