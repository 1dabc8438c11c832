//! What a network is when its configuration is at hand, wherever it came from: a NetworkAttachmentDefinition, a file,
//! or the runtime's own configuration.
//!
//! Looks up nothing; whoever has the text gives it.

use std::collections::BTreeMap;

use crate::cni::NetworkConfig;
use crate::fault::{CniError, code};
use crate::names::NadRef;
use crate::objects::{Network, annotation};

/// A network whose configuration is at hand.
#[derive(Debug, Clone)]
pub struct KnownNetwork {
    /// The name in network-status and events: `<namespace>/<name>` of a NAD, else the CNI name.
    pub label: String,
    /// Which NAD, if it is one.
    pub nad: Option<NadRef>,
    /// How it is made.
    pub config: NetworkConfig,
    /// The annotations of the NAD.
    pub annotations: BTreeMap<String, String>,
}

impl KnownNetwork {
    /// A network of a file or of the runtime's configuration.
    pub fn from_config(config: NetworkConfig) -> Self {
        Self { label: config.name.to_string(), nad: None, config, annotations: BTreeMap::new() }
    }

    /// The network a NAD describes. Its `config` must be there: for an empty spec the caller reads it from `confDir`.
    ///
    /// # Errors
    /// What is wrong with the configuration, after the NAD's name; code 101 when there is none.
    pub fn from_nad(nad: &Network) -> Result<Self, CniError> {
        let text = nad.config.as_deref().filter(|text| !text.trim().is_empty()).ok_or_else(|| {
            CniError::new(
                code::UNKNOWN_NETWORK,
                format!(
                    "network-attachment-definition {}: spec.config is empty and confDir has no network of that name",
                    nad.id
                ),
            )
            .remedy("write the CNI configuration into spec.config")
        })?;
        let config = NetworkConfig::parse(text.as_bytes(), Some(nad.id.name.as_str()))
            .map_err(|error| error.within(format_args!("network-attachment-definition {}: spec.config", nad.id)))
            .map_err(|error| error.or_remedy("correct the network's spec.config"))?;
        let (nad, annotations) = (nad.id.clone(), nad.annotations.clone());
        Ok(Self { label: nad.to_string(), nad: Some(nad), config, annotations })
    }

    /// The device resource it is tied to.
    pub fn resource(&self) -> Option<&str> {
        resource(&self.annotations)
    }
}

/// The device resource that the annotations of a NAD tie it to.
pub(super) fn resource(annotations: &BTreeMap<String, String>) -> Option<&str> {
    annotations.get(annotation::RESOURCE_NAME).map(String::as_str).filter(|name| !name.is_empty())
}
