//! The conf as it stands in the runtime's folder: written, looked after, and written again when somebody took it away.
//!
//! Does not know what is in it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::fault::quote;
use crate::ops::cluster_network;
use crate::plan::runtime_conf as plan;
use crate::sys::revert::{Left, RevertLog};
use crate::sys::{conf_files, files};

/// First and longest pause before a file that was taken away is written once more; the first time it is at once.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// After this long in peace the pauses begin anew.
const PEACE: Duration = Duration::from_mins(1);
/// How long the status remembers that somebody took the file away.
const REMEMBERED: Duration = Duration::from_mins(10);

/// What is to stand in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) file: String,
    pub(super) bytes: Vec<u8>,
}

impl Target {
    /// The generated file.
    pub(super) fn generated(text: String) -> Self {
        Self { file: plan::FILE.to_owned(), bytes: text.into_bytes() }
    }
}

/// The file in its folder.
#[derive(Debug)]
pub(super) struct Standing {
    /// The runtime's folder.
    pub(super) folder: PathBuf,
    /// `cniDir`, below which is the revert log.
    cni_dir: PathBuf,
    /// What was written, or found to be right, last.
    target: Option<Target>,
    /// When the file may be written again, and the pause after that.
    again: Option<(Instant, Duration)>,
    /// The last time somebody took it away, in words.
    taken: Option<(Instant, String)>,
    /// Another file sorts before ours.
    bypassed: bool,
}

impl Standing {
    pub(super) fn in_folder(folder: PathBuf, cni_dir: PathBuf) -> Self {
        Self { folder, cni_dir, target: None, again: None, taken: None, bypassed: false }
    }

    /// Was anything written, or found to be right, by this agent?
    pub(super) fn is_there(&self) -> bool {
        self.target.is_some()
    }

    /// Does another file sort before ours, as of the last look?
    pub(super) fn is_bypassed(&self) -> bool {
        self.bypassed
    }

    /// How long until something is due here.
    pub(super) fn due(&self) -> Option<Duration> {
        let (when, _) = self.again?;
        Some(when.saturating_duration_since(Instant::now())).filter(|due| !due.is_zero())
    }

    /// Makes `wanted` stand, or without it what stood last. Says which file that is; `own` is our plugin's name.
    ///
    /// # Errors
    /// Why it does not stand now, in one sentence.
    pub(super) fn settle(
        &mut self,
        wanted: Option<Target>,
        own: &str,
        warnings: &mut Vec<String>,
    ) -> Result<Option<PathBuf>, String> {
        self.bypassed = false;
        let Some(target) = wanted.or_else(|| self.target.clone()) else { return Ok(None) };
        let path = self.folder.join(&target.file);
        let stands = self.stand(&target, &path, own);
        warnings.extend(self.taken.iter().filter(|(when, _)| when.elapsed() < REMEMBERED).map(|(_, how)| how.clone()));
        stands?;
        self.clear_the_way(&target.file, own, warnings);
        self.target = Some(target);
        Ok(Some(path))
    }

    fn stand(&mut self, target: &Target, path: &Path, own: &str) -> Result<(), String> {
        let present = conf_files::at(path).ok().map(|found| found.bytes);
        if present.as_ref() == Some(&target.bytes) {
            return Ok(());
        }
        if self.target.as_ref() == Some(target) {
            let how = self.how_taken(target, present.as_deref());
            self.taken = Some((Instant::now(), how.clone()));
            if !self.may_write_again() {
                return Err(how);
            }
        }
        let shown = quote(&path.to_string_lossy());
        let left = Left::file(&target.bytes);
        self.remember(&target.file, left, own)
            .and_then(|()| files::replace_for_good(path, &target.bytes))
            .map_err(|error| files::whose_folder(path, error))
            .map_err(|error| format!("write {shown}: {error}"))?;
        tracing::info!("wrote {shown} for the container runtime");
        Ok(())
    }

    /// Notes what stands under this name before it is changed, so that it can be put back when we are taken off. A log
    /// that cannot be read is no reason to leave the runtime without its conf.
    fn remember(&self, file: &str, left: Left, own: &str) -> io::Result<()> {
        let folder = std::fs::canonicalize(&self.folder)?;
        let is_ours = |bytes: &[u8]| plan::is_generated(bytes, own);
        let noted = RevertLog::open(&self.cni_dir).and_then(|mut log| log.about_to(&folder.join(file), left, is_ours));
        match noted {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!("{}: uninstall will not know what was there before: {error}", quote(file));
                Ok(())
            }
            noted => noted,
        }
    }

    /// At once the first time, then after ever longer pauses: who fights for the file shall not fill the disk's log.
    fn may_write_again(&mut self) -> bool {
        let now = Instant::now();
        let pause = match self.again {
            Some((when, _)) if now < when => return false,
            Some((when, pause)) if now < when + PEACE => (pause * 2).min(PAUSES.1),
            _ => PAUSES.0,
        };
        self.again = Some((now + pause, pause));
        true
    }

    fn how_taken(&self, target: &Target, present: Option<&[u8]>) -> String {
        let file = quote(&target.file);
        let hint = "look for a program that wants this folder for itself (Cilium does: set cni.exclusive to false)";
        match (present, conf_files::renamed(&self.folder.join(&target.file), &target.bytes)) {
            (Some([]), _) => format!("{file} was emptied by another program and is written again; {hint}"),
            (Some(_), _) => format!("{file} was altered by another program and is written again; {hint}"),
            (None, Some(name)) if name.ends_with(".cilium_bak") => {
                format!(
                    "{file} was renamed to {} by Cilium and is written again; set cni.exclusive to false in Cilium's configuration",
                    quote(&name)
                )
            }
            (None, Some(name)) => {
                format!("{file} was renamed to {} by another program and is written again; {hint}", quote(&name))
            }
            (None, None) => format!("{file} was removed by another program and is written again; {hint}"),
        }
    }

    /// Files that a runtime would take in place of ours: a former Multus's are removed, others are told of.
    fn clear_the_way(&mut self, kept: &str, own: &str, warnings: &mut Vec<String>) {
        let files = match cluster_network::candidates(&self.folder) {
            Ok(files) => files,
            Err(error) => return warnings.push(format!("read cniConfigDir: {error}")),
        };
        for file in plan::superseded(&files, kept, own) {
            let removed = self.remember(file, Left::Nothing, own).and_then(|()| files::remove(&self.folder.join(file)));
            match removed {
                Ok(()) => tracing::warn!("removed {} of a former Multus, in favour of {kept}", quote(file)),
                Err(error) => warnings.push(format!("remove {} of a former Multus: {error}", quote(file))),
            }
        }
        for file in plan::shadowing(&files, kept, own) {
            self.bypassed = true;
            let file = quote(file);
            warnings.push(format!(
                "{file} in cniConfigDir sorts before {kept}: the runtime takes it, and pods get no further networks; rename it"
            ));
        }
    }
}

/// What was said lately, so that nothing is said every two seconds.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<String, Instant>);

/// What lasts is said again this often.
const AGAIN: Duration = Duration::from_mins(5);
/// Most sentences that are remembered.
const MOST: usize = 64;

impl Told {
    /// Warns, unless that was said lately.
    pub(super) fn warn(&mut self, text: &str) {
        if self.is_news(text) {
            tracing::warn!("{text}");
        }
    }

    /// Says something that is no cause for worry, unless it was said lately.
    pub(super) fn note(&mut self, text: &str) {
        if self.is_news(text) {
            tracing::info!("{text}");
        }
    }

    fn is_news(&mut self, text: &str) -> bool {
        self.0.retain(|_, when| when.elapsed() < AGAIN);
        if self.0.contains_key(text) || self.0.len() >= MOST {
            return false;
        }
        self.0.insert(text.to_owned(), Instant::now());
        true
    }
}
