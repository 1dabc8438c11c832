//! Files that others may be reading: private folders, atomic replacement, advisory locks.
//!
//! Knows nothing of what is in them.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::names::NetnsId;

/// A lock on one byte of a file; it ends with this value, or with the process.
#[derive(Debug)]
pub struct Held {
    _file: File,
}

/// Which namespace the file at `path` is, as we see it; `None`: there is no file. Opens nothing.
pub fn netns_id(path: &Path) -> Option<NetnsId> {
    fs::metadata(path).ok().map(|about| NetnsId::of(about.dev(), about.ino()))
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
    write_beside(path, bytes, &format!(".{}.tmp", std::process::id()), false)
}

/// The same through a file beside it whose name has `ending`: for whoever is the only one to write it, and wants to find
/// what it left when it was killed.
pub fn replace_through(path: &Path, bytes: &[u8], ending: &str) -> io::Result<()> {
    write_beside(path, bytes, ending, false)
}

/// The same for a file that changes again at once, and is flushed when that is over. A file system may begin to write out
/// what takes another file's place, and free that one only when it is written itself (ext4(5), `auto_da_alloc`): each
/// change would wait for the disk. Where two files trade places, neither has to be written.
pub fn trade_through(path: &Path, bytes: &[u8], ending: &str) -> io::Result<()> {
    let beside = beside(path, ending);
    let placed = write_new(&beside, bytes, false).and_then(|()| match trade(&beside, path) {
        Ok(()) => fs::remove_file(&beside),
        // There is none yet, or the file system cannot do it.
        Err(_) => fs::rename(&beside, path),
    });
    if placed.is_err() {
        let _ = fs::remove_file(&beside);
    }
    placed
}

/// The same for a file that must be whole after a power loss, too: on the disk when this returns.
pub fn replace_for_good(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Two agents in two containers may have the same process id, and nothing else keeps them apart here.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    write_beside(path, bytes, &format!(".{}-{now}.tmp", std::process::id()), true)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Replaces what is at `path` by a file with this content and mode, and with this owner and group where we have the
/// right to give it: says whether it has them. What is there is not followed if it is a link, and whoever has it open,
/// or runs it, goes on with the old one.
///
/// # Errors
/// It cannot be written; what was there is there still.
#[cfg(feature = "daemon")]
pub fn place(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<bool> {
    use std::os::unix::fs::{PermissionsExt, fchown};
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(name);
    remove(&beside)?;
    let placed = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        let is_owned = owner.is_none_or(|(uid, gid)| {
            let has_it = |about: fs::Metadata| (about.uid(), about.gid()) == (uid, gid);
            file.metadata().is_ok_and(has_it) || fchown(&file, Some(uid), Some(gid)).is_ok()
        });
        // After the owner, whose change takes set-id bits away.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        Ok(is_owned)
    })();
    if placed.is_err() {
        let _ = fs::remove_file(&beside);
    }
    placed.map_err(|error| whose_folder(path, error))
}

/// Why `path` could not be written, with whose folder it is where that is why: root in a container without
/// `CAP_DAC_OVERRIDE` is a user like any other (capabilities(7)).
#[cfg(feature = "daemon")]
pub fn whose_folder(path: &Path, error: io::Error) -> io::Error {
    use std::os::unix::fs::MetadataExt;
    let owner = path.parent().and_then(|folder| fs::metadata(folder).ok()).map(|about| about.uid());
    match owner {
        Some(uid) if uid != 0 && error.kind() == io::ErrorKind::PermissionDenied => io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{error}: its folder belongs to user {uid}; give it to root, or CAP_DAC_OVERRIDE to the container"),
        ),
        _ => error,
    }
}

/// Removes the file at `path`; one that is not there is gone already.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what a process that was killed while it replaced the file at `path` left beside it.
pub fn sweep_beside(path: &Path) {
    let Some((folder, name)) = path.parent().zip(path.file_name().and_then(|name| name.to_str())) else { return };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let beside = entry.file_name();
        let rest = beside.to_str().and_then(|beside| beside.strip_prefix(name)).unwrap_or_default();
        if rest.starts_with('.') && Path::new(rest).extension().is_some_and(|ending| ending == "tmp") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn write_beside(path: &Path, bytes: &[u8], ending: &str, for_good: bool) -> io::Result<()> {
    let beside = beside(path, ending);
    let written = write_new(&beside, bytes, for_good).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(ending);
    path.with_file_name(name)
}

fn write_new(path: &Path, bytes: &[u8], for_good: bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    if for_good { file.sync_all() } else { Ok(()) }
}

/// Each of two files gets the other's name, at once (`renameat2(2)`, Linux 3.15).
#[expect(unsafe_code, reason = "std has no call for it")]
fn trade(one: &Path, other: &Path) -> io::Result<()> {
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let (one, other) = (name(one)?, name(other)?);
    // SAFETY: both are NUL-terminated strings that live through the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
pub fn hold(path: &Path, at: u64) -> io::Result<Option<Held>> {
    lock(path, at, libc::F_WRLCK)
}

/// The same lock, shared: any number may have it while nobody has it alone.
///
/// # Errors
/// As [`hold`].
pub fn hold_together(path: &Path, at: u64) -> io::Result<Option<Held>> {
    lock(path, at, libc::F_RDLCK)
}

#[expect(unsafe_code, reason = "std locks whole files only")]
fn lock(path: &Path, at: u64, kind: libc::c_int) -> io::Result<Option<Held>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let byte = libc::off_t::try_from(at & (u64::MAX >> 2)).unwrap_or(0);
    // SAFETY: a flock of zeros is a valid value; the fields that matter are set below.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = libc::c_short::try_from(kind).unwrap_or(0);
    range.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or(0);
    range.l_start = byte;
    range.l_len = 1;
    // SAFETY: the descriptor is open and `range` outlives the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
    Ok((done == 0).then_some(Held { _file: file }))
}
