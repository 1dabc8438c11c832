//! What the agent does for a request: one file per verb, and the few things they share.
//!
//! The only place that knows the order of things. Speaks neither HTTP nor to a terminal.

pub mod add;
pub mod addresses;
pub mod anew;
pub mod auxiliary;
pub mod capture;
pub mod chain;
pub mod check;
pub mod checks;
pub mod cluster_network;
pub mod context;
pub mod default_network;
pub mod default_route;
pub mod del;
pub mod delegate_tally;
pub mod device_info;
pub mod devices;
pub mod discovery;
pub mod explain;
pub mod gate;
pub mod gc;
pub mod host_access;
pub mod hotplug;
pub mod install;
pub mod invocation;
pub mod ledger;
pub mod links;
pub mod lint;
pub mod opening;
pub mod owed_status;
mod planning;
pub mod pods;
pub mod preflight;
pub mod probe;
pub mod reconcile;
mod recording;
pub mod reflect;
pub mod refusals;
pub mod repair;
pub mod result_cache;
pub mod runner;
pub mod runtime_conf;
pub mod status;
pub mod steps;
pub mod sysdump;
pub mod takeover;
mod telling;
pub mod traces;
pub mod undo;
pub mod view;
pub mod why;
pub mod witness;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::cni::{Command, Version};
use crate::fault::CniError;
use crate::metrics::{RequestLabels, StageLabels};
use crate::wire::{Call, Step};
use context::Context;
use invocation::Invocation;
use refusals::Asked;
use runner::Runner;
use steps::{Steps, Traced};
use traces::Trace;

/// Answers one call, counts it and logs it.
pub async fn answer<R: Runner>(context: &Arc<Context>, call: Call, runner: &mut R) -> Step {
    context.metrics.asked_by(&call.shim);
    let asked = asked_by(&call.env);
    let steps = Steps::default();
    let mut runner = Traced::new(runner, &steps);
    counted(context, asked, &steps, async {
        let invocation = Invocation { steps: steps.clone(), ..Invocation::read(call, &context.settings)? };
        Box::pin(perform(context, &invocation, &mut runner)).await
    })
    .await
}

/// The same for a caller that converts results itself: whatever version it asks in, the answer is in the newest.
pub async fn answer_in_newest<R: Runner>(context: &Arc<Context>, call: Call, runner: &mut R) -> Step {
    context.metrics.asked_by(&call.shim);
    let asked = asked_by(&call.env);
    let steps = Steps::default();
    let mut runner = Traced::new(runner, &steps);
    counted(context, asked, &steps, async {
        let read = Invocation::read(call, &context.settings)?;
        let invocation = Invocation { version: Version::NEWEST, steps: steps.clone(), ..read };
        Box::pin(perform(context, &invocation, &mut runner)).await
    })
    .await
}

/// Answers what `/delegate` is asked: one network of a running pod, counted and logged as the runtime's requests are.
pub async fn answer_delegate<R: Runner>(context: &Arc<Context>, asked: hotplug::Asked, runner: &mut R) -> Step {
    let who = asked_by(&asked.env);
    let steps = Steps::default();
    let mut runner = Traced::new(runner, &steps);
    counted(context, who, &steps, hotplug::perform(context, asked, &steps, &mut runner)).await
}

/// Who asks for what.
fn asked_by(env: &BTreeMap<String, String>) -> Asked {
    let verb = env.get("CNI_COMMAND").and_then(|verb| Command::parse(verb).ok());
    Asked::of(verb.map_or("unknown", Command::as_str), env)
}

async fn counted(
    context: &Arc<Context>,
    asked: Asked,
    steps: &Steps,
    work: impl Future<Output = Result<Option<String>, CniError>>,
) -> Step {
    let outcome = work.await;
    let verb = asked.verb;
    let took = conclude(context, &asked, steps, outcome.as_ref().err());
    let labels =
        RequestLabels { verb, code: outcome.as_ref().err().map_or(0, |error| context.metrics.code_label(error.code)) };
    context.metrics.requests.get_or_create(&labels).inc();
    context.metrics.request_duration.get_or_create(&labels).observe(took.as_secs_f64());
    match outcome {
        Ok(output) => {
            tracing::info!(verb, ms = took.as_millis(), "done");
            Step::Done { output }
        }
        Err(error) => {
            tracing::warn!(verb, code = error.code, ms = took.as_millis(), "refused: {error}");
            context.refusals.note(asked, &error);
            Step::Fail { error }
        }
    }
}

/// The steps become a trace, and are counted by stage; how long all of them took.
fn conclude(context: &Arc<Context>, asked: &Asked, steps: &Steps, error: Option<&CniError>) -> Duration {
    let finished = steps.finish();
    let took = finished.took;
    for (stage, time) in &finished.times {
        let labels = StageLabels { verb: asked.verb, stage: stage.as_str() };
        context.metrics.stage_duration.get_or_create(&labels).observe(time.as_secs_f64());
    }
    if context.traces.keep(Trace::new(asked, finished, error)) {
        let context = Arc::clone(context);
        tokio::task::spawn_blocking(move || context.traces.write(view::trace_document));
    }
    took
}

async fn perform<R: Runner>(
    context: &Arc<Context>,
    call: &Invocation,
    runner: &mut R,
) -> Result<Option<String>, CniError> {
    match call.request.command {
        Command::Add => {
            let result = add::add(context, call, runner).await?;
            if let Some(container) = &call.request.container_id {
                recording::persist(context, container.clone());
            }
            Ok(Some(result))
        }
        Command::Del => del::del(context, call, runner).await.map(|()| None),
        Command::Check => check::check(context, call, runner).await.map(|()| None),
        Command::Status => status::status(context, call, runner).await.map(|()| None),
        Command::Gc => gc::gc(context, call, runner).await.map(|()| None),
        Command::Version => Ok(Some(Version::reply())),
    }
}
