//! Default routes of a pod, through rtnetlink: who has them, and who shall.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use futures_util::TryStreamExt;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage};
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
/// same family from the links `others`. Replaced first and removed then, so that there is no moment without one; looked
/// up afterwards. Only the main table is touched.
pub async fn give_default(netns: &Path, gateway: IpAddr, owner: u32, others: &[u32]) -> Result<(), RouteError> {
    let kernel = links::connect(Some(netns))?;
    let refused = |what: &str, error| RouteError::Refused(format!("{what} the default route via {gateway}"), error);
    let route = match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(owner).build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(owner).build(),
    };
    kernel.handle.route().add(route).replace().execute().await.map_err(|error| refused("set", error))?;
    for route in defaults(&kernel, gateway).await.map_err(|error| refused("look for", error))? {
        if others.iter().any(|other| leaves_by(&route, *other)) {
            kernel.handle.route().del(route).execute().await.map_err(|error| refused("make room for", error))?;
        }
    }
    let now = defaults(&kernel, gateway).await.map_err(|error| refused("look for", error))?;
    let is_there = now.iter().any(|route| leaves_by(route, owner));
    if is_there { Ok(()) } else { Err(RouteError::NotThere(gateway)) }
}

/// The default routes of the main table, in the family of `like`: those with a destination of length 0.
async fn defaults(kernel: &Kernel, like: IpAddr) -> Result<Vec<RouteMessage>, rtnetlink::Error> {
    let filter = match like {
        IpAddr::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpAddr::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    let all: Vec<RouteMessage> = kernel.handle.route().get(filter).execute().try_collect().await?;
    let is_default = |route: &RouteMessage| {
        route.header.destination_prefix_length == 0 && route.header.table == RouteHeader::RT_TABLE_MAIN
    };
    Ok(all.into_iter().filter(is_default).collect())
}

fn leaves_by(route: &RouteMessage, ifindex: u32) -> bool {
    route.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Oif(index) if *index == ifindex))
}
