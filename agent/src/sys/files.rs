//! Files that others may be reading: private folders, atomic replacement, advisory locks.
//!
//! Knows nothing of what is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// How a file is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// With other readers.
    Shared,
    /// By one alone.
    Alone,
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

/// Locks `file` if nobody holds it otherwise; the lock ends with the file (`flock(2)`).
#[expect(unsafe_code, reason = "flock has no safe wrapper that does not wait")]
pub fn try_lock(file: &File, hold: Hold) -> bool {
    let how = match hold {
        Hold::Shared => libc::LOCK_SH,
        Hold::Alone => libc::LOCK_EX,
    };
    // SAFETY: the descriptor is open for as long as `file` lives; flock touches no memory of ours.
    unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) == 0 }
}
