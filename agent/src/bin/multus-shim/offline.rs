//! DEL while the agent is away: run the recorded DELs from disk and leave a note for the agent's own part.
//!
//! Plans nothing and never fails: what could not be undone stays in the record and in the note.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use multus_agent::cni::passthru;
use multus_agent::cni::request::Command;
use multus_agent::names::{ContainerId, NetnsPath};
use multus_agent::records::{Record, Records, Stage, State};
use multus_agent::spool::{Note, Spool};
use multus_agent::sys::files::{Held, netns_id};
use multus_agent::wire::{Job, Outcome};

use crate::agent::{Mine, perform};

/// How long another shim for the same container is waited for.
const TURN: Duration = Duration::from_secs(2);

/// Undoes what is recorded of `container` below `cni_dir`. The answer lists what did not succeed, for standard error.
pub(crate) fn del(cni_dir: &Path, container: &ContainerId, mine: &Mine, deadline: Instant) -> Vec<String> {
    let records = Records::at(cni_dir);
    let mut failed = Vec::new();
    let held = wait_for(&records, container);
    if matches!(held, Ok(None)) {
        failed.push("another CNI plugin is at work for this container".to_owned());
        return leave(cni_dir, container, None, true, failed);
    }
    let record = match records.load(container) {
        Ok(record) => record,
        Err(error) => {
            failed.push(format!("read the record: {error}"));
            None
        }
    };
    // What Multus or libcni left is the agent's to read; it does so when it is back.
    let pending = record.is_none() && (!failed.is_empty() || records.has_traces(container));
    if let Some(mut record) = record.clone() {
        undo(&records, &mut record, mine, deadline, &mut failed);
    }
    drop(held);
    leave(cni_dir, container, record, pending, failed)
}

/// Waits a moment for our turn; `None`: it did not come. An error: there is no folder of records, and so nothing to
/// take turns about.
fn wait_for(records: &Records, container: &ContainerId) -> io::Result<Option<Held>> {
    let until = Instant::now() + TURN;
    loop {
        let held = records.hold(container)?;
        if held.is_some() || Instant::now() >= until {
            return Ok(held);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Leaves a note for the agent and answers what there is to say on standard error. Nothing recorded and nothing wrong
/// is no news.
fn leave(
    cni_dir: &Path,
    container: &ContainerId,
    record: Option<Record>,
    pending: bool,
    failed: Vec<String>,
) -> Vec<String> {
    if record.is_none() && failed.is_empty() && !pending {
        return failed;
    }
    let clean = failed.is_empty() && !pending;
    let note = Note { container: container.clone(), when: now(), clean, pending, record, failed };
    let mut said = note.failed.clone();
    if let Err(error) = Spool::at(cni_dir).leave(&note) {
        said.push(format!("leave a note for the agent: {error}"));
    }
    said
}

fn undo(records: &Records, record: &mut Record, mine: &Mine, deadline: Instant, failed: &mut Vec<String>) {
    let seen = mine.netns.as_ref().and_then(|netns| netns_id(netns.as_path()));
    let netns = record.namespace_asked(mine.netns.as_ref(), seen.as_ref());
    for at in record.due() {
        let Some(job) = job(record, at, netns.clone(), deadline) else { continue };
        // What is built into the agent has nothing to delete.
        if job.plugin.as_str() == passthru::PLUGIN {
            record.mark(at, Stage::Deleted);
            continue;
        }
        let outcome = perform(&job, mine, deadline);
        if succeeded(&outcome) {
            record.mark(at, Stage::Deleted);
        } else {
            failed.push(format!(
                "DEL of {} by {}: exit {:?}",
                job.ifname.map_or_else(String::new, String::from),
                job.plugin,
                outcome.exit
            ));
        }
    }
    record.state = State::Undo;
    let kept = if record.due().is_empty() { records.forget(record) } else { records.save(record) };
    if let Err(error) = kept {
        failed.push(format!("update the record: {error}"));
    }
}

fn job(record: &Record, at: (usize, usize), netns: Option<NetnsPath>, deadline: Instant) -> Option<Job> {
    let attachment = record.attachments.get(at.0)?;
    let delegate = attachment.delegates.get(at.1)?;
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    Some(Job {
        id: 0,
        plugin: delegate.plugin.clone(),
        verb: Command::Del,
        container: Some(record.container.clone()),
        netns,
        ifname: Some(attachment.ifname.clone()),
        args: delegate.args.clone(),
        stdin: delegate.stdin.clone(),
        timeout_ms: u64::try_from(left).unwrap_or(u64::MAX),
    })
}

fn succeeded(outcome: &Outcome) -> bool {
    outcome.problem.is_none() && outcome.exit == Some(0)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
