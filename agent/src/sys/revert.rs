//! What did the host's files say before we touched them? A log of every file that is changed for good, from which they
//! are put back byte for byte.
//!
//! Written before each change, so that a change without an entry does not exist, whenever somebody is killed. Does not
//! know what the files are for. Paths in it are resolved: no link leads elsewhere afterwards. They are those of the host,
//! wherever its root is seen.

mod seen;
pub mod there;
mod written;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::checksum::checksum;
use super::files::{self, Held};
use seen::{Seen, is, look, remove_renamed};
pub use written::{Before, Entry, Left};

/// The log in its folder.
const NAME: &str = "revert.log";
/// How long another process that changes files is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most states of one file that are remembered as ours: two neighbouring versions, and what a changing master makes of
/// the runtime's conf.
const MOST_STATES: usize = 16;

/// The log, held against others until this ends.
#[derive(Debug)]
pub struct RevertLog {
    folder: PathBuf,
    root: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
    _held: Held,
}

/// What became of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reverted {
    /// It is as it was before us already.
    AsBefore,
    /// Ours was taken away; there was nothing before.
    Removed,
    /// What was there before is there again; with its owner where that is said to be true.
    Restored {
        /// Its owner could be given back, too.
        owner: bool,
    },
    /// Somebody else changed it since: it stays as it is, and the sentence says how that was seen.
    Foreign(&'static str),
}

impl RevertLog {
    /// The folder of the log below `cniDir`.
    pub fn folder(cni_dir: &Path) -> PathBuf {
        cni_dir.join("install")
    }

    /// Opens the log below `cni_dir`, and makes it if there is none. Waits for others who change files. The host's files
    /// are seen below `root`.
    ///
    /// # Errors
    /// The folder cannot be made, the log is torn or another version's, or somebody else has held it for too long.
    pub fn open(root: &Path, cni_dir: &Path) -> io::Result<Self> {
        files::private_folder(cni_dir)?;
        let folder = Self::folder(cni_dir);
        files::private_folder(&folder)?;
        let held = hold(&folder.join(".lock"))?;
        files::sweep_beside(&folder.join(NAME));
        let entries = match fs::read(folder.join(NAME)) {
            Ok(text) => written::read(&text, root)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { folder, root: root.to_owned(), entries, _held: held })
    }

    /// Opens the log if there is one.
    ///
    /// # Errors
    /// As [`RevertLog::open`].
    pub fn if_any(root: &Path, cni_dir: &Path) -> io::Result<Option<Self>> {
        if Self::folder(cni_dir).is_dir() { Self::open(root, cni_dir).map(Some) } else { Ok(None) }
    }

    /// Has anything been noted below `cni_dir`? Else nothing was changed, or all of it is put back.
    pub fn is_begun(cni_dir: &Path) -> bool {
        Self::folder(cni_dir).join(NAME).exists()
    }

    /// Every path, with what is known about it.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (&Path, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_path(), entry))
    }

    /// Where the content is kept that was at `path`, and the content; `None`: there was no file.
    pub fn kept(&self, path: &Path) -> Option<(PathBuf, Vec<u8>)> {
        let Before::File { kept, .. } = &self.entries.get(path)?.before else { return None };
        let kept = self.folder.join(kept);
        fs::read(&kept).ok().map(|bytes| (kept, bytes))
    }

    /// Notes that `path` is about to become `left`, and keeps what is there now, unless that was noted before. What is
    /// there and `is_ours` counts as nothing: it is of an installation whose log is lost.
    ///
    /// # Errors
    /// What is there cannot be kept, and must not be touched then.
    pub fn about_to(&mut self, path: &Path, left: Left, is_ours: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        let Some(entry) = self.entries.get_mut(path) else {
            let before = self.before(look(path)?, is_ours)?;
            self.entries.insert(path.to_owned(), Entry { before, left: vec![left] });
            return self.save();
        };
        // Where we only ever took away, what is there again is what is to come back.
        if left == Left::Nothing && entry.left == [Left::Nothing] {
            return self.renew(path, is_ours);
        }
        if entry.left.contains(&left) {
            return Ok(());
        }
        entry.left.push(left);
        let excess = entry.left.len().saturating_sub(MOST_STATES);
        entry.left.drain(..excess);
        self.save()
    }

    /// Keeps what is there, so that it can come back.
    fn before(&self, seen: Seen, is_ours: impl Fn(&[u8]) -> bool) -> io::Result<Before> {
        Ok(match seen {
            Seen::Nothing => Before::Nothing,
            Seen::Link(target) => Before::Link { target },
            Seen::File { bytes, .. } if is_ours(&bytes) => Before::Nothing,
            Seen::File { bytes, mode, uid, gid } => {
                let sum = checksum(&bytes);
                let kept = format!("{:04}-{sum:016x}.kept", self.entries.len());
                files::replace_for_good(&self.folder.join(&kept), &bytes)?;
                Before::File { kept, sum, mode, uid, gid }
            }
            Seen::Folder => return Err(io::Error::new(io::ErrorKind::IsADirectory, "a folder is in its place")),
        })
    }

    /// Keeps what somebody has put at `path` since it was kept; nothing, and ours, do not count.
    fn renew(&mut self, path: &Path, is_ours: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        let seen = look(path)?;
        let is_theirs = match &seen {
            Seen::Nothing => false,
            Seen::File { bytes, .. } => !is_ours(bytes),
            Seen::Link(_) | Seen::Folder => true,
        };
        let is_known = self.entries.get(path).is_none_or(|entry| is(&seen, &entry.before));
        if is_known || !is_theirs {
            return Ok(());
        }
        let before = self.before(seen, is_ours)?;
        let Some(entry) = self.entries.get_mut(path) else { return Ok(()) };
        let last = std::mem::replace(&mut entry.before, before);
        self.save()?;
        let is_needed = |name: &String| {
            let keeps = |entry: &Entry| matches!(&entry.before, Before::File { kept, .. } if kept == name);
            self.entries.values().any(keeps)
        };
        match last {
            Before::File { kept, .. } if !is_needed(&kept) => files::remove(&self.folder.join(kept)),
            _ => Ok(()),
        }
    }

    /// Makes `folder` and what is missing above it; each is noted first.
    ///
    /// # Errors
    /// One cannot be noted or made.
    pub fn make_folder(&mut self, folder: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = folder.ancestors().take_while(|path| fs::symlink_metadata(path).is_err()).collect();
        for path in missing.into_iter().rev() {
            self.about_to(path, Left::Folder, |_| false)?;
            fs::create_dir(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// Puts back what was at `path` before us, if it is still as we left it; its entry is gone then.
    ///
    /// # Errors
    /// It could not be put back, or not be judged; the entry stays. `NotFound`: the folder above it is not to be seen.
    pub fn revert(&mut self, path: &Path) -> io::Result<Reverted> {
        let Some(entry) = self.entries.get(path).cloned() else { return Ok(Reverted::AsBefore) };
        let has_file = entry.left.iter().any(|left| matches!(left, Left::File { .. }));
        if (entry.before != Before::Nothing || has_file) && !path.parent().is_some_and(Path::is_dir) {
            // Seen from elsewhere it may be there as we left it; this is all that knows of it and of what was there before.
            return Err(io::Error::new(io::ErrorKind::NotFound, "its folder is not to be seen from here"));
        }
        files::sweep_beside(path);
        let has_renamed = remove_renamed(path, &entry.left);
        let done = self.put_back(path, &entry, has_renamed)?;
        self.entries.remove(path);
        self.save()?;
        if let Before::File { kept, .. } = &entry.before {
            files::remove(&self.folder.join(kept))?;
        }
        Ok(done)
    }

    /// Ends the log: with no entries left its folder goes.
    ///
    /// # Errors
    /// A file of it cannot be removed.
    pub fn close(self) -> io::Result<()> {
        if self.entries.is_empty() {
            // Before the note of what was there: a log without it would say that nothing was.
            files::remove(&self.folder.join(NAME))?;
            fs::remove_dir_all(&self.folder)?;
        }
        Ok(())
    }

    fn put_back(&self, path: &Path, entry: &Entry, has_renamed: bool) -> io::Result<Reverted> {
        let seen = match look(path) {
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Ok(Reverted::Foreign("something else than a file is there"));
            }
            Err(error) => return Err(error),
        };
        if is(&seen, &entry.before) {
            return Ok(Reverted::AsBefore);
        }
        let is_ours = match &seen {
            Seen::Nothing => has_renamed || entry.left.contains(&Left::Nothing),
            Seen::File { bytes, .. } => entry.left.contains(&Left::file(bytes)),
            Seen::Folder => entry.left.contains(&Left::Folder),
            Seen::Link(_) => false,
        };
        match (&entry.before, &seen) {
            (_, Seen::Nothing) if !is_ours => Ok(Reverted::Foreign("it was removed")),
            _ if !is_ours => Ok(Reverted::Foreign("it was changed")),
            (Before::Nothing, Seen::Folder) => match fs::remove_dir(path) {
                Ok(()) => Ok(Reverted::Removed),
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    Ok(Reverted::Foreign("others have files in it"))
                }
                Err(error) => Err(error),
            },
            (Before::Nothing, _) => files::remove(path).map(|()| Reverted::Removed),
            (Before::Link { target }, _) => {
                files::place_link(path, target)?;
                Ok(Reverted::Restored { owner: true })
            }
            (Before::File { kept, sum, mode, uid, gid }, _) => {
                let bytes = fs::read(self.folder.join(kept))?;
                if checksum(&bytes) != *sum {
                    return Err(written::torn(&format!("{kept}, which keeps what was there before, is damaged")));
                }
                let owner = files::place(path, &bytes, *mode, Some((*uid, *gid)))?;
                Ok(Reverted::Restored { owner })
            }
        }
    }

    fn save(&self) -> io::Result<()> {
        files::replace_for_good(&self.folder.join(NAME), &written::print(&self.entries, &self.root)?)
    }
}

fn hold(lock: &Path) -> io::Result<Held> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(held) = files::hold(lock, 0)? {
            return Ok(held);
        }
        if Instant::now() >= until {
            return Err(io::Error::other("another multus-agent is changing files here; try again when it has ended"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("multus-revert-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn log(&self) -> RevertLog {
            RevertLog::open(Path::new("/"), &self.0.join("state")).unwrap()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_there_comes_back_as_it_was_and_the_log_is_gone() {
        let place = Place::new("back");
        let path = place.0.join("conf");
        fs::write(&path, "before").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        for text in ["ours", "ours, newer"] {
            place.log().about_to(&path, Left::file(text.as_bytes()), |_| false).unwrap();
            files::place(&path, text.as_bytes(), 0o600, None).unwrap();
        }
        let mut log = place.log();
        assert_eq!(log.revert(&path).unwrap(), Reverted::Restored { owner: true });
        assert_eq!(log.revert(&path).unwrap(), Reverted::AsBefore);
        log.close().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert!(!place.0.join("state/install").exists());
    }

    #[test]
    fn what_somebody_changed_since_stays() {
        let place = Place::new("foreign");
        let (there, new, gone) = (place.0.join("there"), place.0.join("new"), place.0.join("gone"));
        fs::write(&there, "before").unwrap();
        fs::write(&gone, "before").unwrap();
        let mut log = place.log();
        for path in [&there, &new, &gone] {
            log.about_to(path, Left::file(b"ours"), |_| false).unwrap();
            fs::write(path, "ours").unwrap();
        }
        fs::write(&there, "theirs").unwrap();
        fs::write(&new, "theirs").unwrap();
        fs::remove_file(&gone).unwrap();
        assert_eq!(log.revert(&there).unwrap(), Reverted::Foreign("it was changed"));
        assert_eq!(log.revert(&new).unwrap(), Reverted::Foreign("it was changed"));
        assert_eq!(log.revert(&gone).unwrap(), Reverted::Foreign("it was removed"));
        assert_eq!(fs::read_to_string(&there).unwrap(), "theirs");
    }

    #[test]
    fn links_folders_and_renamed_copies() {
        let place = Place::new("odd");
        let (link, copy) = (place.0.join("link"), place.0.join("00.conflist"));
        symlink("elsewhere", &link).unwrap();
        let mut log = place.log();
        log.make_folder(&place.0.join("a/b")).unwrap();
        log.about_to(&link, Left::file(b"ours"), |_| false).unwrap();
        log.about_to(&copy, Left::file(b"ours"), |_| false).unwrap();
        files::place(&link, b"ours", 0o755, None).unwrap();
        fs::write(place.0.join("00.conflist.cilium_bak"), "ours").unwrap();
        fs::write(place.0.join("00.conflist.old"), "theirs").unwrap();
        assert!(!place.0.join("elsewhere").exists(), "no link is followed");
        let paths: Vec<PathBuf> = log.entries().rev().map(|(path, _)| path.to_owned()).collect();
        let done: Vec<_> = paths.iter().map(|path| log.revert(path).unwrap()).collect();
        assert!(done.contains(&Reverted::Restored { owner: true }), "{done:?}");
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("elsewhere"));
        assert!(!place.0.join("a").exists());
        assert!(!place.0.join("00.conflist.cilium_bak").exists() && place.0.join("00.conflist.old").exists());
    }

    #[test]
    fn what_is_ours_already_counts_as_nothing() {
        let place = Place::new("ours");
        let path = place.0.join("x");
        fs::write(&path, "ours, older").unwrap();
        let mut log = place.log();
        log.about_to(&path, Left::file(b"ours"), |bytes| bytes.starts_with(b"ours")).unwrap();
        fs::write(&path, "ours").unwrap();
        assert_eq!(log.revert(&path).unwrap(), Reverted::Removed);
        assert!(log.about_to(&place.0, Left::file(b""), |_| false).is_err(), "a folder");
    }

    #[test]
    fn what_was_written_anew_since_it_was_kept_is_what_comes_back() {
        let place = Place::new("anew");
        let path = place.0.join("conf");
        let is_ours = |bytes: &[u8]| bytes.starts_with(b"ours");
        let kept = || fs::read_dir(place.0.join("state/install")).unwrap().flatten().count();
        fs::write(&path, "first").unwrap();
        place.log().about_to(&path, Left::Nothing, is_ours).unwrap();
        let before = kept();
        for text in ["first", "second", "ours", ""] {
            if text.is_empty() {
                fs::remove_file(&path).unwrap();
            } else {
                fs::write(&path, text).unwrap();
            }
            place.log().about_to(&path, Left::Nothing, is_ours).unwrap();
            assert_eq!(kept(), before, "one is kept: {text:?}");
        }
        assert_eq!(place.log().revert(&path).unwrap(), Reverted::Restored { owner: true });
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
    }

    #[test]
    fn a_host_that_is_seen_elsewhere_finds_what_was_kept() {
        let place = Place::new("moves");
        let (root, other) = (place.0.join("h"), place.0.join("m"));
        let outside = place.0.join("outside");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/x"), "before").unwrap();
        fs::write(&outside, "before").unwrap();
        let mut log = RevertLog::open(&root, &root.join("state")).unwrap();
        for path in [&root.join("bin/x"), &outside] {
            log.about_to(path, Left::file(b"ours"), |_| false).unwrap();
            fs::write(path, "ours").unwrap();
        }
        drop(log);
        fs::rename(&root, &other).unwrap();
        let mut log = RevertLog::open(&other, &other.join("state")).unwrap();
        for path in [&other.join("bin/x"), &outside] {
            assert_eq!(log.revert(path).unwrap(), Reverted::Restored { owner: true }, "{}", path.display());
            assert_eq!(fs::read_to_string(path).unwrap(), "before");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_not_judged_and_older_logs_are_read() {
        let place = Place::new("unseen");
        let (root, elsewhere) = (place.0.join("h"), place.0.join("m"));
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/x"), "before").unwrap();
        // As older versions wrote it: with paths as they were seen.
        let mut log = RevertLog::open(Path::new("/elsewhere"), &root.join("state")).unwrap();
        log.about_to(&root.join("bin/x"), Left::file(b"ours"), |_| false).unwrap();
        drop(log);
        fs::write(root.join("bin/x"), "ours").unwrap();
        fs::rename(&root, &elsewhere).unwrap();
        let mut log = RevertLog::open(&elsewhere, &elsewhere.join("state")).unwrap();
        let error = log.revert(&root.join("bin/x")).unwrap_err();
        assert!(error.kind() == io::ErrorKind::NotFound && error.to_string().contains("folder"), "{error}");
        let (kept, bytes) = log.kept(&root.join("bin/x")).unwrap();
        assert!(kept.is_file() && bytes == b"before");
        // The same path under both names is one.
        log.about_to(&elsewhere.join("bin/x"), Left::file(b"ours"), |bytes| bytes == b"ours").unwrap();
        drop(log);
        fs::rename(&elsewhere, &root).unwrap();
        let mut log = RevertLog::open(&root, &root.join("state")).unwrap();
        assert_eq!(log.entries().count(), 1);
        assert_eq!(log.revert(&root.join("bin/x")).unwrap(), Reverted::Restored { owner: true });
        log.close().unwrap();
        assert_eq!(fs::read_to_string(root.join("bin/x")).unwrap(), "before");
        assert!(!root.join("state/install").exists());
    }

    #[test]
    fn a_file_of_ours_that_cannot_be_seen_is_not_forgotten() {
        let place = Place::new("hidden");
        let (bin, away) = (place.0.join("bin"), place.0.join("away"));
        let mut log = place.log();
        log.make_folder(&bin).unwrap();
        log.about_to(&bin.join("x"), Left::file(b"ours"), |_| false).unwrap();
        fs::write(bin.join("x"), "ours").unwrap();
        fs::rename(&bin, &away).unwrap();
        for is_file in [false, true] {
            // The folder is hidden, or something else is seen in its place.
            if is_file {
                fs::write(&bin, "").unwrap();
            }
            let error = log.revert(&bin.join("x")).unwrap_err();
            assert!(error.kind() == io::ErrorKind::NotFound && error.to_string().contains("folder"), "{error}");
        }
        fs::remove_file(&bin).unwrap();
        fs::rename(&away, &bin).unwrap();
        assert_eq!(log.revert(&bin.join("x")).unwrap(), Reverted::Removed);
        assert_eq!(log.revert(&bin).unwrap(), Reverted::Removed);
    }

    #[test]
    fn a_damaged_log_is_told() {
        let place = Place::new("torn");
        place.log().about_to(&place.0.join("x"), Left::Nothing, |_| false).unwrap();
        let path = place.0.join("state/install").join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = fs::read(&path).unwrap();
        for damaged in [&text[..text.len() - 1], b"multus-ebpf revert 2 0\n{}", b""] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(
                RevertLog::open(Path::new("/"), &place.0.join("state")).unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
    }
}
