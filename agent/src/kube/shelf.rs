//! Which networks were last seen, on disk: one file each, so that ADD works while the API server is away.
//!
//! Knows nothing of API servers; a file that cannot be used is left out, never an error of a request.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fault::quote;
use crate::names::NadRef;
use crate::objects::Network;
use crate::sys::checksum::checksum;
use crate::sys::files::replace;

/// Most bytes of one file: a config of 1 MiB, escaped, and annotations.
const MOST_BYTES: u64 = 8 << 20;

/// The folder, and what we wrote there.
#[derive(Debug)]
pub(super) struct Shelf {
    folder: PathBuf,
    written: HashMap<NadRef, Arc<Network>>,
    swept: bool,
}

impl Shelf {
    /// Touches nothing yet.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, written: HashMap::new(), swept: false }
    }

    /// Every network that can be read; blocks on the file system.
    pub(super) fn load(&self) -> Vec<Network> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut networks = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            match read(&path) {
                Ok(network) if self.folder.join(file_name(&network.id)) == path => networks.push(network),
                Ok(network) => tracing::warn!("ignore {path:?}: it holds network \"{}\"", network.id),
                Err(error) => tracing::warn!("ignore kept network {path:?}: {error}"),
            }
        }
        networks
    }

    /// Writes what changed; when the list is `complete` also removes every other file. The first thing that failed, if any.
    pub(super) fn keep(&mut self, networks: &[Arc<Network>], complete: bool) -> Option<String> {
        let mut first = None;
        if let Err(error) = make_folder(&self.folder) {
            return Some(format!("make folder {}: {error}", quote(&self.folder.to_string_lossy())));
        }
        for network in networks {
            if self.written.get(&network.id).is_some_and(|old| Arc::ptr_eq(old, network)) {
                continue;
            }
            match write(&self.folder.join(file_name(&network.id)), network) {
                Ok(()) => drop(self.written.insert(network.id.clone(), Arc::clone(network))),
                Err(error) => {
                    first.get_or_insert_with(|| format!("keep network \"{}\" on disk: {error}", network.id));
                }
            }
        }
        if complete && (!self.swept || self.written.len() > networks.len()) {
            match self.sweep(networks) {
                Ok(()) => self.swept = true,
                Err(error) => {
                    first.get_or_insert_with(|| format!("sweep {}: {error}", quote(&self.folder.to_string_lossy())));
                }
            }
        }
        first
    }

    fn sweep(&mut self, networks: &[Arc<Network>]) -> io::Result<()> {
        let current: BTreeSet<OsString> = networks.iter().map(|network| file_name(&network.id).into()).collect();
        self.written.retain(|id, _| current.contains(&OsString::from(file_name(id))));
        for entry in fs::read_dir(&self.folder)?.flatten() {
            if !current.contains(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// `namespace_name.json`: neither part can hold a `_`. What would not fit in a file name is cut and told apart by a hash.
fn file_name(id: &NadRef) -> String {
    let plain = format!("{}_{}", id.namespace, id.name);
    if plain.len() <= 200 {
        return plain + ".json";
    }
    let hash = checksum(plain.as_bytes());
    let head: String = plain.chars().take(180).collect();
    format!("{head}~{hash:016x}.json")
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

fn read(path: &Path) -> io::Result<Network> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// No fsync: a torn file is left out and listed again.
fn write(path: &Path, network: &Network) -> io::Result<()> {
    replace(path, &serde_json::to_vec(network)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("multus-shelf-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&path));
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn network(namespace: &str, name: &str, config: &str) -> Arc<Network> {
        let id = NadRef::new(namespace, name).unwrap();
        Arc::new(Network { id, config: Some(config.to_owned()), annotations: [("k".into(), "v".into())].into() })
    }

    fn names(shelf: &Shelf) -> Vec<String> {
        let mut names: Vec<_> = shelf.load().into_iter().map(|network| network.id.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn kept_networks_come_back() {
        let folder = Folder::new("back");
        let mut shelf = Shelf::new(folder.0.clone());
        assert_eq!(shelf.load(), []);
        let long = "a".repeat(250);
        let kept = [network("x", "a.b", "{}"), network("x", &long, "1"), network(&"n".repeat(63), &long, "2")];
        assert_eq!(shelf.keep(&kept, false), None);
        let mut back = Shelf::new(folder.0.clone()).load();
        back.sort_by(|a, b| a.config.cmp(&b.config));
        assert_eq!(back.iter().map(|n| n.config.as_deref().unwrap()).collect::<Vec<_>>(), ["1", "2", "{}"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.0), 0o700);
        assert_eq!(mode(&folder.0.join("x_a.b.json")), 0o600);
    }

    #[test]
    fn only_a_complete_list_removes() {
        let folder = Folder::new("sweep");
        let (a, b) = (network("x", "a", "{}"), network("x", "b", "{}"));
        assert_eq!(Shelf::new(folder.0.clone()).keep(&[Arc::clone(&a), b], true), None);
        fs::write(folder.0.join("x_a.json.1.tmp"), "torn").unwrap();
        let mut shelf = Shelf::new(folder.0.clone());
        shelf.keep(std::slice::from_ref(&a), false);
        assert_eq!(names(&shelf), ["x/a", "x/b"]);
        shelf.keep(&[a], true);
        assert_eq!(names(&shelf), ["x/a"]);
        assert!(!folder.0.join("x_a.json.1.tmp").exists());
        shelf.keep(&[], true);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }

    #[test]
    fn torn_and_foreign_files_are_left_out() {
        let folder = Folder::new("torn");
        let mut shelf = Shelf::new(folder.0.clone());
        shelf.keep(&[network("x", "a", "{}")], true);
        fs::write(folder.0.join("x_b.json"), "").unwrap();
        fs::copy(folder.0.join("x_a.json"), folder.0.join("x_c.json")).unwrap();
        assert_eq!(names(&shelf), ["x/a"]);
    }
}
