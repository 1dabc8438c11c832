//! How do programs get onto interfaces, and off again?
//!
//! Acts in the calling thread's network namespace. Every filter of ours has the same priority and handle, so that a
//! second attempt replaces the first, and removing touches nobody else's. The qdisc that filters need is marked as ours
//! when we added it, and goes with the last filter. aya detaches a link when its value is dropped, in whatever namespace
//! the dropping thread is: no link value outlives these functions.

use std::fs;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::links::{FdLink, Link, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle, qdisc_add_clsact,
};
use aya::programs::{LinkOrder, ProgramError, ProgramInfo, SchedClassifier, TcAttachType};

use super::attachment::Parent;
use super::error::{DatapathError, chain};
use super::guard;
use super::held::Links;
use super::look::Presence;
use super::object::{PARENT, POD, classifier};
use crate::config::AttachMode;
use crate::sys::{netns, qdisc};

/// First in the chain of filters.
const PRIORITY: u16 = 1;
/// "MU", so that nobody else's handle is the same by chance.
const HANDLE: TcHandle = TcHandle::new(0x4d55, 1);

/// How long a link may last after its pin.
const LAST_OF_A_LINK: Duration = Duration::from_secs(2);

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
pub(super) fn attach_pod(object: &mut Ebpf, ifname: &str, number: u32, links: &Path) -> Result<(), DatapathError> {
    attach_filters(object, POD, ifname, &QdiscMark::of_pod(links, number))
}

/// Takes our programs off `ifname` in a pod. With its number, the qdisc goes too if we added it.
pub(super) fn detach_pod(ifname: &str, number: Option<u32>, links: &Path) {
    match number {
        Some(number) => remove_filters(ifname, &QdiscMark::of_pod(links, number)),
        None => delete_filters(ifname),
    }
}

/// Forgets what is remembered of the pod with this number; its interface is gone or comes anew.
pub(super) fn forget_pod(number: u32, links: &Path) {
    QdiscMark::of_pod(links, number).clear();
}

/// Puts the parent's programs on it, replacing an earlier pair without a gap; says by which method.
pub(super) fn attach_parent(
    object: &mut Ebpf,
    parent: &Parent,
    mode: AttachMode,
    links: &Links,
) -> Result<Method, DatapathError> {
    let mark = QdiscMark::of_parent(links.folder(), parent.ifindex);
    if mode != AttachMode::Clsact {
        match attach_links(object, parent, links) {
            Ok(()) => {
                remove_filters(&parent.name, &mark);
                return Ok(Method::Tcx);
            }
            Err(error) if mode == AttachMode::Tcx => return Err(error),
            Err(_) => take_links_off(parent.ifindex, links),
        }
    }
    attach_filters(object, PARENT, &parent.name, &mark)?;
    take_links_off(parent.ifindex, links);
    Ok(Method::Clsact)
}

/// Takes one of the parent's programs off it, or what is in its place, so that it can be put at the head again. Frames pass
/// meanwhile as they do without us.
pub(super) fn lift(parent: &Parent, program: &str, method: Method, links: &Links) {
    for (name, direction) in PARENT.into_iter().zip(DIRECTIONS) {
        match method {
            _ if name != program => {}
            Method::Tcx => links.take_off(&link_name(parent.ifindex, direction)),
            Method::Clsact => delete_filter(&parent.name, direction),
        }
    }
}

/// Takes the pod's programs off `ifname`, or what is in their place, and leaves the qdisc, so that they can be put at the
/// head again.
pub(super) fn lift_pod(ifname: &str) {
    delete_filters(ifname);
}

/// How a pair of filters of ours is on `ifname`.
pub(super) fn filters(ifname: &str, programs: [&'static str; 2]) -> io::Result<Presence> {
    let mut presence = Presence::default();
    let Some(ifindex) = netns::interface_index(ifname) else { return Ok(presence) };
    for (name, filters) in programs.into_iter().zip(qdisc::filters(ifindex)?) {
        // Priority and handle anybody can take, in a pod that may change its network too; our program's name comes with a
        // program alone.
        let is_ours = |filter: &qdisc::Filter| {
            let is_in_place = filter.priority == PRIORITY && filter.handle == u32::from(HANDLE);
            is_in_place && filter.program.as_deref() == Some(name)
        };
        match filters.iter().filter(|filter| filter.chain == 0).position(is_ours) {
            Some(0) => {}
            Some(_) => presence.behind.push((name, "a filter of the same priority".to_owned())),
            None => presence.missing.push(name),
        }
    }
    Ok(presence)
}

/// How our links are on a parent. `ours` are the ids of the programs we may have there, by name.
pub(super) fn links(parent: &Parent, ours: &[(String, u32)]) -> Result<Presence, ProgramError> {
    let mut presence = Presence::default();
    for (name, direction) in PARENT.into_iter().zip(DIRECTIONS) {
        let (_revision, chain) = SchedClassifier::query_tcx(&parent.name, direction)?;
        let is_ours = |info: &ProgramInfo| ours.iter().any(|(_, id)| *id == info.id());
        let is_it = |info: &ProgramInfo| ours.iter().any(|(own, id)| own == name && *id == info.id());
        if !chain.iter().any(is_it) {
            presence.missing.push(name);
        } else if let Some(first) = chain.first().filter(|first| !is_ours(first)) {
            let shown = first.name_as_str().unwrap_or_default();
            presence.behind.push((name, format!("program {} {shown:?}", first.id())));
        }
    }
    Ok(presence)
}

/// Takes our programs off a parent, whichever way they got there. A parent that is gone has nothing left to take off.
pub(super) fn detach_parent(ifindex: u32, name: Option<&str>, links: &Links) {
    take_links_off(ifindex, links);
    guard::remove(ifindex, links);
    let mark = QdiscMark::of_parent(links.folder(), ifindex);
    match name {
        Some(name) => remove_filters(name, &mark),
        None => mark.clear(),
    }
}

/// Removes our filters from `ifname`, then the qdisc if it is ours and nobody else uses it.
fn remove_filters(ifname: &str, mark: &QdiscMark) {
    delete_filters(ifname);
    if mark.is_set() {
        remove_qdisc(ifname);
        mark.clear();
    }
}

/// Deletes our filters from `ifname`; what is not there needs no deleting.
fn delete_filters(ifname: &str) {
    for direction in DIRECTIONS {
        delete_filter(ifname, direction);
    }
}

fn delete_filter(ifname: &str, direction: TcAttachType) {
    if let Ok(link) = SchedClassifierLink::attached(ifname, direction, PRIORITY, HANDLE, None) {
        // An error means that there is no such filter, or no clsact at all: what we want either way.
        let _absent = link.detach();
    }
}

fn remove_qdisc(ifname: &str) {
    let Some(ifindex) = netns::interface_index(ifname) else { return };
    match qdisc::remove_unused_clsact(ifindex) {
        Ok(true) => {}
        Ok(false) => tracing::debug!(ifname, "the clsact qdisc stays: it holds filters of others"),
        Err(error) => tracing::debug!(ifname, %error, "the clsact qdisc could not be removed"),
    }
}

/// That a clsact qdisc is there because we added it: an empty folder beside the pinned links, which lives as long as the
/// qdisc can (until the next boot) and outlives the agent.
struct QdiscMark(PathBuf);

impl QdiscMark {
    fn of_parent(links: &Path, ifindex: u32) -> Self {
        Self(links.join(format!("clsact-parent-{ifindex}")))
    }

    fn of_pod(links: &Path, number: u32) -> Self {
        Self(links.join(format!("clsact-pod-{number}")))
    }

    fn set(&self) {
        match fs::create_dir(&self.0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Not remembered, it stays when we go, which is harmless.
            Err(error) => tracing::debug!(mark = ?self.0, %error, "a qdisc of ours could not be remembered"),
        }
    }

    fn is_set(&self) -> bool {
        self.0.is_dir()
    }

    fn clear(&self) {
        match fs::remove_dir(&self.0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(mark = ?self.0, %error, "the mark of a qdisc could not be removed"),
        }
    }
}

/// The numbers of the pods whose qdisc is remembered as ours.
pub(super) fn marked_pods(links: &Path) -> Vec<u32> {
    numbers(links, "clsact-pod-")
}

/// The parents that have pinned links, or a qdisc of ours.
pub(super) fn known_parents(links: &Path) -> Vec<u32> {
    [numbers(links, "parent-"), numbers(links, "clsact-parent-")].concat()
}

/// The numbers behind `prefix` among the names in `links`.
fn numbers(links: &Path, prefix: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(links) else { return Vec::new() };
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_prefix(prefix)?.split('-').next()?.parse().ok()).collect()
}

fn attach_filters(
    object: &mut Ebpf,
    programs: [&'static str; 2],
    ifname: &str,
    mark: &QdiscMark,
) -> Result<(), DatapathError> {
    // It fails where the qdisc exists already, which is fine, or where it cannot exist: then the filter fails too.
    if qdisc_add_clsact(ifname).is_ok() {
        mark.set();
    }
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

fn attach_links(object: &mut Ebpf, parent: &Parent, links: &Links) -> Result<(), DatapathError> {
    for (name, direction) in PARENT.into_iter().zip(DIRECTIONS) {
        attach_link(classifier(object, name)?, parent, direction, links).map_err(|reason| {
            let (interface, method) = (parent.name.clone(), Method::Tcx.as_str());
            DatapathError::Attach { program: name, interface, method, reason }
        })?;
    }
    Ok(())
}

/// Updates the pinned link to this program, or makes a link at the head of the chain and pins it.
fn attach_link(
    program: &mut SchedClassifier,
    parent: &Parent,
    direction: TcAttachType,
    links: &Links,
) -> Result<(), String> {
    let name = link_name(parent.ifindex, direction);
    let pin = links.pin(&name);
    links.pin_again(&name);
    if let Ok(present) = PinnedLink::from_pin(&pin) {
        if update_link(program, present).is_ok() {
            links.hold(&name);
            return Ok(());
        }
        // Its interface is gone, and this is another one with the same number.
        links.take_off(&name);
    }
    let id = attach_first(program, &parent.name, direction).map_err(|error| chain(&error))?;
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    let link = FdLink::try_from(link).map_err(|error| chain(&error))?;
    link.pin(&pin).map_err(|error| format!("pin the link at {}: {}", pin.display(), chain(&error)))?;
    links.hold(&name);
    Ok(())
}

/// Makes a link at the head of the chain. A link whose pin was just removed lasts a little longer than the pin (the kernel
/// frees it after a grace period, on a worker), and no program is twice in one chain: it is waited for.
fn attach_first(
    program: &mut SchedClassifier,
    ifname: &str,
    direction: TcAttachType,
) -> Result<SchedClassifierLinkId, ProgramError> {
    let until = Instant::now() + LAST_OF_A_LINK;
    loop {
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        match program.attach_with_options(ifname, direction, options) {
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::AlreadyExists && Instant::now() < until =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

fn update_link(program: &mut SchedClassifier, present: PinnedLink) -> Result<(), Box<dyn std::error::Error>> {
    let id = program.attach_to_link(FdLink::from(present).try_into()?)?;
    // Dropping it closes a descriptor; the pin keeps the link.
    drop(program.take_link(id)?);
    Ok(())
}

fn take_links_off(ifindex: u32, links: &Links) {
    for direction in DIRECTIONS {
        links.take_off(&link_name(ifindex, direction));
    }
}

fn link_name(ifindex: u32, direction: TcAttachType) -> String {
    let direction = if direction == TcAttachType::Ingress { "ingress" } else { "egress" };
    format!("parent-{ifindex}-{direction}")
}
