//! The networks that come from the configuration rather than from a pod: cluster network, default networks, and
//! networks whose object has an empty spec.
//!
//! Knows where to look, in which order; the files themselves are `sys::conf_files`' business.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::cni::{NetworkConfig, Version};
use crate::config::NetConf;
use crate::fault::{CniError, code, escape, quote};
use crate::names::NadRef;
use crate::objects::Network;
use crate::ops::context::Context;
use crate::ops::default_network::{self, Master};
use crate::plan::KnownNetwork;
use crate::plan::master::{self, Candidate, Rules, Search};
use crate::sys::conf_files;

/// What every pod gets first: the cluster network, or the delegates of the configuration. Where neither is configured
/// and the master is searched for, that one, whatever stdin names.
///
/// # Errors
/// Code 101 with where it was looked for, 7 for what is wrong with it.
pub async fn all(context: &Context, conf: &NetConf, deadline: Instant) -> Result<Vec<KnownNetwork>, CniError> {
    if let Some(master) = &context.default_network.now().master {
        return Ok(vec![KnownNetwork::from_config(of_master(context, master)?)]);
    }
    match &conf.cluster_network {
        Some(name) => Ok(vec![named(context, conf, "clusterNetwork", name, deadline).await?]),
        None if conf.delegates.is_empty() && context.settings.searches_master() => {
            Err(default_network::no_master(context))
        }
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
    if conf.cluster_network.is_some() || context.default_network.now().master.is_some() {
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
        return at_path(&context.settings.generator.plugin, key, name);
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

/// The network in the file or folder that `key` names by its path; `own` is the plugin that the runtime calls.
///
/// # Errors
/// Code 101 when it is not there, 7 for what is wrong with it.
pub fn at_path(own: &str, key: &str, name: &str) -> Result<KnownNetwork, CniError> {
    let found = of_path(own, Path::new(name)).map_err(|why| unreadable(key, name, &why))?;
    let config = parse(&found, name, None)?;
    if let Some(plugin) = master::multus_of(&config, own) {
        let file = found.path.to_string_lossy();
        let why = format!("{} calls {}, which would call itself for ever", quote(&file), plugin.plugin);
        return Err(unreadable(key, name, &why));
    }
    Ok(KnownNetwork::from_config(config))
}

/// The file at `path`, or the first of the folder there that can be a cluster's own network.
fn of_path(own: &str, path: &Path) -> Result<conf_files::Found, String> {
    if !path.is_dir() {
        return conf_files::at(path).map_err(|error| error.to_string());
    }
    let rules = Rules { own, named: None, forced: None };
    let search = search(path, rules).map_err(|error| error.to_string())?;
    let why = search.why_none(&path.to_string_lossy(), rules).unwrap_or_default();
    let chosen = search.master.ok_or(why)?;
    let is_list = chosen.file.ends_with(".conflist");
    Ok(conf_files::Found { path: path.join(chosen.file), bytes: chosen.bytes, is_list })
}

/// The master among the files of `folder`.
///
/// # Errors
/// The folder cannot be read.
pub fn search(folder: &Path, rules: Rules<'_>) -> std::io::Result<Search> {
    Ok(master::choose(candidates(folder)?, rules))
}

/// Every CNI file of `folder`.
///
/// # Errors
/// The folder cannot be read.
pub fn candidates(folder: &Path) -> std::io::Result<Vec<Candidate>> {
    let candidate = |(file, content): (String, std::io::Result<Vec<u8>>)| Candidate {
        file,
        content: content.map_err(|error| error.to_string()),
    };
    Ok(conf_files::all(folder)?.into_iter().map(candidate).collect())
}

/// The master's network as its file has it now; as it was seen last while somebody is writing there. With
/// `forceCNIVersion` at that version: in memory, the file is its owner's.
///
/// # Errors
/// What is wrong with a plugin in the list's folder.
pub fn of_master(context: &Context, known: &Master) -> Result<NetworkConfig, CniError> {
    let generator = &context.settings.generator;
    let forced = generator.force_cni_version.then_some(generator.cni_version);
    let name = known.path.to_string_lossy();
    let is_list = known.path.extension().is_some_and(|ending| ending == "conflist");
    let seen = || conf_files::Found { path: known.path.clone(), bytes: known.bytes.clone(), is_list };
    let now = conf_files::at(&known.path).ok().and_then(|found| parse(&found, &name, forced).ok());
    match now.filter(|config| master::multus_of(config, &generator.plugin).is_none()) {
        Some(config) => Ok(config),
        None => parse(&seen(), &name, forced),
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
    search.found.map(|found| parse(&found, name, None)).transpose()
}

fn parse(found: &conf_files::Found, name: &str, forced: Option<Version>) -> Result<NetworkConfig, CniError> {
    let within = |error: CniError| error.within(format_args!("network of {}", quote(&found.path.to_string_lossy())));
    let mut config = master::network(&found.bytes, forced).map_err(within)?;
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
