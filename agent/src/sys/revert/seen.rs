//! What is at a path now, and is that what the log says of it?

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Before, Left};
use crate::sys::checksum::checksum;

/// The largest file that is kept: Multus's own plugin has 40 MB.
const MOST_BYTES: u64 = 256 << 20;

/// What is at a path.
pub(super) enum Seen {
    Nothing,
    File { bytes: Vec<u8>, mode: u32, uid: u32, gid: u32 },
    Link(PathBuf),
    Folder,
}

/// What is at `path` itself, no link followed. What is neither file, folder nor link is an error of the kind
/// `InvalidInput`.
pub(super) fn look(path: &Path) -> io::Result<Seen> {
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Seen::Nothing);
        }
        Err(error) => return Err(error),
    };
    let kind = about.file_type();
    if kind.is_symlink() {
        return fs::read_link(path).map(Seen::Link);
    }
    if kind.is_dir() {
        return Ok(Seen::Folder);
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file nor a link"));
    }
    if about.len() > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {MOST_BYTES} bytes")));
    }
    let bytes = fs::read(path)?;
    Ok(Seen::File { bytes, mode: about.mode() & 0o7777, uid: about.uid(), gid: about.gid() })
}

/// Is it as it was before?
pub(super) fn is(seen: &Seen, before: &Before) -> bool {
    match (seen, before) {
        (Seen::Nothing, Before::Nothing) => true,
        (Seen::Link(now), Before::Link { target }) => now == target,
        (Seen::File { bytes, mode, uid, gid }, Before::File { sum, mode: m, uid: u, gid: g, .. }) => {
            checksum(bytes) == *sum && (mode, uid, gid) == (m, u, g)
        }
        _ => false,
    }
}

/// Removes copies of ours that somebody renamed out of the way: `x.conflist.bak` of `x.conflist`. Says whether there
/// was one.
pub(super) fn remove_renamed(path: &Path, left: &[Left]) -> bool {
    let Some((folder, name)) = path.parent().zip(path.file_name()) else { return false };
    let mut begins = name.to_os_string();
    begins.push(".");
    let begins = begins.to_string_lossy().into_owned();
    let mut found = false;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&begins) {
            continue;
        }
        let Ok(Seen::File { bytes, .. }) = look(&entry.path()) else { continue };
        if left.contains(&Left::file(&bytes)) {
            found |= fs::remove_file(entry.path()).is_ok();
        }
    }
    found
}
