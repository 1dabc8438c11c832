//! Which programs of ours does the kernel have, where are they, and which belong to nobody any more? Reads only.
//!
//! The kernel is asked anew each time; nothing that is remembered is taken for an answer.

use std::collections::BTreeSet;
use std::io;

use aya::maps::MapInfo;
use aya::programs::loaded_programs;
use multus_ebpf_common::LAYOUT;

use super::maps::NAMES;
use super::object::{COUNT, GUARD, PARENT, POD, REPLAY};
use super::{Attached, Datapath, DatapathError, ProgramFacts, program_ids};
use crate::sys::netns::NetnsError;
use crate::sys::{links, qdisc};

/// One program that should be on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its name.
    pub name: &'static str,
    /// Its id, as bpftool shows it; `None`: it is not there.
    pub id: Option<u32>,
    /// How it is attached: `clsact`, `tcx`, `xdp`.
    pub method: &'static str,
    /// What is wrong with it.
    pub problem: Option<String>,
}

impl Datapath {
    /// The programs that should be on a pod's interface; `None`: its namespace or the interface is gone.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn placed_on_pod(&self, attached: &Attached) -> Result<Option<Vec<Placed>>, DatapathError> {
        let ifname = &attached.attachment.ifname;
        let seen = attached.attachment.inside(|| {
            let Some(facts) = links::find_here(ifname)? else { return Ok(None) };
            qdisc::filters(facts.ifindex).map(Some)
        });
        let found = match seen {
            Err(NetnsError::Gone(_) | NetnsError::NotNetns(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(found) => found.map_err(|error: io::Error| super::look::unseen(ifname, error))?,
        };
        let Some(directions) = found else { return Ok(None) };
        let placed = POD.into_iter().zip(directions).map(|(name, filters)| {
            let at = filters.iter().position(|filter| filter.program.as_deref() == Some(name));
            let problem = match at {
                None => Some("it was removed".to_owned()),
                Some(0) => None,
                Some(_) => Some("another filter comes first".to_owned()),
            };
            Placed { name, id: at.and_then(|at| filters.get(at)?.id), method: "clsact", problem }
        });
        Ok(Some(placed.collect()))
    }

    /// The programs that should be on a parent, the storm guard's among them.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn placed_on_parent(&self, ifindex: u32) -> Result<Vec<Placed>, DatapathError> {
        let presence = self.look_at_parent(ifindex)?;
        let parents = self.parents.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(method) = parents.methods.get(&ifindex) else { return Ok(Vec::new()) };
        let ids = program_ids(&parents.object);
        let guard = parents.guards.get(&ifindex).and_then(|(_, program)| program.as_ref());
        let expected = PARENT
            .into_iter()
            .map(|name| (name, ids.iter().find(|(own, _)| own == name).map(|(_, id)| *id), method.as_str()))
            .chain(guard.map(|guard| (GUARD, Some(guard.id), "xdp")));
        let placed = expected.map(|(name, id, method)| {
            let behind = presence.behind.iter().find(|(program, _)| *program == name);
            let is_missing = presence.missing.contains(&name);
            let problem = match (is_missing, behind) {
                (true, _) => Some("it was removed".to_owned()),
                (false, Some((_, other))) => Some(format!("it comes after {other}")),
                (false, None) => None,
            };
            Placed { name, id: id.filter(|_| !is_missing), method, problem }
        });
        Ok(placed.collect())
    }

    /// The programs that are on no interface: those that all pods' go on in, and the one the agent runs itself.
    pub fn unplaced(&self) -> Vec<ProgramFacts> {
        let is_one = |program: &ProgramFacts| COUNT.contains(&program.name.as_str()) || program.name == REPLAY;
        self.facts().programs.into_iter().filter(is_one).collect()
    }

    /// Programs in the kernel that use our maps and have our names, and are none of `known`: of an agent before us, or in
    /// a namespace that nobody has a record of.
    pub fn strays(&self, known: &[u32]) -> Vec<ProgramFacts> {
        let folder = self.settings.bpffs.join(format!("v{LAYOUT}/maps"));
        let map = |name: &&str| MapInfo::from_pin(folder.join(name)).ok().map(|info| info.id());
        let ours: BTreeSet<u32> = NAMES.iter().filter_map(map).collect();
        let names = [&POD[..], &COUNT, &PARENT, &[GUARD, REPLAY]].concat();
        let mut strays = Vec::new();
        for info in loaded_programs().filter_map(Result::ok) {
            let Some(name) = info.name_as_str().filter(|name| names.contains(name)) else { continue };
            let maps = info.map_ids().ok().flatten().unwrap_or_default();
            if !known.contains(&info.id()) && maps.iter().any(|id| ours.contains(id)) {
                strays.push(ProgramFacts::of(name, &info));
            }
        }
        strays
    }
}
