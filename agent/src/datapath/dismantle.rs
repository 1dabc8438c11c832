//! Everything of ours off this node's kernel: filters, links, pins of every layout. Without opening the datapath, so that
//! it works where no program could be loaded, and whichever version left it.
//!
//! What has been counted is lost.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::MapInfo;
use aya::programs::loaded_programs;
use multus_ebpf_common::LAYOUT;

use super::error::DatapathError;
use super::hooks;
use super::object::{COUNT, GUARD, PARENT, POD, REPLAY};
use crate::names::NetnsId;
use crate::sys::mounts;
use crate::sys::netns::{self, NetnsError};

/// How long the kernel may take to free what nobody holds any more.
const LAST: Duration = Duration::from_secs(3);

/// An interface that may have programs of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPlace {
    /// The pod's namespace.
    pub netns: PathBuf,
    /// Which one that is, where it is known; another one under its path is nobody's of ours.
    pub netns_id: Option<NetnsId>,
    /// The interface in it.
    pub ifname: String,
    /// The number of its programs.
    pub instance: Option<u32>,
}

/// What there was to take off.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dismantled {
    /// Pods' interfaces whose filters were taken off.
    pub pods: usize,
    /// Parents that had programs.
    pub parents: usize,
    /// Folders of pins that were removed.
    pub pins: Vec<PathBuf>,
    /// Programs that are still there, by name and number: somebody else holds them.
    pub programs: Vec<(String, u32)>,
    /// What did not succeed, as sentences.
    pub failed: Vec<String>,
}

/// Takes everything off. Parents are looked for in the calling thread's namespace. With `dry_run` it says what there is.
///
/// # Errors
/// The pins cannot be seen.
pub fn dismantle(bpffs: &Path, pods: &[PodPlace], dry_run: bool) -> Result<Dismantled, DatapathError> {
    let mut done = Dismantled::default();
    let layouts = layouts(bpffs)?;
    let maps: BTreeSet<u32> = layouts.iter().flat_map(|layout| map_ids(&layout.join("maps"))).collect();
    // Without any pins filters may be left, and this is where their marks would be.
    let usual = bpffs.join(format!("v{LAYOUT}"));
    let marks: Vec<PathBuf> = if layouts.is_empty() { vec![usual] } else { layouts.clone() };
    let marks: Vec<PathBuf> = marks.iter().map(|layout| layout.join("links")).collect();
    if !dry_run {
        for pod in pods {
            match netns::inside_same(&pod.netns, pod.netns_id.as_ref(), || take_off_pod(pod, &marks)) {
                Ok(had_any) => done.pods += usize::from(had_any),
                Err(NetnsError::Gone(_) | NetnsError::NotNetns(_)) => {}
                Err(error) => done.failed.push(error.to_string()),
            }
        }
    }
    for links in &marks {
        let mut parents = hooks::known_parents(links);
        parents.sort_unstable();
        parents.dedup();
        done.parents += parents.len();
        for parent in parents.into_iter().filter(|_| !dry_run) {
            hooks::detach_parent(parent, netns::interface_name(parent).as_deref(), links);
        }
    }
    for layout in layouts {
        match if dry_run { Ok(()) } else { fs::remove_dir_all(&layout) } {
            Ok(()) => done.pins.push(layout),
            Err(error) => done.failed.push(format!("remove {}: {error}", layout.display())),
        }
    }
    if !dry_run {
        // Somebody else's pins keep it.
        let _ = fs::remove_dir(bpffs);
        done.programs = wait_until_gone(&maps);
    }
    Ok(done)
}

/// The folders of pins, one for each layout that ever was.
fn layouts(bpffs: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    let unseen = |source| DatapathError::Pins { action: "read pin folder", path: bpffs.to_owned(), source };
    let entries = match fs::read_dir(bpffs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unseen)?,
    };
    if !mounts::is_on_bpffs(bpffs).unwrap_or(false) {
        return Ok(Vec::new());
    }
    let is_layout = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix('v'));
        name.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    Ok(entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_layout).collect())
}

/// Takes the filters off one interface, and our qdisc with them; says whether there were any.
fn take_off_pod(pod: &PodPlace, marks: &[PathBuf]) -> bool {
    let had_any = hooks::filters(&pod.ifname, POD).is_ok_and(|presence| presence.missing.len() < POD.len());
    if had_any || pod.instance.is_some() {
        for links in marks {
            hooks::detach_pod(&pod.ifname, pod.instance, links);
        }
    }
    had_any
}

fn map_ids(folder: &Path) -> Vec<u32> {
    let pins = fs::read_dir(folder).into_iter().flatten().flatten();
    pins.filter_map(|pin| MapInfo::from_pin(pin.path()).ok()).map(|info| info.id()).collect()
}

/// Programs with our names that use our maps, once the kernel has had time to free what nobody holds.
fn wait_until_gone(maps: &BTreeSet<u32>) -> Vec<(String, u32)> {
    let names = [&POD[..], &COUNT, &PARENT, &[GUARD, REPLAY]].concat();
    let until = Instant::now() + LAST;
    loop {
        let left: Vec<(String, u32)> = loaded_programs()
            .filter_map(Result::ok)
            .filter_map(|info| {
                let name = info.name_as_str().filter(|name| names.contains(name))?.to_owned();
                let used = info.map_ids().ok().flatten().unwrap_or_default();
                used.iter().any(|id| maps.contains(id)).then(|| (name, info.id()))
            })
            .collect();
        if left.is_empty() || maps.is_empty() || Instant::now() >= until {
            return left;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
