//! Numbers about the agent itself and what it keeps, as they are at this moment: for every scrape, so cheap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::networks::is_valid;
use crate::datapath::{self, Cost, Costs, Facts};
use crate::kube::ClusterHealth;
use crate::objects::Network;
use crate::ops::addresses::{self, OnRecord};
use crate::ops::context::{Context, Room};
use crate::plan::KnownNetwork;
use crate::plan::ipam::{self, Pools};
use crate::records::State;
use crate::sys::process::{self, Usage};
use crate::sys::survey;

/// Most ranges of addresses that are told of: whoever may write networks could make any number.
const MOST_RANGES: usize = 100;

/// How full a range of addresses is.
#[derive(Debug, Clone, PartialEq)]
pub struct Fill {
    /// The network.
    pub network: String,
    /// The range, as `first-last`.
    pub range: String,
    /// Addresses there are.
    pub size: f64,
    /// Those of them that are taken.
    pub used: f64,
}

/// The numbers.
#[derive(Debug)]
pub struct Figures {
    /// Containers on record, by state.
    pub records: [(&'static str, usize); 3],
    /// Notes in the spool.
    pub spool_notes: usize,
    /// How full the pools of places are.
    pub rooms: [Room; 2],
    /// The cluster, and what it is told.
    pub cluster: ClusterHealth,
    /// Networks that can be used, and that cannot.
    pub networks: (usize, usize),
    /// Whether there should be a datapath.
    pub datapath_wanted: bool,
    /// Ranges of host-local, the first hundred.
    pub ranges: Vec<Fill>,
    /// The datapath, where there is one.
    pub datapath: Option<Facts>,
    /// Whether the kernel measures programs.
    pub is_measured: bool,
    /// What programs cost, by name.
    pub costs: Vec<(&'static str, Cost)>,
    /// Whether the conf for the runtime is as it should be.
    pub conf_ready: bool,
    /// Whether another one sorts before it.
    pub conf_bypassed: bool,
    /// The process.
    pub process: Usage,
    /// Memory that it may have; `None`: no limit.
    pub memory_limit: Option<u64>,
}

/// What is kept from one look to the next.
#[derive(Debug, Default)]
pub struct Looks {
    costs: Costs,
    networks: Option<Known>,
}

/// What is known of the networks, at which version.
#[derive(Debug)]
struct Known {
    version: u64,
    /// That can be used, and that cannot.
    counts: (usize, usize),
    pools: Vec<Pools>,
}

/// The numbers now.
pub fn figures(context: &Context, looks: &mut Looks) -> Figures {
    let is_measured = context.datapath.get().is_some() && datapath::is_measured();
    if let (true, Some(datapath)) = (is_measured, context.datapath.get()) {
        datapath.look_at_costs(&mut looks.costs);
    }
    let conf = context.default_network.now();
    Figures {
        records: records(context),
        spool_notes: context.spool.count(),
        rooms: context.turns.rooms(),
        cluster: context.cluster.health(),
        networks: networks(context, looks).counts,
        ranges: ranges(context, &networks(context, looks).pools),
        datapath_wanted: context.datapath.fault().is_some() || context.datapath.get().is_some(),
        datapath: context.datapath.get().map(|datapath| datapath.facts()),
        is_measured,
        costs: looks.costs.sums().to_vec(),
        conf_ready: conf.file.is_some() && conf.problem.is_none() && !conf.bypassed,
        conf_bypassed: conf.bypassed,
        process: process::usage(),
        memory_limit: process::memory_limit(),
    }
}

fn records(context: &Context) -> [(&'static str, usize); 3] {
    let mut counts = [("adding", 0), ("added", 0), ("undo", 0)];
    for record in context.ledger.all() {
        let at = match record.state {
            State::Adding => 0,
            State::Added => 1,
            State::Undo => 2,
        };
        counts.get_mut(at).into_iter().for_each(|(_, count)| *count += 1);
    }
    counts
}

/// What is known of the networks: read anew only when one has changed.
fn networks<'a>(context: &Context, looks: &'a mut Looks) -> &'a Known {
    let version = *context.cluster.network_changes().borrow();
    let old = looks.networks.take().filter(|known| known.version == version);
    looks.networks.insert(old.unwrap_or_else(|| {
        let all = context.cluster.networks();
        let valid = all.iter().filter(|network| is_valid(network)).count();
        Known { version, counts: (valid, all.len() - valid), pools: pools(&all) }
    }))
}

fn pools(networks: &[Arc<Network>]) -> Vec<Pools> {
    let of = |network: &Arc<Network>| ipam::pools(&KnownNetwork::from_nad(network).ok()?).ok()?;
    networks.iter().filter_map(of).take(MOST_RANGES).collect()
}

/// How full they are, each folder read once. Where one cannot be seen, the records say it.
#[expect(clippy::cast_precision_loss, reason = "a range of IPv6 has more addresses than anybody counts")]
fn ranges(context: &Context, pools: &[Pools]) -> Vec<Fill> {
    let (nobody, mut folders, mut on_record) = (BTreeSet::new(), BTreeMap::new(), None);
    let mut ranges = Vec::new();
    for pool in pools {
        let folder = &pool.folder;
        let seen =
            folders.entry(folder).or_insert_with(|| survey::addresses(&addresses::as_seen(&context.settings, folder)));
        let used = seen.as_ref().unwrap_or_else(|| {
            let on_record = on_record.get_or_insert_with(|| OnRecord::of(&context.ledger.all()));
            on_record.given.get(&pool.network).unwrap_or(&nobody)
        });
        ranges.extend(pool.fill(used).into_iter().map(|(range, size, used)| Fill {
            network: pool.network.clone(),
            range,
            size: size as f64,
            used: used as f64,
        }));
    }
    ranges.sort_by(|a, b| (&a.network, &a.range).cmp(&(&b.network, &b.range)));
    ranges.dedup_by(|a, b| (&a.network, &a.range) == (&b.network, &b.range));
    ranges.truncate(MOST_RANGES);
    ranges
}
