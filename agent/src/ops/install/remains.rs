//! What is left of containers that nobody will ask to delete any more: their DELs, where they can be done from here.
//!
//! On the host every plugin can be run. In a pod only those that keep nothing but a link, and addresses in a folder that
//! is the host's: a plugin that saw a folder of the pod's own would free nothing, and say that it had.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Kind, Report, Site};
use crate::cni::{RawObject, passthru};
use crate::ops::runner::{HostRunner, Runner};
use crate::ops::{device_info, undo};
use crate::records::{Record, Records, Stage, State};

/// How long one DEL may take.
const DEL: Duration = Duration::from_secs(30);
/// Where host-local keeps addresses unless it is told otherwise.
const ADDRESSES: &str = "/var/lib/cni/networks";

/// Does the DELs that nobody will ask for any more. What could not be done is given back.
pub(super) fn finish(site: &Site, records: &Records, gone: Vec<Record>, report: &mut Report) -> Vec<Record> {
    let folders = site.settings.plugin_folders();
    let runners =
        Runners { host: HostRunner::new(folders.clone(), &site.settings.host_exec), here: HostRunner::here(folders) };
    let mut left = Vec::new();
    for mut record in gone {
        let container = record.container.clone();
        if site.dry_run {
            report.note(Kind::Done, format!("what is left of container {container} is deleted"));
            continue;
        }
        // A plugin that is still at work for it goes first.
        let Ok(Some(_held)) = records.hold(&container) else {
            left.push(record);
            continue;
        };
        let failed = delete(&mut record, &runners);
        let lasting = device_info::forget(&mut record);
        if record.due().is_empty() && lasting.is_empty() {
            match records.forget(&record) {
                Ok(()) => report.note(Kind::Done, format!("what was left of container {container} is deleted")),
                Err(error) => report.note(Kind::Warning, format!("remove the record of {container}: {error}")),
            }
            continue;
        }
        record.state = State::Undo;
        let saved = records.save(&record).err().map(|error| format!("update the record: {error}"));
        for why in failed.into_iter().chain(lasting).chain(saved) {
            report.note(Kind::Left, format!("container {container}: {why}"));
        }
        left.push(record);
    }
    left
}

/// Who can run plugins.
struct Runners {
    host: Option<HostRunner>,
    here: HostRunner,
}

impl Runners {
    fn of(&self, record: &Record, at: (usize, usize)) -> Option<HostRunner> {
        self.host.clone().or_else(|| is_all_here(record, at).then(|| self.here.clone()))
    }
}

/// Does this delegate keep nothing but its link, and addresses in a folder that is the host's?
fn is_all_here(record: &Record, at: (usize, usize)) -> bool {
    let Some(attachment) = record.attachments.get(at.0) else { return false };
    let Some(delegate) = attachment.delegates.get(at.1) else { return false };
    let Ok(stdin) = RawObject::parse(delegate.stdin.as_bytes()) else { return false };
    let ipam = stdin.object("ipam").ok().flatten().unwrap_or_default();
    let text = |key: &str| ipam.text(key).ok().flatten().unwrap_or_default();
    let (kind, folder) = (text("type"), text("dataDir"));
    let folder = if folder.is_empty() { ADDRESSES } else { &folder };
    let has_addresses_here = match kind.as_str() {
        "" | "static" => true,
        // A folder of its own would not have this network in it.
        "host-local" => Path::new(folder).join(&attachment.conf_name).is_dir(),
        _ => false,
    };
    has_addresses_here && undo::ONLY_LINKS.contains(&delegate.plugin.as_str())
}

/// Runs every DEL that is due. The answer says what did not succeed.
fn delete(record: &mut Record, runners: &Runners) -> Vec<String> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return vec!["no plugin can be run: the process may start no threads".to_owned()];
    };
    let netns = record.namespace_to_undo();
    let mut failed = Vec::new();
    for at in record.due() {
        let Some(job) = undo::job(record, at, netns.as_ref(), Instant::now() + DEL) else { continue };
        let plugin = job.plugin.clone();
        if plugin.as_str() == passthru::PLUGIN {
            // What is built into the agent has nothing to delete.
            record.mark(at, Stage::Deleted);
            continue;
        }
        let Some(mut runner) = runners.of(record, at) else {
            failed.push(format!(
                "DEL by {plugin}: plugins cannot be run on the host from here (see the host-exec component)"
            ));
            continue;
        };
        let outcome = runtime.block_on(runner.run(job)).ok();
        if outcome.as_ref().is_some_and(|outcome| outcome.problem.is_none() && outcome.exit == Some(0)) {
            record.mark(at, Stage::Deleted);
        } else {
            let exit =
                outcome.and_then(|outcome| outcome.exit).map_or("not at all".to_owned(), |exit| exit.to_string());
            failed.push(format!("DEL by {plugin}: it ended with {exit}"));
        }
    }
    failed
}
