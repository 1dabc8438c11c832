//! What is told of a pod's networks: selections, attachments with what each plugin is told, and the refusal. Shared by
//! `explain`, which asks the running agent, and `lint`, which has files alone.
//!
//! Secrets are hidden here, before anything leaves the agent. Decides nothing.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::cni::{Command, secrets};
use crate::config::Policy;
use crate::fault::CniError;
use crate::names::{NadRef, ObjectName, PluginName, PodRef};
use crate::objects::annotation;
use crate::ops::view::API_VERSION;
use crate::plan::judged::{self, Judged};
use crate::plan::{self, Attachment, Choice, Plan};

/// What would be attached to a pod, and why.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/explain.md describes them")]
pub struct Explanation {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub uid: Option<String>,
    /// Is there such a pod?
    pub known: bool,
    /// Is it attached already? What follows is what an ADD would do now, all the same.
    pub attached: bool,
    pub annotations: BTreeMap<String, String>,
    pub selections: Vec<SelectionView>,
    pub attachments: Vec<PlannedView>,
    pub warnings: Vec<WarningView>,
    pub refusal: Option<RefusalView>,
}

/// One selection of an annotation, as it was read.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words")]
pub struct SelectionView {
    pub annotation: &'static str,
    pub network: String,
    pub interface: Option<String>,
    pub wishes: Value,
    pub found: bool,
    /// The network that was probably meant, where this one is not there.
    pub meant: Option<String>,
    pub allowed: bool,
    pub plugins: Vec<String>,
    pub problems: Vec<RefusalView>,
}

/// One network on one interface, as planned.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words")]
pub struct PlannedView {
    pub interface: String,
    pub network: String,
    pub default: bool,
    pub parent: Option<String>,
    pub device: Option<String>,
    pub resource: Option<String>,
    pub default_route: Option<Vec<String>>,
    pub extra_args: BTreeMap<String, String>,
    pub relay: Vec<String>,
    pub relay_note: Option<String>,
    pub host_access: bool,
    pub host_ports: Option<Vec<String>>,
    pub delegates: Vec<DelegateView>,
}

/// One plugin of an attachment, and what it is told on standard input.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words")]
pub struct DelegateView {
    pub plugin: String,
    /// Without `prevResult`, which only the plugin before can say; secrets hidden.
    pub stdin: Value,
}

/// Something odd that stops nothing.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the document's own words")]
pub struct WarningView {
    pub reason: String,
    pub message: String,
}

/// A CNI error as an ADD would answer it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the document's own words")]
pub struct RefusalView {
    pub code: u32,
    pub message: String,
    pub remedy: String,
}

impl From<CniError> for RefusalView {
    fn from(error: CniError) -> Self {
        Self { code: error.code, message: error.msg, remedy: error.details }
    }
}

impl Explanation {
    /// One that says nothing yet of `pod`.
    pub fn of(pod: &PodRef, annotations: &BTreeMap<String, String>) -> Self {
        let mut annotations = annotations.clone();
        // What it got is another question, and long.
        annotations.remove(annotation::NETWORK_STATUS);
        for text in annotations.values_mut() {
            let mut value = Value::String(std::mem::take(text));
            secrets::hide(&mut value);
            value.as_str().unwrap_or_default().clone_into(text);
        }
        Self {
            api_version: API_VERSION,
            kind: "Explanation",
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
            uid: pod.uid.clone(),
            known: true,
            attached: false,
            annotations,
            selections: Vec::new(),
            attachments: Vec::new(),
            warnings: Vec::new(),
            refusal: None,
        }
    }

    /// Adds what the plan comes to. `relays` gives the relay annotation of a NAD.
    pub fn take_plan(
        &mut self,
        plan: &Plan,
        choice: &Choice,
        policy: &Policy,
        relay_of: impl Fn(&Attachment) -> Option<String>,
    ) {
        self.attachments = plan
            .attachments
            .iter()
            .map(|attachment| {
                let network = relay_of(attachment);
                let texts = (network.as_deref(), choice.relay.as_deref());
                planned(attachment, judged::why_not_relayed(attachment, texts, policy))
            })
            .collect();
        let warning = |warning: &plan::Warning| WarningView {
            reason: warning.reason.to_owned(),
            message: warning.message.clone(),
        };
        self.warnings.extend(plan.warnings.iter().map(warning));
    }
}

/// A selection with its verdicts, and the network of `known` that was probably meant by a pod in `namespace`.
pub fn selection(judged: &Judged<'_>, namespace: &ObjectName, known: &[NadRef]) -> SelectionView {
    let selection = judged.selection;
    let problems = [judged.network.as_ref().err(), judged.isolation.as_ref().err()];
    let plugins =
        judged.network.as_ref().map(|known| known.config.plugins.iter().map(|p| p.plugin.to_string()).collect());
    SelectionView {
        annotation: judged.annotation,
        network: selection.network.to_string(),
        interface: selection.ifname.as_ref().map(ToString::to_string),
        wishes: wishes(selection),
        found: judged.network.is_ok(),
        meant: Some(&selection.network)
            .filter(|id| !known.contains(id))
            .and_then(|id| judged::meant(id, namespace, known))
            .map(|id| id.to_string()),
        allowed: judged.isolation.is_ok(),
        plugins: plugins.unwrap_or_default(),
        problems: problems.into_iter().flatten().cloned().map(RefusalView::from).collect(),
    }
}

fn wishes(selection: &plan::Selection) -> Value {
    let mut wishes = secrets::shown(&selection.capabilities().print());
    if let Some(map) = wishes.as_object_mut() {
        if let Some(args) = &selection.cni_args {
            map.insert("cni-args".to_owned(), secrets::shown(&args.print()));
        }
        if let Some(gateways) = &selection.default_route {
            map.insert("default-route".to_owned(), json!(gateways));
        }
        if let Some(claim) = &selection.ipam_claim {
            map.insert("ipam-claim-reference".to_owned(), json!(claim));
        }
    }
    wishes
}

fn planned(attachment: &Attachment, relay_note: Option<String>) -> PlannedView {
    let told = |index: usize| plan::stdin::stdin(Command::Add, attachment, index, None);
    let delegates = attachment.config.plugins.iter().enumerate().map(|(index, plugin)| DelegateView {
        plugin: plugin.plugin.to_string(),
        stdin: told(index).map_or(Value::Null, |text| secrets::shown(&text)),
    });
    let is_macvlan = attachment.config.plugins.first().is_some_and(|first| first.plugin.as_str() == "macvlan");
    let has_relay = !attachment.master && is_macvlan;
    PlannedView {
        interface: attachment.ifname.to_string(),
        network: attachment.network.clone(),
        default: attachment.master,
        parent: attachment.parent_on_node().map(|(_, parent)| parent),
        device: attachment.device_id.clone(),
        resource: attachment.resource.clone(),
        default_route: attachment.default_route.as_ref().map(|all| all.iter().map(ToString::to_string).collect()),
        extra_args: attachment.extra_args.iter().cloned().collect(),
        relay: if has_relay { attachment.relay.clone() } else { Vec::new() },
        relay_note,
        host_access: has_relay && attachment.host_access.is_some(),
        host_ports: attachment
            .host_access
            .as_ref()
            .filter(|_| has_relay)
            .and_then(|access| access.ports.as_ref())
            .map(|ports| ports.iter().map(ToString::to_string).collect()),
        delegates: delegates.collect(),
    }
}

/// The plugins of a plan that are in none of `folders`, each with its attachment; IPAM plugins are not among them.
pub fn missing_plugins<'a>(
    plan: &'a Plan,
    is_there: &impl Fn(&PluginName) -> bool,
) -> Vec<(&'a Attachment, &'a PluginName)> {
    let of =
        |attachment: &'a Attachment| attachment.config.plugins.iter().map(move |plugin| (attachment, &plugin.plugin));
    let is_built_in = |plugin: &PluginName| plugin.as_str() == crate::cni::passthru::PLUGIN;
    plan.attachments.iter().flat_map(of).filter(|(_, plugin)| !is_built_in(plugin) && !is_there(plugin)).collect()
}

/// The IPAM plugins of a plan that are in none of the folders, as warnings: which words their callers find for that is
/// their own business.
pub fn missing_ipam(plan: &Plan, is_there: &impl Fn(&PluginName) -> bool, folders: &str) -> Vec<WarningView> {
    let of = |attachment: &Attachment| {
        let missing =
            attachment.config.plugins.iter().filter_map(|plugin| plugin.ipam.clone()).find(|ipam| !is_there(ipam));
        missing.map(|ipam| WarningView {
            reason: "PluginMissing".to_owned(),
            message: format!(
                "network {}: its IPAM plugin {ipam} is not in {folders}: the ADD will fail; install it there",
                attachment.network
            ),
        })
    };
    plan.attachments.iter().filter_map(of).collect()
}
