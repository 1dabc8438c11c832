//! What cannot be attached side by side: equal interface names, macvlan and ipvlan on one parent, two default routes.
//!
//! Every refusal names both networks. Nothing here changes a plan.

use std::collections::BTreeMap;

use super::attachment::Attachment;
use crate::fault::{CniError, code, quote};
use crate::names::IfName;

/// Refuses what the kernel or another attachment of the same sandbox would refuse later.
///
/// # Errors
/// Code 100 for names and routes, 7 for parents.
pub(super) fn refuse(attachments: &[Attachment]) -> Result<(), CniError> {
    refuse_shared_names(attachments)?;
    refuse_shared_parents(attachments)?;
    refuse_many_default_routes(attachments)
}

/// No two networks ask for the same interface.
///
/// # Errors
/// Code 100 naming both.
pub fn refuse_shared_names(attachments: &[Attachment]) -> Result<(), CniError> {
    let mut taken: BTreeMap<&IfName, &str> = BTreeMap::new();
    for attachment in attachments {
        if let Some(other) = taken.insert(&attachment.ifname, &attachment.network) {
            return Err(CniError::new(
                code::BAD_ANNOTATION,
                format!(
                    "networks {} and {} both ask for interface {}",
                    quote(other),
                    quote(&attachment.network),
                    quote(attachment.ifname.as_str())
                ),
            )
            .remedy("give one of them another \"interface\" in the pod's annotation"));
        }
    }
    Ok(())
}

/// The kernel lets one link carry macvlan or ipvlan children, not both (`IFF_MACVLAN_PORT`, `IFF_IPVLAN_MASTER`).
///
/// # Errors
/// Code 7 naming both networks and the link.
pub fn refuse_shared_parents(attachments: &[Attachment]) -> Result<(), CniError> {
    let mut seen: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    for attachment in attachments {
        let Some((kind, parent)) = attachment.parent_in_question() else { continue };
        let (other_kind, other) = *seen.entry(parent.clone()).or_insert((kind, &attachment.network));
        if other_kind != kind {
            return Err(CniError::new(
                code::INVALID_CONFIG,
                format!(
                    "networks {} ({other_kind}) and {} ({kind}) share parent {}, which can carry only one kind",
                    quote(other),
                    quote(&attachment.network),
                    if parent.is_empty() { "interface of the default route".to_owned() } else { quote(&parent) }
                ),
            )
            .remedy("use the same kind for both, or another \"master\" for one of them"));
        }
    }
    Ok(())
}

/// One gateway per family over all networks.
///
/// # Errors
/// Code 100 naming both gateways and their networks.
pub fn refuse_many_default_routes(attachments: &[Attachment]) -> Result<(), CniError> {
    for is_v4 in [true, false] {
        let mut owners = attachments.iter().flat_map(|attachment| {
            let gateways = attachment.default_route.iter().flatten().filter(move |gateway| gateway.is_ipv4() == is_v4);
            gateways.map(move |gateway| (attachment, gateway))
        });
        if let (Some((first, one)), Some((second, two))) = (owners.next(), owners.next()) {
            return Err(CniError::new(
                code::BAD_ANNOTATION,
                format!(
                    "multus does not support ECMP for default-route: {one} of network {} and {two} of network {}",
                    quote(&first.network),
                    quote(&second.network)
                ),
            )
            .remedy("keep one \"default-route\" gateway for IPv4 and one for IPv6"));
        }
    }
    Ok(())
}
