//! Which attachments a pod gets, in which order, under which interface names, with which wishes.
//!
//! All or nothing: the first thing that cannot be is refused by name, before any plugin runs. Nothing here looks up an
//! object; networks come through a closure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::selection::{Choice, Selection};
use super::wishes::Devices;
use super::{conflicts, device_info, host_access, isolation, relay};
use crate::cni::{NetworkConfig, PluginConfig, RawObject};
use crate::config::Policy;
use crate::fault::{CniError, code, quote};
use crate::names::{IfName, NadRef, PodRef};
use crate::objects::{Allocated, HostAccess, Network, annotation};

/// Most warnings about one pod: each becomes an event.
const MOST_WARNINGS: usize = 16;

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
}

impl KnownNetwork {
    /// The device resource it is tied to.
    pub fn resource(&self) -> Option<&str> {
        resource(&self.annotations)
    }
}

/// The device resource that the annotations of a NAD tie it to.
pub(super) fn resource(annotations: &BTreeMap<String, String>) -> Option<&str> {
    annotations.get(annotation::RESOURCE_NAME).map(String::as_str).filter(|name| !name.is_empty())
}

/// What is wanted for one sandbox.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The pod, where the runtime named one.
    pub pod: Option<&'a PodRef>,
    /// The interface the runtime asked for; the master's.
    pub ifname: &'a IfName,
    /// What the runtime gave: capability to value. For the master alone (multi-network standard 1.3, section 7.5).
    pub runtime_config: &'a RawObject,
    /// The operator's rules.
    pub policy: &'a Policy,
    /// The cluster network; or the embedded delegates, the first of which is the master.
    pub cluster: Vec<KnownNetwork>,
    /// The networks of every pod outside the system namespaces.
    pub defaults: Vec<KnownNetwork>,
    /// What the pod chooses.
    pub choice: Choice,
    /// The auxiliary chain, attached last.
    pub auxiliary: Option<KnownNetwork>,
    /// Devices allocated to the pod.
    pub devices: Allocated,
}

/// What is going to be attached.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In the order of ADD; the master is first.
    pub attachments: Vec<Attachment>,
    /// What an operator should hear about, and what goes on nevertheless.
    pub warnings: Vec<Warning>,
}

/// Something odd that does not stop anything: the reason and text of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A word in CamelCase.
    pub reason: &'static str,
    /// One sentence naming the network and the field.
    pub message: String,
}

/// One network on one interface.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The cluster network, or what replaces it: its result is the runtime's.
    pub master: bool,
    /// The name in network-status and events.
    pub network: String,
    /// Which NAD, if it is one.
    pub nad: Option<NadRef>,
    /// How it is made, with the pod's `cni-args` and the device in it.
    pub config: NetworkConfig,
    /// The interface in the pod.
    pub ifname: IfName,
    /// Capability to value; each plugin gets those it declares.
    pub runtime_config: RawObject,
    /// Pairs appended to `CNI_ARGS`: `MAC` and `IP`, as old plugins read them.
    pub extra_args: Vec<(String, String)>,
    /// Gateways the pod's default route goes through. An empty list keeps the plugin's own default route.
    pub default_route: Option<Vec<IpAddr>>,
    /// The device, from the resource map or asked for.
    pub device_id: Option<String>,
    /// The resource the network is tied to.
    pub resource: Option<String>,
    /// Its device-info files; placed by [`Plan::place_device_info`].
    pub device_info: Option<device_info::Files>,
    /// The discovery protocols that are relayed.
    pub relay: Vec<String>,
    /// What the host and the pod may say to each other; `None`: nothing but what is relayed.
    pub host_access: Option<HostAccess>,
    /// Whether the pod receives relayed frames as they were sent.
    pub plain_copy: bool,
}

impl Attachment {
    /// A secondary network under its own name, on `ifname`, that nobody has wishes for.
    pub fn plain(config: NetworkConfig, ifname: IfName) -> Self {
        Self {
            master: false,
            network: config.name.to_string(),
            nad: None,
            config,
            ifname,
            runtime_config: RawObject::default(),
            extra_args: Vec::new(),
            default_route: None,
            device_id: None,
            resource: None,
            device_info: None,
            relay: Vec::new(),
            host_access: None,
            plain_copy: false,
        }
    }

    /// [`parent_in_question`] of the first plugin.
    pub(super) fn parent_in_question(&self) -> Option<(&str, String)> {
        self.config.plugins.first().and_then(parent_in_question)
    }

    /// [`parent_in_question`](Self::parent_in_question) where it is named.
    pub fn parent_on_node(&self) -> Option<(&str, String)> {
        self.parent_in_question().filter(|(_, parent)| !parent.is_empty())
    }

    /// The links of the node that its plugins make where they are missing: bridges, by the plugins' own default name.
    pub fn bridges(&self) -> impl Iterator<Item = String> {
        let makers = self.config.plugins.iter().filter(|plugin| matches!(plugin.plugin.as_str(), "bridge" | "flannel"));
        makers.map(|plugin| plugin.word("bridge").unwrap_or_else(|| "cni0".to_owned()))
    }
}

/// Kind and parent of a plugin that makes children of a link of the node; `""` is the interface of the default route.
/// One link carries children of one kind only.
pub fn parent_in_question(plugin: &PluginConfig) -> Option<(&str, String)> {
    let kind = plugin.plugin.as_str();
    let in_pod = plugin.raw.flag("linkInContainer").ok().flatten().unwrap_or(false);
    (matches!(kind, "macvlan" | "ipvlan") && !in_pod).then(|| (kind, plugin.word("master").unwrap_or_default()))
}

/// Decides. `network` gives a NAD, with its configuration filled in from `confDir` where the spec is empty.
///
/// # Errors
/// Code 101 for an unknown network, 102 for isolation, 100 for annotations, 7 for configurations; each names the
/// network, the field and the value.
pub fn plan(wanted: Wanted<'_>, network: impl Fn(&NadRef) -> Option<Network>) -> Result<Plan, CniError> {
    let plan = draft(wanted, network)?;
    conflicts::refuse(&plan.attachments)?;
    Ok(plan)
}

/// The same without a look at what cannot stand side by side ([`conflicts`]).
///
/// # Errors
/// As [`plan`].
pub fn draft(mut wanted: Wanted<'_>, network: impl Fn(&NadRef) -> Option<Network>) -> Result<Plan, CniError> {
    if wanted.cluster.is_empty() {
        // Also where the pod chooses networks: none of them may become its master unasked.
        return Err(CniError::new(code::INVALID_CONFIG, "at least one delegate/clusterNetwork must be specified")
            .remedy("set clusterNetwork in the daemon's configuration"));
    }
    let drafts = order(&mut wanted, &network)?;
    let mut plan = Plan { attachments: Vec::new(), warnings: Vec::new() };
    let mut devices = Devices::new(wanted.devices);
    for (position, draft) in drafts.into_iter().enumerate() {
        let within = |error: CniError| error.within(format_args!("network {}", quote(&draft.known.label)));
        let mut attachment = Attachment {
            master: position == 0,
            ifname: name_interface(position, draft.selection.as_ref(), wanted.ifname)?,
            relay: relay::protocols(draft.relay_of_network(), wanted.choice.relay.as_deref(), &wanted.policy.relay)
                .map_err(within)?,
            host_access: host_access::host_access(&draft.known.annotations, wanted.policy.relay.host_access)
                .map_err(within)?,
            plain_copy: host_access::plain_copy(draft.copies_of_network(), wanted.choice.relay_copy.as_deref())
                .map_err(within)?,
            default_route: draft.selection.as_ref().and_then(|selection| selection.default_route.clone()),
            device_id: devices.next_for(&draft.known, draft.selection.as_ref())?,
            resource: draft.known.resource().map(str::to_owned),
            device_info: None,
            runtime_config: if position == 0 { wanted.runtime_config.clone() } else { RawObject::default() },
            extra_args: Vec::new(),
            network: draft.known.label,
            nad: draft.known.nad,
            config: draft.known.config,
        };
        if let Some(device) = attachment.device_id.clone() {
            attachment.inject_device(&device);
        }
        if let Some(selection) = &draft.selection {
            attachment.take_wishes(selection, &mut plan.warnings)?;
        }
        plan.attachments.push(attachment);
    }
    plan.warnings.truncate(MOST_WARNINGS);
    Ok(plan)
}

/// Whether the default networks are attached to `pod`.
pub fn wants_defaults(pod: Option<&PodRef>, policy: &Policy) -> bool {
    pod.is_some_and(|pod| !policy.system_namespaces.iter().any(|system| system == pod.namespace.as_str()))
}

/// A network with the pod's wishes for it.
struct Draft {
    known: KnownNetwork,
    selection: Option<Selection>,
}

impl Draft {
    fn copies_of_network(&self) -> Option<&str> {
        self.known.annotations.get(annotation::RELAY_COPY).map(String::as_str)
    }

    fn relay_of_network(&self) -> Option<&str> {
        self.known.annotations.get(annotation::RELAY).map(String::as_str)
    }
}

/// Cluster network, default networks, the pod's networks, auxiliary chain; the default-network annotation replaces the
/// first.
fn order(wanted: &mut Wanted<'_>, network: &impl Fn(&NadRef) -> Option<Network>) -> Result<Vec<Draft>, CniError> {
    let plain = |known| Draft { known, selection: None };
    let mut drafts: Vec<Draft> = wanted.cluster.drain(..).map(plain).collect();
    if wants_defaults(wanted.pod, wanted.policy) {
        drafts.extend(wanted.defaults.drain(..).map(plain));
    }
    let (default_network, selections) =
        (wanted.choice.default_network.take(), std::mem::take(&mut wanted.choice.networks));
    if let Some(selection) = default_network {
        if let Some(pod) = wanted.pod {
            isolation::check_default(wanted.policy, &pod.namespace, &selection.network)?;
        }
        let draft = Draft { known: look_up(&selection.network, network)?, selection: Some(selection) };
        if let Some(first) = drafts.first_mut() {
            *first = draft;
        }
    }
    for selection in selections {
        if let Some(pod) = wanted.pod {
            isolation::check(wanted.policy, &pod.namespace, &selection.network)?;
        }
        drafts.push(Draft { known: look_up(&selection.network, network)?, selection: Some(selection) });
    }
    drafts.extend(wanted.auxiliary.take().map(plain));
    Ok(drafts)
}

fn look_up(id: &NadRef, network: impl Fn(&NadRef) -> Option<Network>) -> Result<KnownNetwork, CniError> {
    let nad = network(id).ok_or_else(|| {
        CniError::new(
            code::UNKNOWN_NETWORK,
            format!("cannot find a network-attachment-definition ({}) in namespace ({})", id.name, id.namespace),
        )
        .remedy("create it, or correct the name in the pod's annotation")
    })?;
    KnownNetwork::from_nad(&nad)
}

/// The name asked for, else the runtime's for the master, else `net<position>`.
fn name_interface(position: usize, selection: Option<&Selection>, master: &IfName) -> Result<IfName, CniError> {
    match selection.and_then(|selection| selection.ifname.clone()) {
        Some(asked) => Ok(asked),
        None if position == 0 => Ok(master.clone()),
        None => IfName::new(format!("net{position}"))
            .map_err(|bad| CniError::new(code::INTERNAL, format!("name interface {position}: {bad}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{DeviceId, ObjectName};

    const NADS: [(&str, &str); 12] = [
        (
            "home/mv",
            r#"{"cniVersion":"0.3.1","type":"macvlan","master":"eth0","capabilities":{"ips":true,"mac":true}}"#,
        ),
        ("home/mv2", r#"{"type":"macvlan","master":"eth1"}"#),
        ("home/ipv", r#"{"type":"ipvlan","master":"eth0"}"#),
        (
            "home/br",
            r#"{"plugins":[{"type":"bridge","args":{"x":1,"cni":{"a":1,"b":2}}},{"type":"portmap","capabilities":{"portMappings":true}}]}"#,
        ),
        ("home/broken", "{"),
        ("home/none", r#"{"plugins":[]}"#),
        ("home/slash", r#"{"type":"../sh"}"#),
        ("home/empty", ""),
        ("tenant/net", r#"{"type":"bridge"}"#),
        ("kube-system/def", r#"{"type":"bridge"}"#),
        ("home/vf", r#"{"type":"sriov"}"#),
        ("home/quiet", r#"{"type":"macvlan","master":"eth0"}"#),
    ];

    fn nad(id: &NadRef) -> Option<Network> {
        let (_, config) = NADS.iter().find(|(name, _)| *name == id.to_string())?;
        let annotations: &[(&str, &str)] = match id.name.as_str() {
            "vf" => &[(annotation::RESOURCE_NAME, "vendor/vf")],
            "quiet" => &[(annotation::RELAY, "none")],
            _ => &[],
        };
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Some(Network { id: id.clone(), config: Some((*config).to_owned()), annotations })
    }

    fn known(text: &str) -> KnownNetwork {
        KnownNetwork::from_config(NetworkConfig::parse(text.as_bytes(), None).unwrap())
    }

    struct Case<'a> {
        networks: &'a str,
        default_network: &'a str,
        policy: Policy,
        namespace: &'a str,
        runtime: &'a str,
        devices: &'a [&'a str],
        relay: Option<&'a str>,
        headless: bool,
    }

    impl Default for Case<'_> {
        fn default() -> Self {
            let policy = Policy::default();
            Self {
                networks: "",
                default_network: "",
                policy,
                namespace: "home",
                runtime: "{}",
                devices: &[],
                relay: None,
                headless: false,
            }
        }
    }

    impl Case<'_> {
        fn plan(&self) -> Result<Plan, CniError> {
            let namespace = ObjectName::new(self.namespace).unwrap();
            let mut annotations = BTreeMap::from([
                (annotation::NETWORKS.to_owned(), self.networks.to_owned()),
                (annotation::DEFAULT_NETWORK.to_owned(), self.default_network.to_owned()),
            ]);
            annotations.extend(self.relay.map(|relay| (annotation::RELAY.to_owned(), relay.to_owned())));
            let choice = Choice::read(&annotations, &namespace, &self.policy)?;
            let pod = PodRef { namespace, name: ObjectName::new("pod").unwrap(), uid: None };
            let wanted = Wanted {
                pod: Some(&pod),
                ifname: &IfName::new("eth0").unwrap(),
                runtime_config: &RawObject::parse(self.runtime.as_bytes()).unwrap(),
                policy: &self.policy,
                cluster: if self.headless {
                    Vec::new()
                } else {
                    vec![known(r#"{"name":"kindnet","type":"ptp","capabilities":{"portMappings":true}}"#)]
                },
                defaults: vec![known(r#"{"name":"everyone","type":"bridge"}"#)],
                choice,
                auxiliary: None,
                devices: Allocated::from([(
                    "vendor/vf".to_owned(),
                    self.devices.iter().map(|id| DeviceId::new(*id).unwrap()).collect(),
                )]),
            };
            plan(wanted, nad)
        }

        fn names(&self) -> Vec<String> {
            let plan = self.plan().unwrap();
            plan.attachments.iter().map(|each| format!("{}={}", each.ifname, each.network)).collect()
        }
    }

    #[test]
    fn order_and_names() {
        let case = |networks, default_network, namespace| {
            Case { networks, default_network, namespace, ..Case::default() }.names()
        };
        assert_eq!(case("", "", "home"), ["eth0=kindnet", "net1=everyone"]);
        assert_eq!(case("mv,mv2@data", "", "home"), ["eth0=kindnet", "net1=everyone", "net2=home/mv", "data=home/mv2"]);
        assert_eq!(case("mv,mv", "", "home"), ["eth0=kindnet", "net1=everyone", "net2=home/mv", "net3=home/mv"]);
        assert_eq!(case("home/mv", "", "kube-system"), ["eth0=kindnet", "net1=home/mv"]);
        assert_eq!(case("", "def", "home"), ["eth0=kube-system/def", "net1=everyone"]);
        assert_eq!(case("", "def@lan0", "home"), ["lan0=kube-system/def", "net1=everyone"]);
    }

    #[test]
    fn without_a_first_network_there_is_none() {
        for (networks, default_network) in [("", ""), ("mv", ""), ("", "def")] {
            let error = Case { networks, default_network, headless: true, ..Case::default() }.plan().unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG);
            assert!(error.msg.contains("at least one delegate/clusterNetwork must be specified"), "{error}");
        }
    }

    #[test]
    fn what_the_pod_asks_of_its_default_network_goes_before_what_the_runtime_gave() {
        let default_network = r#"[{"name":"def","ips":["10.0.0.5/24"],"mac":"02:00:00:00:00:01"}]"#;
        let runtime = r#"{"mac":"02:00:00:00:00:09","portMappings":[]}"#;
        let plan = Case { default_network, runtime, ..Case::default() }.plan().unwrap();
        let master = &plan.attachments[0];
        assert_eq!(
            master.runtime_config.print(),
            r#"{"mac":"02:00:00:00:00:01","portMappings":[],"ips":["10.0.0.5/24"]}"#
        );
        let pairs: Vec<String> = master.extra_args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(pairs, ["MAC=02:00:00:00:00:01", "IP=10.0.0.5/24"]);
    }

    #[test]
    fn an_ipam_claim_reaches_every_plugin() {
        let networks = r#"[{"name":"br","ipam-claim-reference":"vm1.br","cni-args":{"c":4}}]"#;
        let config = Case { networks, ..Case::default() }.plan().unwrap().attachments[2].config.print();
        assert_eq!(config.matches(r#""c":4,"ipam-claim-reference":"vm1.br""#).count(), 2, "{config}");
        let networks = r#"[{"name":"br","ipam-claim-reference":"vm1.br","cni-args":{"ipam-claim-reference":"own"}}]"#;
        let config = Case { networks, ..Case::default() }.plan().unwrap().attachments[2].config.print();
        assert!(config.contains(r#""ipam-claim-reference":"own""#) && !config.contains("vm1"), "{config}");
    }

    #[test]
    fn warnings_are_few_whatever_an_annotation_says() {
        let fields: Vec<String> = (0..500).map(|at| format!(r#""k{at}":1"#)).collect();
        let item = format!(r#"{{"name":"mv2","ips":["10.0.0.5/24"],{}}}"#, fields.join(","));
        let networks = format!("[{}]", [item.as_str(); 9].join(","));
        let plan = Case { networks: &networks, ..Case::default() }.plan().unwrap();
        assert_eq!(plan.warnings.len(), 9 + 1, "{:?}", plan.warnings);
        assert!(plan.warnings[0].message.contains("\"k4\" and 495 more"), "{:?}", plan.warnings[0]);
        let item = item.replace(&fields.join(","), r#""k":1"#);
        let networks = format!("[{}]", [item.as_str(); 40].join(","));
        assert_eq!(Case { networks: &networks, ..Case::default() }.plan().unwrap().warnings.len(), MOST_WARNINGS);
    }

    #[test]
    fn runtime_values_reach_the_master_alone_and_wishes_their_network() {
        let runtime = r#"{"portMappings":[{"hostPort":80,"containerPort":80}]}"#;
        let networks = r#"[{"name":"mv","ips":["10.0.0.5/24"],"mac":"02:00:00:00:00:01"},{"name":"br"}]"#;
        let plan = Case { networks, runtime, ..Case::default() }.plan().unwrap();
        let [master, default, mv, br] = plan.attachments.as_slice() else { panic!() };
        assert_eq!(master.runtime_config.print(), runtime);
        assert!(default.runtime_config.is_empty() && br.runtime_config.is_empty());
        assert_eq!(mv.runtime_config.print(), r#"{"mac":"02:00:00:00:00:01","ips":["10.0.0.5/24"]}"#);
        let pairs: Vec<String> = mv.extra_args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(pairs, ["MAC=02:00:00:00:00:01", "IP=10.0.0.5/24"]);
        assert!(master.master && !mv.master && plan.warnings.is_empty());
    }

    #[test]
    fn an_undeclared_capability_is_a_warning() {
        let networks = r#"[{"name":"mv2","ips":["10.0.0.5/24"],"ip":"x"}]"#;
        let plan = Case { networks, ..Case::default() }.plan().unwrap();
        let reasons: Vec<_> = plan.warnings.iter().map(|warning| warning.reason).collect();
        assert_eq!(reasons, ["UnknownField", "CapabilityNotDeclared"]);
        assert!(plan.warnings[0].message.contains("\"ip\"") && plan.warnings[0].message.contains("home/mv2"));
        assert!(plan.warnings[1].message.contains("\"ips\"") && plan.warnings[1].message.contains("home/mv2"));
        assert_eq!(plan.attachments.len(), 3, "the attachment goes on");
    }

    #[test]
    fn cni_args_are_merged_into_every_plugin() {
        let networks = r#"[{"name":"br","cni-args":{"b":[3 ],"c":4}}]"#;
        let plan = Case { networks, ..Case::default() }.plan().unwrap();
        let config = plan.attachments[2].config.print();
        let wanted = r#"{"plugins":[{"type":"bridge","args":{"x":1,"cni":{"a":1,"b":[3 ],"c":4}}},{"type":"portmap","capabilities":{"portMappings":true},"args":{"cni":{"b":[3 ],"c":4}}}],"name":"br"}"#;
        assert_eq!(config, wanted);
    }

    #[test]
    fn devices_are_handed_out_in_order_each_once() {
        let case = |networks, devices| Case { networks, devices, ..Case::default() };
        let plan = case("vf,vf", &["b", "a"]).plan().unwrap();
        let [_, _, one, two] = plan.attachments.as_slice() else { panic!() };
        assert_eq!((one.device_id.as_deref(), two.device_id.as_deref()), (Some("a"), Some("b")));
        assert!(one.config.print().contains(r#""deviceID":"a","pciBusID":"a""#));
        assert_eq!(one.runtime_config.print(), r#"{"deviceID":"a"}"#);
        let error = case("vf,vf", &["a"]).plan().unwrap_err();
        assert!(
            error.code == code::LIMIT && error.msg.contains("home/vf") && error.msg.contains("vendor/vf"),
            "{error}"
        );
        let asked = case(r#"[{"name":"vf","deviceID":"z"}]"#, &[]).plan().unwrap();
        assert_eq!(asked.attachments[2].device_id.as_deref(), Some("z"));
        assert!(!asked.attachments[2].config.print().contains("pciBusID"), "only a capability");
        let both = case(r#"[{"name":"vf","deviceID":"z"}]"#, &["a"]).plan().unwrap();
        assert_eq!(both.attachments[2].runtime_config.print(), r#"{"deviceID":"a"}"#);
    }

    #[test]
    fn relay_words_reach_the_attachment() {
        let plan = Case { networks: "mv,quiet", relay: Some("mdns"), ..Case::default() }.plan().unwrap();
        assert_eq!(plan.attachments[2].relay, ["mdns"]);
        assert!(plan.attachments[3].relay.is_empty());
        let error = Case { networks: "mv", relay: Some("x"), ..Case::default() }.plan().unwrap_err();
        assert!(error.code == code::BAD_ANNOTATION && error.msg.contains(annotation::RELAY), "{error}");
    }

    #[test]
    fn refusals_name_the_network_and_the_field() {
        let table = [
            (
                "absent",
                code::UNKNOWN_NETWORK,
                "cannot find a network-attachment-definition (absent) in namespace (home)",
            ),
            ("empty", code::UNKNOWN_NETWORK, "home/empty: spec.config is empty"),
            ("broken", code::DECODE, "home/broken: spec.config: JSON ends early"),
            ("none", code::INVALID_CONFIG, "home/none: spec.config: field \"plugins\""),
            ("slash", code::INVALID_CONFIG, "home/slash: spec.config: field \"type\""),
            ("mv@x,mv2@x", code::BAD_ANNOTATION, "\"home/mv\" and \"home/mv2\" both ask for interface \"x\""),
            ("mv@eth0", code::BAD_ANNOTATION, "\"kindnet\" and \"home/mv\" both ask for interface \"eth0\""),
            ("mv@net3,mv2", code::BAD_ANNOTATION, "\"home/mv\" and \"home/mv2\" both ask for interface \"net3\""),
            ("mv,ipv", code::INVALID_CONFIG, "\"home/mv\" (macvlan) and \"home/ipv\" (ipvlan) share parent \"eth0\""),
            (
                r#"[{"name":"mv","default-route":["10.0.0.1"]},{"name":"br","default-route":["fd00::1","10.0.0.2"]}]"#,
                code::BAD_ANNOTATION,
                "multus does not support ECMP for default-route: 10.0.0.1 of network \"home/mv\"",
            ),
        ];
        for (networks, code, names) in table {
            let error = Case { networks, ..Case::default() }.plan().unwrap_err();
            assert_eq!(error.code, code, "{networks}: {error}");
            assert!(
                error.msg.contains(names) && !error.details.is_empty() | networks.contains("broken"),
                "{networks}: {error}"
            );
        }
        let one_each = r#"[{"name":"mv","default-route":["10.0.0.1"]},{"name":"br","default-route":["fd00::1"]}]"#;
        assert!(Case { networks: one_each, ..Case::default() }.plan().is_ok());
        assert!(Case { networks: "mv2,ipv", ..Case::default() }.plan().is_ok(), "other parents");
    }

    #[test]
    fn isolation_holds_for_both_annotations() {
        let policy = || Policy { namespace_isolation: true, ..Policy::default() };
        let code = |networks, default_network| {
            Case { networks, default_network, policy: policy(), ..Case::default() }
                .plan()
                .map_err(|error| error.code)
                .err()
        };
        assert_eq!(code("tenant/net", ""), Some(code::ISOLATION));
        assert_eq!(code("", "tenant/net"), Some(code::ISOLATION));
        assert_eq!(code("kube-system/def", ""), Some(code::ISOLATION));
        assert_eq!(code("home/mv", "def"), None);
        assert!(Case { networks: "tenant/net", ..Case::default() }.plan().is_ok());
    }
}
