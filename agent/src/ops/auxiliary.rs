//! The auxiliary chain: plugins in a folder beside the cluster network's file that every pod gets last.
//!
//! Begins with `passthru`, so that its plugins have a result to start from. Runs nothing itself.

use std::path::{Path, PathBuf};

use crate::cni::{NetworkConfig, Version, passthru};
use crate::config::NetConf;
use crate::fault::{CniError, code, quote};
use crate::ops::context::Context;
use crate::plan::KnownNetwork;
use crate::sys::conf_files;

/// The chain that `auxiliaryCNIChainName` names, if its folder has any plugin.
///
/// # Errors
/// Code 7 when `clusterNetwork` is no path, for then there is no folder to look in; and for what is wrong with a file.
pub fn chain(context: &Context, conf: &NetConf) -> Result<Option<KnownNetwork>, CniError> {
    let Some(name) = &conf.auxiliary_chain else { return Ok(None) };
    let master = context.default_network.now().master.as_ref().map(|master| master.path.clone());
    let named = || conf.cluster_network.as_deref().filter(|cluster| cluster.starts_with('/')).map(PathBuf::from);
    let cluster = master.or_else(named).ok_or_else(|| {
        let text = format!(
            "auxiliaryCNIChainName {}: clusterNetwork {} is not a path, so there is no folder to look for the chain in",
            quote(name.as_str()),
            quote(conf.cluster_network.as_deref().unwrap_or_default())
        );
        CniError::new(code::INVALID_CONFIG, text)
            .remedy("name the cluster network's file in clusterNetwork, or remove auxiliaryCNIChainName")
    })?;
    // A folder is the cluster network's folder itself: its first file is the network.
    let beside = if cluster.is_dir() { Some(cluster.as_path()) } else { cluster.parent() };
    let folder = beside.unwrap_or(Path::new("/")).join(name.as_str());
    let within = |error: CniError| error.within(format_args!("auxiliary chain {}", quote(&folder.to_string_lossy())));
    let plugins =
        conf_files::below(&folder).map_err(|error| within(CniError::new(code::INVALID_CONFIG, error.to_string())))?;
    if plugins.is_empty() {
        return Ok(None);
    }
    let version = conf.cni_version.max(Version::V0_3_0);
    let head = serde_json::json!({ "cniVersion": version, "name": name, "plugins": [{ "type": passthru::PLUGIN }] });
    let mut config = NetworkConfig::parse(head.to_string().as_bytes(), None)?;
    for plugin in plugins {
        config.append(&plugin).map_err(within)?;
    }
    Ok(Some(KnownNetwork::from_config(config)))
}
