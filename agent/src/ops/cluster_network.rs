//! The networks that come from the configuration rather than from a pod: cluster network, default networks, and
//! networks whose object has an empty spec.
//!
//! Knows where to look, in which order; the files themselves are `sys::conf_files`' business.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::cni::NetworkConfig;
use crate::config::NetConf;
use crate::fault::{CniError, code, escape, quote};
use crate::names::NadRef;
use crate::objects::Network;
use crate::ops::context::Context;
use crate::plan::KnownNetwork;
use crate::sys::conf_files;

/// What every pod gets first: the cluster network, or the delegates of the configuration.
///
/// # Errors
/// Code 101 with where it was looked for, 7 for what is wrong with it.
pub async fn all(context: &Context, conf: &NetConf, deadline: Instant) -> Result<Vec<KnownNetwork>, CniError> {
    match &conf.cluster_network {
        Some(name) => Ok(vec![named(context, conf, "clusterNetwork", name, deadline).await?]),
        None => Ok(conf.delegates.iter().cloned().map(KnownNetwork::from_config).collect()),
    }
}

/// The master's network alone.
///
/// # Errors
/// As [`all`].
pub async fn resolve(context: &Context, conf: &NetConf, deadline: Instant) -> Result<Option<KnownNetwork>, CniError> {
    Ok(all(context, conf, deadline).await?.into_iter().next())
}

/// `defaultNetworks`, which only go with a cluster network.
///
/// # Errors
/// As [`all`].
pub async fn defaults(context: &Context, conf: &NetConf, deadline: Instant) -> Result<Vec<KnownNetwork>, CniError> {
    let mut networks = Vec::new();
    if conf.cluster_network.is_some() {
        for name in &conf.default_networks {
            networks.push(named(context, conf, "defaultNetworks", name, deadline).await?);
        }
    }
    Ok(networks)
}

/// A path is a file or a folder; a name is an object in `multusNamespace`, else a file of that CNI name in `confDir`.
async fn named(
    context: &Context,
    conf: &NetConf,
    key: &str,
    name: &str,
    deadline: Instant,
) -> Result<KnownNetwork, CniError> {
    if name.contains('/') {
        let bytes = conf_files::at(Path::new(name)).map_err(|error| unreadable(key, name, &error.to_string()))?;
        return parse(&bytes, name).map(KnownNetwork::from_config);
    }
    let of_file = || Ok::<_, CniError>(from_folder(conf, name)?.map(KnownNetwork::from_config));
    let folder = quote(&conf.conf_dir);
    // A CNI network may have a name that no object can.
    let Ok(id) = NadRef::new(conf.policy.multus_namespace.as_str(), name) else {
        let why = format!("no file in confDir {folder} has this name");
        return of_file()?.ok_or_else(|| unreadable(key, name, &why));
    };
    if context.cluster.network(&id).is_none()
        && context.cluster.health().networks_synced
        && let Some(network) = of_file()?
    {
        // Every object is known and it is none of them: nothing to wait for.
        return Ok(network);
    }
    match context.cluster.find_network(&id, deadline).await {
        Ok(network) => KnownNetwork::from_nad(&*filled(conf, network)?),
        Err(missing) => of_file()?.ok_or_else(|| {
            let why = format!("{missing}; and no file in confDir {folder} has this name");
            unreadable(key, name, &why)
        }),
    }
}

fn unreadable(key: &str, name: &str, why: &str) -> CniError {
    CniError::new(code::UNKNOWN_NETWORK, format!("{key} {}: {why}", quote(name)))
        .remedy(format!("create the network, or correct {key} in the daemon's configuration"))
}

/// `network` with its configuration from `confDir`, if its spec is empty.
///
/// # Errors
/// What is wrong with the file.
pub fn filled(conf: &NetConf, network: Arc<Network>) -> Result<Arc<Network>, CniError> {
    if network.config.as_deref().is_some_and(|text| !text.trim().is_empty()) {
        return Ok(network);
    }
    let Some(config) = from_folder(conf, network.id.name.as_str())? else { return Err(nowhere(conf, &network.id)) };
    Ok(Arc::new(Network { config: Some(config.print()), ..Network::clone(&network) }))
}

fn nowhere(conf: &NetConf, id: &NadRef) -> CniError {
    let (folder, name) = (quote(&conf.conf_dir), &id.name);
    CniError::new(
        code::UNKNOWN_NETWORK,
        format!(
            "network-attachment-definition {id}: spec.config is empty, and no file in confDir {folder} has the name {name}"
        ),
    )
    .remedy("write the CNI configuration into spec.config, or put its file there")
}

fn from_folder(conf: &NetConf, name: &str) -> Result<Option<NetworkConfig>, CniError> {
    let search = conf_files::named(Path::new(&conf.conf_dir), name).map_err(|error| {
        let folder = quote(&conf.conf_dir);
        CniError::new(code::UNKNOWN_NETWORK, format!("look for network {} in confDir {folder}: {error}", quote(name)))
            .remedy("correct confDir, or make the folder readable")
    })?;
    for broken in &search.passed_over {
        tracing::warn!("confDir: passed over {}", escape(broken));
    }
    search.found.map(|found| parse(&found, name)).transpose()
}

fn parse(found: &conf_files::Found, name: &str) -> Result<NetworkConfig, CniError> {
    let within = |error: CniError| error.within(format_args!("network of {}", quote(&found.path.to_string_lossy())));
    let mut config = NetworkConfig::parse(&found.bytes, None).map_err(within)?;
    if found.is_list && config.loads_folder() {
        let folder = found.path.with_file_name(config.name.as_str());
        let further = conf_files::below(&folder)
            .map_err(|error| CniError::new(code::INVALID_CONFIG, format!("network {}: {error}", quote(name))))?;
        for bytes in further {
            config.append(&bytes).map_err(within)?;
        }
    }
    Ok(config)
}
