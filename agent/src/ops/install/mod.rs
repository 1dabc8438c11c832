//! Putting the CNI plugin on a host, and taking everything of ours off it again.
//!
//! Works without an agent and beside one that has drained. Every file is noted in the revert log before it is changed.

mod everywhere;
mod look;
pub mod migrate;
mod orphaned;
mod ours;
mod put;
mod remains;
mod signals;
mod take;

use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::config::Settings;
use crate::fault::escape;
use crate::sys::revert::RevertLog;
use crate::sys::rooted::Root;

pub use crate::plan::host::{Place, Places, Preset, Wishes};
pub use everywhere::{EverywhereError, everywhere};
pub use look::found;
pub use ours::is_all_seen;
pub use put::install;
pub use signals::Signals;
pub use take::{Drained, uninstall};

/// Where something is to be installed, or taken off.
#[derive(Debug, Clone)]
pub struct Site {
    /// The host's files, as we see them: `/`, or where its root is mounted; no link is in it.
    pub root: PathBuf,
    /// The agent's configuration.
    pub settings: Settings,
    /// What the operator says about folders.
    pub wishes: Wishes,
    /// The file that `settings` are from; it may be one of those that come off again.
    pub configuration: Option<PathBuf>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

impl Site {
    /// `cniDir`, as we see it.
    fn cni_dir(&self) -> Result<PathBuf, InstallError> {
        let path = self.settings.delegation.cni_dir.as_deref().unwrap_or("/var/lib/cni/multus");
        self.ours("find cniDir", path)
    }

    /// `socketDir`, as we see it.
    ///
    /// # Errors
    /// Its links lead nowhere.
    pub fn socket_dir(&self) -> Result<PathBuf, InstallError> {
        self.ours("find socketDir", &self.settings.socket_dir)
    }

    /// Where the host's root is seen, which the revert log counts from.
    fn host_root(&self) -> &Path {
        if self.root == Path::new("/") { self.settings.host_root() } else { &self.root }
    }

    /// The revert log below `cni_dir`; none in a dry run.
    fn log(&self, cni_dir: &Path) -> Result<Option<RevertLog>, InstallError> {
        if self.dry_run {
            return Ok(None);
        }
        let open = RevertLog::open(self.host_root(), cni_dir);
        open.map(Some).map_err(|error| InstallError::of("open the revert log in", cni_dir, error))
    }

    /// Is this the file that the settings are from? `path` has no links.
    fn is_configuration(&self, path: &Path) -> bool {
        let file = self.configuration.as_ref().and_then(|file| std::fs::canonicalize(file).ok());
        file.is_some_and(|file| file == path)
    }

    /// A folder of the host, as we see it, with its links followed. Below `chrootDir` a configuration names the host's
    /// folders as the agent's pod sees them.
    fn ours(&self, action: &'static str, path: &str) -> Result<PathBuf, InstallError> {
        let path = Path::new(path);
        let chroot = self.settings.chroot_dir.as_deref().map(Path::new);
        let inner = if self.root == Path::new("/") {
            None
        } else {
            // Links may lead to the root, too.
            let is_root = |above: &&Path| std::fs::canonicalize(above).is_ok_and(|above| above == self.root);
            let root = path.ancestors().find(is_root);
            [root, chroot].into_iter().flatten().find_map(|root| path.strip_prefix(root).ok())
        };
        let path = inner.unwrap_or(path);
        Root::at(&self.root).resolve(path).map_err(|error| InstallError::of(action, path, error))
    }
}

/// How one thing went, or would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is done, or would be.
    Done,
    /// It was so already.
    Already,
    /// It stays for now, for a reason.
    Left,
    /// Look at it.
    Warning,
}

/// One thing that was done, or was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// How it went.
    pub kind: Kind,
    /// One sentence.
    pub text: String,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Where; unknown where everything is taken off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub places: Option<Places>,
    /// What, in order.
    pub steps: Vec<Step>,
    /// Pods, or containers, for which something stays.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
}

impl Report {
    fn note(&mut self, kind: Kind, text: impl Into<String>) {
        self.steps.push(Step { kind, text: text.into() });
    }

    /// Is there something to look at?
    pub fn has_warnings(&self) -> bool {
        self.steps.iter().any(|step| step.kind == Kind::Warning)
    }
}

/// Why it cannot go on. What was done until then is in the revert log, and the next run goes on there.
#[derive(Debug, Error)]
pub enum InstallError {
    /// A file or a folder.
    #[error("{action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Quoted.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The plugin that should be installed is none.
    #[error("{0} is not our CNI plugin; say where it is with --shim")]
    NoShim(String),
    /// What knows how the host was before is not to be seen.
    #[error(
        "{ours} is ours, and cniDir {cni_dir}, which keeps what was there before us and what pods still need, is not \
         there: mount it, or say --config with the right cniDir; if it is lost, make an empty folder in its place"
    )]
    Unseen {
        /// What stands of ours, quoted.
        ours: String,
        /// Where the rest should be, quoted.
        cni_dir: String,
    },
    /// An agent works on.
    #[error(
        "an agent still works with cniDir {0}; stop it first (delete its DaemonSet, or stop its service), and run this again"
    )]
    Running(String),
}

impl InstallError {
    fn of(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File { action, path: shown(path), source }
    }
}

/// A path as sentences have it: whole, for somebody has to find it.
fn shown(path: &Path) -> String {
    format!("\"{}\"", escape(&path.to_string_lossy()))
}

/// Is this our CNI plugin, of whatever version? Its own words say so.
fn is_our_shim(bytes: &[u8]) -> bool {
    const WORDS: &[u8] = b"hands CNI requests to the multus-ebpf agent";
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| WORDS.first() == Some(byte)) {
        let (_, found) = rest.split_at(at);
        if found.starts_with(WORDS) {
            return true;
        }
        rest = found.get(1..).unwrap_or_default();
    }
    false
}
