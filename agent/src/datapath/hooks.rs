//! How do programs get onto interfaces, and off again?
//!
//! Acts in the calling thread's network namespace. Every filter of ours has the same priority and handle, so that a
//! second attempt replaces the first, and removing touches nobody else's. aya detaches a link when its value is
//! dropped, in whatever namespace the dropping thread is: no link value outlives these functions.

use std::fs;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, Link, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle, qdisc_add_clsact,
};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};

use super::attachment::{AttachMode, Parent};
use super::error::{DatapathError, chain};
use super::object::{PARENT, POD, classifier};

/// First in the chain of filters.
const PRIORITY: u16 = 1;
/// "MU", so that nobody else's handle is the same by chance.
const HANDLE: TcHandle = TcHandle::new(0x4d55, 1);

const DIRECTIONS: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];

/// How programs are on a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Links of kernel 6.6 and newer.
    Tcx,
    /// Filters under the clsact qdisc.
    Clsact,
}

impl Method {
    /// As messages and documents say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// Puts the pod's programs on `ifname`, replacing an earlier pair of ours.
pub(super) fn attach_pod(object: &mut Ebpf, ifname: &str) -> Result<(), DatapathError> {
    attach_filters(object, POD, ifname)
}

/// Puts the parent's programs on it, replacing an earlier pair without a gap; says by which method.
pub(super) fn attach_parent(
    object: &mut Ebpf,
    parent: &Parent,
    mode: AttachMode,
    links: &Path,
) -> Result<Method, DatapathError> {
    if mode != AttachMode::Clsact {
        match attach_links(object, parent, links) {
            Ok(()) => {
                remove_filters(&parent.name);
                return Ok(Method::Tcx);
            }
            Err(error) if mode == AttachMode::Tcx => return Err(error),
            Err(_) => remove_pins(parent.ifindex, links),
        }
    }
    attach_filters(object, PARENT, &parent.name)?;
    remove_pins(parent.ifindex, links);
    Ok(Method::Clsact)
}

/// Takes our programs off a parent, whichever way they got there. A parent that is gone has nothing left to take off.
pub(super) fn detach_parent(ifindex: u32, name: Option<&str>, links: &Path) {
    remove_pins(ifindex, links);
    if let Some(name) = name {
        remove_filters(name);
    }
}

/// Removes our filters from `ifname`; what is not there needs no removing.
pub(super) fn remove_filters(ifname: &str) {
    for direction in DIRECTIONS {
        if let Ok(link) = SchedClassifierLink::attached(ifname, direction, PRIORITY, HANDLE, None) {
            // An error means that there is no such filter, or no clsact at all: what we want either way.
            let _absent = link.detach();
        }
    }
}

/// The parents that have pinned links.
pub(super) fn pinned_parents(links: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(links) else { return Vec::new() };
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut parents: Vec<u32> =
        names.filter_map(|name| name.strip_prefix("parent-")?.split('-').next()?.parse().ok()).collect();
    parents.sort_unstable();
    parents.dedup();
    parents
}

fn attach_filters(object: &mut Ebpf, programs: [&'static str; 2], ifname: &str) -> Result<(), DatapathError> {
    // It fails where the qdisc exists already, which is fine, or where it cannot exist: then the filter fails too.
    let _exists = qdisc_add_clsact(ifname);
    for (name, direction) in programs.into_iter().zip(DIRECTIONS) {
        attach_filter(classifier(object, name)?, ifname, direction).map_err(|error| DatapathError::Attach {
            program: name,
            interface: ifname.to_owned(),
            method: Method::Clsact.as_str(),
            reason: chain(&error),
        })?;
    }
    Ok(())
}

/// Creates the filter, or replaces the program in the one that is there.
fn attach_filter(program: &mut SchedClassifier, ifname: &str, direction: TcAttachType) -> Result<(), ProgramError> {
    let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None });
    let id = match program.attach_with_options(ifname, direction, options) {
        Ok(id) => id,
        Err(error) => replace_filter(program, ifname, direction).map_err(|_no_filter_of_ours| error)?,
    };
    // The filter holds the program from now on; the value would take it off when dropped.
    mem::forget(program.take_link(id)?);
    Ok(())
}

fn replace_filter(
    program: &mut SchedClassifier,
    ifname: &str,
    direction: TcAttachType,
) -> Result<SchedClassifierLinkId, ProgramError> {
    let present = SchedClassifierLink::attached(ifname, direction, PRIORITY, HANDLE, None)?;
    program.attach_to_link(present)
}

fn attach_links(object: &mut Ebpf, parent: &Parent, links: &Path) -> Result<(), DatapathError> {
    for (name, direction) in PARENT.into_iter().zip(DIRECTIONS) {
        let pin = pin_path(links, parent.ifindex, direction);
        attach_link(classifier(object, name)?, &parent.name, direction, &pin).map_err(|reason| {
            let (interface, method) = (parent.name.clone(), Method::Tcx.as_str());
            DatapathError::Attach { program: name, interface, method, reason }
        })?;
    }
    Ok(())
}

/// Updates the pinned link to this program, or makes a link at the head of the chain and pins it.
fn attach_link(program: &mut SchedClassifier, ifname: &str, direction: TcAttachType, pin: &Path) -> Result<(), String> {
    if let Ok(present) = PinnedLink::from_pin(pin) {
        if update_link(program, present).is_ok() {
            return Ok(());
        }
        // Its interface is gone, and this is another one with the same number.
        fs::remove_file(pin).map_err(|error| format!("remove stale pin {}: {error}", pin.display()))?;
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(ifname, direction, options).map_err(|error| chain(&error))?;
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    let link = FdLink::try_from(link).map_err(|error| chain(&error))?;
    link.pin(pin).map_err(|error| format!("pin the link at {}: {}", pin.display(), chain(&error)))?;
    Ok(())
}

fn update_link(program: &mut SchedClassifier, present: PinnedLink) -> Result<(), Box<dyn std::error::Error>> {
    let id = program.attach_to_link(FdLink::from(present).try_into()?)?;
    // Dropping it closes a descriptor; the pin keeps the link.
    drop(program.take_link(id)?);
    Ok(())
}

fn remove_pins(ifindex: u32, links: &Path) {
    for direction in DIRECTIONS {
        match fs::remove_file(pin_path(links, ifindex, direction)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(ifindex, %error, "a pinned link could not be removed"),
        }
    }
}

fn pin_path(links: &Path, ifindex: u32, direction: TcAttachType) -> PathBuf {
    let direction = if direction == TcAttachType::Ingress { "ingress" } else { "egress" };
    links.join(format!("parent-{ifindex}-{direction}"))
}
