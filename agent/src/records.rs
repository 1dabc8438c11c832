//! What is attached to which container, on disk: one versioned, checksummed file per container, replaced atomically.
//!
//! Agent and shim read and write the same files; a record holds all that a DEL needs, so that it needs no planning and
//! no agent. Decides nothing. A process crash needs no fsync; after power loss a torn file is found by its checksum
//! and set aside. What others keep about containers beside it, libcni and Multus, has modules of its own.
//!
//! Releases that are neighbours work with each other's records, so that a node can be updated and put back. What a
//! release adds is a field that may be missing; the release before keeps it and writes it back, but for those inside
//! `reflect` and `parent`, which are replaced as a whole. A release that has to say something in another way writes the
//! next number, but not before the release before it reads that number.

mod netns;
mod record;
mod rest;
pub mod results;
#[cfg(feature = "daemon")]
pub mod scratch;

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::fault::quote;
use crate::names::ContainerId;
use crate::sys::files::{Held, hold, hold_together, private_folder, replace, replace_through, thin_out, trade_through};
pub use record::{Attachment, Delegate, Link, Origin, Parent, Record, Reflect, Stage, State};
pub use rest::Rest;
use results::Results;

/// A number and a checksum follow.
const HEAD: &str = "multus-ebpf record ";
/// The number that is written.
const NUMBER: u32 = 1;
/// The numbers that are read: the next one, too, for the next release may write it before it is put back.
const READ: RangeInclusive<u32> = NUMBER..=NUMBER + 1;
const MOST_BYTES: u64 = 16 << 20;
/// Most records that were set aside and are kept for a look.
const MOST_TORN: usize = 100;

/// The folder of records.
#[derive(Debug, Clone)]
pub struct Records {
    folder: PathBuf,
    /// The end of the name of a record that is being written.
    beside: &'static str,
}

/// A file that is no record, and why.
pub type Torn = (PathBuf, io::Error);

/// While a record is written by the agent, which is alone; and by a shim, which holds the container.
const BESIDE: [&str; 2] = [".agent.tmp", ".shim.tmp"];

impl Records {
    /// The records below `cni_dir`; makes the folder (0700).
    pub fn open(cni_dir: &Path) -> io::Result<Self> {
        let folder = cni_dir.join("records");
        private_folder(&folder)?;
        Ok(Self { folder, beside: BESIDE[0] })
    }

    /// The same without making anything: for a reader that may find nothing.
    pub fn at(cni_dir: &Path) -> Self {
        Self { folder: cni_dir.join("records"), beside: BESIDE[1] }
    }

    /// Those below `cni_dir`, if there are any; nothing is made.
    ///
    /// # Errors
    /// The folder cannot be seen.
    pub fn open_if_any(cni_dir: &Path) -> io::Result<Option<Self>> {
        let folder = cni_dir.join("records");
        Ok(folder.try_exists()?.then_some(Self { folder, beside: BESIDE[0] }))
    }

    fn path(&self, container: &ContainerId) -> PathBuf {
        self.folder.join(format!("{container}.record"))
    }

    /// The record of `container`. `InvalidData`: the file is torn or from another version.
    pub fn load(&self, container: &ContainerId) -> io::Result<Option<Record>> {
        match File::open(self.path(container)) {
            Ok(file) => read(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the record on disk: a temporary file beside it, then a rename.
    pub fn save(&self, record: &Record) -> io::Result<()> {
        replace_through(&self.path(&record.container), &print(record)?, self.beside)
    }

    /// The same for a step of an ADD, at whose end the record is flushed: no step waits for the disk.
    pub fn advance(&self, record: &Record) -> io::Result<()> {
        trade_through(&self.path(&record.container), &print(record)?, self.beside)
    }

    /// Flushes the record and its folder to stable storage.
    pub fn persist(&self, container: &ContainerId) -> io::Result<()> {
        File::open(self.path(container))?.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }

    /// Removes what killed processes left half written: what agents wrote, for their owner is alone now, and what others
    /// did more than an hour ago; and the oldest of those set aside, where they are too many.
    pub fn sweep(&self) -> io::Result<()> {
        thin_out(&self.folder, "torn", MOST_TORN)?;
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let is_temporary = entry.path().extension().is_some_and(|ending| ending == "tmp");
            let age = entry.metadata().and_then(|about| about.modified()).ok().and_then(|when| when.elapsed().ok());
            let is_an_agents = entry.file_name().to_string_lossy().ends_with(BESIDE[0]);
            if is_temporary && (is_an_agents || age.is_some_and(|age| age > Duration::from_hours(1))) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the record; one that is not there is fine.
    pub fn remove(&self, container: &ContainerId) -> io::Result<()> {
        remove_file(&self.path(container))
    }

    /// Removes all that is kept about a record's container: libcni's results, Multus's scratch file, what was set aside,
    /// and the record itself.
    ///
    /// # Errors
    /// The first one, after everything was tried.
    pub fn forget(&self, record: &Record) -> io::Result<()> {
        let results = Results::at(&self.cni_dir());
        let removed = record.attachments.iter().map(|a| results.remove(&a.conf_name, &record.container, &a.ifname));
        let removed: Vec<_> = removed.collect();
        let beside =
            BESIDE.map(|ending| remove_file(&self.folder.join(format!("{}.record{ending}", record.container))));
        removed
            .into_iter()
            .chain(beside)
            .chain([
                remove_file(&self.scratch(&record.container)),
                remove_file(&self.path(&record.container).with_extension("torn")),
                self.remove(&record.container),
            ])
            .collect()
    }

    /// Multus's scratch file of `container`; a path that is no file stands for none.
    fn scratch(&self, container: &ContainerId) -> PathBuf {
        self.cni_dir().join(container.as_str())
    }

    /// Does anybody but its record, which is not there or not readable, know of `container`: Multus's scratch file, a
    /// result of libcni, a record that was set aside?
    pub fn has_traces(&self, container: &ContainerId) -> bool {
        self.scratch(container).is_file() || self.is_torn(container) || Results::at(&self.cni_dir()).has(container)
    }

    /// Was the record of `container` set aside?
    pub fn is_torn(&self, container: &ContainerId) -> bool {
        self.path(container).with_extension("torn").exists()
    }

    /// The containers whose records were set aside.
    pub fn torn(&self) -> io::Result<Vec<ContainerId>> {
        let paths = fs::read_dir(&self.folder)?.flatten().map(|entry| entry.path());
        let torn = paths.filter(|path| path.extension().is_some_and(|ending| ending == "torn"));
        Ok(torn.filter_map(|path| ContainerId::new(path.file_stem()?.to_str()?).ok()).collect())
    }

    /// The folder that the folder of records is in.
    pub fn cni_dir(&self) -> PathBuf {
        self.folder.parent().unwrap_or(&self.folder).to_owned()
    }

    /// All records. Torn ones are set aside as `<name>.torn` and named in the second list.
    pub fn all(&self) -> io::Result<(Vec<Record>, Vec<String>)> {
        let (records, torn) = self.look()?;
        for (path, _) in &torn {
            fs::rename(path, path.with_extension("torn"))?;
        }
        let named = |(path, error): Torn| format!("{}: {error}", quote(&path.to_string_lossy()));
        Ok((records, torn.into_iter().map(named).collect()))
    }

    /// The same for whoever must change nothing: the torn ones stay, each with what is wrong.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn look(&self) -> io::Result<(Vec<Record>, Vec<Torn>)> {
        let (mut records, mut torn) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|ending| ending != "record") {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            match read(file) {
                Ok(record) => records.push(record),
                Err(error) => torn.push((path, error)),
            }
        }
        records.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.container.cmp(&b.container)));
        Ok((records, torn))
    }

    /// Says that somebody is at work for `container`: a shim with an ADD, or whoever undoes one. Uninvited clean-up keeps
    /// away meanwhile. `None`: somebody else is.
    ///
    /// # Errors
    /// The folder is not there.
    pub fn hold(&self, container: &ContainerId) -> io::Result<Option<Held>> {
        hold(&self.folder.join(".locks"), checksum(container.as_str().as_bytes()))
    }

    /// Says that this process is the node's agent. `None`: another one is.
    ///
    /// # Errors
    /// The folder is not there.
    pub fn own(&self) -> io::Result<Option<Held>> {
        hold(&self.folder.join(".agent"), 0)
    }

    /// Says that a process works with the records that is not the node's agent. `None`: the agent is there.
    ///
    /// # Errors
    /// The folder is not there.
    pub fn visit(&self) -> io::Result<Option<Held>> {
        hold_together(&self.folder.join(".agent"), 0)
    }

    /// Can a record be written here? Writes and removes a probe file of its own.
    pub fn writable(&self) -> io::Result<()> {
        static PROBES: AtomicU64 = AtomicU64::new(0);
        let probe = self.folder.join(format!(".probe-{}", PROBES.fetch_add(1, Ordering::Relaxed)));
        replace(&probe, b"")?;
        fs::remove_file(probe)
    }
}

/// Removes a file; one that is not there, or is a folder, is fine.
fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound && !path.is_dir() => Err(error),
        _ => Ok(()),
    }
}

fn print(record: &Record) -> io::Result<Vec<u8>> {
    let body = rest::print(record)?;
    let mut text = format!("{HEAD}{NUMBER} {:016x}\n", checksum(&body)).into_bytes();
    text.extend_from_slice(&body);
    Ok(text)
}

fn read(file: File) -> io::Result<Record> {
    let mut text = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut text)?;
    let torn = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let line_end = text.iter().position(|&byte| byte == b'\n').ok_or_else(|| torn("the record has no first line"))?;
    let (head, body) = text.split_at(line_end);
    let body = body.get(1..).unwrap_or_default();
    let sum = std::str::from_utf8(head)
        .ok()
        .and_then(|head| head.strip_prefix(HEAD)?.split_once(' '))
        .filter(|(number, _)| number.parse().is_ok_and(|number| READ.contains(&number)))
        .and_then(|(_, sum)| u64::from_str_radix(sum, 16).ok())
        .ok_or_else(|| torn("the record is of another version"))?;
    if sum != checksum(body) {
        return Err(torn("the record is torn: its checksum differs"));
    }
    rest::parse(body).map_err(|error| torn(&format!("decode the record: {error}")))
}

/// FNV-1a, 64 bits: enough to tell a torn write from a whole one.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::record::record;
    use super::*;

    fn records(name: &str) -> (PathBuf, Records) {
        let folder = std::env::temp_dir().join(format!("multus-records-{}-{name}", std::process::id()));
        let records = Records::open(&folder).unwrap();
        (folder, records)
    }

    #[test]
    fn a_record_comes_back_as_it_was_saved() {
        let (folder, records) = records("whole");
        let saved = record("a");
        records.save(&saved).unwrap();
        assert_eq!(records.load(&saved.container).unwrap(), Some(saved.clone()));
        assert_eq!(records.all().unwrap(), (vec![saved.clone()], Vec::new()));
        let further = Record { since: 8, ..saved.clone() };
        records.advance(&further).unwrap();
        assert_eq!(records.all().unwrap(), (vec![further], Vec::new()));
        let alone: Vec<_> =
            fs::read_dir(folder.join("records")).unwrap().flatten().map(|file| file.file_name()).collect();
        assert_eq!(alone, ["a.record"], "nothing stays beside it");
        records.persist(&saved.container).unwrap();
        records.remove(&saved.container).unwrap();
        records.remove(&saved.container).unwrap();
        assert_eq!(records.load(&saved.container).unwrap(), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_torn_record_is_told_from_a_whole_one_and_set_aside() {
        let (folder, records) = records("torn");
        let whole = record("a");
        records.save(&whole).unwrap();
        let path = records.path(&whole.container);
        let bytes = fs::read(&path).unwrap();
        for cut in [0, 5, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(records.load(&whole.container).unwrap_err().kind(), io::ErrorKind::InvalidData, "{cut}");
        }
        let (whole, torn) = records.look().unwrap();
        assert_eq!((whole.len(), torn.len()), (0, 1));
        assert!(path.exists(), "a look changes nothing");
        let (whole, torn) = records.all().unwrap();
        assert_eq!((whole.len(), torn.len()), (0, 1));
        assert!(path.with_extension("torn").exists() && !path.exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_neighbours_number_is_read_and_any_other_set_aside() {
        let (folder, records) = records("number");
        let saved = record("a");
        for (number, is_read) in [(NUMBER - 1, false), (NUMBER, true), (NUMBER + 1, true), (NUMBER + 2, false)] {
            records.save(&saved).unwrap();
            let path = records.path(&saved.container);
            let text = fs::read_to_string(&path).unwrap();
            let (ours, theirs) = (format!("{HEAD}{NUMBER} "), format!("{HEAD}{number} "));
            fs::write(&path, text.replacen(&ours, &theirs, 1)).unwrap();
            let (whole, torn) = records.all().unwrap();
            assert_eq!((whole.len(), torn.len()), if is_read { (1, 0) } else { (0, 1) }, "number {number}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn one_is_at_work_for_a_container_and_one_is_the_agent() {
        let (folder, records) = records("hold");
        let [a, b] = ["a", "b"].map(|name| ContainerId::new(name).unwrap());
        let held = records.hold(&a).unwrap().unwrap();
        assert!(records.hold(&a).unwrap().is_none());
        assert!(records.hold(&b).unwrap().is_some());
        drop(held);
        assert!(records.hold(&a).unwrap().is_some());
        let agent = records.own().unwrap().unwrap();
        assert!(records.own().unwrap().is_none() && records.visit().unwrap().is_none());
        drop(agent);
        let visits = [records.visit().unwrap().unwrap(), records.visit().unwrap().unwrap()];
        assert!(records.own().unwrap().is_none(), "no agent begins beside them");
        drop(visits);
        assert!(records.own().unwrap().is_some());
        fs::remove_dir_all(folder).unwrap();
        assert!(records.hold(&a).is_err());
    }
}
