//! What are the links like that are reflected between: which MAC and addresses of ours do they have?
//!
//! Asks the kernel; changes nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::is_other_end;
use crate::names::{IfName, NetnsPath};
use crate::records::Reflect;
use crate::relay::reflect::datagram::{is_link_local, link_local_of};
use crate::relay::reflect::{Link, LinkId, Protocol, Role};
use crate::sys::links::{self, LinkError};

/// Where the host meets the interface `ifname` of a pod; the protocols are left empty.
///
/// # Errors
/// Why it does not, in words.
pub(super) async fn meet(netns: &NetnsPath, ifname: &IfName) -> Result<Reflect, String> {
    let facts = links::find(Some(netns.as_path()), ifname.as_str()).await.map_err(|error| error.to_string())?;
    let facts = facts.ok_or_else(|| format!("it has no interface {ifname}"))?;
    let elsewhere = || format!("its {ifname} is no veth whose other end is on the host");
    let below = facts.below.filter(|below| facts.kind == "veth" && below.elsewhere).ok_or_else(elsewhere)?;
    let end = links::by_index(below.ifindex).await.map_err(|error| error.to_string())?;
    let end = end.filter(|end| is_other_end(end, facts.ifindex)).ok_or_else(elsewhere)?;
    Ok(Reflect { protocols: Vec::new(), mac: facts.mac, pod_ifindex: facts.ifindex, host_ifindex: end.ifindex })
}

/// The uplink called `name`, as it is now.
///
/// # Errors
/// Why it cannot be used, in words.
pub(super) async fn uplink(name: &IfName, protocols: &BTreeSet<Protocol>) -> Result<Link, String> {
    let facts = links::find(None, name.as_str()).await.map_err(|error| error.to_string())?;
    let facts = facts.ok_or("there is no such interface")?;
    if !facts.up {
        return Err("the interface is down".to_owned());
    }
    let addresses = addresses(facts.ifindex).await.map_err(|error| error.to_string())?;
    Ok(Link {
        id: LinkId(facts.ifindex),
        name: facts.name,
        role: Role::Uplink,
        mac: facts.mac,
        v4: first_v4(&addresses),
        v6: link_local_v6(&addresses),
        addresses: addresses.into_iter().collect(),
        protocols: protocols.clone(),
    })
}

/// The host's end of a pod's interface; `None`: it is not there any more. The addresses are its own, else those of the
/// bridge that it is a port of; `fallback` where there is none, for groups are heard from any address.
pub(super) async fn pod(reflect: &Reflect, protocols: BTreeSet<Protocol>, fallback: Option<Ipv4Addr>) -> Option<Link> {
    let end = links::by_index(reflect.host_ifindex).await.ok().flatten()?;
    if !end.up || !is_other_end(&end, reflect.pod_ifindex) {
        return None;
    }
    let mut addresses = addresses(end.ifindex).await.ok()?;
    if let Some(bridge) = end.master {
        addresses.extend(self::addresses(bridge).await.ok()?);
    }
    Some(Link {
        id: LinkId(end.ifindex),
        name: end.name,
        role: Role::Pod(reflect.mac),
        mac: end.mac,
        v4: first_v4(&addresses).or(fallback),
        v6: link_local_v6(&addresses).or(Some(link_local_of(end.mac))),
        addresses: addresses.into_iter().collect(),
        protocols,
    })
}

async fn addresses(ifindex: u32) -> Result<Vec<IpAddr>, LinkError> {
    Ok(links::addresses_here(ifindex).await?.into_iter().map(|(address, _)| address).collect())
}

/// One that means something elsewhere, too, before one that does not.
fn first_v4(addresses: &[IpAddr]) -> Option<Ipv4Addr> {
    let all = || addresses.iter().filter_map(|address| if let IpAddr::V4(four) = address { Some(*four) } else { None });
    all().find(|address| !is_link_local((*address).into())).or_else(|| all().next())
}

fn link_local_v6(addresses: &[IpAddr]) -> Option<Ipv6Addr> {
    let of = |address: &IpAddr| if let IpAddr::V6(six) = address { Some(*six) } else { None };
    addresses.iter().filter_map(of).find(|address| is_link_local((*address).into()))
}
