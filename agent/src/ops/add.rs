//! ADD, from top to bottom: plan everything, touch nothing before the plan stands, write down every step before it is
//! taken, undo all of it in reverse when one step fails.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::cni::secrets::input;
use crate::cni::{CniResult, Command, passthru};
use crate::fault::{CniError, code, quote};
use crate::kube::{ClusterError, EventKind};
use crate::names::{NadRef, PodRef};
use crate::objects::{Allocated, Network};
use crate::ops::cluster_network;
use crate::ops::context::{Context, Pool, left_ms};
use crate::ops::invocation::{Invocation, Sandbox};
use crate::ops::runner::Runner;
use crate::ops::steps::Stage as Step;
use crate::ops::{
    auxiliary, chain, default_network, default_route, device_info, devices, links, pods, preflight, recording, reflect,
    result_cache, undo,
};
use crate::plan::{self, Attachment, Choice, Demand, Plan, Wanted};
use crate::records::{Record, Stage, State};
use crate::sys;
use crate::wire::Job;

/// Attaches a container. The answer is the master's result in the version that was asked in.
///
/// # Errors
/// Whatever refused the plan, or the first step that failed; then everything before it was undone.
pub async fn add<R: Runner>(context: &Context, call: &Invocation, runner: &mut R) -> Result<String, CniError> {
    let sandbox = call.sandbox()?;
    let steps = &call.steps;
    let refused = |error| refused(context, call, error);
    steps.attempt(Step::Wait, default_network::wait(context, call.work_until)).await.map_err(refused)?;
    if runner.is_gone() {
        return Err(CniError::new(code::TRY_LATER, "the CNI plugin that asked is gone"));
    }
    let turn = context.turns.take(Pool::Attaching, Some(sandbox.container), call.deadline);
    let _turn = steps.attempt(Step::Wait, turn).await?;
    if let Some(answer) = answered_before(context, call, &sandbox) {
        return answer;
    }
    steps.attempt(Step::Undo, clear_leftover(context, call, &sandbox, runner)).await?;
    let pod = steps.attempt(Step::Pod, pods::find(context, call)).await;
    let pod = match pod.map_err(|error| error.within(about(call.request.pod.as_ref())))? {
        pods::Found::Known(pod) => pod,
        pods::Found::Gone => return pods::nothing_attached(call),
    };
    let reflected = plan::reflect::protocols(&pod.annotations).map_err(refused)?;
    let plan = steps.attempt(Step::Plan, feasible_plan(context, call, &sandbox, &pod)).await.map_err(refused)?;
    let recorded = steps.at_once(Step::Record, || recording::begin(context, call, &sandbox, &plan));
    let mut record = recorded.map_err(refused)?;
    match carry_out(context, call, (&plan, &reflected), &mut record, runner).await {
        Ok((answer, results)) => {
            context.reflection.changed();
            announce(context, call, &plan, &record, &results);
            Ok(answer)
        }
        Err(error) => {
            context.refusals.note_inputs(&record);
            let undo = undo::undo(context, &mut record, Some(sandbox.netns), runner, call.deadline);
            for line in steps.during(Step::Undo, undo).await {
                tracing::warn!(container = %sandbox.container, "roll back: {line}");
            }
            remove_remains(&sandbox, &plan).await;
            pods::event(context, call, EventKind::Warning, "FailedAttaching", &error.to_string());
            Err(error)
        }
    }
}

/// Attaches everything, and concludes: the answer stands before the record says that all is done.
async fn carry_out<R: Runner>(
    context: &Context,
    call: &Invocation,
    (plan, reflected): (&Plan, &[String]),
    record: &mut Record,
    runner: &mut R,
) -> Result<(String, Vec<CniResult>), CniError> {
    let results = attach_all(context, call, plan, record, runner).await?;
    if let Some(netns) = &call.request.netns {
        record.reflect = call.steps.during(Step::Reflect, reflect::meet(context, netns, record, reflected)).await;
    }
    let answer = results.first().cloned().unwrap_or_default().print(call.version)?;
    if !runner.is_heard() {
        return Err(CniError::new(code::TRY_LATER, "the CNI plugin that asked is gone"));
    }
    let concluded = call.steps.begin(Step::Result);
    result_cache::write(context, record, plan, &results);
    let infos: Vec<_> = plan.attachments.iter().map(|each| device_info::shown(context, call, each)).collect();
    let told = plan.attachments.iter().zip(&results).zip(&infos);
    let told = told.filter(|((attachment, result), _)| is_told(attachment, result));
    let made: Vec<_> = told.map(made).collect();
    record.status = Some(plan::status::network_status(&made));
    record.state = State::Added;
    drop(concluded);
    call.steps.at_once(Step::Record, || recording::save(context, record))?;
    Ok((answer, results))
}

/// The auxiliary chain works on what others made: without an interface of its own it is no news to the pod.
fn is_told(attachment: &Attachment, result: &CniResult) -> bool {
    let is_chain = attachment.config.plugins.first().is_some_and(|first| first.plugin.as_str() == passthru::PLUGIN);
    !is_chain || attachment.nad.is_some() || attachment.master || !result.interfaces.is_empty()
}

fn made<'a>(
    ((attachment, result), info): ((&'a Attachment, &'a CniResult), &'a Option<Box<RawValue>>),
) -> plan::status::Made<'a> {
    let device_info = info.as_deref();
    plan::status::Made { network: &attachment.network, master: attachment.master, result, device_info }
}

/// The answer of an ADD that was done, but whose shim lost the agent before it heard so.
fn answered_before(context: &Context, call: &Invocation, sandbox: &Sandbox<'_>) -> Option<Result<String, CniError>> {
    let record = context.ledger.get(sandbox.container).filter(|record| call.again && record.state == State::Added)?;
    let is_same = record.netns.as_ref() == Some(sandbox.netns) && record.ifname == *sandbox.ifname;
    let result = record.attachments.first().filter(|_| is_same)?.result.as_ref()?.to_string();
    Some(CniResult::parse(result.as_bytes()).and_then(|result| result.print(call.version)))
}

/// A half ADD of the same container is undone first; a whole one is left alone, and the second ADD refused.
async fn clear_leftover<R: Runner>(
    context: &Context,
    call: &Invocation,
    sandbox: &Sandbox<'_>,
    runner: &mut R,
) -> Result<(), CniError> {
    let Some(record) = context.ledger.get(sandbox.container) else { return Ok(()) };
    if record.state == State::Added {
        let text = format!("container {} is attached already", quote(sandbox.container.as_str()));
        return Err(
            CniError::new(code::INVALID_ENVIRONMENT, text).remedy("call DEL before another ADD; nothing was changed")
        );
    }
    let mut record = Record::clone(&record);
    let netns = record.netns.clone().filter(|path| path.as_path().exists());
    let failed = undo::undo(context, &mut record, netns.as_ref(), runner, call.deadline).await;
    match failed.first() {
        None => Ok(()),
        Some(first) => Err(CniError::new(code::TRY_LATER, format!("undo an earlier, unfinished ADD: {first}"))),
    }
}

/// The plan, and a look whether it can be carried out here.
async fn feasible_plan(
    context: &Context,
    call: &Invocation,
    sandbox: &Sandbox<'_>,
    pod: &pods::Facts,
) -> Result<Plan, CniError> {
    let plan = make_plan(context, call, sandbox, pod).await?;
    for attachment in &plan.attachments {
        let free = preflight::name_is_free(sandbox.netns, attachment).await;
        free.map_err(|error| failure(call.request.pod.as_ref(), attachment, error))?;
    }
    preflight::parents_are_there(&plan).await?;
    Ok(plan)
}

/// Everything that is decided before anything is touched.
///
/// # Errors
/// What an ADD of `pod` would be refused with.
pub(super) async fn make_plan(
    context: &Context,
    call: &Invocation,
    sandbox: &Sandbox<'_>,
    pod: &pods::Facts,
) -> Result<Plan, CniError> {
    let policy = &call.conf.policy;
    let choice = match &pod.id {
        Some(id) => Choice::read(&pod.annotations, &id.namespace, policy)?,
        None => Choice::default(),
    };
    let networks = fetch(context, call, &choice.needed()).await?;
    let known = |id: &NadRef| networks.get(id).map(|network| Network::clone(network));
    let mut wanted = Wanted {
        pod: pod.id.as_ref(),
        ifname: sandbox.ifname,
        runtime_config: &call.conf.runtime_config,
        policy,
        cluster: cluster_network::all(context, &call.conf, call.deadline).await?,
        defaults: cluster_network::defaults(context, &call.conf, call.deadline).await?,
        choice,
        auxiliary: auxiliary::chain(context, &call.conf)?,
        devices: Allocated::new(),
    };
    wanted.devices = devices::allocated(context, call, pod, &Demand::of(&wanted, known)).await?;
    let mut plan = plan::plan(wanted, known)?;
    preflight::none_is_ours(&context.settings.generator.plugin, &plan)?;
    plan.place_device_info(Path::new(&context.settings.device_info_dir), sandbox.container);
    Ok(plan)
}

/// The networks a pod names, from memory; an empty spec is filled in from `confDir`.
async fn fetch(
    context: &Context,
    call: &Invocation,
    needed: &[NadRef],
) -> Result<HashMap<NadRef, Arc<Network>>, CniError> {
    let mut networks = HashMap::new();
    for id in needed {
        let found = context.cluster.find_network(id, call.deadline).await;
        let network = match found {
            Ok(network) => cluster_network::filled(&call.conf, network)?,
            Err(error) => return Err(unfound(id, error)),
        };
        networks.insert(id.clone(), network);
    }
    Ok(networks)
}

/// A network that a pod names and that is not there, or cannot be looked for.
pub(super) fn unfound(id: &NadRef, error: ClusterError) -> CniError {
    let text =
        format!("cannot find a network-attachment-definition ({}) in namespace ({}): {error}", id.name, id.namespace);
    CniError { msg: text, ..CniError::from(error) }
}

/// What a failed DEL left of an ADD that failed, too: the names were free before, so the links are ours to remove.
async fn remove_remains(sandbox: &Sandbox<'_>, plan: &Plan) {
    for attachment in &plan.attachments {
        let name = attachment.ifname.as_str();
        match sys::links::remove(sandbox.netns.as_path(), name).await {
            Ok(true) => tracing::warn!(container = %sandbox.container, "removed {name}, which its plugin left behind"),
            Ok(false) => {}
            Err(error) => tracing::warn!(container = %sandbox.container, "remove {name}: {error}"),
        }
    }
}

/// Every network in order, one after the other, as the specification demands.
async fn attach_all<R: Runner>(
    context: &Context,
    call: &Invocation,
    plan: &Plan,
    record: &mut Record,
    runner: &mut R,
) -> Result<Vec<CniResult>, CniError> {
    let mut results = Vec::new();
    for (at, attachment) in plan.attachments.iter().enumerate() {
        let step = call.steps.begin(Step::Network).of(&attachment.network, attachment.ifname.as_str());
        let result = step.ends(attach(context, call, attachment, (record, at), runner).await)?;
        if !attachment.master
            && let Some(netns) = &call.request.netns
        {
            let step = call.steps.begin(Step::Datapath).of("", attachment.ifname.as_str());
            let link = links::follow(context, netns, attachment).await;
            step.note(link.as_ref().and_then(|link| link.note.as_deref()).unwrap_or_default());
            drop(step);
            if let Some(recorded) = record.attachments.get_mut(at) {
                recorded.link = link;
            }
        }
        results.push(result);
    }
    if let Some(netns) = &call.request.netns {
        let settling = default_route::settle(netns.as_path(), plan, &mut results);
        let settled = call.steps.attempt(Step::Routes, settling).await?;
        for at in settled.changed {
            if let (Some(attachment), Some(result), Some(recorded)) =
                (plan.attachments.get(at), results.get(at), record.attachments.get_mut(at))
            {
                recording::note(recorded, attachment, result)?;
            }
        }
        for warning in settled.warnings {
            pods::event(context, call, EventKind::Warning, warning.reason, &warning.message);
        }
    }
    Ok(results)
}

/// One network: its plugins in order, each given the result of the one before.
pub(super) async fn attach<R: Runner>(
    context: &Context,
    call: &Invocation,
    attachment: &Attachment,
    (record, at): (&mut Record, usize),
    runner: &mut R,
) -> Result<CniResult, CniError> {
    let mut result: Option<CniResult> = None;
    device_info::hand_over(attachment);
    let args = record.attachments.get(at).and_then(|a| a.delegates.first()).map(|d| d.args.clone()).unwrap_or_default();
    for (index, plugin) in attachment.config.plugins.iter().enumerate() {
        record.mark((at, index), Stage::Called);
        call.steps.at_once(Step::Record, || recording::save(context, record))?;
        let job = Job {
            id: 0,
            plugin: plugin.plugin.clone(),
            verb: Command::Add,
            container: Some(record.container.clone()),
            netns: call.request.netns.clone(),
            ifname: Some(attachment.ifname.clone()),
            args: args.clone(),
            stdin: plan::stdin::stdin(Command::Add, attachment, index, result.as_ref())?,
            timeout_ms: left_ms(call.work_until),
        };
        let said = match chain::attempt(context, runner, job).await {
            Ok(said) => said,
            Err(failed) => {
                if !failed.ran {
                    record.mark((at, index), Stage::Planned);
                }
                return Err(failure(call.request.pod.as_ref(), attachment, failed.error));
            }
        };
        let unreadable = |error: CniError| {
            // What is quoted of it may have been repeated from the input.
            let input = plan::stdin::stdin(Command::Add, attachment, index, result.as_ref()).unwrap_or_default();
            let error = input::out_of_error(&input::of_input(&input, &args), &error);
            failure(
                call.request.pod.as_ref(),
                attachment,
                error.within(format_args!("result of plugin {}", quote(plugin.plugin.as_str()))),
            )
        };
        result = Some(CniResult::parse(said.as_bytes()).map_err(unreadable)?);
    }
    let result = result.unwrap_or_default();
    if let Some(recorded) = record.attachments.get_mut(at) {
        recording::note(recorded, attachment, &result)?;
    }
    Ok(result)
}

/// A delegate's failure in upstream's own words, its code kept; the details name the object, where there is one.
pub(super) fn failure(pod: Option<&PodRef>, attachment: &Attachment, error: CniError) -> CniError {
    let (namespace, name, uid) = match pod {
        Some(pod) => (pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_deref().unwrap_or_default()),
        None => ("", "", ""),
    };
    let network = &attachment.config.name;
    let mut error = error
        .within(format_args!("[{namespace}/{name}/{uid}:{network}]: error adding container to network \"{network}\""));
    if let Some(nad) = &attachment.nad {
        let object = format!("network-attachment-definition {nad}, interface {}", attachment.ifname);
        error.details = if error.details.is_empty() { object } else { format!("{object}: {}", error.details) };
    }
    error
}

/// Whose request it is, as a refusal begins.
pub(super) fn about(pod: Option<&PodRef>) -> String {
    match pod {
        Some(pod) => format!("Multus: [{pod}/{}]", pod.uid.as_deref().unwrap_or_default()),
        None => "Multus: [//]".to_owned(),
    }
}

/// Nothing was touched; the pod is told why.
fn refused(context: &Context, call: &Invocation, error: CniError) -> CniError {
    pods::event(context, call, EventKind::Warning, reason(&error), &error.to_string());
    error.within(about(call.request.pod.as_ref()))
}

/// The reason of the event that tells of a refusal.
fn reason(error: &CniError) -> &'static str {
    match error.code {
        code::UNKNOWN_NETWORK => "NoNetworkFound",
        // Nothing is wrong with what was asked.
        code::TRY_LATER | code::INVALID_NETNS | code::IO => "FailedAttaching",
        _ => "RefusedNetworks",
    }
}

/// Tells the pod what it got: its status and its events are on their way.
fn announce(context: &Context, call: &Invocation, plan: &Plan, record: &Record, results: &[CniResult]) {
    if let (Some(pod), Some(status)) = (&call.request.pod, &record.status) {
        call.steps.beside(context.cluster.report_status(pod, status.clone()));
    }
    for (attachment, result) in plan.attachments.iter().zip(results) {
        if let Some(text) = plan::status::added_interface(&attachment.ifname, &attachment.network, result) {
            pods::event(context, call, EventKind::Normal, "AddedInterface", &text);
        }
    }
    for warning in &plan.warnings {
        pods::event(context, call, EventKind::Warning, warning.reason, &warning.message);
    }
}
