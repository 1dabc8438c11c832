//! What decides about a request's delegates: the keys that `daemon-config.json` and the shim's stdin share.
//!
//! A key of the daemon goes before the same key of the stdin, as upstream overlays them. Nothing here reads the files
//! that are named.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::datapath::{PROTOCOLS, RELAYED};
use super::section::{ConfigError, Section};
use super::settings::Settings;
use crate::cni::{NetworkConfig, RawObject, Version};
use crate::fault::{CniError, code};
use crate::names::{NetworkName, ObjectName};

/// What decides about a pod's networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// A network must be in the pod's namespace or in one of `global_namespaces`.
    pub namespace_isolation: bool,
    /// Namespaces whose networks every pod may use; `["default"]` unless configured.
    pub global_namespaces: Vec<String>,
    /// Namespaces whose pods get no default networks; `["kube-system"]` unless configured.
    pub system_namespaces: Vec<String>,
    /// Where the cluster network, the default networks and bare names of the default-network annotation are.
    pub multus_namespace: ObjectName,
    /// What the relay may carry.
    pub relay: RelayPolicy,
}

/// Which discovery protocols the relay carries, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayPolicy {
    /// Relayed where no annotation says otherwise.
    pub protocols: Vec<String>,
    /// The ceiling of what annotations may ask for; `None` allows every known one.
    pub allowed: Option<Vec<String>>,
    /// Every name there is: the built-in ones and the configured ones.
    pub known: Vec<String>,
    /// Whether a network's `host-access` counts.
    pub host_access: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            namespace_isolation: false,
            global_namespaces: vec!["default".to_owned()],
            system_namespaces: vec!["kube-system".to_owned()],
            multus_namespace: ObjectName::kube_system(),
            relay: RelayPolicy::default(),
        }
    }
}

impl Default for RelayPolicy {
    fn default() -> Self {
        Self {
            protocols: RELAYED.map(str::to_owned).into(),
            allowed: None,
            known: PROTOCOLS.map(str::to_owned).into(),
            host_access: true,
        }
    }
}

/// The shared keys, as far as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delegation {
    /// `clusterNetwork`: the name of a NAD or a CNI network, or the path of a file or folder.
    pub cluster_network: Option<String>,
    /// `delegates`: embedded networks, the first of which is the master; ignored beside `clusterNetwork`.
    pub delegates: Option<Arc<[NetworkConfig]>>,
    /// `defaultNetworks`, each named as `clusterNetwork` is.
    pub default_networks: Option<Vec<String>>,
    /// `namespaceIsolation`.
    pub namespace_isolation: Option<bool>,
    /// `globalNamespaces`, a comma list that replaces `default`.
    pub global_namespaces: Option<Vec<String>>,
    /// `systemNamespaces`.
    pub system_namespaces: Option<Vec<String>>,
    /// `multusNamespace`.
    pub multus_namespace: Option<ObjectName>,
    /// `confDir`.
    pub conf_dir: Option<String>,
    /// `cniDir`.
    pub cni_dir: Option<String>,
    /// `binDir`; in the daemon's file also `cniBinDir`.
    pub bin_dir: Option<String>,
    /// `auxiliaryCNIChainName`.
    pub auxiliary_chain: Option<NetworkName>,
}

impl Delegation {
    pub(super) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        Self::read_beside(section, None)
    }

    /// [`read`](Self::read), where `above` names a cluster network already: `delegates` are ignored beside one.
    fn read_beside(section: &mut Section, above: Option<&str>) -> Result<Self, ConfigError> {
        let cluster_network = section.text("clusterNetwork")?;
        let delegates = read_delegates(section, above.is_some() || cluster_network.is_some())?;
        Ok(Self {
            cluster_network,
            delegates,
            default_networks: section.list("defaultNetworks", "names of networks", non_empty)?,
            namespace_isolation: section.flag("namespaceIsolation")?,
            global_namespaces: section.word("globalNamespaces", "namespaces joined by commas", |text| {
                Some(text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect())
            })?,
            system_namespaces: section.list("systemNamespaces", "names of namespaces", non_empty)?,
            multus_namespace: section.word("multusNamespace", "a namespace", |text| ObjectName::new(text).ok())?,
            conf_dir: section.folder("confDir")?,
            cni_dir: section.folder("cniDir")?,
            bin_dir: section.folder("binDir")?,
            auxiliary_chain: section
                .word("auxiliaryCNIChainName", "the name of a network", |text| NetworkName::new(text).ok())?,
        })
    }

    /// `self` with what `daemon` says written over it.
    fn under(self, daemon: &Self) -> Self {
        fn over<T: Clone>(daemon: Option<&T>, own: Option<T>) -> Option<T> {
            daemon.cloned().or(own)
        }
        Self {
            cluster_network: over(daemon.cluster_network.as_ref(), self.cluster_network),
            delegates: over(daemon.delegates.as_ref(), self.delegates),
            default_networks: over(daemon.default_networks.as_ref(), self.default_networks),
            namespace_isolation: over(daemon.namespace_isolation.as_ref(), self.namespace_isolation),
            global_namespaces: over(daemon.global_namespaces.as_ref(), self.global_namespaces),
            system_namespaces: over(daemon.system_namespaces.as_ref(), self.system_namespaces),
            multus_namespace: over(daemon.multus_namespace.as_ref(), self.multus_namespace),
            conf_dir: over(daemon.conf_dir.as_ref(), self.conf_dir),
            cni_dir: over(daemon.cni_dir.as_ref(), self.cni_dir),
            bin_dir: over(daemon.bin_dir.as_ref(), self.bin_dir),
            auxiliary_chain: over(daemon.auxiliary_chain.as_ref(), self.auxiliary_chain),
        }
    }

    /// The rules, defaults filled in.
    fn policy(&mut self, relay: &RelayPolicy) -> Policy {
        let default = Policy { relay: relay.clone(), ..Policy::default() };
        Policy {
            namespace_isolation: self.namespace_isolation.unwrap_or(default.namespace_isolation),
            global_namespaces: self.global_namespaces.take().unwrap_or(default.global_namespaces),
            system_namespaces: self.system_namespaces.take().unwrap_or(default.system_namespaces),
            multus_namespace: self.multus_namespace.take().unwrap_or(default.multus_namespace),
            relay: default.relay,
        }
    }
}

/// The configuration of one request: the shim's stdin under the daemon's settings.
#[derive(Debug, Clone)]
pub struct NetConf {
    /// The network's own name, normally `multus-cni-network`.
    pub name: NetworkName,
    /// The version of the stdin: the reply is printed in it.
    pub cni_version: Version,
    /// What the runtime gave.
    pub runtime_config: RawObject,
    /// `prevResult`, as it came.
    pub prev_result: Option<Box<RawValue>>,
    /// The cluster network by name or path.
    pub cluster_network: Option<String>,
    /// Embedded networks; they count only without `cluster_network`.
    pub delegates: Arc<[NetworkConfig]>,
    /// Networks of every pod outside the system namespaces, by name or path.
    pub default_networks: Vec<String>,
    /// The rules.
    pub policy: Policy,
    /// Where CNI files are that NADs with an empty spec refer to.
    pub conf_dir: String,
    /// Our state on disk.
    pub cni_dir: String,
    /// Where plugins are looked for first.
    pub bin_dir: String,
    /// The auxiliary chain.
    pub auxiliary_chain: Option<NetworkName>,
}

impl NetConf {
    /// Reads the stdin of a request.
    ///
    /// # Errors
    /// Code 6 when it is not JSON, 1 for a version not spoken, 7 for a field that does not fit, by name.
    pub fn parse(stdin: &[u8], settings: &Settings) -> Result<Self, CniError> {
        let object = RawObject::parse(stdin).map_err(|error| error.within("configuration on stdin"))?;
        let keys = object.settled(&["name", "cniVersion", "runtimeConfig", "prevResult"]);
        let name = keys.text("name")?.unwrap_or_default();
        let name = NetworkName::new(name).map_err(|bad| {
            CniError::new(code::INVALID_CONFIG, format!("field \"name\": {bad}")).remedy("name the network")
        })?;
        let cni_version = Version::parse(&keys.text("cniVersion")?.unwrap_or_default())?;
        let runtime_config = keys.object("runtimeConfig")?.unwrap_or_default();
        let prev_result = keys.get("prevResult").map(ToOwned::to_owned);
        let above = settings.delegation.cluster_network.as_deref();
        let own = Delegation::read_beside(&mut Section::of(object), above)?;
        let mut merged = own.under(&settings.delegation);
        Ok(Self {
            name,
            cni_version,
            runtime_config,
            prev_result,
            policy: merged.policy(&settings.datapath.relay),
            cluster_network: merged.cluster_network,
            delegates: merged.delegates.unwrap_or_default(),
            default_networks: merged.default_networks.unwrap_or_default(),
            conf_dir: merged.conf_dir.unwrap_or_else(|| "/etc/cni/multus/net.d".to_owned()),
            cni_dir: merged.cni_dir.unwrap_or_else(|| "/var/lib/cni/multus".to_owned()),
            bin_dir: merged.bin_dir.unwrap_or_else(|| "/opt/cni/bin".to_owned()),
            auxiliary_chain: merged.auxiliary_chain,
        })
    }
}

fn read_delegates(section: &mut Section, is_ignored: bool) -> Result<Option<Arc<[NetworkConfig]>>, ConfigError> {
    let Some(delegates) = section.read::<Vec<Box<RawValue>>>("delegates", "a list of CNI configurations")? else {
        return Ok(None);
    };
    if is_ignored {
        return Ok(None);
    }
    let network = |(at, value): (usize, &RawValue)| {
        NetworkConfig::parse(value.get().as_bytes(), Some("multus-delegate")).map_err(|error| ConfigError {
            key: format!("{}[{at}]", section.path("delegates")),
            value: format!("not a CNI configuration ({})", error.msg),
            fits: "a CNI configuration or list".to_owned(),
        })
    };
    delegates.iter().map(AsRef::as_ref).enumerate().map(network).collect::<Result<_, _>>().map(Some)
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= 4095 && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net_conf(stdin: &str, daemon: &str) -> Result<NetConf, CniError> {
        NetConf::parse(stdin.as_bytes(), &Settings::parse(daemon).unwrap().0)
    }

    #[test]
    fn the_daemon_goes_before_the_stdin() {
        let stdin = r#"{"cniVersion":"1.0.0","name":"multus-cni-network","type":"multus-shim","clusterNetwork":"/a","binDir":"/bin",
            "namespaceIsolation":true,"runtimeConfig":{"x":1},"prevResult":{"y":2},"logLevel":"debug"}"#;
        let conf = net_conf(stdin, "{}").unwrap();
        assert_eq!((conf.cni_version, conf.name.as_str()), (Version::V1_0_0, "multus-cni-network"));
        assert_eq!((conf.cluster_network.as_deref(), conf.bin_dir.as_str()), (Some("/a"), "/bin"));
        assert_eq!((conf.conf_dir.as_str(), conf.cni_dir.as_str()), ("/etc/cni/multus/net.d", "/var/lib/cni/multus"));
        assert!(conf.policy.namespace_isolation);
        assert_eq!(conf.policy.global_namespaces, ["default"]);
        assert_eq!(conf.runtime_config.print(), r#"{"x":1}"#);
        assert_eq!(conf.prev_result.unwrap().get(), r#"{"y":2}"#);

        let daemon = r#"{"cniVersion":"0.3.1","clusterNetwork":"kindnet","namespaceIsolation":false,"globalNamespaces":"x",
            "multusNamespace":"m","defaultNetworks":["d"],"datapath":{"relay":{"protocols":[]}}}"#;
        let conf = net_conf(stdin, daemon).unwrap();
        assert_eq!(conf.cni_version, Version::V1_0_0, "the stdin decides the version of the reply");
        assert_eq!((conf.cluster_network.as_deref(), conf.bin_dir.as_str()), (Some("kindnet"), "/bin"));
        assert!(!conf.policy.namespace_isolation && conf.policy.relay.protocols.is_empty());
        assert_eq!(conf.policy.global_namespaces, ["x"]);
        assert_eq!((conf.policy.multus_namespace.as_str(), conf.default_networks), ("m", vec!["d".to_owned()]));
    }

    #[test]
    fn embedded_delegates_are_read_unless_a_cluster_network_is_named() {
        let stdin = r#"{"name":"n","delegates":[{"name":"a","type":"x"},{"name":"b","plugins":[{"type":"y"}]}]}"#;
        let conf = net_conf(stdin, "{}").unwrap();
        let names: Vec<&str> = conf.delegates.iter().map(|delegate| delegate.name.as_str()).collect();
        assert_eq!((conf.cni_version, names), (Version::V0_1_0, vec!["a", "b"]));
        let ignored = net_conf(r#"{"name":"n","clusterNetwork":"c","delegates":[{"type":"a/b"}]}"#, "{}").unwrap();
        assert!(ignored.delegates.is_empty());
        let above = net_conf(r#"{"name":"n","delegates":[{"type":"a/b"}]}"#, r#"{"clusterNetwork":"c"}"#).unwrap();
        assert!(above.delegates.is_empty(), "beside the daemon's, too");
    }

    #[test]
    fn keys_of_the_stdin_match_in_any_case() {
        let conf = net_conf(
            r#"{"CNIVersion":"1.0.0","NAME":"n","RuntimeConfig":{"x":1},"ClusterNetwork":"c","GlobalNamespaces":"g"}"#,
            r#"{"globalnamespaces":"d"}"#,
        )
        .unwrap();
        assert_eq!((conf.cni_version, conf.name.as_str()), (Version::V1_0_0, "n"));
        assert_eq!((conf.runtime_config.print().as_str(), conf.cluster_network.as_deref()), (r#"{"x":1}"#, Some("c")));
        assert_eq!(conf.policy.global_namespaces, ["d"], "the daemon's goes before in any case");
    }

    #[test]
    fn refusals_name_the_field() {
        let table = [
            ("{", code::DECODE, "stdin"),
            ("{}", code::INVALID_CONFIG, "\"name\""),
            (r#"{"name":"../x"}"#, code::INVALID_CONFIG, "\"../x\""),
            (r#"{"name":"n","cniVersion":"7"}"#, code::INCOMPATIBLE_VERSION, "cniVersion"),
            (r#"{"name":"n","runtimeConfig":[]}"#, code::INVALID_CONFIG, "\"runtimeConfig\""),
            (r#"{"name":"n","binDir":"x"}"#, code::INVALID_CONFIG, "\"binDir\""),
            (r#"{"name":"n","delegates":[{"plugins":[]}]}"#, code::INVALID_CONFIG, "\"delegates[0]\""),
            (r#"{"name":"n","namespaceIsolation":"true"}"#, code::INVALID_CONFIG, "\"namespaceIsolation\""),
        ];
        for (stdin, code, names) in table {
            let error = net_conf(stdin, "{}").unwrap_err();
            assert_eq!(error.code, code, "{stdin}: {error}");
            assert!(error.msg.contains(names), "{stdin}: {error}");
        }
    }
}
