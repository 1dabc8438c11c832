//! Which addresses of a network are in use? By the files that host-local keeps, where they can be seen, else by the records.
//!
//! A folder that is not mounted into the agent's pod (a `dataDir` elsewhere) is not seen; then an address that a container
//! left behind without a DEL is not counted. Says nothing about whether that is too many.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cni::CniResult;
use crate::config::Settings;
use crate::records::Record;

/// What the records say of addresses.
#[derive(Debug, Default)]
pub struct OnRecord {
    /// The containers.
    pub owners: BTreeSet<String>,
    /// By network: the addresses that its plugins gave.
    pub given: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl OnRecord {
    /// What these records say.
    pub fn of(records: &[Arc<Record>]) -> Self {
        let mut all = Self::default();
        for record in records {
            all.owners.insert(record.container.to_string());
            for attachment in &record.attachments {
                let result =
                    attachment.result.as_ref().and_then(|result| CniResult::parse(result.to_string().as_bytes()).ok());
                let ips = result.into_iter().flat_map(|result| result.ips).map(|ip| ip.address.ip);
                all.given.entry(attachment.network.clone()).or_default().extend(ips);
            }
        }
        all
    }
}

/// A folder of the host as the agent sees it: below `chrootDir`, where that has it.
pub fn as_seen(settings: &Settings, folder: &str) -> PathBuf {
    let below = settings.chroot_dir.as_ref().map(|root| Path::new(root).join(folder.trim_start_matches('/')));
    let is_there = |path: &PathBuf| path.parent().is_some_and(Path::is_dir);
    below.filter(is_there).unwrap_or_else(|| PathBuf::from(folder))
}
