//! `/delegate`: one network of a pod that runs already is attached, detached or checked.
//!
//! What is attached here joins the container's record, so that the pod's DEL, GC and CHECK cover it. Never writes the
//! pod's network-status: whoever asks does.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use crate::cni::{CniResult, Command, NetworkConfig, RawObject, Version};
use crate::fault::{CniError, code, quote};
use crate::kube::EventKind;
use crate::names::{ContainerId, IfName, NetnsPath, PodRef};
use crate::objects::Network;
use crate::ops::context::{Context, Pool};
use crate::ops::invocation::Invocation;
use crate::ops::runner::Runner;
use crate::ops::steps::{Stage as Step, Steps};
use crate::ops::{
    add, check, cluster_network, default_route, links, pods, preflight, recording, result_cache, status, undo,
};
use crate::plan::hotplug::{Present, Wish};
use crate::plan::{self, KnownNetwork, Plan};
use crate::records::{self, Record, Stage, State};
use crate::wire::{Call, InterfaceAttributes, PROTOCOL};

/// The configuration under which such a request is read: all its keys are the daemon's. Those of the network are the
/// network's alone, and nothing is laid over them.
const CONF: &str = r#"{"cniVersion":"1.1.0","name":"multus-cni-network"}"#;

/// What `/delegate` is asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The `CNI_*` variables.
    pub env: BTreeMap<String, String>,
    /// The network's configuration, with its name.
    pub config: String,
    /// What the pod wishes for it.
    pub attributes: InterfaceAttributes,
}

/// A request that is understood: which container, and which network.
struct Request<'a> {
    call: Invocation,
    container: ContainerId,
    config: NetworkConfig,
    text: &'a str,
}

/// Attaches, detaches or checks one network; the answer of an ADD is its result in CNI 1.1.0.
///
/// # Errors
/// Code 3 for a container or pod that is not known, 4 for the environment or an interface that is taken, 6 and 7 for the
/// network; else whatever the plugins say, DEL included.
pub async fn perform<R: Runner>(
    context: &Context,
    asked: Asked,
    steps: &Steps,
    runner: &mut R,
) -> Result<Option<String>, CniError> {
    let timeout_ms = u64::try_from(context.settings.request_timeout.as_millis()).unwrap_or(u64::MAX);
    let (env, config) = (asked.env, CONF.to_owned());
    let call = Call {
        protocol: PROTOCOL,
        oldest: None,
        shim: String::new(),
        env,
        config,
        timeout_ms,
        again: false,
        netns_id: None,
    };
    let call = Invocation { steps: steps.clone(), ..Invocation::read(call, &context.settings)? };
    let config = NetworkConfig::parse(asked.config.as_bytes(), None)
        .map_err(|error| error.within("configuration of the network"))?;
    let command = call.request.command;
    if command == Command::Status {
        return status::of_network(context, &config, call.deadline, runner).await.map(|()| None);
    }
    let container = call.request.container()?.clone();
    let request = Request { call, container, config, text: &asked.config };
    match command {
        Command::Add => add(context, request, &asked.attributes, runner).await.map(Some),
        Command::Del => del(context, &request, runner).await.map(|()| None),
        Command::Check => check(context, &request, runner).await.map(|()| None),
        _ => Err(CniError::new(code::INVALID_ENVIRONMENT, format!("{command} is not for one network of a pod"))
            .remedy("use ADD, DEL, CHECK or STATUS")),
    }
}

async fn add<R: Runner>(
    context: &Context,
    mut request: Request<'_>,
    attributes: &InterfaceAttributes,
    runner: &mut R,
) -> Result<String, CniError> {
    let turn = context.turns.take(Pool::Attaching, Some(&request.container), request.call.deadline);
    let _turn = request.call.steps.attempt(Step::Wait, turn).await?;
    let mut record = running(context, &request)?;
    let netns = namespace(&record, &request.call)?;
    request.call.request.netns = Some(netns.clone());
    clear_leftover(context, &mut record, &request, runner).await?;
    let pods::Found::Known(pod) = pods::find(context, &request.call).await? else {
        return Err(unknown(&request.container, "its pod is gone"));
    };
    let wish = Wish {
        known: identify(context, &request, record.pod.as_ref()),
        ifname: request.call.request.interface()?.clone(),
        fields: fields(attributes),
        namespace: record.pod.as_ref().map(|pod| &pod.namespace),
        relay: pod.annotations.get(crate::objects::annotation::RELAY).map(String::as_str),
        relay_copy: pod.annotations.get(crate::objects::annotation::RELAY_COPY).map(String::as_str),
    };
    let present: Vec<Present> = record.attachments.iter().map(present).collect();
    let (attachment, warnings) = plan::hotplug::attachment(wish, &present, &request.call.conf.policy)?;
    let plan = Plan { attachments: vec![attachment], warnings };
    preflight::none_is_ours(&context.settings.generator.plugin, &plan)?;
    preflight::names_are_free(&netns, &plan.attachments).await.map_err(|(_, error)| error)?;
    preflight::parents_are_there(&plan).await?;
    let at = record.attachments.len();
    match carry_out(context, &request.call, &plan, (&mut record, at), runner).await {
        Ok(result) => {
            announce(context, &request.call, &plan, &result);
            result.print(Version::NEWEST)
        }
        Err(error) => {
            let undo = undo::one(context, &mut record, (at, Some(&netns)), runner, request.call.deadline);
            for line in request.call.steps.during(Step::Undo, undo).await {
                tracing::warn!(container = %request.container, "roll back: {line}");
            }
            pods::event(context, &request.call, EventKind::Warning, "FailedAttaching", &error.to_string());
            Err(error)
        }
    }
}

/// What another request began and did not finish goes first.
async fn clear_leftover<R: Runner>(
    context: &Context,
    record: &mut Record,
    request: &Request<'_>,
    runner: &mut R,
) -> Result<(), CniError> {
    while let Some(at) = record.half_plugged() {
        let asked = request.call.request.netns.as_ref();
        let failed = undo::one(context, record, (at, asked), runner, request.call.deadline).await;
        if let Some(first) = failed.first() {
            let text = format!("undo an earlier, unfinished attachment: {first}");
            return Err(CniError::new(code::TRY_LATER, text));
        }
    }
    Ok(())
}

/// The steps of an ADD, for the one attachment that goes to position `at` of the record.
async fn carry_out<R: Runner>(
    context: &Context,
    call: &Invocation,
    plan: &Plan,
    (record, at): (&mut Record, usize),
    runner: &mut R,
) -> Result<CniResult, CniError> {
    let internal = || CniError::new(code::INTERNAL, "the plan of one attachment has none");
    let attachment = plan.attachments.first().ok_or_else(internal)?;
    record
        .attachments
        .push(records::Attachment { hotplug: true, ..recording::recorded(attachment, &call.request, Stage::Planned)? });
    call.steps.at_once(Step::Record, || recording::save(context, record))?;
    let mut result = add::attach(context, call, attachment, (record, at), runner).await?;
    if !runner.is_heard() {
        return Err(CniError::new(code::TRY_LATER, "whoever asked is gone"));
    }
    let routes = keep_default_route(context, call, plan, (record, at), &mut result);
    call.steps.attempt(Step::Routes, routes).await?;
    if let Some(netns) = &record.netns {
        let link = call.steps.during(Step::Datapath, links::follow(context, netns, attachment)).await;
        if let Some(recorded) = record.attachments.get_mut(at) {
            recorded.link = link;
        }
    }
    // For whoever asks us, and for the pod, should its own annotation ever be missing: the asker writes that.
    let (network, device_info) = (attachment.network.as_str(), None);
    let made = plan::status::Made { network, master: false, result: &result, device_info };
    record.status = record.status.as_deref().map(|status| plan::status::with(status, &made));
    call.steps.at_once(Step::Record, || recording::save(context, record))?;
    result_cache::write_from(context, record, at, plan, std::slice::from_ref(&result));
    Ok(result)
}

/// What joins takes no default route from the pod; its result says so.
async fn keep_default_route(
    context: &Context,
    call: &Invocation,
    plan: &Plan,
    (record, at): (&mut Record, usize),
    result: &mut CniResult,
) -> Result<(), CniError> {
    let (Some(netns), Some(attachment)) = (&record.netns, plan.attachments.first()) else { return Ok(()) };
    let present: Vec<&IfName> = record.attachments.iter().take(at).map(|present| &present.ifname).collect();
    let settled = default_route::joined(netns.as_path(), &present, plan, std::slice::from_mut(result)).await?;
    if let (false, Some(recorded)) = (settled.changed.is_empty(), record.attachments.get_mut(at)) {
        recording::note(recorded, attachment, result)?;
    }
    for warning in settled.warnings {
        pods::event(context, call, EventKind::Warning, warning.reason, &warning.message);
    }
    Ok(())
}

async fn del<R: Runner>(context: &Context, request: &Request<'_>, runner: &mut R) -> Result<(), CniError> {
    let turn = context.turns.take(Pool::Others, Some(&request.container), request.call.deadline);
    let _turn = request.call.steps.attempt(Step::Wait, turn).await?;
    let mut record = running(context, request)?;
    let ifname = request.call.request.interface()?;
    if !record.attachments.iter().any(|attachment| attachment.ifname == *ifname) {
        // Gone already: who asks again, perhaps because our answer was lost, has what he wants.
        return Ok(());
    }
    let at = position(&record, request)?;
    let netns = match request.call.request.netns {
        // A DEL may name none (CNI specification, section 2); then it goes by the record, unless that does not tell.
        None if !record.may_be_anothers() => None,
        _ => Some(namespace(&record, &request.call)?),
    };
    let left = record.attachments.get(at).map(|left| (left.network.clone(), left.ifname.clone()));
    let undo = undo::one(context, &mut record, (at, netns.as_ref()), runner, request.call.deadline);
    let failed = request.call.steps.during(Step::Undo, undo).await;
    match failed.first() {
        None => {
            let status = record.status.as_deref().zip(left);
            record.status = status.map(|(status, (network, ifname))| plan::status::without(status, &network, &ifname));
            recording::save(context, &record)
        }
        Some(first) => Err(CniError::new(code::DELEGATE, first.clone()).remedy("it stays recorded; call DEL again")),
    }
}

async fn check<R: Runner>(context: &Context, request: &Request<'_>, runner: &mut R) -> Result<(), CniError> {
    let turn = context.turns.take(Pool::Others, Some(&request.container), request.call.deadline);
    let _turn = request.call.steps.attempt(Step::Wait, turn).await?;
    let record = running(context, request)?;
    let netns = namespace(&record, &request.call)?;
    let at = position(&record, request)?;
    let Some(attachment) = record.attachments.get(at) else { return Ok(()) };
    check::one(context, &record, attachment, &netns, request.call.deadline, runner).await
}

/// The record of a container that is attached, and of the pod the request names.
fn running(context: &Context, request: &Request<'_>) -> Result<Record, CniError> {
    let record = context.ledger.get(&request.container).filter(|record| record.state == State::Added);
    let record = record.ok_or_else(|| unknown(&request.container, "it has no attachments here"))?;
    let differs = |a: &PodRef, b: &PodRef| {
        (&a.namespace, &a.name) != (&b.namespace, &b.name) || (a.uid.is_some() && b.uid.is_some() && a.uid != b.uid)
    };
    match (&request.call.request.pod, &record.pod) {
        (Some(named), Some(of_record)) if differs(named, of_record) => {
            Err(unknown(&request.container, &format!("it is of pod {of_record}, not of {named} of this UID")))
        }
        _ => Ok(Record::clone(&record)),
    }
}

fn unknown(container: &ContainerId, why: &str) -> CniError {
    CniError::new(code::UNKNOWN_CONTAINER, format!("container {}: {why}", quote(container.as_str())))
        .remedy("a network can be attached to a running pod that this agent attached")
}

/// The recorded namespace, if the request means the same one: runtimes name one namespace by several paths.
fn namespace(record: &Record, call: &Invocation) -> Result<NetnsPath, CniError> {
    let given = call.request.netns.as_ref();
    let recorded = record.netns.as_ref().or(given);
    let (Some(recorded), Some(given)) = (recorded, given) else {
        return Err(CniError::new(code::INVALID_NETNS, "CNI_NETNS is missing"));
    };
    if recorded == given || is_same(recorded.as_path(), given.as_path()) {
        if record.netns.is_some() && record.namespace().is_none() && recorded.as_path().exists() {
            return Err(check::another_namespace(recorded, &record.container));
        }
        return Ok(recorded.clone());
    }
    let text = format!(
        "CNI_NETNS {} is not the namespace of container {}",
        quote(&given.to_string()),
        quote(record.container.as_str())
    );
    Err(CniError::new(code::INVALID_NETNS, text).remedy("name the namespace of the pod's sandbox"))
}

fn is_same(a: &Path, b: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    id(a).is_some_and(|a| Some(a) == id(b))
}

/// Which attachment the request means: by its interface, and the network must be that one's.
fn position(record: &Record, request: &Request<'_>) -> Result<usize, CniError> {
    let ifname = request.call.request.interface()?;
    let found = record.attachments.iter().position(|attachment| attachment.ifname == *ifname);
    let (at, attachment) =
        found.and_then(|at| record.attachments.get(at).map(|attachment| (at, attachment))).ok_or_else(|| {
            let text = format!("interface {ifname} of container {} is not attached here", record.container);
            CniError::new(code::UNKNOWN_CONTAINER, text).remedy("nothing needs cleaning")
        })?;
    let refused = |text: String| {
        Err(CniError::new(code::INVALID_ENVIRONMENT, text).remedy("name a secondary network and its own interface"))
    };
    if attachment.master {
        return refused(format!("interface {ifname} is the pod's first, which goes with the pod"));
    }
    if attachment.conf_name != request.config.name.as_str() {
        let (network, asked) = (quote(&attachment.conf_name), quote(request.config.name.as_str()));
        return refused(format!("interface {ifname} is of network {network}, not of {asked}"));
    }
    Ok(at)
}

/// The request carries a configuration, not the object it came from. If that is known, its name and annotations count:
/// first the pod's namespace, else the only one there is; else one that the pod may not use, if it may use none.
fn identify(context: &Context, request: &Request<'_>, pod: Option<&PodRef>) -> KnownNetwork {
    let known = KnownNetwork::from_config(request.config.clone());
    let Ok(wanted) = serde_json::from_str::<Value>(request.text) else { return known };
    let is_it = |network: &Network| {
        let text = cluster_network::filled(&request.call.conf, std::sync::Arc::new(network.clone()))
            .ok()
            .and_then(|network| network.config.clone())
            .unwrap_or_default();
        let Ok(mut config) = serde_json::from_str::<Value>(&text) else { return false };
        if config["name"].as_str().is_none_or(str::is_empty) && config.is_object() {
            config["name"] = network.id.name.as_str().into();
        }
        config == wanted
    };
    let mut same: Vec<_> = context.cluster.networks().into_iter().filter(|network| is_it(network)).collect();
    let at_home = same.iter().position(|network| pod.is_some_and(|pod| pod.namespace == network.id.namespace));
    let found = match (at_home, same.len()) {
        (Some(at), _) => same.swap_remove(at),
        (None, 1) => same.swap_remove(0),
        (None, 2..) if same.iter().all(|network| is_foreign(request, pod, network)) => same.swap_remove(0),
        _ => return known,
    };
    let (id, annotations) = (found.id.clone(), found.annotations.clone());
    KnownNetwork { label: id.to_string(), nad: Some(id), annotations, ..known }
}

fn is_foreign(request: &Request<'_>, pod: Option<&PodRef>, network: &Network) -> bool {
    let policy = &request.call.conf.policy;
    pod.is_some_and(|pod| plan::isolation::check(policy, &pod.namespace, &network.id).is_err())
}

fn fields(attributes: &InterfaceAttributes) -> RawObject {
    let mut fields = RawObject::default();
    if let Some(ips) = &attributes.ips {
        fields.set_json("ips", ips);
    }
    if let Some(mac) = &attributes.mac {
        fields.set_json("mac", mac);
    }
    if let Some(cni_args) = &attributes.cni_args {
        fields.set_json("cni-args", cni_args);
    }
    fields
}

/// What the plan must know of an attachment: its parent is in the configuration its first plugin got.
fn present(attachment: &records::Attachment) -> Present {
    let stdin =
        attachment.delegates.first().and_then(|delegate| NetworkConfig::parse(delegate.stdin.as_bytes(), None).ok());
    let parent = stdin.and_then(|config| {
        let plugin = config.plugins.into_iter().next()?;
        plan::parent_in_question(&plugin).map(|(kind, parent)| (kind.to_owned(), parent))
    });
    Present { network: attachment.network.clone(), ifname: attachment.ifname.clone(), parent }
}

fn announce(context: &Context, call: &Invocation, plan: &Plan, result: &CniResult) {
    for attachment in &plan.attachments {
        if let Some(text) = plan::status::added_interface(&attachment.ifname, &attachment.network, result) {
            pods::event(context, call, EventKind::Normal, "AddedInterface", &text);
        }
    }
    for warning in &plan.warnings {
        pods::event(context, call, EventKind::Warning, warning.reason, &warning.message);
    }
}
