//! What is known about the cluster's own network: which file describes it, whether its daemon is there, and who waits.
//!
//! `runtime_conf` finds out and writes it down here. Nothing here searches.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::fault::{CniError, code, quote};
use crate::ops::context::Context;

/// Most time an ADD waits for the cluster's own network, as upstream.
const PATIENCE: Duration = Duration::from_secs(45);
/// How often the readiness file is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// The file that describes the cluster's own network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// Where.
    pub path: PathBuf,
    /// What it said when it was last seen whole.
    pub bytes: Vec<u8>,
}

/// What was found out last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The master, where it is searched for.
    pub master: Option<Arc<Master>>,
    /// Why there is none, or why its conf for the runtime cannot be written.
    pub problem: Option<String>,
    /// The conf for the runtime, while it is as it should be.
    pub file: Option<PathBuf>,
    /// Since when master and file are these, in seconds of the Unix epoch.
    pub since: u64,
    /// Another conf sorts before ours, so that the runtime takes that one.
    pub bypassed: bool,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

/// The one place where it is known.
#[derive(Debug, Default)]
pub struct DefaultNetwork(watch::Sender<Arc<Known>>);

impl DefaultNetwork {
    /// What is known now.
    pub fn now(&self) -> Arc<Known> {
        Arc::clone(&self.0.borrow())
    }

    /// Replaces what is known, and wakes who waits for it.
    pub fn is(&self, known: Known) {
        self.0.send_if_modified(|old| {
            let differs = **old != known;
            *old = Arc::new(known);
            differs
        });
    }

    async fn master_is_there(&self) {
        // The sender lives as long as we do, so this ends with a master or not at all.
        let _ = self.0.subscribe().wait_for(|known| known.master.is_some()).await;
    }
}

/// Waits until the cluster's own network can be attached: its readiness file is there, and its file is found.
///
/// # Errors
/// Code 11 naming what is missing, after 45 seconds or at `until`.
pub async fn wait(context: &Context, until: Instant) -> Result<(), CniError> {
    let until = until.min(Instant::now() + PATIENCE);
    let waited = tokio::time::timeout_at(until.into(), async {
        while missing_readiness(context).is_some() {
            tokio::time::sleep(LOOK).await;
        }
        if context.settings.searches_master() {
            context.default_network.master_is_there().await;
        }
    });
    if waited.await.is_ok() {
        return Ok(());
    }
    available(context).map_err(|error| CniError { code: code::TRY_LATER, ..error })
}

/// Can the cluster's own network be attached now?
///
/// # Errors
/// Code 50 naming what is missing.
pub fn available(context: &Context) -> Result<(), CniError> {
    if let Some(file) = missing_readiness(context) {
        let text = format!("readinessindicatorfile {} is not there: the default network is not ready", quote(file));
        return Err(CniError::new(code::NOT_AVAILABLE, text)
            .remedy("see whether the daemon of the cluster's own network runs on this node"));
    }
    if context.settings.searches_master() && context.default_network.now().master.is_none() {
        return Err(CniError { code: code::NOT_AVAILABLE, ..no_master(context) });
    }
    Ok(())
}

/// The error, code 11, of who needs the master and has none.
pub fn no_master(context: &Context) -> CniError {
    let known = context.default_network.now();
    let why = known.problem.clone().unwrap_or_else(|| "no master was found yet".to_owned());
    CniError::new(code::TRY_LATER, why)
        .remedy("install the cluster's own network, or correct multusAutoconfigDir or multusMasterCNI")
}

/// `readinessindicatorfile`, where it is configured and not there.
pub fn missing_readiness(context: &Context) -> Option<&str> {
    context.settings.readiness_file.as_deref().filter(|file| !Path::new(file).exists())
}
