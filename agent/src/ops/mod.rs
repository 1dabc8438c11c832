//! What the agent does for a request: one file per verb, and the few things they share.
//!
//! The only place that knows the order of things. Speaks neither HTTP nor to a terminal.

pub mod add;
pub mod anew;
pub mod chain;
pub mod check;
pub mod cluster_network;
pub mod context;
pub mod default_network;
pub mod default_route;
pub mod del;
pub mod device_info;
pub mod devices;
pub mod gc;
pub mod invocation;
pub mod ledger;
pub mod links;
pub mod owed_status;
pub mod pods;
pub mod preflight;
pub mod reconcile;
pub mod result_cache;
pub mod runner;
pub mod runtime_conf;
pub mod status;
pub mod takeover;
pub mod undo;
pub mod view;

use std::sync::Arc;
use std::time::Instant;

use crate::cni::{Command, Version};
use crate::fault::CniError;
use crate::metrics::RequestLabels;
use crate::wire::{Call, Step};
use context::Context;
use invocation::Invocation;
use runner::Runner;

/// Answers one call, counts it and logs it.
pub async fn answer<R: Runner>(context: &Arc<Context>, call: Call, runner: &mut R) -> Step {
    let began = Instant::now();
    let verb = call.env.get("CNI_COMMAND").and_then(|verb| Command::parse(verb).ok());
    let outcome = match Invocation::read(call, &context.settings) {
        Ok(invocation) => perform(context, &invocation, runner).await,
        Err(error) => Err(error),
    };
    let verb = verb.map_or("unknown", Command::as_str);
    let labels =
        RequestLabels { verb, code: outcome.as_ref().err().map_or(0, |error| context.metrics.code_label(error.code)) };
    context.metrics.requests.get_or_create(&labels).inc();
    context.metrics.request_duration.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
    match outcome {
        Ok(output) => {
            tracing::info!(verb, ms = began.elapsed().as_millis(), "done");
            Step::Done { output }
        }
        Err(error) => {
            tracing::warn!(verb, code = error.code, ms = began.elapsed().as_millis(), "refused: {error}");
            Step::Fail { error }
        }
    }
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
                add::persist(context, container.clone());
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
