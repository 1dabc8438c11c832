//! In which words a pod, and whoever asked for it, is told what it got, or why it got nothing.
//!
//! The sentences are Multus's own where it has them; events and network-status go their way beside the request.

use serde_json::value::RawValue;

use crate::cni::{CniResult, passthru};
use crate::fault::{CniError, code};
use crate::kube::EventKind;
use crate::names::PodRef;
use crate::ops::context::Context;
use crate::ops::invocation::Invocation;
use crate::ops::{device_info, pods};
use crate::plan::{self, Attachment, Plan};
use crate::records::Record;

/// Whose request it is, as a refusal begins.
pub(super) fn about(pod: Option<&PodRef>) -> String {
    match pod {
        Some(pod) => format!("Multus: [{pod}/{}]", pod.uid.as_deref().unwrap_or_default()),
        None => "Multus: [//]".to_owned(),
    }
}

/// Nothing was touched; the pod is told why.
pub(super) fn refused(context: &Context, call: &Invocation, error: CniError) -> CniError {
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

/// The network-status of what was attached.
pub(super) fn network_status(context: &Context, call: &Invocation, plan: &Plan, results: &[CniResult]) -> String {
    let infos: Vec<_> = plan.attachments.iter().map(|each| device_info::shown(context, call, each)).collect();
    let told = plan.attachments.iter().zip(results).zip(&infos);
    let told = told.filter(|((attachment, result), _)| is_told(attachment, result));
    let made: Vec<_> = told.map(made).collect();
    plan::status::network_status(&made)
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

/// Tells the pod what it got: its status and its events are on their way.
pub(super) fn announce(context: &Context, call: &Invocation, plan: &Plan, record: &Record, results: &[CniResult]) {
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
