//! Device-info files on disk: copied from a device plugin's for one attachment, and read back.
//!
//! Reads and writes bytes, bounded; what they say is for others. Follows no link at the end of a path.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::files::replace;

/// The largest file that is read, in bytes; real ones have a few hundred.
const MOST_BYTES: u64 = 64 << 10;

/// Makes the folder of `path`, 0755: Multus leaves it closed to everyone but root.
pub fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => DirBuilder::new().recursive(true).mode(0o755).create(folder),
        None => Ok(()),
    }
}

/// What is in `path`; `None` when it is not there.
///
/// # Errors
/// It cannot be read, is no regular file, or too large.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // A pipe in its place would hold us up, and a link could lead anywhere.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    read_whole(file).map(Some)
}

fn read_whole(file: File) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {MOST_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Puts `bytes` at `path`, readable by all (0444), in place of what a crash may have left there.
pub fn place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes)?;
    fs::set_permissions(path, Permissions::from_mode(0o444))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sys::files::remove;

    #[test]
    fn files_are_placed_read_and_removed_and_nothing_else_is_read() {
        let folder = std::env::temp_dir().join(format!("multus-device-files-{}", std::process::id()));
        let path = folder.join("cni/a");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        make_folder(&path).unwrap();
        assert_eq!(mode(&folder.join("cni")), 0o755);
        assert_eq!(read(&path).unwrap(), None);
        place(&path, b"old").unwrap();
        place(&path, b"new").unwrap();
        assert_eq!((read(&path).unwrap().unwrap(), mode(&path)), (b"new".to_vec(), 0o444));
        symlink(&path, folder.join("link")).unwrap();
        assert!(read(&folder.join("link")).is_err());
        assert!(read(&folder).is_err());
        place(&path, &vec![b'x'; 65_537]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("larger"));
        remove(&path).unwrap();
        remove(&path).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}
