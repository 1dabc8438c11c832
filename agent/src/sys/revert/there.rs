//! Which folders were there before us? Those stay where others, found empty in the end, would go.
//!
//! Told before anything is changed, and forgotten with the log. Does not know what the folders are for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::RevertLog;
use crate::sys::files;

const NAME: &str = "there-before.json";

/// Notes those of `folders` that are there. Where there is a log below `cni_dir` already it is too late, and nothing is noted.
///
/// # Errors
/// The note cannot be written.
pub fn note(cni_dir: &Path, folders: &[PathBuf]) -> io::Result<()> {
    let folder = RevertLog::folder(cni_dir);
    if RevertLog::is_begun(cni_dir) || folder.join(NAME).exists() {
        return Ok(());
    }
    let there: Vec<&PathBuf> = folders.iter().filter(|folder| folder.is_dir()).collect();
    let text = serde_json::to_vec(&there)?;
    files::private_folder(cni_dir)?;
    files::private_folder(&folder)?;
    files::replace_for_good(&folder.join(NAME), &text)
}

/// What was noted; `None` where nobody noted anything.
pub fn noted(cni_dir: &Path) -> Option<Vec<PathBuf>> {
    serde_json::from_slice(&fs::read(RevertLog::folder(cni_dir).join(NAME)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::Left;
    use super::*;

    #[test]
    fn what_was_there_is_known_until_the_log_ends_and_not_noted_late() {
        let root = std::env::temp_dir().join(format!("multus-there-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let (cni_dir, old, new) = (root.join("cni"), root.join("old"), root.join("new"));
        fs::create_dir_all(&old).unwrap();
        let folders = [cni_dir.clone(), old.clone(), new.clone()];
        assert_eq!(noted(&cni_dir), None);
        note(&cni_dir, &folders).unwrap();
        assert_eq!(noted(&cni_dir), Some(vec![old.clone()]), "cniDir was made by the note");
        let mut log = RevertLog::open(Path::new("/"), &cni_dir).unwrap();
        log.about_to(&new, Left::Folder, |_| false).unwrap();
        log.close().unwrap();
        fs::create_dir(&new).unwrap();
        note(&cni_dir, &folders).unwrap();
        assert_eq!(noted(&cni_dir), Some(vec![old]));
        let mut log = RevertLog::open(Path::new("/"), &cni_dir).unwrap();
        log.revert(&new).unwrap();
        log.close().unwrap();
        assert!(noted(&cni_dir).is_none() && !RevertLog::folder(&cni_dir).exists());
        fs::remove_dir_all(root).unwrap();
    }
}
