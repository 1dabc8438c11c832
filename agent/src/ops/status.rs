//! STATUS: could an ADD be served now? The truth, within seconds (CNI SPEC 1.1, "STATUS": 50 and 51).

use std::time::{Duration, Instant};

use crate::cni::{Command, NetworkConfig};
use crate::fault::{CniError, code};
use crate::ops::chain;
use crate::ops::cluster_network;
use crate::ops::context::Context;
use crate::ops::default_network;
use crate::ops::invocation::Invocation;
use crate::ops::runner::Runner;
use crate::ops::steps::Stage as Step;
use crate::ops::undo;
use crate::plan;
use crate::wire::Job;

/// Most time the delegates' own STATUS may take.
const DELEGATES: Duration = Duration::from_secs(1);

/// Most time that clean-up may ride along.
const RIDE: Duration = Duration::from_millis(700);

/// Answers STATUS. What was left over is undone on the way: the runtime asks often, and brings somebody who may.
///
/// # Errors
/// Code 50 with the reason; a delegate's own error as it is.
pub async fn status<R: Runner>(context: &Context, call: &Invocation, runner: &mut R) -> Result<(), CniError> {
    let began = Instant::now();
    let answer = judge(context, call, runner).await;
    let ride = undo::leftovers(context, runner, RIDE.saturating_sub(began.elapsed()));
    call.steps.during(Step::Undo, ride).await;
    answer
}

async fn judge<R: Runner>(context: &Context, call: &Invocation, runner: &mut R) -> Result<(), CniError> {
    ready(context)?;
    let deadline = call.deadline.min(Instant::now() + DELEGATES);
    let not_available = |error: CniError| CniError { code: code::NOT_AVAILABLE, ..error };
    let network = cluster_network::resolve(context, &call.conf, deadline).await.map_err(not_available)?;
    match network {
        Some(network) => of_network(context, &network.config, deadline, runner).await,
        None => Ok(()),
    }
}

/// What the plugins of one network say, where it speaks a version that has STATUS.
///
/// # Errors
/// A delegate's own, as code 50 unless it is 51.
pub async fn of_network<R: Runner>(
    context: &Context,
    config: &NetworkConfig,
    deadline: Instant,
    runner: &mut R,
) -> Result<(), CniError> {
    let not_available = |error: CniError| CniError { code: code::NOT_AVAILABLE, ..error };
    if !config.cni_version.has_status() {
        return Ok(());
    }
    for (at, plugin) in config.plugins.iter().enumerate() {
        let stdin = plan::stdin::about_the_network(config, at)?;
        let job = Job {
            id: 0,
            plugin: plugin.plugin.clone(),
            verb: Command::Status,
            container: None,
            netns: None,
            ifname: None,
            args: String::new(),
            stdin,
            timeout_ms: crate::ops::context::left_ms(deadline),
        };
        chain::run(context, runner, job).await.map_err(|error| match error.code {
            code::NOT_AVAILABLE | code::LIMITED_CONNECTIVITY => error,
            _ => not_available(error),
        })?;
    }
    Ok(())
}

/// What the agent itself needs for an ADD: records that can be written, networks that are known, and the cluster's own
/// network in its place.
///
/// # Errors
/// Code 50 with the reason.
pub fn ready(context: &Context) -> Result<(), CniError> {
    context.ledger.writable().map_err(|error| {
        CniError::new(code::NOT_AVAILABLE, format!("write a record below cniDir: {error}"))
            .remedy("free space there, or mount it writable")
    })?;
    let health = context.cluster.health();
    if health.source == "api" && !health.networks_synced && health.networks == 0 {
        let why = health.last_error.unwrap_or_else(|| "no list of networks yet".into());
        return Err(CniError::new(code::NOT_AVAILABLE, format!("no network is known: {why}"))
            .remedy("see whether the API server can be reached with the configured kubeconfig"));
    }
    default_network::available(context)
}
