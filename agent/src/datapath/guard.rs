//! Where is the storm guard on a parent, and how does it get there? Acts in the calling thread's network namespace.
//!
//! In TC it is part of `parent_ingress`, and nothing is to be done. As an XDP program it is on a pinned link whose name
//! says how the driver took it: a link outlives its agent, and the kernel does not say that of a link.

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{Xdp, XdpMode};
use multus_ebpf_common::guard::{CUSTOM_RATE, GUARD_OFF, GUARD_TC, GUARD_XDP, GuardLimit};
use multus_ebpf_common::protocols::{MOST_PROTOCOLS, PROTOCOLS};

use super::attachment::Parent;
use super::error::{DatapathError, chain};
use super::held::Links;
use super::object::{GUARD as PROGRAM, Objects};
use super::report::ProgramFacts;
use crate::config::Guard;

impl Guard {
    /// The number that the programs know it by.
    pub(super) fn number(self) -> &'static u32 {
        match self {
            Self::Off => &GUARD_OFF,
            Self::Tc => &GUARD_TC,
            Self::Xdp => &GUARD_XDP,
        }
    }
}

/// How one parent is guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guarded {
    /// By `parent_ingress`.
    Tc,
    /// By `parent_guard` in the driver.
    XdpNative,
    /// By `parent_guard` behind the driver, which takes no XDP programs.
    XdpGeneric,
    /// Not at all, though it should be: why.
    Failed(String),
}

impl Guarded {
    /// As messages and documents say it; `None`: it is not.
    pub fn method(&self) -> Option<&'static str> {
        match self {
            Self::Tc => Some("tc"),
            Self::XdpNative => Some("xdp-native"),
            Self::XdpGeneric => Some("xdp-generic"),
            Self::Failed(_) => None,
        }
    }

    /// Why a parent has no guard though it should.
    pub fn fault(&self) -> Option<&str> {
        match self {
            Self::Failed(fault) => Some(fault),
            _ => None,
        }
    }
}

/// The two ways onto a driver, the better one first, and the end of the link's name.
const WAYS: [(Guarded, XdpMode, &str); 2] =
    [(Guarded::XdpNative, XdpMode::Driver, "native"), (Guarded::XdpGeneric, XdpMode::Skb, "generic")];

/// Puts the guard on a parent, or takes an earlier one off; says how it is then. Where it cannot be had the parent works
/// without, until it is tried again.
pub(super) fn attach(
    objects: &Objects,
    guard: Guard,
    parent: &Parent,
    links: &Links,
) -> Option<(Guarded, Option<ProgramFacts>)> {
    if guard != Guard::Xdp {
        remove(parent.ifindex, links);
        return (guard == Guard::Tc).then_some((Guarded::Tc, None));
    }
    match attach_xdp(objects, parent, links) {
        Ok((guarded, facts)) => Some((guarded, facts)),
        Err(error) => Some((Guarded::Failed(error.to_string()), None)),
    }
}

/// Takes the XDP program off a parent. What is not there needs no taking.
pub(super) fn remove(ifindex: u32, links: &Links) {
    link_names(ifindex).for_each(|name| links.take_off(&name));
}

/// The names that the links of a parent's guard can have.
pub(super) fn link_names(ifindex: u32) -> impl Iterator<Item = String> {
    WAYS.into_iter().map(move |(.., way)| link_name(ifindex, way))
}

fn link_name(ifindex: u32, way: &str) -> String {
    format!("parent-{ifindex}-guard-{way}")
}

fn attach_xdp(
    objects: &Objects,
    parent: &Parent,
    links: &Links,
) -> Result<(Guarded, Option<ProgramFacts>), DatapathError> {
    let mut object = objects.guard(parent.ifindex)?;
    let program = xdp(&mut object)?;
    let facts = program.info().ok().map(|info| ProgramFacts::of(PROGRAM, &info));
    for (guarded, _, way) in WAYS {
        let name = link_name(parent.ifindex, way);
        links.pin_again(&name);
        let Ok(present) = PinnedLink::from_pin(links.pin(&name)) else { continue };
        if update(program, present).is_ok() {
            links.hold(&name);
            return Ok((guarded, facts));
        }
        // Its interface is gone, and this is another one with the same number.
        remove(parent.ifindex, links);
    }
    let mut reasons = Vec::new();
    for (guarded, mode, way) in WAYS {
        match attach_link(program, &parent.name, mode, links, &link_name(parent.ifindex, way)) {
            Ok(()) => return Ok((guarded, facts)),
            Err(reason) => reasons.push(format!("{way}: {reason}")),
        }
    }
    let (interface, reason) = (parent.name.clone(), reasons.join("; "));
    Err(DatapathError::Attach { program: PROGRAM, interface, method: "xdp", reason })
}

/// The object's XDP program.
pub(super) fn xdp(object: &mut aya::Ebpf) -> Result<&mut Xdp, DatapathError> {
    let absent = || DatapathError::Load { what: PROGRAM, reason: "the object has no such program".to_owned() };
    object.program_mut(PROGRAM).ok_or_else(absent)?.try_into().map_err(|_other_type| absent())
}

fn update(program: &mut Xdp, present: PinnedLink) -> Result<(), Box<dyn std::error::Error>> {
    let id = program.attach_to_link(FdLink::from(present).try_into()?)?;
    // Dropping it closes a descriptor; the pin keeps the link.
    drop(program.take_link(id)?);
    Ok(())
}

fn attach_link(program: &mut Xdp, ifname: &str, mode: XdpMode, links: &Links, name: &str) -> Result<(), String> {
    let id = program.attach(ifname, mode).map_err(|error| chain(&error))?;
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    let link = FdLink::try_from(link).map_err(|error| chain(&error))?;
    let pin = links.pin(name);
    link.pin(&pin).map_err(|error| format!("pin the link at {}: {}", pin.display(), chain(&error)))?;
    links.hold(name);
    Ok(())
}

/// What each protocol's number may send; the operator's own have one rate, host access has none.
pub(super) fn limits() -> impl Iterator<Item = (u32, GuardLimit)> {
    let rates = PROTOCOLS.iter().map(|protocol| protocol.rate).chain(std::iter::repeat(CUSTOM_RATE));
    (0..MOST_PROTOCOLS).zip(rates.map(GuardLimit::of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_has_a_limit_and_host_access_has_none() {
        let all: Vec<_> = limits().collect();
        assert_eq!(all.len(), MOST_PROTOCOLS as usize);
        assert_eq!(all.first(), Some(&(0, GuardLimit::of(100))), "mdns");
        assert_eq!(all.last(), Some(&(MOST_PROTOCOLS - 1, GuardLimit::of(50))), "a custom one");
        assert!(all.iter().all(|(_, limit)| limit.interval > 0));
    }

    #[test]
    fn a_guard_that_failed_is_no_guard_and_says_why() {
        let failed = Guarded::Failed("no room".to_owned());
        assert_eq!((failed.method(), failed.fault()), (None, Some("no room")));
        assert_eq!((Guarded::XdpGeneric.method(), Guarded::Tc.fault()), (Some("xdp-generic"), None));
    }
}
