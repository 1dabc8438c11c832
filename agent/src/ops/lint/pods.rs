//! What an ADD of each pod would be refused with, found in the order in which an ADD finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::rules::{self, Rule, Severity};
use super::{Finding, Linter};
use crate::cni::{NetworkConfig, RawObject};
use crate::config::Policy;
use crate::fault::{CniError, code, quote};
use crate::kube::ClusterError;
use crate::names::{DeviceId, IfName, NadRef, PluginName, PodRef};
use crate::objects::{Allocated, Network, Pod, annotation};
use crate::ops::explain::document::{self, Explanation, SelectionView};
use crate::ops::{chain, cluster_network, planning, preflight, telling};
use crate::plan::{self, Choice, KnownNetwork, Plan, Wanted, conflicts, judged};

/// Stands in for a network that is not in the files.
const ELSEWHERE: &str = "not-in-the-files";

/// An ADD's refusal, with the rule that it breaks and the field to look at.
type Refused = (Rule, &'static str, CniError);

impl Linter<'_> {
    /// Judges every pod with the networks that are known by now.
    pub(super) fn pods(&mut self, pods: Vec<(String, String, Pod)>) -> Vec<Explanation> {
        let mut seen = BTreeSet::new();
        let mut told = Vec::new();
        for (place, kind, pod) in pods {
            let object = format!("{kind} {}", pod.id);
            if !seen.insert(object.clone()) {
                let text = "an earlier document defines it already";
                self.say(&rules::TWICE, (&place, &object, None), (text, "remove or rename one of them"));
                continue;
            }
            told.push(self.pod(&place, &object, &pod));
        }
        told
    }

    fn pod(&mut self, place: &str, object: &str, pod: &Pod) -> Explanation {
        let mut told = Explanation::of(&pod.id, &pod.annotations);
        if let Err((rule, field, error)) = self.judge(place, object, pod, &mut told) {
            // What is wrong with a network is said of the network.
            let is_said = |finding: &Finding| finding.message == error.msg && finding.object != object;
            if !self.findings.iter().any(is_said) {
                self.tell(&rule, (place, object, Some(field)), &error);
            }
            told.refusal = Some(error.into());
        }
        told
    }

    /// What an ADD does before it touches anything, in its order. The error is the ADD's own, with its rule and field.
    fn judge(&mut self, place: &str, object: &str, pod: &Pod, told: &mut Explanation) -> Result<(), Refused> {
        let selects = annotation::NETWORKS;
        plan::reflect::protocols(&pod.annotations)
            .map_err(|error| (rules::POD_ANNOTATION, annotation::REFLECT, error))?;
        let policy = self.conf.policy.clone();
        let choice = Choice::read(&pod.annotations, &pod.id.namespace, &policy).map_err(|error| {
            (
                rules::ANNOTATION,
                if error.msg.contains(annotation::DEFAULT_NETWORK) { annotation::DEFAULT_NETWORK } else { selects },
                error,
            )
        })?;
        told.selections = self.selections((place, object), pod, &choice, &policy);
        let networks = self.needed(&choice)?;
        self.devices(place, object, &networks);
        let (ifname, nothing_given) = (IfName::eth0(), RawObject::default());
        let sandbox = (&pod.id, &ifname, &nothing_given);
        let wanted = self
            .wanted(sandbox, &choice, &policy, &networks)
            .map_err(|error| (rules::BAD_CONFIG, "clusterNetwork", error))?;
        let plan = plan::draft(wanted, |id| networks.get(id).cloned()).map_err(|error| {
            let rule = match error.code {
                code::BAD_ANNOTATION => rules::POD_ANNOTATION,
                code::ISOLATION => rules::ISOLATION,
                _ => rules::BAD_CONFIG,
            };
            (rule, selects, error)
        })?;
        self.warn(place, object, &plan);
        let relay_of = |attachment: &plan::Attachment| {
            networks.get(attachment.nad.as_ref()?)?.annotations.get(annotation::RELAY).cloned()
        };
        told.take_plan(&plan, &choice, &policy, relay_of);
        conflicts::refuse_shared_names(&plan.attachments).map_err(|error| (rules::SAME_INTERFACE, selects, error))?;
        conflicts::refuse_shared_parents(&plan.attachments).map_err(|error| (rules::SHARED_PARENT, selects, error))?;
        conflicts::refuse_many_default_routes(&plan.attachments)
            .map_err(|error| (rules::TWO_GATEWAYS, selects, error))?;
        preflight::none_is_ours(&self.given.settings.generator.plugin, &plan)
            .map_err(|error| (rules::LEADS_BACK, selects, error))?;
        self.missing(&pod.id, &plan)
    }

    /// What is selected; each network that is missing or may not be used is told.
    fn selections(
        &mut self,
        (place, object): (&str, &str),
        pod: &Pod,
        choice: &Choice,
        policy: &Policy,
    ) -> Vec<SelectionView> {
        let judged = judged::selections(choice, &pod.id.namespace, policy, |id| self.find(id));
        let known: Vec<NadRef> = self.networks.keys().cloned().collect();
        let shown = judged.iter().map(|each| document::selection(each, &pod.id.namespace, &known)).collect();
        let mut said: Vec<Refused> = Vec::new();
        for each in &judged {
            let missing = each.network.as_ref().err().filter(|_| !self.networks.contains_key(&each.selection.network));
            said.extend(missing.map(|error| (rules::UNKNOWN_NETWORK, each.annotation, error.clone())));
            said.extend(each.isolation.as_ref().err().map(|error| (rules::ISOLATION, each.annotation, error.clone())));
        }
        drop(judged);
        for (rule, field, error) in said {
            let is_doubt = self.given.partial && rule == rules::UNKNOWN_NETWORK;
            let rule = if is_doubt { Rule { severity: Severity::Warning, ..rule } } else { rule };
            self.tell(&rule, (place, object, Some(field)), &error);
        }
        shown
    }

    /// The networks that a plan will ask for. Which ones a cluster has, and which file a node has for an empty spec, may
    /// not be known here.
    fn needed(&self, choice: &Choice) -> Result<BTreeMap<NadRef, Network>, Refused> {
        let selects = annotation::NETWORKS;
        let mut networks = BTreeMap::new();
        for id in choice.needed() {
            let is_here = self.networks.contains_key(&id);
            let is_elsewhere = if is_here { !self.has_conf_dir() } else { self.given.partial };
            let network = match self.find(&id) {
                Ok(network) => network,
                Err(error) if error.code != code::UNKNOWN_NETWORK => return Err((rules::BAD_CONFIG, selects, error)),
                Err(_) if is_elsewhere => placeholder(&id),
                Err(error) if is_here => return Err((self.empty_spec(), selects, error)),
                Err(error) => return Err((rules::UNKNOWN_NETWORK, selects, error)),
            };
            networks.insert(id, network);
        }
        Ok(networks)
    }

    fn missing(&self, pod: &PodRef, plan: &Plan) -> Result<(), Refused> {
        let is_there = |plugin: &PluginName| plugin.as_str() == ELSEWHERE || self.has(plugin);
        match document::missing_plugins(plan, &is_there).first() {
            None => Ok(()),
            Some((attachment, plugin)) => {
                let error = telling::failure(Some(pod), attachment, chain::not_found(plugin.as_str(), &self.folders()));
                Err((rules::MISSING_PLUGIN, annotation::NETWORKS, error))
            }
        }
    }

    fn warn(&mut self, place: &str, object: &str, plan: &Plan) {
        for warning in &plan.warnings {
            let rule = if warning.reason == "UnknownField" { rules::UNKNOWN_FIELD } else { rules::UNHEARD_WISH };
            // Its sentence ends with the remedy.
            let (message, remedy) = warning.message.rsplit_once("; ").unwrap_or((&warning.message, ""));
            self.say(&rule, (place, object, Some(annotation::NETWORKS.to_owned())), (message, remedy));
        }
    }

    fn devices(&mut self, place: &str, object: &str, networks: &BTreeMap<NadRef, Network>) {
        for (id, network) in networks {
            if let Some(resource) = network.annotations.get(annotation::RESOURCE_NAME) {
                let text = format!("network {id} takes a device of resource {}", quote(resource));
                let remedy = "request the resource in the pod's containers, or claim it";
                self.say(&rules::DEVICE, (place, object, Some(annotation::NETWORKS.to_owned())), (&text, remedy));
            }
        }
    }

    fn find(&self, id: &NadRef) -> Result<Network, CniError> {
        let missing = || {
            let kind = "NetworkAttachmentDefinition";
            planning::unfound(id, ClusterError::NotFound { kind, id: id.to_string(), sourced: true })
        };
        let network = self.networks.get(id).ok_or_else(missing)?;
        cluster_network::filled(&self.conf, Arc::clone(network)).map(|network| Network::clone(&network))
    }

    /// What an ADD wants, where the node has the devices that are asked for.
    fn wanted<'b>(
        &self,
        (pod, ifname, runtime_config): (&'b PodRef, &'b IfName, &'b RawObject),
        choice: &Choice,
        policy: &'b Policy,
        networks: &BTreeMap<NadRef, Network>,
    ) -> Result<Wanted<'b>, CniError> {
        let mut devices = Allocated::new();
        let resources = networks.values().filter_map(|network| network.annotations.get(annotation::RESOURCE_NAME));
        for resource in resources {
            let ids = (0..=choice.networks.len()).filter_map(|at| DeviceId::new(format!("device-{at}")).ok());
            devices.entry(resource.clone()).or_default().extend(ids);
        }
        let cluster = match &self.conf.cluster_network {
            None if self.conf.delegates.is_empty() => vec![elsewhere("clusterNetwork")?],
            None => self.conf.delegates.iter().cloned().map(KnownNetwork::from_config).collect(),
            Some(name) => vec![self.named("clusterNetwork", name)?],
        };
        let has_cluster = self.conf.cluster_network.is_some() || self.conf.delegates.is_empty();
        let defaults = self.conf.default_networks.iter().filter(|_| has_cluster);
        Ok(Wanted {
            pod: Some(pod),
            ifname,
            runtime_config,
            policy,
            cluster,
            defaults: defaults.map(|name| self.named("defaultNetworks", name)).collect::<Result<_, _>>()?,
            choice: choice.clone(),
            auxiliary: None,
            devices,
        })
    }

    /// A network of the configuration: from the files, from the path where that is here, else a stand-in.
    fn named(&self, key: &str, name: &str) -> Result<KnownNetwork, CniError> {
        if name.contains('/') {
            let path = cluster_network::at_path(&self.given.settings.generator.plugin, key, name);
            return path.or_else(|_elsewhere| elsewhere(name));
        }
        let id = NadRef::new(self.conf.policy.multus_namespace.as_str(), name).ok();
        match id.and_then(|id| self.find(&id).ok()) {
            Some(network) => KnownNetwork::from_nad(&network),
            None => elsewhere(name),
        }
    }
}

fn elsewhere_config() -> String {
    serde_json::json!({"cniVersion": "1.0.0", "name": ELSEWHERE, "type": ELSEWHERE}).to_string()
}

fn placeholder(id: &NadRef) -> Network {
    Network { id: id.clone(), config: Some(elsewhere_config()), annotations: BTreeMap::new() }
}

fn elsewhere(name: &str) -> Result<KnownNetwork, CniError> {
    let config = NetworkConfig::parse(elsewhere_config().as_bytes(), None)?;
    Ok(KnownNetwork { label: name.to_owned(), ..KnownNetwork::from_config(config) })
}
