//! What an ADD of a pod would do now, without doing any of it: the planner is asked as ADD asks it, and nothing is run,
//! written or attached.
//!
//! Reads what ADD reads, and the plugins' folder. What only a plugin can say when it runs is not known here.

pub mod document;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cni::RawObject;
use crate::fault::{CniError, code};
use crate::kube::ClusterError;
use crate::names::{NadRef, PluginName, PodRef};
use crate::objects::Network;
use crate::ops::context::Context;
use crate::ops::invocation::Invocation;
use crate::ops::{chain, cluster_network, default_network, planning, pods, preflight, telling};
use crate::plan::judged;
use crate::plan::{self, Choice, Plan};
use crate::sys::{conf_files, exec};
use crate::wire::{Call, PROTOCOL};
pub use document::{DelegateView, Explanation, PlannedView, RefusalView, SelectionView, WarningView};

/// How long the cluster and the kubelet may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The container of a request that nobody made. Only names of device-info files have it in them.
const NOBODY: &str = "explain";

/// Explains the pod, whose UID does not matter. One that is not known, or that nobody could be asked for, is refused.
///
/// # Errors
/// The daemon's configuration cannot be used for requests.
pub async fn explain(context: &Context, pod: &PodRef) -> Result<Explanation, CniError> {
    let deadline = Instant::now() + PATIENCE;
    let attached = context.ledger.all().iter().any(|record| {
        record.pod.as_ref().is_some_and(|known| known.namespace == pod.namespace && known.name == pod.name)
    });
    let found = match context.cluster.peek_pod(pod, deadline).await {
        Ok(found) => found,
        Err(error) => {
            let nothing = BTreeMap::new();
            let remedy = unexplained(&error, attached);
            let refusal = Some(CniError::from(error).remedy(remedy).into());
            return Ok(Explanation { known: false, attached, refusal, ..Explanation::of(pod, &nothing) });
        }
    };
    let facts = pods::Facts { id: Some(found.id.clone()), annotations: found.annotations };
    let mut told = Explanation::of(&found.id, &facts.annotations);
    told.attached = attached;
    let call = as_the_runtime_asks(context, &found.id, &facts.annotations)?;
    told.refusal = judge(context, &call, &facts, &mut told).await.err().map(RefusalView::from);
    Ok(told)
}

/// What to do about a pod that nobody can say anything of.
fn unexplained(error: &ClusterError, attached: bool) -> &'static str {
    match (error, attached) {
        (ClusterError::NotFound { .. }, false) => {
            "look at its name and namespace; manifests that no cluster has are for multus-agent lint"
        }
        (ClusterError::NotFound { .. }, true) => {
            "it is attached with what the runtime said of it: see multus-agent describe attachment"
        }
        _ => "see multus-agent check --category api-access; what is attached is in multus-agent describe attachment",
    }
}

/// Everything an ADD looks at, in its order. The error is the ADD's own.
async fn judge(
    context: &Context,
    call: &Invocation,
    facts: &pods::Facts,
    told: &mut Explanation,
) -> Result<(), CniError> {
    let policy = &call.conf.policy;
    let choice = facts.id.as_ref().and_then(|id| Choice::read(&facts.annotations, &id.namespace, policy).ok());
    if let (Some(choice), Some(id)) = (&choice, &facts.id) {
        let find = |id: &NadRef| find(context, call, id);
        let known: Vec<NadRef> = context.cluster.networks().iter().map(|network| network.id.clone()).collect();
        let judged = judged::selections(choice, &id.namespace, policy, find);
        told.selections = judged.iter().map(|each| document::selection(each, &id.namespace, &known)).collect();
    }
    let refused = |error: CniError| error.within(telling::about(call.request.pod.as_ref()));
    default_network::available(context).map_err(|error| refused(CniError { code: code::TRY_LATER, ..error }))?;
    plan::reflect::protocols(&facts.annotations).map_err(refused)?;
    let sandbox = call.sandbox()?;
    let plan = planning::make_plan(context, call, &sandbox, facts).await.map_err(refused)?;
    let relay_of = |attachment: &plan::Attachment| {
        let nad = context.cluster.network(attachment.nad.as_ref()?)?;
        nad.annotations.get(crate::objects::annotation::RELAY).cloned()
    };
    told.take_plan(&plan, &choice.unwrap_or_default(), policy, relay_of);
    preflight::parents_are_there(&plan).await.map_err(refused)?;
    plugins_are_there(context, call, &plan, told)
}

/// A look into the plugins' folder, where it can be seen from here.
fn plugins_are_there(
    context: &Context,
    call: &Invocation,
    plan: &Plan,
    told: &mut Explanation,
) -> Result<(), CniError> {
    let folder = Path::new(&call.conf.bin_dir).to_owned();
    if !folder.is_dir() {
        return Ok(());
    }
    let host = context.settings.chroot_dir.as_deref().and_then(|root| folder.strip_prefix(root).ok());
    let shown = host.map_or_else(|| folder.clone(), |below| Path::new("/").join(below)).to_string_lossy().into_owned();
    let folders = [folder];
    let is_there = |plugin: &PluginName| exec::find(plugin, &folders).is_some();
    told.warnings.extend(document::missing_ipam(plan, &is_there, &shown));
    match document::missing_plugins(plan, &is_there).first() {
        None => Ok(()),
        Some((attachment, plugin)) => {
            let error = chain::not_found(plugin.as_str(), &shown);
            Err(telling::failure(call.request.pod.as_ref(), attachment, error))
        }
    }
}

fn find(context: &Context, call: &Invocation, id: &NadRef) -> Result<Network, CniError> {
    let missing = || {
        let sourced = context.cluster.health().source != "none";
        planning::unfound(
            id,
            ClusterError::NotFound { kind: "NetworkAttachmentDefinition", id: id.to_string(), sourced },
        )
    };
    let network = context.cluster.network(id).ok_or_else(missing)?;
    cluster_network::filled(&call.conf, network).map(|network| Network::clone(&network))
}

/// The ADD that the runtime would send, with the conf that stands for it.
fn as_the_runtime_asks(
    context: &Context,
    pod: &PodRef,
    annotations: &BTreeMap<String, String>,
) -> Result<Invocation, CniError> {
    let uid = pod.uid.as_deref().map(|uid| format!(";K8S_POD_UID={uid}")).unwrap_or_default();
    let env = [
        ("CNI_COMMAND", "ADD".to_owned()),
        ("CNI_CONTAINERID", NOBODY.to_owned()),
        ("CNI_NETNS", "/proc/self/ns/net".to_owned()),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CNI_PATH", String::new()),
        ("CNI_ARGS", format!("IgnoreUnknown=true;K8S_POD_NAMESPACE={};K8S_POD_NAME={}{uid}", pod.namespace, pod.name)),
    ];
    let mut config = runtimes_conf(context);
    config.set_json("name", "multus-cni-network");
    config.set_json("cniVersion", &context.settings.generator.cni_version);
    let call = Call {
        protocol: PROTOCOL,
        oldest: None,
        shim: NOBODY.into(),
        env: env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        config: config.print(),
        timeout_ms: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
        again: false,
        netns_id: None,
    };
    let invocation = Invocation::read(call, &context.settings)?;
    Ok(Invocation { annotations: Some(annotations.clone()), ..invocation })
}

/// Our plugin's own configuration in the conf that stands for the runtime; empty where none is known.
fn runtimes_conf(context: &Context) -> RawObject {
    let known = context.default_network.now();
    let read = || {
        let object = RawObject::parse(&conf_files::at(known.file.as_deref()?).ok()?.bytes).ok()?;
        let plugins = object.list("plugins").ok().flatten().unwrap_or_default();
        let own = plugins.iter().find_map(|plugin| RawObject::parse(plugin.get().as_bytes()).ok());
        own.or(Some(object))
    };
    read().unwrap_or_default()
}
