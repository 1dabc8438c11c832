//! Every network that is known, what it is made of, and what is wrong with it.

use serde::Serialize;

use super::List;
use crate::cni::NetworkConfig;
use crate::fault::CniError;
use crate::objects::Network;
use crate::ops::context::Context;
use crate::records::Attachment;

/// One network.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct NetworkView {
    pub namespace: String,
    pub name: String,
    pub plugins: Vec<String>,
    pub cni_version: Option<String>,
    pub attachments: usize,
    pub problem: Option<String>,
}

/// Can its configuration be used?
pub(super) fn is_valid(network: &Network) -> bool {
    parsed(network).is_ok()
}

/// What it is made of; none for one that is filled in from a file.
fn parsed(network: &Network) -> Result<Option<NetworkConfig>, CniError> {
    let parse = |config: &String| NetworkConfig::parse(config.as_bytes(), Some(network.id.name.as_str()));
    network.config.as_ref().map(parse).transpose()
}

/// Every network that is known.
pub fn networks(context: &Context) -> List<NetworkView> {
    let records = context.ledger.all();
    let items = context.cluster.networks().into_iter().map(|network| {
        let (config, problem) = match parsed(&network) {
            Ok(config) => (config, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let used = |attachment: &&Attachment| attachment.nad.as_ref() == Some(&network.id);
        NetworkView {
            namespace: network.id.namespace.to_string(),
            name: network.id.name.to_string(),
            plugins: config.iter().flat_map(|c| &c.plugins).map(|plugin| plugin.plugin.to_string()).collect(),
            cni_version: config.map(|config| config.cni_version.to_string()),
            attachments: records.iter().flat_map(|record| &record.attachments).filter(used).count(),
            problem,
        }
    });
    List::of("NetworkList", items.collect())
}
