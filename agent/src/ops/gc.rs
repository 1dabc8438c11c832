//! GC: what the runtime does not list any more is undone, in all networks we made, whoever recorded it; then the plugins
//! of networks that speak 1.1 are told what is to stay.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

use crate::cni::{Command, NetworkConfig};
use crate::fault::{CniError, code};
use crate::names::{ContainerId, IfName};
use crate::ops::context::{Context, Pool, left_ms};
use crate::ops::invocation::Invocation;
use crate::ops::runner::Runner;
use crate::ops::steps::Stage as Step;
use crate::ops::{chain, cluster_network, takeover, undo};
use crate::plan::{self, KnownNetwork};
use crate::records::results::Results;
use crate::records::{Origin, Record, State};
use crate::wire::Job;

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<Valid>>,
}

#[derive(Deserialize)]
struct Valid {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

/// A network whose plugins want to hear of a GC.
struct Told {
    config: NetworkConfig,
    /// Was anything of it ever attached here? Where not, its plugins may not even be installed.
    is_made: bool,
}

/// Undoes every attachment that is not listed (CNI SPEC 1.1, "GC"), and passes the GC on.
///
/// # Errors
/// Code 7 without a list; else the first failure, after everything was tried, a plugin's with its own code.
pub async fn gc<R: Runner>(context: &Context, call: &Invocation, runner: &mut R) -> Result<(), CniError> {
    let valid = listed(call)?;
    takeover::import(context);
    // Before anything of them is undone: afterwards nobody knows any more that these networks were made here.
    let told = networks(context, call).await;
    let undone = call.steps.during(Step::Undo, undo_unlisted(context, call, &valid, runner)).await;
    let mut refused = Vec::new();
    for told in told {
        let stays = stays(context, call, &told.config, &valid).await;
        if let Some(stays) = stays {
            refused.extend(tell(context, call, &told, &stays, runner).await);
        }
    }
    call.steps.during(Step::Undo, undo::leftovers(context, runner, undo::RIDE)).await;
    let count = undone.len() + refused.len();
    if let Some(first) = refused.into_iter().next().filter(|_| undone.is_empty()) {
        return Err(first);
    }
    match undone.first() {
        None => Ok(()),
        Some(first) => {
            Err(CniError::new(code::DELEGATE, format!("{count} things were not cleaned up, first: {first}"))
                .remedy("they stay recorded and are tried again"))
        }
    }
}

fn listed(call: &Invocation) -> Result<HashSet<(String, String)>, CniError> {
    let listed: Listed = serde_json::from_str(&call.config)
        .map_err(|error| CniError::new(code::INVALID_CONFIG, format!("read cni.dev/valid-attachments: {error}")))?;
    let valid = listed.valid.ok_or_else(|| {
        CniError::new(code::INVALID_CONFIG, "the configuration has no cni.dev/valid-attachments")
            .remedy("a runtime must list the attachments that are still in use")
    })?;
    Ok(valid.into_iter().map(|v| (v.container, v.ifname)).collect())
}

/// Is it listed? Of a record that was made good from what others kept, the first interface is perhaps lost and another
/// one in its place: there the container counts.
fn is_listed(valid: &HashSet<(String, String)>, record: &Record) -> bool {
    let (container, ifname) = (record.container.as_str(), record.ifname.as_str());
    let is_whole = record.origin == Origin::Agent;
    valid.iter().any(|(listed, of)| listed == container && (of == ifname || !is_whole))
}

/// Undoes the records that are not listed; the sentences of what did not succeed.
async fn undo_unlisted<R: Runner>(
    context: &Context,
    call: &Invocation,
    valid: &HashSet<(String, String)>,
    runner: &mut R,
) -> Vec<String> {
    let mut failed = Vec::new();
    for record in context.ledger.all() {
        let container = &record.container;
        if is_listed(valid, &record) || runner.is_gone() {
            continue;
        }
        // An ADD that is under way undoes itself if it fails, and is no leftover if it does not.
        if record.state == State::Adding && context.turns.try_container(container).is_none() {
            continue;
        }
        let _turn = match context.turns.take(Pool::Others, Some(container), call.deadline).await {
            Ok(turn) => turn,
            Err(busy) => {
                failed.push(format!("container {container}: {busy}"));
                continue;
            }
        };
        let Some(_held) = context.ledger.hold(&record.container) else { continue };
        let Some(record) = context.ledger.get(&record.container) else { continue };
        let mut record = Record::clone(&record);
        let netns = record.namespace_to_undo();
        failed.extend(undo::undo(context, &mut record, netns.as_ref(), runner, call.deadline).await);
    }
    failed
}

/// Every network made here or known, if it speaks 1.1 and does not refuse GC; the same one once.
async fn networks(context: &Context, call: &Invocation) -> Vec<Told> {
    let kept = Results::at(&context.ledger.cni_dir()).all().into_iter().filter_map(|entry| {
        let config = NetworkConfig::parse(entry.config?.as_bytes(), Some(entry.network.as_str())).ok()?;
        Some(Told { config, is_made: true })
    });
    let mut clusters = cluster_network::all(context, &call.conf, call.deadline).await.unwrap_or_default();
    clusters.extend(cluster_network::defaults(context, &call.conf, call.deadline).await.unwrap_or_default());
    let objects = context.cluster.networks().into_iter().filter_map(|network| {
        let filled = cluster_network::filled(&call.conf, network).ok()?;
        KnownNetwork::from_nad(&filled).ok()
    });
    let known = clusters.into_iter().chain(objects).map(|known| Told { config: known.config, is_made: false });
    let mut all = BTreeMap::new();
    for told in kept.chain(known).filter(|told| told.config.cni_version.has_gc() && !told.config.disable_gc) {
        // Entries of one network differ in what each pod wished for; its plugins need to hear once.
        let plugins: Vec<_> = told.config.plugins.iter().map(|plugin| plugin.plugin.clone()).collect();
        all.entry((told.config.name.clone(), plugins)).or_insert(told);
    }
    all.into_values().collect()
}

/// The attachments of a network that are to stay. `None`: they cannot be told for sure, so nobody is asked to remove
/// any: nothing is known of a listed container, and so not what it has of this network.
async fn stays(
    context: &Context,
    call: &Invocation,
    network: &NetworkConfig,
    valid: &HashSet<(String, String)>,
) -> Option<Vec<(ContainerId, IfName)>> {
    let mut stays = Vec::new();
    let mut known = HashSet::new();
    for record in context.ledger.all() {
        known.insert(record.container.to_string());
        let here = record.attachments.iter().filter(|attachment| attachment.conf_name == network.name.as_str());
        if record.state != State::Undo {
            stays.extend(here.map(|attachment| (record.container.clone(), attachment.ifname.clone())));
        }
    }
    let master = cluster_network::resolve(context, &call.conf, call.deadline).await.ok().flatten();
    let is_master = master.is_some_and(|master| master.config.name == network.name);
    for (container, ifname) in valid.iter().filter(|(container, _)| !known.contains(container)) {
        let (Ok(container), Ok(ifname)) = (ContainerId::new(container.as_str()), IfName::new(ifname.as_str())) else {
            continue;
        };
        if !is_master || context.ledger.is_torn(&container) {
            tracing::warn!(%container, "GC is not passed on: what this container has of {} is not known", network.name);
            return None;
        }
        stays.push((container, ifname));
    }
    Some(stays)
}

/// Passes GC on to every plugin of a network; their errors.
async fn tell<R: Runner>(
    context: &Context,
    call: &Invocation,
    told: &Told,
    stays: &[(ContainerId, IfName)],
    runner: &mut R,
) -> Vec<CniError> {
    let mut refused = Vec::new();
    for (at, plugin) in told.config.plugins.iter().enumerate() {
        let Ok(stdin) = plan::stdin::gc_stdin(&told.config, at, stays) else { continue };
        let job = Job {
            id: 0,
            plugin: plugin.plugin.clone(),
            verb: Command::Gc,
            container: None,
            netns: None,
            ifname: None,
            args: String::new(),
            stdin,
            timeout_ms: left_ms(call.deadline),
        };
        match chain::run(context, runner, job).await {
            Err(error) if told.is_made => {
                refused.push(error.within(format_args!("GC of network {}", told.config.name)));
            }
            Err(error) => tracing::debug!("GC of network {}, of which nothing is here: {error}", told.config.name),
            Ok(_) => {}
        }
    }
    refused
}
