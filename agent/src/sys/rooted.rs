//! Another system's tree below a folder: where a path of that system really leads, and what is there.
//!
//! Links that lead to `/` lead to that folder; none leads out of it. Reads are bounded. Writes nothing.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Most links on one way (`path_resolution(7)`).
const MOST_LINKS: usize = 40;
/// The largest file that is read.
const MOST_BYTES: u64 = 1 << 20;
/// Most names of one folder.
const MOST_NAMES: usize = 4_096;

/// A tree.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    /// The tree below `folder`; `/` is our own.
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// Where `path` leads to, as a path of ours. What does not exist is as it is written.
    ///
    /// # Errors
    /// Too many links, or one that cannot be read.
    pub fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut ahead: Vec<PathBuf> = parts(path);
        let (mut at, mut links) = (self.0.clone(), 0);
        while let Some(part) = ahead.pop() {
            if part.as_os_str() == ".." {
                if at != self.0 {
                    at.pop();
                }
                continue;
            }
            at.push(&part);
            if !fs::symlink_metadata(&at).is_ok_and(|about| about.file_type().is_symlink()) {
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(io::Error::other(format!("{} leads through too many links", path.display())));
            }
            let target = fs::read_link(&at)?;
            at.pop();
            if target.is_absolute() {
                at.clone_from(&self.0);
            }
            ahead.extend(parts(&target));
        }
        Ok(at)
    }

    /// Is there such a folder?
    pub fn has_folder(&self, path: &str) -> bool {
        self.resolve(Path::new(path)).is_ok_and(|path| path.is_dir())
    }

    /// The text of a file; `None`: there is none that can be read.
    pub fn text(&self, path: &str) -> Option<String> {
        let path = self.resolve(Path::new(path)).ok()?;
        let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names in a folder, sorted; none where there is no such folder.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = self.resolve(Path::new(path)).and_then(fs::read_dir).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).take(MOST_NAMES).collect();
        names.sort();
        names
    }
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let is_part = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(is_part).map(|part| PathBuf::from(part.as_os_str())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_leads_out_of_the_tree() {
        let folder = std::env::temp_dir().join(format!("multus-rooted-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("data/abc/bin")).unwrap();
        fs::write(folder.join("data/abc/x"), "text").unwrap();
        symlink("/data/abc", folder.join("data/current")).unwrap();
        symlink("../../../..", folder.join("data/up")).unwrap();
        symlink("loop", folder.join("loop")).unwrap();
        let root = Root::at(&folder);
        for (path, leads_to) in [
            ("/data/current/bin", "data/abc/bin"),
            ("/data/up/data/abc", "data/abc"),
            ("/../../data/./current/../x", "data/x"),
            ("/data/current/new", "data/abc/new"),
        ] {
            assert_eq!(root.resolve(Path::new(path)).unwrap(), folder.join(leads_to), "{path}");
        }
        assert!(root.resolve(Path::new("/loop")).is_err());
        assert!(root.has_folder("/data/current/bin") && !root.has_folder("/data/current/x"));
        assert_eq!(root.text("/data/current/x").as_deref(), Some("text"));
        assert_eq!(root.text("/data"), None);
        assert_eq!(root.names("/data"), ["abc", "current", "up"]);
        fs::remove_dir_all(folder).unwrap();
    }
}
