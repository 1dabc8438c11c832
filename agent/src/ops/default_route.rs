//! `default-route`: the pod's default route goes through the network that asks for it, per family, in one pass.
//!
//! The kernel first, then the results say the same, so that CHECK and status agree with what is. A network that asks
//! with an empty list keeps what its plugin set, and takes nothing from anybody.

use std::net::IpAddr;
use std::path::Path;

use crate::cni::{Cidr, CniResult, Route};
use crate::fault::{CniError, code, quote};
use crate::plan::Plan;
use crate::sys::{links, routes};

/// Carries out every wish of `plan` in the namespace at `netns`; `results` are those of its attachments, in order.
///
/// # Errors
/// The kernel refused; the sentence names network and gateway.
pub async fn settle(netns: &Path, plan: &Plan, results: &mut [CniResult]) -> Result<(), CniError> {
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
        }
    }
    Ok(())
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
        result.routes.retain(|route| !(route.dst.is_default() && route.dst.ip.is_ipv4() == gateway.is_ipv4()));
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
