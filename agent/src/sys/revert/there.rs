//! Which folders were there before us? Those stay where others, found empty in the end, would go.
//!
//! Told before anything is changed, and forgotten with the log. Does not know what the folders are for. Paths are those of
//! the host, wherever its root is seen.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::RevertLog;
use crate::sys::files;

const NAME: &str = "there-before.json";

/// Notes those of `folders` that are there, as they are seen below the host's `root`. Where there is a log below `cni_dir`
/// already it is too late, and nothing is noted.
///
/// # Errors
/// The note cannot be written.
pub fn note(root: &Path, cni_dir: &Path, folders: &[PathBuf]) -> io::Result<()> {
    let folder = RevertLog::folder(cni_dir);
    if RevertLog::is_begun(cni_dir) || folder.join(NAME).exists() {
        return Ok(());
    }
    let there = folders.iter().filter(|folder| folder.is_dir());
    let there: Vec<&Path> = there.map(|folder| folder.strip_prefix(root).unwrap_or(folder)).collect();
    let text = serde_json::to_vec(&there)?;
    files::private_folder(cni_dir)?;
    files::private_folder(&folder)?;
    files::replace_for_good(&folder.join(NAME), &text)
}

/// What was noted, as it is seen below the host's `root` now; `None` where nobody noted anything.
pub fn noted(root: &Path, cni_dir: &Path) -> Option<Vec<PathBuf>> {
    let text = fs::read(RevertLog::folder(cni_dir).join(NAME)).ok()?;
    let there: Vec<PathBuf> = serde_json::from_slice(&text).ok()?;
    // What is outside of the root, and all that older versions wrote, is there as it was seen.
    Some(there.into_iter().map(|path| root.join(path)).collect())
}

#[cfg(test)]
mod tests {
    use super::super::Left;
    use super::*;

    #[test]
    fn what_was_there_is_known_until_the_log_ends_and_not_noted_late() {
        let host = Path::new("/");
        let root = std::env::temp_dir().join(format!("multus-there-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let (cni_dir, old, new) = (root.join("cni"), root.join("old"), root.join("new"));
        fs::create_dir_all(&old).unwrap();
        let folders = [cni_dir.clone(), old.clone(), new.clone()];
        assert_eq!(noted(host, &cni_dir), None);
        note(host, &cni_dir, &folders).unwrap();
        assert_eq!(noted(host, &cni_dir), Some(vec![old.clone()]), "cniDir was made by the note");
        let mut log = RevertLog::open(host, &cni_dir).unwrap();
        log.about_to(&new, Left::Folder, |_| false).unwrap();
        log.close().unwrap();
        fs::create_dir(&new).unwrap();
        note(host, &cni_dir, &folders).unwrap();
        assert_eq!(noted(host, &cni_dir), Some(vec![old]));
        let mut log = RevertLog::open(host, &cni_dir).unwrap();
        log.revert(&new).unwrap();
        log.close().unwrap();
        assert!(noted(host, &cni_dir).is_none() && !RevertLog::folder(&cni_dir).exists());
        fs::remove_dir_all(root).unwrap();
    }
    #[test]
    fn a_host_that_is_seen_elsewhere_has_its_folders_there() {
        let place = std::env::temp_dir().join(format!("multus-there-{}-moves", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        let (root, moved, outside) = (place.join("host"), place.join("moved"), place.join("outside"));
        let cni_dir = |root: &Path| root.join("var/cni");
        for folder in [&cni_dir(&root), &root.join("run/multus"), &outside] {
            fs::create_dir_all(folder).unwrap();
        }
        note(&root, &cni_dir(&root), &[root.join("run/multus"), root.join("run/none"), outside.clone()]).unwrap();
        fs::rename(&root, &moved).unwrap();
        assert_eq!(noted(&moved, &cni_dir(&moved)), Some(vec![moved.join("run/multus"), outside]));
        fs::remove_dir_all(place).unwrap();
    }
}
