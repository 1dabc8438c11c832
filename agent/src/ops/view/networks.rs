//! Every network that is known, what it is made of, and what is wrong with it.

use serde::Serialize;

use super::List;
use crate::cni::NetworkConfig;
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

/// Every network that is known.
pub fn networks(context: &Context) -> List<NetworkView> {
    let records = context.ledger.all();
    let items = context.cluster.networks().into_iter().map(|network| {
        let parsed = match &network.config {
            Some(config) => NetworkConfig::parse(config.as_bytes(), Some(network.id.name.as_str())).map(Some),
            None => Ok(None),
        };
        let (config, problem) = match parsed {
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
