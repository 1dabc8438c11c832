//! Default routes of a pod, through rtnetlink: who has them, and who shall.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use futures_util::TryStreamExt;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
};
use thiserror::Error;

use super::links::{self, Kernel, LinkError};

/// A route that could not be set.
#[derive(Debug, Error)]
pub enum RouteError {
    /// The namespace or the socket.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The kernel refused.
    #[error("{0}: {1}")]
    Refused(String, #[source] rtnetlink::Error),
    /// The kernel took it and does not have it.
    #[error("the default route via {0} is not there after it was set")]
    NotThere(IpAddr),
}

/// Gives the default route of `gateway`'s family, in the namespace at `netns`, to link `owner`, and takes those of the
/// same family from the links `others`, whatever their metric. Replaced first and removed then, so that there is no
/// moment without one; looked up afterwards. Only the main table is touched.
pub async fn give_default(netns: &Path, gateway: IpAddr, owner: u32, others: &[u32]) -> Result<(), RouteError> {
    let kernel = links::connect(Some(netns))?;
    let refused = |what: &str, error| RouteError::Refused(format!("{what} the default route via {gateway}"), error);
    let route = match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(owner).build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(owner).build(),
    };
    let is_wanted = |route: &RouteMessage| leaves_by(route, owner) && next_hop(route) == Some(gateway);
    let is_in_the_way = |route: &RouteMessage| {
        !is_wanted(route) && (leaves_by(route, owner) || others.iter().any(|other| leaves_by(route, *other)))
    };
    kernel.handle.route().add(route).replace().execute().await.map_err(|error| refused("set", error))?;
    for route in defaults(&kernel, gateway.is_ipv4()).await.map_err(|error| refused("look for", error))? {
        if is_in_the_way(&route) {
            kernel.handle.route().del(route).execute().await.map_err(|error| refused("make room for", error))?;
        }
    }
    let now = defaults(&kernel, gateway.is_ipv4()).await.map_err(|error| refused("look for", error))?;
    let is_so = now.iter().any(is_wanted) && !now.iter().any(is_in_the_way);
    if is_so { Ok(()) } else { Err(RouteError::NotThere(gateway)) }
}

/// Lets the links `keepers` keep the default route of one family in the namespace at `netns`: the routes of the links
/// `others` get metrics from `least` on, and larger ones than all that are there. The answer is the metric of each of
/// `others`; `None`: no keeper has such a route, or that link has none, and nothing was changed for it.
pub async fn keep_default(
    netns: &Path,
    is_v4: bool,
    keepers: &[u32],
    others: &[u32],
    least: u32,
) -> Result<Vec<Option<u32>>, RouteError> {
    let kernel = links::connect(Some(netns))?;
    let refused = |what: &str, error| RouteError::Refused(format!("{what} a default route"), error);
    let all = defaults(&kernel, is_v4).await.map_err(|error| refused("look for", error))?;
    let by_any = |route: &RouteMessage, links: &[u32]| links.iter().any(|link| leaves_by(route, *link));
    if !all.iter().any(|route| by_any(route, keepers)) {
        return Ok(vec![None; others.len()]);
    }
    let kept = all.iter().filter(|route| !by_any(route, others)).map(metric).max().unwrap_or(0);
    let mut given = Vec::new();
    for (at, other) in (1..).zip(others) {
        let wanted = least.max(kept).saturating_add(at);
        let routes: Vec<_> = all.iter().filter(|route| leaves_by(route, *other)).collect();
        // The second choice first, so that there is no moment without this link's route.
        for route in &routes {
            let again = kernel.handle.route().add(with_metric(route, wanted)).replace().execute().await;
            again.map_err(|error| refused("set the metric of", error))?;
            kernel.handle.route().del((*route).clone()).execute().await.map_err(|error| refused("put back", error))?;
        }
        given.push((!routes.is_empty()).then_some(wanted));
    }
    Ok(given)
}

/// The default routes of the main table, in one family: those with a destination of length 0.
async fn defaults(kernel: &Kernel, is_v4: bool) -> Result<Vec<RouteMessage>, rtnetlink::Error> {
    let filter = if is_v4 {
        RouteMessageBuilder::<Ipv4Addr>::new().build()
    } else {
        RouteMessageBuilder::<Ipv6Addr>::new().build()
    };
    let all: Vec<RouteMessage> = kernel.handle.route().get(filter).execute().try_collect().await?;
    let is_default = |route: &RouteMessage| {
        route.header.destination_prefix_length == 0 && route.header.table == RouteHeader::RT_TABLE_MAIN
    };
    let all = all.into_iter().filter(is_default);
    Ok(if is_v4 { all.collect() } else { all.flat_map(ways).collect() })
}

/// IPv6 makes one route with several ways of default routes that have the same metric, and takes and gives each way by
/// itself.
fn ways(route: RouteMessage) -> Vec<RouteMessage> {
    let several = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(ways) => Some(ways.clone()),
        _ => None,
    });
    let Some(several) = several else { return vec![route] };
    let alone = |way: RouteNextHop| {
        let mut alone = route.clone();
        alone.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::MultiPath(_)));
        alone.attributes.extend(way.attributes);
        alone.attributes.push(RouteAttribute::Oif(way.interface_index));
        alone
    };
    several.into_iter().map(alone).collect()
}

/// Does it, or one of its ways, leave by this link?
fn leaves_by(route: &RouteMessage, ifindex: u32) -> bool {
    route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Oif(index) => *index == ifindex,
        RouteAttribute::MultiPath(ways) => ways.iter().any(|way| way.interface_index == ifindex),
        _ => false,
    })
}

fn next_hop(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

fn metric(route: &RouteMessage) -> u32 {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}

/// The same route with another metric, without what the kernel says of it but does not take.
fn with_metric(route: &RouteMessage, metric: u32) -> RouteMessage {
    let mut again = route.clone();
    again.header.flags &= RouteFlags::Onlink;
    let is_told = |attribute: &RouteAttribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_)
                | RouteAttribute::Oif(_)
                | RouteAttribute::PrefSource(_)
                | RouteAttribute::Metrics(_)
                | RouteAttribute::MultiPath(_)
        )
    };
    again.attributes.retain(is_told);
    again.attributes.push(RouteAttribute::Priority(metric));
    again
}
