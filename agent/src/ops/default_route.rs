//! `default-route`: the pod's default route goes through the network that asks for it, per family, in one pass.
//!
//! The kernel first, then the results say the same, so that CHECK and status agree with what is. A network that asks
//! with an empty list keeps what its plugin set. A network that does not ask never displaces the master's.

use std::net::IpAddr;
use std::path::Path;

use crate::cni::{Cidr, CniResult, Route};
use crate::fault::{CniError, code, quote};
use crate::names::IfName;
use crate::plan::status::SECOND_CHOICE;
use crate::plan::{Attachment, Plan, Warning};
use crate::sys::{links, routes};

/// What came of it.
#[derive(Debug, Default)]
pub struct Settled {
    /// Positions of attachments whose result says something else now.
    pub changed: Vec<usize>,
    /// What the pod should hear about.
    pub warnings: Vec<Warning>,
}

/// Carries out every wish of `plan` in the namespace at `netns`, and keeps the master's default route where nobody asked
/// for another; `results` are those of its attachments, in order.
///
/// # Errors
/// The kernel refused; the sentence names network and gateway.
pub async fn settle(netns: &Path, plan: &Plan, results: &mut [CniResult]) -> Result<Settled, CniError> {
    let mut settled = Settled::default();
    for (at, attachment) in plan.attachments.iter().enumerate() {
        for gateway in attachment.default_route.iter().flatten() {
            let refused = |why: String| {
                CniError::new(
                    code::INVALID_CONFIG,
                    format!("default-route {gateway} of network {}: {why}", quote(&attachment.network)),
                )
                .remedy("name a gateway that is on the network's own subnet")
            };
            let (owner, others) = indices(netns, plan, at).await.map_err(|error| refused(error.to_string()))?;
            let owner = owner.ok_or_else(|| refused(format!("interface {} is not there", attachment.ifname)))?;
            routes::give_default(netns, *gateway, owner, &others).await.map_err(|error| refused(error.to_string()))?;
            reflect(results, at, *gateway);
            settled.changed = (0..results.len()).collect();
        }
    }
    for is_v4 in [true, false] {
        let is_asked = |attachment: &Attachment| {
            attachment.default_route.iter().flatten().any(|gateway| gateway.is_ipv4() == is_v4)
        };
        if !plan.attachments.iter().any(is_asked) {
            let master = plan.attachments.first().map(|master| &master.ifname);
            keep_default(netns, master.as_slice(), plan, results, is_v4, &mut settled).await?;
        }
    }
    Ok(settled)
}

/// The same for `plan`, which joins a pod that has the interfaces `present`: none of theirs is displaced.
///
/// # Errors
/// The kernel refused; the sentence names the network.
pub async fn joined(
    netns: &Path,
    present: &[&IfName],
    plan: &Plan,
    results: &mut [CniResult],
) -> Result<Settled, CniError> {
    let mut settled = Settled::default();
    for is_v4 in [true, false] {
        keep_default(netns, present, plan, results, is_v4, &mut settled).await?;
    }
    Ok(settled)
}

/// A network whose IPAM sets a default route, although the pod did not ask for it, is second to the master: its route
/// stays, for sockets that are bound to the interface, with a metric that loses. Where the `keepers`, the master or all
/// that were there before, have no default route of that family, it stays as it is.
async fn keep_default(
    netns: &Path,
    keepers: &[&IfName],
    plan: &Plan,
    results: &mut [CniResult],
    is_v4: bool,
    settled: &mut Settled,
) -> Result<(), CniError> {
    let brings_one = |result: &CniResult| result.routes.iter().any(|route| is_default_of(route, is_v4));
    let asked_for_its_own = |attachment: &Attachment| attachment.default_route.as_ref().is_some_and(Vec::is_empty);
    let unasked: Vec<usize> = plan
        .attachments
        .iter()
        .zip(results.iter())
        .enumerate()
        .filter(|(_, (attachment, result))| !attachment.master && !asked_for_its_own(attachment) && brings_one(result))
        .map(|(at, _)| at)
        .collect();
    let Some(first) = unasked.first().and_then(|at| plan.attachments.get(*at)) else { return Ok(()) };
    let refused = |why: String| {
        let text = format!("keep the pod's default route from network {}: {why}", quote(&first.network));
        CniError::new(code::INVALID_CONFIG, text)
            .remedy("ask for it with default-route, or take it out of the network's ipam")
    };
    let second_ones = unasked.iter().filter_map(|at| plan.attachments.get(*at)).map(|attachment| &attachment.ifname);
    let mut links = Vec::new();
    for name in keepers.iter().copied().chain(second_ones) {
        let link = links::find(Some(netns), name.as_str()).await.map_err(|error| refused(error.to_string()))?;
        links.push(link.map_or(0, |link| link.ifindex));
    }
    let (keepers, others) = links.split_at(keepers.len().min(links.len()));
    let given = routes::keep_default(netns, is_v4, keepers, others, SECOND_CHOICE)
        .await
        .map_err(|error| refused(error.to_string()))?;
    for (at, metric) in unasked.into_iter().zip(given) {
        let (Some(metric), Some(result), Some(attachment)) = (metric, results.get_mut(at), plan.attachments.get(at))
        else {
            continue;
        };
        for route in result.routes.iter_mut().filter(|route| is_default_of(route, is_v4)) {
            route.extra.insert("priority".to_owned(), metric.into());
        }
        settled.changed.push(at);
        settled.warnings.push(second(attachment, is_v4, metric));
    }
    Ok(())
}

fn second(attachment: &Attachment, is_v4: bool, metric: u32) -> Warning {
    let family = if is_v4 { "IPv4" } else { "IPv6" };
    Warning {
        reason: "DefaultRouteKept",
        message: format!(
            "network {}: its {family} default route on {} is second to the pod's own (metric {metric}), for the pod did not ask \
             for it; ask with \"default-route\" in the annotation",
            attachment.network, attachment.ifname
        ),
    }
}

fn is_default_of(route: &Route, is_v4: bool) -> bool {
    route.dst.is_default() && route.dst.ip.is_ipv4() == is_v4
}

/// The link of attachment `owner`, and those of all others.
async fn indices(netns: &Path, plan: &Plan, owner: usize) -> Result<(Option<u32>, Vec<u32>), links::LinkError> {
    let (mut own, mut others) = (None, Vec::new());
    for (at, attachment) in plan.attachments.iter().enumerate() {
        let Some(link) = links::find(Some(netns), attachment.ifname.as_str()).await? else { continue };
        if at == owner {
            own = Some(link.ifindex);
        } else {
            others.push(link.ifindex);
        }
    }
    Ok((own, others))
}

/// The results as the kernel is now: one default route of the family, the owner's.
fn reflect(results: &mut [CniResult], owner: usize, gateway: IpAddr) {
    for result in results.iter_mut() {
        result.routes.retain(|route| !is_default_of(route, gateway.is_ipv4()));
    }
    if let Some(result) = results.get_mut(owner) {
        let everywhere = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        result.routes.extend(Cidr::parse(everywhere).map(|dst| Route {
            dst,
            gw: Some(gateway),
            extra: serde_json::Map::new(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_follow_the_kernel_family_by_family() {
        let result = |routes: &str| {
            CniResult::parse(format!(r#"{{"cniVersion":"1.0.0","routes":[{routes}]}}"#).as_bytes()).unwrap()
        };
        let mut results =
            [result(r#"{"dst":"0.0.0.0/0","gw":"10.0.0.1"},{"dst":"::/0"},{"dst":"10.1.0.0/16"}"#), result("")];
        reflect(&mut results, 1, "192.168.1.1".parse().unwrap());
        let texts = |result: &CniResult| result.routes.iter().map(|r| r.dst.to_string()).collect::<Vec<_>>();
        assert_eq!(texts(&results[0]), ["::/0", "10.1.0.0/16"]);
        assert_eq!(texts(&results[1]), ["0.0.0.0/0"]);
    }
}
