//! How do programs get into the kernel? The embedded objects, and one loader that is kept.
//!
//! Making a loader parses the kernel's BTF (35 ms, 11 MB) unless told not to, so there is one; what it borrows must
//! live as long, which is why numbers are lent for good, each of them once.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use aya::programs::{ProgramError, ProgramFd, SchedClassifier};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

use super::error::{DatapathError, brief};
use super::guard;
use super::maps::NAMES;
use crate::config::{Guard, Mark};

static SILENT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/multus-ebpf-silent.o"));
static TRACING: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/multus-ebpf-tracing.o"));

/// Programs of the pod's interface.
pub(super) const POD: [&str; 2] = ["pod_ingress", "pod_egress"];
/// Programs behind those of the pods, by direction: the same for all.
pub(super) const COUNT: [&str; 2] = ["count_receive", "count_transmit"];
/// Programs of the parent.
pub(super) const PARENT: [&str; 2] = ["parent_ingress", "parent_egress"];
/// The parent's storm guard, where that is an XDP program.
pub(super) const GUARD: &str = "parent_guard";

/// The program that is on no interface and gives a frame of the agent's to one member.
pub(super) const REPLAY: &str = "parent_replay";

/// The numbers that were lent to loaders.
static LENT: Mutex<BTreeMap<u32, &'static u32>> = Mutex::new(BTreeMap::new());

/// `number`, for as long as the process lives. There are as many as attachments at one time and parents ever were.
fn lend(number: u32) -> &'static u32 {
    let mut lent = LENT.lock().unwrap_or_else(PoisonError::into_inner);
    lent.entry(number).or_insert_with(|| Box::leak(Box::new(number)))
}

/// The loader with everything it lends to the objects.
pub(super) struct Objects {
    loader: Mutex<EbpfLoader<'static>>,
    /// Numbers of instances are below this.
    limit: u32,
}

impl Objects {
    /// A loader that creates or reuses the maps pinned in `maps`, with `slots` counter slots.
    pub(super) fn new(maps: &Path, slots: u32, limit: u32, mark: Mark, guard: Guard) -> Self {
        let mut loader = EbpfLoader::new();
        loader
            .btf(None)
            .map_max_entries("if_counters", slots.saturating_mul(2).max(2))
            .override_global("MARK_VALUE", lend(mark.value), true)
            .override_global("MARK_MASK", lend(mark.mask), true)
            .override_global("GUARD", guard.number(), true);
        for name in NAMES {
            loader.map_pin_path(name, maps.join(name));
        }
        Self { loader: Mutex::new(loader), limit: limit.max(1) }
    }

    /// The object with the parents' programs; the maps come into being with it. No program is loaded yet.
    pub(super) fn parents(&self, tracing: bool) -> Result<Ebpf, DatapathError> {
        self.open(if tracing { TRACING } else { SILENT }, "object for parents", 0, false)
    }

    /// The pod's two programs for instance `number`, loaded; with `plain` they give relayed frames the group's MAC back.
    /// Dropping the result unloads what is not attached.
    pub(super) fn pod(&self, number: u32, plain: bool) -> Result<Ebpf, DatapathError> {
        let mut object = self.open(SILENT, "object for a pod", number, plain)?;
        for name in POD {
            load(&mut object, name)?;
        }
        Ok(object)
    }

    /// The storm guard of one parent as an XDP program, loaded. Dropping the result unloads it where it is not attached.
    pub(super) fn guard(&self, parent: u32) -> Result<Ebpf, DatapathError> {
        self.loader.lock().unwrap_or_else(PoisonError::into_inner).override_global("PARENT", lend(parent), true);
        let mut object = self.open(SILENT, "object for a storm guard", 0, false)?;
        guard::xdp(&mut object)?.load().map_err(|error| DatapathError::Load { what: GUARD, reason: brief(&error) })?;
        Ok(object)
    }

    fn open(&self, bytes: &[u8], what: &'static str, number: u32, plain: bool) -> Result<Ebpf, DatapathError> {
        let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |reason: String| DatapathError::Load { what, reason };
        if number >= self.limit {
            return Err(refused("instance number out of range".to_owned()));
        }
        loader.override_global("SLOT", lend(number), true);
        loader.override_global("PLAIN", lend(u32::from(plain)), true);
        loader.load(bytes).map_err(|error| refused(brief(&error)))
    }
}

/// Loads one program of an object into the kernel.
pub(super) fn load(object: &mut Ebpf, name: &'static str) -> Result<(), DatapathError> {
    let program = classifier(object, name)?;
    for _ in 0..INTERRUPTIONS {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. }) if is_interrupted(&io_error) => {}
            done => return done.map_err(|error| DatapathError::Load { what: name, reason: brief(&error) }),
        }
    }
    Err(DatapathError::Load { what: name, reason: format!("interrupted by signals {INTERRUPTIONS} times") })
}

/// How often a signal may come while one program is verified.
const INTERRUPTIONS: u32 = 5;

/// The verifier gives up with `EAGAIN` when a signal is waiting, whatever the signal.
fn is_interrupted(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The descriptor of a loaded program.
pub(super) fn fd<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a ProgramFd, DatapathError> {
    classifier(object, name)?.fd().map_err(|error| DatapathError::Load { what: name, reason: brief(&error) })
}

/// A program of an object by name.
pub(super) fn classifier<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, DatapathError> {
    let absent = || DatapathError::Load { what: name, reason: "the object has no such program".to_owned() };
    object.program_mut(name).ok_or_else(absent)?.try_into().map_err(|_other_type| absent())
}
