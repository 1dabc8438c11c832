//! libcni's result cache below `cniDir`: what each network gave each container, in the file names and the format of
//! libcni, so that Multus, or its successor, can take the node over.
//!
//! Decides nothing. Files of others are read within bounds, and what does not fit is left out.

#[cfg(feature = "daemon")]
mod entry;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "daemon")]
pub use entry::Entry;

use crate::names::{ContainerId, IfName, NetworkName};

/// The folder of results.
#[derive(Debug, Clone)]
pub struct Results {
    folder: PathBuf,
}

impl Results {
    /// The results below `cni_dir`; makes nothing.
    pub fn at(cni_dir: &Path) -> Self {
        Self { folder: cni_dir.join("results") }
    }

    /// Where libcni keeps this one. None of the three names can hold a `/`, so it is always a file of the folder.
    fn path(&self, network: &NetworkName, container: &ContainerId, ifname: &IfName) -> PathBuf {
        self.folder.join(format!("{network}-{container}-{ifname}"))
    }

    /// Removes one; one that is not there, or never could be, is fine.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove(&self, network: &str, container: &ContainerId, ifname: &IfName) -> io::Result<()> {
        let Ok(network) = NetworkName::new(network) else { return Ok(()) };
        match fs::remove_file(self.path(&network, container, ifname)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound && !is_too_long(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Is any result of `container` there?
    pub fn has(&self, container: &ContainerId) -> bool {
        let part = format!("-{container}-");
        let names = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.take(MOST_FILES).any(|name| name.to_string_lossy().contains(&part))
    }
}

/// Most files of the folder that are looked at.
const MOST_FILES: usize = 50_000;

/// libcni has no answer to names that are too long together; then there is no entry.
fn is_too_long(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidFilename
}
