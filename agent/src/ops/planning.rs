//! What is going to be attached to a pod: what the decision needs is gathered from those who know it, then it is made, and
//! looked at whether this node can carry it out.
//!
//! Touches nothing; a refusal leaves the pod as it was.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::fault::CniError;
use crate::kube::ClusterError;
use crate::names::NadRef;
use crate::objects::{Allocated, Network};
use crate::ops::context::Context;
use crate::ops::invocation::{Invocation, Sandbox};
use crate::ops::{auxiliary, cluster_network, devices, pods, preflight, telling};
use crate::plan::{self, Choice, Demand, Plan, Wanted};

/// The plan, and a look whether it can be carried out here.
pub(super) async fn feasible(
    context: &Context,
    call: &Invocation,
    sandbox: &Sandbox<'_>,
    pod: &pods::Facts,
) -> Result<Plan, CniError> {
    preflight::is_the_runtimes(sandbox.netns, call.netns_id.as_ref())?;
    let plan = make_plan(context, call, sandbox, pod).await?;
    let free = preflight::names_are_free(sandbox.netns, &plan.attachments).await;
    free.map_err(|(attachment, error)| telling::failure(call.request.pod.as_ref(), attachment, error))?;
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
