//! Which objects a folder of manifests holds now, and what is wrong with its files.
//!
//! Stands in for the API server (embedded default); writes nothing and follows no link out of the folder's own list.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::documents::{self, Documents, Manifest};
use crate::fault::quote;

/// Most bytes of one file; a longer one is refused whole.
const MOST_FILE_BYTES: u64 = 4 << 20;
/// Most files that are looked at.
const MOST_FILES: usize = 4096;

/// What tells one version of a file from the next without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

#[derive(Debug)]
struct Page {
    stamp: Stamp,
    documents: Documents,
}

/// The folder as last read.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    pages: BTreeMap<PathBuf, Page>,
    unreadable: Option<String>,
    read_once: bool,
}

impl Folder {
    /// A folder nobody has looked into yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, pages: BTreeMap::new(), unreadable: None, read_once: false }
    }

    /// Reads what changed since the last look; true when anything did. Blocks on the file system.
    pub(super) fn look(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.read_once, true);
        let found = match list(&self.path) {
            Ok(found) => found,
            Err(error) => {
                let text = format!("read folder {}: {error}", quote(&self.path.to_string_lossy()));
                let news = self.unreadable.as_ref() != Some(&text);
                self.unreadable = Some(text);
                return news || first;
            }
        };
        let mut changed = first | self.unreadable.take().is_some();
        let before = self.pages.len();
        self.pages.retain(|path, _| found.contains_key(path));
        changed |= self.pages.len() != before;
        for (path, stamp) in found {
            if self.pages.get(&path).is_none_or(|page| page.stamp != stamp) {
                let documents = read_page(&path);
                self.pages.insert(path, Page { stamp, documents });
                changed = true;
            }
        }
        changed
    }

    /// Every object, first come first served in the order of file names.
    pub(super) fn manifests(&self) -> impl Iterator<Item = (&Path, &Manifest)> {
        self.pages.iter().flat_map(|(path, page)| page.documents.manifests.iter().map(move |one| (path.as_path(), one)))
    }

    /// Why the folder itself cannot be read now.
    pub(super) fn unreadable(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }

    /// One sentence for everything that could not be used: file, document, field.
    pub(super) fn refusals(&self) -> Vec<String> {
        let pages = self.pages.iter().flat_map(|(path, page)| {
            page.documents.refusals.iter().map(move |text| format!("{}: {text}", quote(&path.to_string_lossy())))
        });
        self.unreadable.iter().cloned().chain(pages).collect()
    }
}

fn list(folder: &Path) -> io::Result<BTreeMap<PathBuf, Stamp>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if found.len() >= MOST_FILES || !is_manifest(&path) {
            continue;
        }
        // Through links: a ConfigMap volume is made of them. Gone again meanwhile is no error.
        if let Ok(facts) = fs::metadata(&path)
            && facts.is_file()
        {
            let stamp = Stamp { inode: facts.ino(), bytes: facts.len(), modified: facts.modified().ok() };
            found.insert(path, stamp);
        }
    }
    Ok(found)
}

/// Editors leave hidden files and backups beside their work.
fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known))
}

fn read_page(path: &Path) -> Documents {
    match read_text(path) {
        Ok(text) => documents::read(&text, path.extension().is_some_and(|end| end == "json")),
        Err(error) => Documents { manifests: Vec::new(), refusals: vec![format!("read: {error}")] },
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MOST_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_FILE_BYTES {
        return Err(io::Error::other(format!("longer than {MOST_FILE_BYTES} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_and_foreign_files_are_left_alone() {
        for (name, expected) in [
            ("a.yaml", true),
            ("a.yml", true),
            ("a.json", true),
            (".a.yaml.swp", false),
            (".a.yaml", false),
            ("a.yaml~", false),
            ("README", false),
        ] {
            assert_eq!(is_manifest(Path::new("/x").join(name).as_path()), expected, "{name}");
        }
    }

    #[test]
    fn a_missing_folder_is_said_once() {
        let mut folder = Folder::new(PathBuf::from("/nonexistent/manifests"));
        assert!(folder.look());
        assert!(!folder.look());
        assert_eq!(folder.refusals().len(), 1);
    }
}
