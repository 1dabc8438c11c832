//! What is looked at before anything is touched: can this plan be carried out in this namespace, on this node?

use crate::fault::{CniError, code, quote};
use crate::names::NetnsPath;
use crate::plan::{self, Plan};
use crate::sys::{self, netns};

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

/// The namespace is one, and none of the names is taken in it.
///
/// # Errors
/// Code 8 for the namespace, 4 for a name that is taken.
pub async fn names_are_free(netns: &NetnsPath, plan: &Plan) -> Result<(), CniError> {
    let at = netns.as_path();
    netns::open(at).map_err(|error| CniError::new(code::INVALID_NETNS, error.to_string()))?;
    for attachment in &plan.attachments {
        let name = attachment.ifname.as_str();
        let found = sys::links::find(Some(at), name).await;
        let found = found.map_err(|error| CniError::new(code::INVALID_NETNS, error.to_string()))?;
        if found.is_some() {
            let text =
                format!("network {}: interface name {name} already exists in the pod", quote(&attachment.network));
            return Err(CniError::new(code::INVALID_ENVIRONMENT, text)
                .remedy("ask for another interface name; nothing was changed"));
        }
    }
    Ok(())
}

/// The link an attachment is to sit on is there.
///
/// # Errors
/// Code 7 naming network, plugin and link.
pub async fn parents_are_there(plan: &Plan) -> Result<(), CniError> {
    for attachment in &plan.attachments {
        let Some((kind, parent)) = attachment.parent_on_node() else { continue };
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
