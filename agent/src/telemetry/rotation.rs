//! The log's file: appended to, rotated by size, its backups compressed, counted and forgotten by age.
//!
//! It never fails its writer and never waits for anything but the disk. File names are those of the rotation that Multus
//! uses (lumberjack): `multus-2026-01-02T15-04-05.000.log`, in UTC, and the same with `.gz`.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::jiff::civil::DateTime;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The time in a backup's name.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S.%3f";
/// After a rotation that failed the file grows on for so long.
const AGAIN: Duration = Duration::from_mins(1);

/// When a file is rotated, and what is kept of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most bytes of the file.
    pub(super) bytes: u64,
    /// Days a backup is kept; 0: for ever.
    pub(super) days: u32,
    /// Most backups; 0: any number.
    pub(super) backups: usize,
    /// Backups are compressed.
    pub(super) compress: bool,
}

/// The open log file of this process.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    limits: Limits,
    file: Option<File>,
    /// Lines that could not be written, and why.
    lost: Option<(u64, io::Error)>,
    not_before: Option<Instant>,
    chores: Arc<Mutex<Chores>>,
}

/// The one thread that looks after backups, while it runs.
#[derive(Debug, Default)]
struct Chores {
    is_at_work: bool,
    is_asked_again: bool,
}

impl LogFile {
    /// Opens the file, with its folder (0755) where that is missing; the file is made 0600.
    ///
    /// # Errors
    /// The file cannot be opened for appending: what is wrong is better said at the start than at the first line.
    pub(super) fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        let file = append_to(path, 0o600)?;
        let log = Self {
            path: path.to_owned(),
            limits,
            file: Some(file),
            lost: None,
            not_before: None,
            chores: Arc::default(),
        };
        log.look_after_backups();
        Ok(log)
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => self.still_ours(file)?,
            None => append_to(&self.path, 0o600)?,
        };
        let mut file = self.with_room_for(file, line.len())?;
        if let Some((lines, why)) = &self.lost {
            writeln!(file, "{} [error] {lines} lines of this log were lost: {why}", Timestamp::now())?;
            self.lost = None;
        }
        let written = file.write_all(line);
        self.file = Some(file);
        written
    }

    /// Somebody may have moved or removed the file (logrotate): then another one is opened.
    fn still_ours(&self, file: File) -> io::Result<File> {
        let ours = file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(file),
            _ => append_to(&self.path, ours.mode() & 0o777),
        }
    }

    fn with_room_for(&mut self, file: File, bytes: usize) -> io::Result<File> {
        let facts = file.metadata()?;
        let will_be = facts.len().saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let is_early = self.not_before.is_some_and(|moment| Instant::now() < moment);
        if will_be <= self.limits.bytes || facts.len() == 0 || !facts.is_file() || is_early {
            return Ok(file);
        }
        self.not_before = None;
        if fs::rename(&self.path, self.free_backup()).is_err() {
            self.not_before = Some(Instant::now() + AGAIN);
            return Ok(file);
        }
        let new = append_to(&self.path, facts.mode() & 0o777);
        self.look_after_backups();
        new
    }

    /// The name of a backup made now; two within a millisecond are told apart.
    fn free_backup(&self) -> PathBuf {
        let mut now = Timestamp::now();
        loop {
            let path = self.path.with_file_name(backup(&self.path, now));
            let mut packed = path.clone().into_os_string();
            packed.push(".gz");
            if !path.exists() && !Path::new(&packed).exists() {
                return path;
            }
            now += SignedDuration::from_millis(1);
        }
    }

    /// Has old backups removed and new ones compressed, on a thread that ends with that; one at a time.
    fn look_after_backups(&self) {
        {
            let mut chores = self.chores.lock().unwrap_or_else(PoisonError::into_inner);
            chores.is_asked_again = true;
            if std::mem::replace(&mut chores.is_at_work, true) {
                return;
            }
        }
        let (path, limits, chores) = (self.path.clone(), self.limits, Arc::clone(&self.chores));
        let work = move || {
            loop {
                {
                    let mut chores = chores.lock().unwrap_or_else(PoisonError::into_inner);
                    if !std::mem::take(&mut chores.is_asked_again) {
                        chores.is_at_work = false;
                        return;
                    }
                }
                look_after(&path, limits, Timestamp::now());
            }
        };
        if std::thread::Builder::new().name("log-backups".to_owned()).spawn(work).is_err() {
            self.chores.lock().unwrap_or_else(PoisonError::into_inner).is_at_work = false;
        }
    }
}

/// A line that cannot be written is counted, and its loss is written as soon as anything can be again.
impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.append(line) {
            let before = self.lost.take().map_or(0, |(lines, _)| lines);
            self.lost = Some((before + 1, error));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append_to(path: &Path, mode: u32) -> io::Result<File> {
    // A pipe without a reader is an error then, and never a wait.
    let open = || OpenOptions::new().create(true).append(true).mode(mode).custom_flags(libc::O_NONBLOCK).open(path);
    match (open(), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
            open()
        }
        (opened, _) => opened,
    }
}

/// `multus-2026-01-02T15-04-05.000.log` for `multus.log`.
fn backup(path: &Path, at: Timestamp) -> String {
    let (stem, ending) = parts(path);
    format!("{stem}-{}{ending}", at.to_zoned(TimeZone::UTC).strftime(STAMP))
}

/// A file name up to its last dot, and from there.
fn parts(path: &Path) -> (String, String) {
    let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    match name.rfind('.') {
        Some(dot) => {
            let (stem, ending) = name.split_at(dot);
            (stem.to_owned(), ending.to_owned())
        }
        None => (name.into_owned(), String::new()),
    }
}

/// When the backup `name` of `path` was made; `None`: it is none.
fn made(path: &Path, name: &str) -> Option<Timestamp> {
    let (stem, ending) = parts(path);
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let stamp = name.strip_prefix(&stem)?.strip_prefix('-')?.strip_suffix(&ending)?;
    Some(DateTime::strptime(STAMP, stamp).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Removes the backups that are too many or too old, and compresses the others. What fails is tried at the next rotation.
fn look_after(path: &Path, limits: Limits, now: Timestamp) {
    let Some(folder) = path.parent() else { return };
    let mut backups: Vec<(Timestamp, PathBuf)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((made(path, &entry.file_name().to_string_lossy())?, entry.path())))
        .collect();
    backups.sort_by(|a, b| b.cmp(a));
    let oldest = now - SignedDuration::from_hours(24 * i64::from(limits.days));
    let (mut kept, mut last) = (0, None);
    for (at, backup) in backups {
        // A backup and its half-made compressed twin count once.
        if last.replace(at) != Some(at) {
            kept += 1;
        }
        let is_old = limits.days > 0 && at < oldest;
        if is_old || (limits.backups > 0 && kept > limits.backups) {
            drop(fs::remove_file(&backup));
        } else if limits.compress && backup.extension().is_none_or(|ending| ending != "gz") {
            drop(compress(&backup));
        }
    }
}

/// Replaces a file by its compressed form, or leaves it alone.
fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.to_owned().into_os_string();
    name.push(".gz");
    let packed = PathBuf::from(name);
    let pack = || {
        let mut from = File::open(path)?;
        let mode = from.metadata()?.mode() & 0o777;
        let to = OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&packed)?;
        let mut to = GzEncoder::new(to, Compression::default());
        io::copy(&mut from, &mut to)?;
        to.finish()?.sync_all()
    };
    match pack() {
        Ok(()) => fs::remove_file(path),
        Err(error) => {
            drop(fs::remove_file(&packed));
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("multus-log-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&path));
            Self(path)
        }

        fn log(&self) -> PathBuf {
            self.0.join("logs/multus.log")
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.0.join("logs")).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    const SMALL: Limits = Limits { bytes: 100, days: 1, backups: 2, compress: true };

    fn at_rest(log: &LogFile) {
        let until = Instant::now() + Duration::from_secs(10);
        while log.chores.lock().unwrap().is_at_work {
            assert!(Instant::now() < until, "the backups are never looked after");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_full_file_becomes_a_backup_and_backups_are_bounded_and_compressed() {
        let folder = Folder::new("rotate");
        let mut log = LogFile::open(&folder.log(), SMALL).unwrap();
        for number in 0..6 {
            log.write_all(format!("{number}{}\n", "x".repeat(80)).as_bytes()).unwrap();
            at_rest(&log);
            std::thread::sleep(Duration::from_millis(2));
        }
        let names = folder.names();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[..2].iter().all(|name| name.starts_with("multus-20") && name.ends_with(".log.gz")), "{names:?}");
        let mut text = String::new();
        let packed = File::open(folder.0.join("logs").join(&names[1])).unwrap();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("4x") && text.len() == 82, "{text}");
        assert!(fs::read_to_string(folder.log()).unwrap().starts_with("5x"));
        assert_eq!(fs::metadata(folder.log()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.0.join("logs")).unwrap().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_file_that_was_moved_or_removed_is_opened_again() {
        let folder = Folder::new("moved");
        let mut log = LogFile::open(&folder.log(), Limits { bytes: 1 << 20, ..SMALL }).unwrap();
        log.write_all(b"one\n").unwrap();
        fs::rename(folder.log(), folder.0.join("logs/old")).unwrap();
        log.write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "two\n");
        fs::remove_dir_all(folder.0.join("logs")).unwrap();
        log.write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "three\n");
        File::options().write(true).open(folder.log()).unwrap().set_len(0).unwrap();
        log.write_all(b"four\n").unwrap();
        assert_eq!(fs::read_to_string(folder.log()).unwrap(), "four\n");
    }

    #[test]
    fn a_full_disk_is_no_error_and_is_told_afterwards() {
        // Writing to it fails as on a full disk.
        let mut log = LogFile::open(Path::new("/dev/full"), SMALL).unwrap();
        for _ in 0..3 {
            log.write_all(b"lost\n").unwrap();
        }
        assert_eq!(log.lost.as_ref().map(|(lines, why)| (*lines, why.kind())), Some((3, io::ErrorKind::StorageFull)));
        let folder = Folder::new("full");
        drop(LogFile::open(&folder.log(), SMALL).unwrap());
        log.path = folder.log();
        log.write_all(b"kept\n").unwrap();
        let text = fs::read_to_string(folder.log()).unwrap();
        assert!(text.contains("3 lines of this log were lost: No space left") && text.ends_with("\nkept\n"), "{text}");
        assert!(log.lost.is_none());
    }

    #[test]
    fn what_cannot_be_a_log_is_said_at_once() {
        let folder = Folder::new("bad");
        fs::create_dir_all(folder.log()).unwrap();
        assert!(LogFile::open(&folder.log(), SMALL).is_err());
        assert!(LogFile::open(Path::new("/dev/null/multus.log"), SMALL).is_err());
    }

    #[test]
    fn only_our_own_backups_are_old() {
        let path = Path::new("/var/log/multus.log");
        let at = Timestamp::from_millisecond(1_767_366_245_067).unwrap();
        assert_eq!(backup(path, at), "multus-2026-01-02T15-04-05.067.log");
        assert_eq!(made(path, "multus-2026-01-02T15-04-05.067.log"), Some(at));
        assert_eq!(made(path, "multus-2026-01-02T15-04-05.067.log.gz"), Some(at));
        for other in
            ["multus.log", "multus-old.log", "other-2026-01-02T15-04-05.067.log", "multus-2026-01-02T15-04-05.067"]
        {
            assert_eq!(made(path, other), None, "{other}");
        }
        assert_eq!(backup(Path::new("/x/log"), at), "log-2026-01-02T15-04-05.067");
    }

    #[test]
    fn old_backups_go_and_none_go_without_limits() {
        let folder = Folder::new("age");
        fs::create_dir_all(folder.0.join("logs")).unwrap();
        let now = Timestamp::now();
        for days in 0..4 {
            let at = now - SignedDuration::from_hours(24 * days + 1);
            fs::write(folder.log().with_file_name(backup(&folder.log(), at)), "x").unwrap();
        }
        look_after(&folder.log(), Limits { bytes: 1, days: 0, backups: 0, compress: false }, now);
        assert_eq!(folder.names().len(), 4);
        look_after(&folder.log(), Limits { bytes: 1, days: 2, backups: 0, compress: false }, now);
        assert_eq!(folder.names().len(), 2);
    }
}
