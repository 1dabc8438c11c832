//! What the operator configured.

use crate::names::ObjectName;

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
}

/// The protocols relayed unless configured otherwise.
pub const RELAYED: [&str; 4] = ["mdns", "ssdp", "wsd", "coap"];

impl Default for Policy {
    fn default() -> Self {
        Self {
            namespace_isolation: false,
            global_namespaces: vec!["default".to_owned()],
            system_namespaces: vec!["kube-system".to_owned()],
            multus_namespace: kube_system(),
            relay: RelayPolicy::default(),
        }
    }
}

impl Default for RelayPolicy {
    fn default() -> Self {
        let relayed: Vec<String> = RELAYED.map(str::to_owned).into();
        Self { protocols: relayed.clone(), allowed: None, known: relayed }
    }
}

fn kube_system() -> ObjectName {
    #[expect(clippy::expect_used, reason = "a constant that is a valid name")]
    ObjectName::new("kube-system").expect("kube-system is an object name")
}
