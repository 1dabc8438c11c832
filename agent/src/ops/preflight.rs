//! What is looked at before anything is touched: can this plan be carried out in this namespace, on this node?

use std::collections::BTreeSet;

use crate::fault::{CniError, code, escape, quote};
use crate::names::{NetnsId, NetnsPath};
use crate::plan::{self, Attachment, Plan};
use crate::sys::{self, netns};

/// Longest part of a foreign path that an error repeats.
const MOST_PATH: usize = 64;

/// No network leads back to us, under the plugin name `own` or Multus's: it would wait for itself for ever.
///
/// # Errors
/// Code 7 naming network and plugin.
pub fn none_is_ours(own: &str, plan: &Plan) -> Result<(), CniError> {
    for attachment in &plan.attachments {
        if let Some(plugin) = plan::master::multus_of(&attachment.config, own) {
            let text =
                format!("network {}: field \"type\" is {}", quote(&attachment.network), quote(plugin.plugin.as_str()));
            return Err(CniError::new(code::INVALID_CONFIG, text)
                .remedy("name the plugin that makes the interface; Multus cannot be its own delegate"));
        }
    }
    Ok(())
}

/// Under this path is for us what the runtime has there, which is called `its`.
///
/// # Errors
/// Code 8: what we would look at, and clean, is somebody else's.
pub fn is_the_runtimes(netns: &NetnsPath, its: Option<&NetnsId>) -> Result<(), CniError> {
    match (its, netns::identity(netns.as_path()).map(|(device, inode)| NetnsId::of(device, inode))) {
        (Some(its), Some(seen)) if *its != seen => {
            let path = quote(&netns.to_string());
            let text = format!("CNI_NETNS {path} is another namespace for the agent than for the runtime");
            Err(CniError::new(code::INVALID_NETNS, text)
                .remedy("let the agent see the host's processes: add the host-exec component; nothing was changed"))
        }
        _ => Ok(()),
    }
}

/// The namespace is one, and the attachments' names are not taken in it; refused in upstream's words, with the attachment
/// that it is about.
///
/// # Errors
/// Code 8 for the namespace, 4 for a name that is taken.
pub async fn names_are_free<'a>(
    netns: &NetnsPath,
    attachments: &'a [Attachment],
) -> Result<(), (&'a Attachment, CniError)> {
    let Some(first) = attachments.first() else { return Ok(()) };
    let names = attachments.iter().map(|attachment| attachment.ifname.to_string()).collect();
    let found = sys::links::find_all(netns.as_path(), names).await.map_err(|error| {
        let path: String = escape(&netns.to_string()).chars().take(MOST_PATH).collect();
        (first, unusable(first, code::INVALID_NETNS, &format!("no net namespace {path} found: {error}")))
    })?;
    match attachments.iter().zip(found).find(|(_, link)| link.is_some()) {
        None => Ok(()),
        Some((taken, _)) => {
            let why = format!("interface name {} already exists", taken.ifname);
            let remedy = "ask for another interface name; nothing was changed";
            Err((taken, unusable(taken, code::INVALID_ENVIRONMENT, &why).remedy(remedy)))
        }
    }
}

fn unusable(attachment: &Attachment, code: u32, why: &str) -> CniError {
    let plugin = attachment.config.plugins.first().map_or("", |first| first.plugin.as_str());
    let name = &attachment.ifname;
    CniError::new(
        code,
        format!("DelegateAdd: cannot set \"{plugin}\" interface name to \"{name}\": validateIfName: {why}"),
    )
}

/// The link an attachment is to sit on is there, or will be: the bridge of a network before it.
///
/// # Errors
/// Code 7 naming network, plugin and link.
pub async fn parents_are_there(plan: &Plan) -> Result<(), CniError> {
    let mut will_be = BTreeSet::new();
    for attachment in &plan.attachments {
        will_be.extend(attachment.bridges());
        let Some((kind, parent)) = attachment.parent_on_node().filter(|(_, parent)| !will_be.contains(parent)) else {
            continue;
        };
        if let Ok(None) = sys::links::find(None, &parent).await {
            let text = format!(
                "network {}: master {} of its {kind} plugin does not exist on this node",
                quote(&attachment.network),
                quote(&parent)
            );
            return Err(CniError::new(code::INVALID_CONFIG, text)
                .remedy("name a link that exists on every node, or keep the pod off this one; nothing was changed"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_the_runtime_does_not_mean_is_refused() {
        let (own, nowhere) = ["/proc/self/ns/net", "/nowhere"].map(|path| NetnsPath::new(path).unwrap()).into();
        let seen = sys::files::netns_id(own.as_path());
        assert!(is_the_runtimes(&own, seen.as_ref()).is_ok() && is_the_runtimes(&own, None).is_ok());
        assert!(is_the_runtimes(&nowhere, seen.as_ref()).is_ok(), "what is not there is refused later");
        let refused = is_the_runtimes(&own, Some(&NetnsId::of(0, 0))).unwrap_err();
        assert!(refused.code == code::INVALID_NETNS && refused.details.contains("host-exec"), "{refused}");
    }
}
