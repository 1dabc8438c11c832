//! What was probably attached to a container of which nothing is kept anywhere: planned anew from the pod's annotations
//! and the networks at hand, for its DEL.
//!
//! Asks no API server, and never fails: what cannot be made out is left out.

use std::time::Instant;

use crate::cni::CniResult;
use crate::ops::context::Context;
use crate::ops::invocation::Invocation;
use crate::ops::{cluster_network, recording};
use crate::plan::{self, Choice, KnownNetwork, Plan, Wanted};
use crate::records::{Origin, Record, Rest, Stage, State};

/// A record as an ADD of `call` would have left it, all of it to be undone. `None`: there is nothing to go by.
pub async fn record(context: &Context, call: &Invocation) -> Option<Record> {
    let (container, ifname) = (call.request.container_id.as_ref()?, call.request.ifname.as_ref()?);
    let cluster = cluster_network::all(context, &call.conf, Instant::now()).await.unwrap_or_default();
    let defaults = cluster_network::defaults(context, &call.conf, Instant::now()).await.unwrap_or_default();
    let choice = choice(context, call).unwrap_or_default();
    let plan = planned(context, call, (&cluster, &defaults), choice)
        .or_else(|| planned(context, call, (&cluster, &defaults), Choice::default()))?;
    let result = call.conf.prev_result.as_ref().and_then(|text| CniResult::parse(text.get().as_bytes()).ok());
    let mut attachments = Vec::new();
    for attachment in &plan.attachments {
        let Ok(mut recorded) = recording::recorded(attachment, &call.request, Stage::Called) else { continue };
        if let (true, Some(result)) = (attachment.master, &result) {
            let _unprintable = recording::note(&mut recorded, attachment, result);
        }
        attachments.push(recorded);
    }
    Some(Record {
        container: container.clone(),
        netns: call.request.netns.clone(),
        netns_id: None,
        pod: call.request.pod.clone(),
        ifname: ifname.clone(),
        state: State::Undo,
        since: 0,
        attachments,
        status: None,
        reflect: None,
        origin: Origin::Agent,
        rest: Rest::new(),
    })
}

/// Adds to a record that was made good from libcni's cache what the cache lost, too: networks of the plan that it has not.
pub async fn complete(context: &Context, call: &Invocation, record: &mut Record) {
    let Some(planned) = self::record(context, call).await else { return };
    for attachment in planned.attachments {
        if record.attachments.iter().all(|kept| kept.ifname != attachment.ifname) {
            tracing::warn!(container = %record.container, "{} is detached as planned anew", attachment.ifname);
            // The first interface goes last.
            let at = if attachment.master { 0 } else { record.attachments.len() };
            record.attachments.insert(at, attachment);
        }
    }
}

/// Which networks the pod chose, as far as they are known still.
fn choice(context: &Context, call: &Invocation) -> Option<Choice> {
    let pod = call.request.pod.as_ref()?;
    let annotations =
        call.annotations.clone().or_else(|| context.cluster.known_pod(pod).map(|known| known.annotations))?;
    let mut choice = Choice::read(&annotations, &pod.namespace, &call.conf.policy).ok()?;
    choice.networks.retain(|selection| context.cluster.network(&selection.network).is_some());
    Some(choice)
}

fn planned(
    context: &Context,
    call: &Invocation,
    (cluster, defaults): (&[KnownNetwork], &[KnownNetwork]),
    choice: Choice,
) -> Option<Plan> {
    let wanted = Wanted {
        pod: call.request.pod.as_ref(),
        ifname: call.request.ifname.as_ref()?,
        runtime_config: &call.conf.runtime_config,
        policy: &call.conf.policy,
        cluster: cluster.to_vec(),
        defaults: defaults.to_vec(),
        choice,
        auxiliary: None,
        devices: std::collections::BTreeMap::new(),
    };
    let network = |id: &crate::names::NadRef| {
        let known = context.cluster.network(id)?;
        cluster_network::filled(&call.conf, known).ok().map(|network| crate::objects::Network::clone(&network))
    };
    match plan::plan(wanted, network) {
        Ok(plan) => Some(plan),
        Err(error) => {
            tracing::debug!("plan a DEL anew: {error}");
            None
        }
    }
}
