//! What the running agent knows beside what files tell: cluster, networks, addresses, records against the kernel, relay.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::outside;
use crate::config::{NetConf, Settings};
use crate::diagnosis::facts::{Agent, Cluster, Datapath, Facts, Network, Parent, Pool, Primary, Viewpoint};
use crate::fault::{CniError, escape};
use crate::objects::annotation;
use crate::ops::addresses::{OnRecord, as_seen};
use crate::ops::context::Context;
use crate::ops::{cluster_network, default_network};
use crate::plan::ipam::{self, Pools};
use crate::plan::{KnownNetwork, master, parent_in_question};
use crate::records::{Attachment, Record, State};
use crate::sys::{links, survey};

/// How long the network of an explicit `clusterNetwork` may take to be found.
const FIND: Duration = Duration::from_millis(500);
/// Most interfaces that are looked for in the kernel, and most that are told of.
const MOST: (usize, usize) = (512, 16);

/// All facts about the node of `context`.
pub(super) async fn facts(context: &Context) -> Facts {
    let settings = context.settings.clone();
    let (known, networks) = networks(context);
    let records = context.ledger.all();
    let on_record = OnRecord::of(&records);
    // Folders may be large and slow.
    let blocking =
        tokio::task::spawn_blocking(move || (outside::facts(&settings), addresses(&settings, &known, &on_record)));
    let (mut facts, addresses) = blocking.await.unwrap_or_default();
    facts.viewpoint = Viewpoint::Agent;
    let (primary, primary_plugins) = primary(context).await;
    let conf = context.default_network.now();
    let (attaching, others) = context.turns.free();
    facts.agent = Some(Agent {
        primary,
        primary_plugins,
        conf_problem: conf.problem.clone().filter(|_| facts.wanted.generated),
        conf_warnings: conf.warnings.clone(),
        cluster: cluster(context),
        links: parents(&networks).await,
        networks,
        pools: addresses.pools,
        bad_ranges: addresses.bad,
        overlaps: addresses.overlaps,
        records: (records.len(), records.iter().filter(|record| record.state == State::Undo).count()),
        lost: lost(&records).await,
        untold: untold(context, &records),
        datapath: datapath(context, &records),
        memory: survey::memory(),
        places: (attaching, others),
        unwritable: context.ledger.writable().err().map(|error| error.to_string()),
    });
    facts
}

/// Every network as it parses, and as it is told.
fn networks(context: &Context) -> (Vec<KnownNetwork>, Vec<Network>) {
    let conf = NetConf::parse(br#"{"name":"multus-cni-network"}"#, &context.settings);
    let (mut known, mut told) = (Vec::new(), Vec::new());
    for network in context.cluster.networks() {
        let filled = match &conf {
            Ok(conf) => cluster_network::filled(conf, network.clone()),
            Err(_) => Ok(network.clone()),
        };
        let parsed = filled.and_then(|network| KnownNetwork::from_nad(&network));
        let ours =
            parsed.and_then(|parsed| match master::multus_of(&parsed.config, &context.settings.generator.plugin) {
                None => Ok(parsed),
                Some(plugin) => {
                    let text = format!(
                        "network-attachment-definition {}: it calls {}, which would call itself for ever",
                        network.id, plugin.plugin
                    );
                    Err(CniError::new(crate::fault::code::INVALID_CONFIG, text)
                        .remedy("name the plugin that makes the interface"))
                }
            });
        let mut one = Network { name: network.id.to_string(), ..Network::default() };
        match ours {
            Ok(parsed) => {
                let plugins = parsed.config.plugins.iter().flat_map(|p| [Some(&p.plugin), p.ipam.as_ref()]).flatten();
                one.plugins = plugins.map(ToString::to_string).collect();
                one.parent = parsed
                    .config
                    .plugins
                    .first()
                    .and_then(parent_in_question)
                    .map(|(kind, link)| (kind.to_owned(), link));
                known.push(parsed);
            }
            Err(error) => one.problem = Some((error.msg, error.details)),
        }
        told.push(one);
    }
    (known, told)
}

async fn parents(networks: &[Network]) -> BTreeMap<String, (bool, bool)> {
    let all = networks.iter().filter_map(|network| Some(network.parent.as_ref()?.1.clone()));
    let names: BTreeSet<String> = all.filter(|name| !name.is_empty()).collect();
    let mut found = BTreeMap::new();
    for name in names {
        let state = match links::find(None, &name).await {
            Ok(link) => link.map(|link| (link.up, link.carrier)),
            // Whoever cannot be asked is not said to be missing.
            Err(_) => Some((true, true)),
        };
        found.extend(state.map(|state| (name, state)));
    }
    found
}

#[derive(Debug, Default)]
struct Addresses {
    pools: Vec<Pool>,
    bad: Vec<(String, String)>,
    overlaps: Vec<String>,
}

/// The pools of all networks with what is in use of them: by host-local's files, where they can be seen, else by the records.
fn addresses(settings: &Settings, networks: &[KnownNetwork], on_record: &OnRecord) -> Addresses {
    let mut all = Addresses::default();
    let mut seen: Vec<Pools> = Vec::new();
    for network in networks {
        let pools = match ipam::pools(network) {
            Ok(Some(pools)) => pools,
            Ok(None) => continue,
            Err(why) => {
                all.bad.push((network.label.clone(), why));
                continue;
            }
        };
        all.overlaps.extend(seen.iter().filter_map(|other| ipam::overlap(other, &pools)));
        let in_use = survey::allocations(&as_seen(settings, &pools.folder));
        let strange = in_use.iter().flatten().filter(|(_, owner)| !on_record.owners.contains(owner)).count();
        let of_files: Option<BTreeSet<_>> = in_use.map(|all| all.into_iter().map(|(address, _)| address).collect());
        let is_seen = of_files.is_some();
        let used = of_files.or_else(|| on_record.given.get(&pools.network).cloned()).unwrap_or_default();
        for (ranges, total, taken) in pools.fill(&used) {
            let (network, folder) = (pools.network.clone(), pools.folder.clone());
            all.pools.push(Pool { network, ranges, folder, total, used: taken, strange, is_seen });
        }
        seen.push(pools);
    }
    all
}

async fn primary(context: &Context) -> (Primary, Vec<String>) {
    let missing = |error: CniError| (Primary::Missing(error.msg, error.details), Vec::new());
    if let Err(error) = default_network::available(context) {
        return missing(error);
    }
    let found = match NetConf::parse(br#"{"name":"multus-cni-network"}"#, &context.settings) {
        Ok(conf) => cluster_network::all(context, &conf, Instant::now() + FIND).await,
        Err(error) => Err(error),
    };
    match found {
        Err(error) => missing(error),
        Ok(networks) => match networks.first() {
            // The runtime's own conf may name what the daemon's configuration does not.
            None => (Primary::Ready("as the runtime's configuration names it".to_owned()), Vec::new()),
            Some(first) => {
                let plugins = first.config.plugins.iter().flat_map(|p| [Some(&p.plugin), p.ipam.as_ref()]).flatten();
                (Primary::Ready(first.label.clone()), plugins.map(ToString::to_string).collect())
            }
        },
    }
}

fn cluster(context: &Context) -> Cluster {
    let health = context.cluster.health();
    Cluster {
        source: health.source,
        connected: health.connected,
        last_contact: health.last_contact.map(|ago| ago.as_secs()),
        last_error: health.last_error,
        synced: health.networks_synced,
        refusals: health.refusals,
        reports_pending: health.reports_pending,
    }
}

/// What is recorded and not in the kernel, where the pod's namespace is there still.
async fn lost(records: &[std::sync::Arc<Record>]) -> Vec<(String, String, String)> {
    let added = records.iter().filter(|record| record.state == State::Added);
    let all = added.flat_map(|record| record.attachments.iter().map(move |attachment| (record, attachment)));
    let all: Vec<_> = all.filter(|(_, attachment)| has_link(attachment)).take(MOST.0).collect();
    let mut lost = Vec::new();
    for (record, attachment) in all {
        let Some(netns) = record.namespace() else { continue };
        if let Ok(None) = links::find(Some(netns.as_path()), attachment.ifname.as_str()).await {
            lost.push((
                whose(record),
                attachment.ifname.to_string(),
                "the pod's namespace has no such link".to_owned(),
            ));
        }
        if lost.len() >= MOST.1 {
            break;
        }
    }
    lost
}

/// Did the plugin say that it made a link in the pod?
fn has_link(attachment: &Attachment) -> bool {
    let interfaces = attachment.result.as_ref().and_then(|result| result.get("interfaces")?.as_array());
    interfaces.into_iter().flatten().any(|interface| {
        interface["name"] == attachment.ifname.as_str()
            && interface["sandbox"].as_str().is_some_and(|text| !text.is_empty())
    })
}

fn whose(record: &Record) -> String {
    record.pod.as_ref().map_or_else(|| record.container.to_string(), ToString::to_string)
}

/// Pods that the cluster has without the status that is on record; asks nobody.
fn untold(context: &Context, records: &[std::sync::Arc<Record>]) -> Vec<String> {
    if context.cluster.health().source != "api" {
        return Vec::new();
    }
    let lacks = |record: &&std::sync::Arc<Record>| {
        let pod =
            record.pod.as_ref().filter(|_| record.status.is_some()).and_then(|pod| context.cluster.known_pod(pod));
        pod.is_some_and(|pod| !pod.annotations.contains_key(annotation::NETWORK_STATUS))
    };
    records.iter().filter(lacks).take(MOST.1).map(|record| whose(record)).collect()
}

fn datapath(context: &Context, records: &[std::sync::Arc<Record>]) -> Datapath {
    let attachments = || records.iter().flat_map(|record| record.attachments.iter().map(move |each| (record, each)));
    let named = |record: &Record, attachment: &Attachment| escape(&format!("{} {}", whose(record), attachment.ifname));
    let on_parents = attachments().filter_map(|(record, each)| Some((record, each, each.link.as_ref()?)));
    let interfaces = on_parents
        .filter(|(_, _, link)| link.parent.is_some())
        .map(|(record, each, link)| (named(record, each), !link.relay.is_empty()))
        .collect();
    let notes = attachments()
        .filter_map(|(record, each)| Some((format!("pod {}", named(record, each)), each.link.as_ref()?.note.clone()?)));
    let mut told = Datapath {
        fault: context.datapath_fault.clone(),
        open: context.datapath.is_some(),
        troubles: context.troubles.told(Instant::now()),
        interfaces,
        notes: notes.take(MOST.1).collect(),
        ..Datapath::default()
    };
    if let Some(datapath) = &context.datapath {
        let facts = datapath.facts();
        told.slots = (facts.slots_used, facts.slots, facts.uncounted);
        let parent = |parent: crate::datapath::ParentFacts| Parent {
            name: parent.name,
            attached_by: parent.method.map(crate::datapath::Method::as_str),
            members: (parent.members, parent.overflow),
        };
        told.parents = facts.parents.into_iter().map(parent).collect();
    }
    told
}
