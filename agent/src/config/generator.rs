//! What is written for the container runtime: the keys from which its CNI configuration is generated.
//!
//! Nothing here writes it.

use super::section::{ConfigError, Section};
use super::words;
use crate::cni::{RawObject, Version};
use crate::fault::quote;
use crate::names::PluginName;

/// What is written for the container runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct Generator {
    /// Is anything written? Only where one of `cniConfigDir`, `multusAutoconfigDir`, `multusConfigFile` and
    /// `multusMasterCNI` is configured.
    pub on: bool,
    /// `cniVersion`, clamped to 1.1.0; 0.3.1 unless configured, as upstream ships it.
    pub cni_version: Version,
    /// `type`: the plugin the runtime calls.
    pub plugin: String,
    /// `cniConfigDir`: where the configuration is written.
    pub cni_config_dir: String,
    /// `multusAutoconfigDir`: where the master's configuration is searched; `cniConfigDir` unless configured.
    pub autoconfig_dir: String,
    /// `multusConfigFile`: a file to copy; `None` is `auto`.
    pub config_file: Option<String>,
    /// `multusMasterCNI`: the master's file name, instead of searching.
    pub master_cni: Option<String>,
    /// `forceCNIVersion`.
    pub force_cni_version: bool,
    /// `overrideNetworkName`.
    pub override_network_name: bool,
    /// `daemonSocketDir`: the socket's folder as the shim sees it, where it is configured.
    pub daemon_socket_dir: Option<String>,
    /// `capabilities`, as written.
    pub capabilities: RawObject,
}

impl Generator {
    /// Takes its keys out of the configuration.
    pub(super) fn read(top: &mut Section, warnings: &mut Vec<String>) -> Result<Self, ConfigError> {
        let fits = format!("one of {}", Version::list());
        let cni_version = match top.word("cniVersion", &fits, |text| Some((text.to_owned(), words::version(text)?)))? {
            Some((_, (version, false))) => version,
            Some((text, (version, true))) => {
                warnings.push(format!("cniVersion {} is newer than any there is; {version} is used", quote(&text)));
                version
            }
            None => Version::V0_3_1,
        };
        let file_name = |text: &str| (!text.contains('/') && text != "." && text != "..").then(|| text.to_owned());
        let capabilities = top.section("capabilities")?;
        let cni_config_dir = top.folder("cniConfigDir")?;
        let autoconfig_dir = top.folder("multusAutoconfigDir")?;
        let config_file = top.word("multusConfigFile", "auto or an absolute path", |text| {
            (text == "auto" || text.starts_with('/')).then(|| text.to_owned())
        })?;
        let master_cni = top.word("multusMasterCNI", "a file name without '/'", file_name)?;
        let on = cni_config_dir.is_some() || autoconfig_dir.is_some() || config_file.is_some() || master_cni.is_some();
        let cni_config_dir = cni_config_dir.unwrap_or_else(|| "/etc/cni/net.d".to_owned());
        Ok(Self {
            on,
            cni_version,
            plugin: top
                .word("type", "the name of a plugin", |text| PluginName::new(text).ok())?
                .map_or_else(|| "multus-shim".to_owned(), String::from),
            autoconfig_dir: autoconfig_dir.unwrap_or_else(|| cni_config_dir.clone()),
            cni_config_dir,
            config_file: config_file.filter(|text| text != "auto"),
            master_cni,
            force_cni_version: top.flag("forceCNIVersion")?.unwrap_or(false),
            override_network_name: top.flag("overrideNetworkName")?.unwrap_or(false),
            daemon_socket_dir: top.folder("daemonSocketDir")?,
            capabilities: capabilities.flags()?,
        })
    }
}
