//! What the shim did while the agent was away: one note per DEL, replayed by the agent when it is back.
//!
//! The shim writes, the agent reads and removes. Decides nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::names::ContainerId;
use crate::sys::files::{private_folder, replace, thin_out};

/// Most notes that are kept; a node that is down for long deletes more pods than that only in error.
const MOST_NOTES: usize = 10_000;
/// Most unreadable notes that are kept for a look.
const MOST_BAD: usize = 100;

/// A DEL that the shim answered by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The sandbox.
    pub container: ContainerId,
    /// Seconds since 1970.
    pub when: u64,
    /// Was everything the record listed undone?
    pub clean: bool,
    /// The DEL is still the agent's to do: the shim had no record to go by, nobody had time for it, or somebody was asked
    /// who leaves the node to the agent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// The record as it was: the agent's own part (maps, counters) is in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<crate::records::Record>,
    /// What did not succeed, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

impl Note {
    /// Of a DEL that is answered now and done by the agent later, for this reason.
    pub fn put_off(container: ContainerId, why: String) -> Self {
        let when = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { container, when, clean: false, pending: true, record: None, failed: vec![why] }
    }
}

/// A note, and its file.
pub type Left = (PathBuf, Note);

/// The folder of notes.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// The spool below `cni_dir`.
    pub fn at(cni_dir: &Path) -> Self {
        Self { folder: cni_dir.join("spool") }
    }

    /// Leaves a note.
    pub fn leave(&self, note: &Note) -> io::Result<()> {
        private_folder(&self.folder)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        // As records are printed: one way of printing is enough for the shim, which has to be small.
        let text = serde_json::to_vec(&serde_json::to_value(note)?)?;
        replace(&self.folder.join(format!("{now:020}-{}.note", note.container)), &text)
    }

    /// All notes, oldest first, each with its file; unreadable ones are set aside as `.bad`.
    pub fn notes(&self) -> io::Result<Vec<Left>> {
        let (notes, unreadable) = self.look()?;
        for path in &unreadable {
            fs::rename(path, path.with_extension("bad"))?;
        }
        if self.folder.is_dir() {
            thin_out(&self.folder, "bad", MOST_BAD)?;
        }
        Ok(notes)
    }

    /// The same for whoever must change nothing; the second list has the unreadable ones.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn look(&self) -> io::Result<(Vec<Left>, Vec<PathBuf>)> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            Err(error) => return Err(error),
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "note"));
        paths.sort();
        paths.truncate(MOST_NOTES);
        let (mut notes, mut unreadable) = (Vec::new(), Vec::new());
        for path in paths {
            match fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                Some(note) => notes.push((path, note)),
                None => unreadable.push(path),
            }
        }
        Ok((notes, unreadable))
    }

    /// How many notes there are.
    pub fn count(&self) -> usize {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter(|entry| Path::new(&entry.file_name()).extension().is_some_and(|ending| ending == "note")).count()
    }

    /// Removes a note that was replayed.
    pub fn replayed(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_in_order_and_unreadable_ones_are_set_aside() {
        let folder = std::env::temp_dir().join(format!("multus-spool-{}", std::process::id()));
        let spool = Spool::at(&folder);
        assert_eq!(spool.notes().unwrap(), Vec::new());
        for name in ["b", "a"] {
            let container = ContainerId::new(name).unwrap();
            let (record, failed) = (None, Vec::new());
            spool.leave(&Note { container, when: 1, clean: true, pending: false, record, failed }).unwrap();
        }
        fs::write(folder.join("spool/0-broken.note"), "{").unwrap();
        let notes = spool.notes().unwrap();
        let names: Vec<_> = notes.iter().map(|(_, note)| note.container.to_string()).collect();
        assert_eq!(names, ["b", "a"]);
        assert!(folder.join("spool/0-broken.bad").exists());
        for (path, _) in notes {
            spool.replayed(&path).unwrap();
        }
        assert_eq!(spool.notes().unwrap(), Vec::new());
        fs::remove_dir_all(folder).unwrap();
    }
}
