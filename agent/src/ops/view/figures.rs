//! Numbers about the agent itself and what it keeps, as they are at this moment: for every scrape, so cheap.

use super::networks::is_valid;
use crate::datapath::{self, Cost, Costs, Facts};
use crate::kube::ClusterHealth;
use crate::ops::context::{Context, Room};
use crate::records::State;
use crate::sys::process::{self, Usage};

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
    /// Networks that can be used and that cannot, at which version of what is known.
    networks: Option<(u64, (usize, usize))>,
}

/// The numbers now.
pub fn figures(context: &Context, looks: &mut Looks) -> Figures {
    let is_measured = context.datapath.is_some() && datapath::is_measured();
    if let (true, Some(datapath)) = (is_measured, &context.datapath) {
        datapath.look_at_costs(&mut looks.costs);
    }
    let conf = context.default_network.now();
    Figures {
        records: records(context),
        spool_notes: context.spool.count(),
        rooms: context.turns.rooms(),
        cluster: context.cluster.health(),
        networks: networks(context, looks),
        datapath_wanted: context.datapath.is_some() || context.datapath_fault.is_some(),
        datapath: context.datapath.as_ref().map(|datapath| datapath.facts()),
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

/// Networks that can be used, and that cannot: read anew only when one has changed.
fn networks(context: &Context, looks: &mut Looks) -> (usize, usize) {
    let version = *context.cluster.network_changes().borrow();
    match looks.networks {
        Some((known, counts)) if known == version => counts,
        _ => {
            let all = context.cluster.networks();
            let valid = all.iter().filter(|network| is_valid(network)).count();
            let counts = (valid, all.len() - valid);
            looks.networks = Some((version, counts));
            counts
        }
    }
}
