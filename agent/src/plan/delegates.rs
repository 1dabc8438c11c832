//! Which attachments a pod gets, in which order, under which interface names, with which wishes.
//!
//! All or nothing: the first thing that cannot be is refused by name, before any plugin runs. Nothing here looks up an
//! object; networks come through a closure.

use super::attachment::{Attachment, Plan};
use super::network::KnownNetwork;
use super::selection::{Choice, Selection};
use super::wishes::Devices;
use super::{conflicts, host_access, isolation, relay};
use crate::cni::RawObject;
use crate::config::Policy;
use crate::fault::{CniError, code, quote};
use crate::names::{IfName, NadRef, PodRef};
use crate::objects::{Allocated, Network, annotation};

/// Most warnings about one pod: each becomes an event.
pub(super) const MOST_WARNINGS: usize = 16;

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
    use super::super::cases::Case;
    use super::*;

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
