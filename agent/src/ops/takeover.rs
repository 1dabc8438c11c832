//! What is attached to a container that has no record of ours: made out from Multus's scratch file and libcni's result
//! cache, so that a node can be taken over in place and a lost record is made good.
//!
//! Believes what fits and says what does not. Undoes nothing itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cni::{Args, CniResult, NetworkConfig, RawObject, Request, request};
use crate::names::{ContainerId, IfName, NadRef, NetnsPath};
use crate::ops::context::Context;
use crate::ops::{links, recording};
use crate::plan::Attachment;
use crate::records::results::{Entry, Results};
use crate::records::scratch::{self, Noted};
use crate::records::{self, Origin, Record, Stage, State};

/// One network of a container, as others noted it down.
struct Trace {
    /// What its owner calls it, where that was noted.
    label: Option<String>,
    config: NetworkConfig,
    ifname: IfName,
    args: String,
    capabilities: RawObject,
    result: Option<CniResult>,
    netns: Option<NetnsPath>,
}

/// The record of `container`; for one that Multus attached, what Multus and libcni say by now, for an ADD of Multus may
/// have gone on after we looked first. `master` is the runtime's interface, where it is known.
pub fn current(context: &Context, container: &ContainerId, master: Option<&IfName>) -> Option<Record> {
    match context.ledger.get(container) {
        Some(record) if record.origin == Origin::Multus && record.state == State::Added => {
            let mut newer =
                told(&context.ledger.cni_dir(), container, master).unwrap_or_else(|| Record::clone(&record));
            for attachment in &mut newer.attachments {
                let same = record.attachments.iter().find(|old| old.ifname == attachment.ifname);
                attachment.link = same.and_then(|old| old.link.clone());
            }
            // What joined since is known to us alone.
            let is_new = |joined: &&records::Attachment| newer.attachments.iter().all(|a| a.ifname != joined.ifname);
            let joined = record.attachments.iter().filter(|attachment| attachment.hotplug);
            let joined: Vec<_> = joined.filter(is_new).cloned().collect();
            newer.attachments.extend(joined);
            Some(newer)
        }
        Some(record) => Some(Record::clone(&record)),
        None => told(&context.ledger.cni_dir(), container, master),
    }
}

/// What the files of others below `cni_dir` say of `container`; `None`: nothing that could be used.
pub fn told(cni_dir: &Path, container: &ContainerId, master: Option<&IfName>) -> Option<Record> {
    told_with(cni_dir, container, master, Results::at(cni_dir).of(container))
}

fn told_with(cni_dir: &Path, container: &ContainerId, master: Option<&IfName>, kept: Vec<Entry>) -> Option<Record> {
    let noted = scratch::read(cni_dir, container).unwrap_or_else(|error| {
        tracing::warn!(%container, "Multus's scratch file of this container is of no use: {error}");
        None
    });
    match noted {
        Some(noted) => record(container, of_scratch(noted, &kept, master), Origin::Multus),
        None => record(container, of_results(kept, master), Origin::Cache),
    }
}

/// Multus's list says what and in which order; libcni's entries say the rest.
fn of_scratch(noted: Vec<Noted>, kept: &[Entry], master: Option<&IfName>) -> Vec<Trace> {
    let mut traces = Vec::new();
    for (at, noted) in noted.into_iter().enumerate() {
        let same_network = |entry: &&Entry| entry.network == noted.config.name;
        let named = match (&noted.ifname, at) {
            (Some(asked), _) => Some(asked.clone()),
            (None, 0) => master.cloned().or_else(|| kept.iter().find(same_network).map(|entry| entry.ifname.clone())),
            (None, _) => None,
        };
        let default = if at == 0 { "eth0".to_owned() } else { format!("net{at}") };
        let Some(ifname) = named.or_else(|| IfName::new(default).ok()) else { continue };
        let entry = kept.iter().filter(same_network).find(|entry| entry.ifname == ifname);
        let label = Some(noted.label).filter(|label| is_label(label, noted.config.name.as_str()));
        traces.push(match entry.cloned().and_then(trace) {
            Some(trace) => Trace { label, ..trace },
            None => Trace {
                label,
                args: args_of(kept, &noted.extra_args),
                config: noted.config,
                capabilities: noted.capabilities,
                ifname,
                result: None,
                netns: kept.iter().find_map(|entry| entry.netns.clone()),
            },
        });
    }
    traces
}

/// Is this what a network may be called: its own name, or that of a NetworkAttachmentDefinition?
fn is_label(label: &str, name: &str) -> bool {
    label == name || label.split_once('/').is_some_and(|(namespace, name)| NadRef::new(namespace, name).is_ok())
}

/// The pairs that are the same for every network of a container, and `further` ones.
fn args_of(kept: &[Entry], further: &[(String, String)]) -> String {
    let known = Args::parse_what_fits(kept.first().map_or("IgnoreUnknown=true", |entry| entry.args.as_str()));
    let common = known.iter().filter(|(key, _)| *key == "IgnoreUnknown" || key.starts_with("K8S_"));
    let further = further.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    common.chain(further).map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(";")
}

/// Without a list, the master is the runtime's interface, and the others follow by name.
fn of_results(kept: Vec<Entry>, master: Option<&IfName>) -> Vec<Trace> {
    let mut traces: Vec<Trace> = kept.into_iter().filter_map(trace).collect();
    let is_master = |ifname: &IfName| master.map_or(ifname.as_str() == "eth0", |master| ifname == master);
    traces.sort_by_key(|trace| (!is_master(&trace.ifname), trace.ifname.as_str().len(), trace.ifname.clone()));
    traces
}

fn trace(entry: Entry) -> Option<Trace> {
    let text = entry.config?;
    let config = NetworkConfig::parse(text.as_bytes(), Some(entry.network.as_str())).ok()?;
    Some(Trace {
        label: None,
        config,
        ifname: entry.ifname,
        args: entry.args,
        capabilities: entry.capabilities,
        result: entry.result.map(|(result, _)| result),
        netns: entry.netns,
    })
}

/// A record of what was found; it is as if each plugin had been called.
fn record(container: &ContainerId, traces: Vec<Trace>, origin: Origin) -> Option<Record> {
    let (ifname, netns) = (traces.first()?.ifname.clone(), traces.iter().find_map(|trace| trace.netns.clone()));
    let args = traces.iter().map(|trace| Args::parse_what_fits(&trace.args));
    let pod = args.into_iter().find_map(|args| request::pod_of(&args).ok().flatten());
    let mut attachments = Vec::new();
    for (at, trace) in traces.into_iter().enumerate() {
        match attachment(container, trace, at == 0) {
            Ok(attachment) => attachments.push(attachment),
            Err(error) => tracing::warn!(%container, "a network of this container is of no use: {error}"),
        }
    }
    Some(Record {
        container: container.clone(),
        netns,
        netns_id: None,
        pod,
        ifname,
        state: State::Added,
        since: 0,
        attachments,
        status: None,
        reflect: None,
        origin,
        rest: records::Rest::new(),
    })
}

fn attachment(
    container: &ContainerId,
    trace: Trace,
    master: bool,
) -> Result<records::Attachment, crate::fault::CniError> {
    let attachment =
        Attachment { master, runtime_config: trace.capabilities, ..Attachment::plain(trace.config, trace.ifname) };
    let named =
        [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", container.as_str()), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/")];
    let mut recorded = recording::recorded(&attachment, &Request::parse(&named.into_iter().collect())?, Stage::Called)?;
    for delegate in &mut recorded.delegates {
        delegate.args.clone_from(&trace.args);
    }
    recorded.network = trace.label.unwrap_or(recorded.network);
    if let Some(result) = &trace.result {
        recording::note(&mut recorded, &attachment, result)?;
    }
    Ok(recorded)
}

/// The containers of which others left something below `cniDir`, looked for once: a node that lost its power may have what
/// thousands left.
#[derive(Debug)]
pub struct Left {
    cni_dir: PathBuf,
    files: BTreeMap<ContainerId, Vec<PathBuf>>,
}

impl Left {
    /// Looks for it.
    pub fn below(cni_dir: &Path) -> Self {
        let mut files = Results::at(cni_dir).by_container();
        for container in scratch::containers(cni_dir) {
            files.entry(container).or_default();
        }
        Self { cni_dir: cni_dir.to_owned(), files }
    }

    /// Whose it is.
    pub fn containers(&self) -> impl Iterator<Item = &ContainerId> {
        self.files.keys()
    }

    /// What it says of `container`; `None`: nothing that could be used.
    pub fn told(&self, container: &ContainerId) -> Option<Record> {
        let kept = Results::of_files(self.files.get(container)?, container);
        told_with(&self.cni_dir, container, None, kept)
    }
}

/// Makes records of what has none: containers that Multus attached, and those whose records were lost or torn. Says
/// how many.
pub fn import(context: &Context) -> usize {
    let left = Left::below(&context.ledger.cni_dir());
    let mut imported = 0;
    for container in left.containers() {
        // Under its turn: a DEL that is on its way would leave us with a record of what is gone.
        let Some(_turn) = context.turns.try_container(container) else { continue };
        if context.ledger.get(container).is_some() {
            continue;
        }
        let Some(record) = left.told(container) else { continue };
        match context.ledger.save(&record) {
            Ok(()) => imported += 1,
            Err(error) => tracing::error!(%container, "record what is attached already: {error}"),
        }
    }
    if imported > 0 {
        tracing::info!("{imported} containers are taken over from Multus, or from libcni's result cache");
    }
    imported
}

/// Counts the traffic of what was taken over, where its namespace can be seen. A process's may be a stranger's by now: Multus
/// notes down no more of it than its path.
pub async fn follow(context: &Context) {
    for record in context.ledger.all() {
        let is_new = record.attachments.iter().all(|attachment| attachment.link.is_none());
        let (Origin::Multus | Origin::Cache, State::Added, true) = (record.origin, record.state, is_new) else {
            continue;
        };
        let Some(netns) = record.namespace_to_undo() else { continue };
        let Some(_turn) = context.turns.try_container(&record.container) else { continue };
        let Some(record) = context.ledger.get(&record.container).filter(|now| now.state == State::Added) else {
            continue;
        };
        let mut record = Record::clone(&record);
        for attachment in record.attachments.iter_mut().filter(|attachment| !attachment.master) {
            let stdin = attachment.delegates.first().map(|delegate| delegate.stdin.as_bytes()).unwrap_or_default();
            let Ok(config) = NetworkConfig::parse(stdin, Some(&attachment.conf_name)) else { continue };
            let planned = Attachment::plain(config, attachment.ifname.clone());
            attachment.link = links::follow(context, &netns, &planned).await;
        }
        if let Err(error) = context.ledger.save(&record) {
            tracing::warn!(container = %record.container, "update a record: {error}");
        }
    }
}

/// Forgets what Multus attached and, running beside us for a while yet, has detached itself: its scratch file is gone.
pub async fn forget_gone(context: &Context) {
    let cni_dir = context.ledger.cni_dir();
    for record in context.ledger.all() {
        let is_multus = record.origin == Origin::Multus && record.state == State::Added;
        if !is_multus || cni_dir.join(record.container.as_str()).exists() {
            continue;
        }
        let Some(_turn) = context.turns.try_container(&record.container) else { continue };
        // A DEL that came in between may have left something to be undone.
        let Some(record) = context.ledger.get(&record.container).filter(|now| now.state == State::Added) else {
            continue;
        };
        let has_joined = record.attachments.iter().any(|attachment| attachment.hotplug);
        let forgotten = if has_joined {
            // Multus knew nothing of what joined since: it is ours to undo.
            context.ledger.save(&Record { state: State::Undo, ..Record::clone(&record) })
        } else {
            links::forget(context, &record).await;
            context.ledger.remove(&record)
        };
        if let Err(error) = forgotten {
            tracing::warn!(container = %record.container, "forget what Multus detached: {error}");
        }
    }
}
