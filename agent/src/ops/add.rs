//! ADD, from top to bottom: plan everything, touch nothing before the plan stands, write down every step before it is
//! taken, undo all of it in reverse when one step fails.

use crate::cni::secrets::input;
use crate::cni::{CniResult, Command};
use crate::fault::{CniError, code, quote};
use crate::kube::EventKind;
use crate::ops::context::{Context, Pool, left_ms};
use crate::ops::invocation::{Invocation, Sandbox};
use crate::ops::runner::Runner;
use crate::ops::steps::Stage as Step;
use crate::ops::{
    chain, default_network, default_route, device_info, links, planning, pods, recording, reflect, result_cache,
    telling, undo,
};
use crate::plan::{self, Attachment, Plan};
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
    let refused = |error| telling::refused(context, call, error);
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
    let pod = match pod.map_err(|error| error.within(telling::about(call.request.pod.as_ref())))? {
        pods::Found::Known(pod) => pod,
        pods::Found::Gone => return pods::nothing_attached(call),
    };
    let reflected = plan::reflect::protocols(&pod.annotations).map_err(refused)?;
    let plan = steps.attempt(Step::Plan, planning::feasible(context, call, &sandbox, &pod)).await.map_err(refused)?;
    let recorded = steps.at_once(Step::Record, || recording::begin(context, call, &sandbox, &plan));
    let mut record = recorded.map_err(refused)?;
    match carry_out(context, call, (&plan, &reflected), &mut record, runner).await {
        Ok((answer, results)) => {
            context.reflection.changed();
            telling::announce(context, call, &plan, &record, &results);
            Ok(answer)
        }
        Err(error) => {
            context.refusals.note_inputs(&record);
            roll_back(context, call, (&sandbox, &plan), &mut record, runner).await;
            pods::event(context, call, EventKind::Warning, "FailedAttaching", &error.to_string());
            Err(error)
        }
    }
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
    // The same path of the same container is the namespace of the half ADD, even where the record says only the path.
    let same = Some(sandbox.netns).filter(|netns| record.netns.as_ref() == Some(netns));
    let netns = record.namespace_asked(same, call.netns_id.as_ref());
    let failed = undo::undo(context, &mut record, netns.as_ref(), runner, call.deadline).await;
    match failed.first() {
        None => Ok(()),
        Some(first) => Err(CniError::new(code::TRY_LATER, format!("undo an earlier, unfinished ADD: {first}"))),
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
    record.status = Some(telling::network_status(context, call, plan, &results));
    drop(concluded);
    call.steps.at_once(Step::Record, || recording::conclude(context, record))?;
    Ok((answer, results))
}

/// Every network in order, one after the other, as the specification demands; then the default routes.
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
        if !attachment.master {
            follow(context, call, attachment, (record, at)).await;
        }
        results.push(result);
    }
    settle_routes(context, call, plan, record, &mut results).await?;
    Ok(results)
}

/// The datapath, onto what a plugin made; what it cannot do is a note and never a failure.
async fn follow(context: &Context, call: &Invocation, attachment: &Attachment, (record, at): (&mut Record, usize)) {
    let Some(netns) = &call.request.netns else { return };
    let step = call.steps.begin(Step::Datapath).of("", attachment.ifname.as_str());
    let link = links::follow(context, netns, attachment).await;
    step.note(link.as_ref().and_then(|link| link.note.as_deref()).unwrap_or_default());
    drop(step);
    if let Some(recorded) = record.attachments.get_mut(at) {
        recorded.link = link;
    }
}

/// The default routes that the pod asked for; results and records say afterwards what the kernel has.
async fn settle_routes(
    context: &Context,
    call: &Invocation,
    plan: &Plan,
    record: &mut Record,
    results: &mut [CniResult],
) -> Result<(), CniError> {
    let Some(netns) = &call.request.netns else { return Ok(()) };
    let settling = default_route::settle(netns.as_path(), plan, results);
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
    Ok(())
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
        if record.mark((at, index), Stage::Called) {
            call.steps.at_once(Step::Record, || recording::save(context, record))?;
        }
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
                return Err(telling::failure(call.request.pod.as_ref(), attachment, failed.error));
            }
        };
        let unreadable = |error: CniError| {
            // What is quoted of it may have been repeated from the input.
            let input = plan::stdin::stdin(Command::Add, attachment, index, result.as_ref()).unwrap_or_default();
            let values = input::of_input(&input, &args);
            // Anew, for a sentence quotes the beginning of a text, where half of a value may stand.
            let error = CniResult::parse(values.out_of_text(&said).as_bytes()).err().unwrap_or(error);
            let error = input::out_of_error(&values, &error);
            telling::failure(
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

/// The first failure undoes everything, in reverse.
async fn roll_back<R: Runner>(
    context: &Context,
    call: &Invocation,
    (sandbox, plan): (&Sandbox<'_>, &Plan),
    record: &mut Record,
    runner: &mut R,
) {
    let undo = undo::undo(context, record, Some(sandbox.netns), runner, call.deadline);
    for line in call.steps.during(Step::Undo, undo).await {
        tracing::warn!(container = %sandbox.container, "roll back: {line}");
    }
    remove_remains(sandbox, plan).await;
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
