//! CHECK: is every attachment still as its ADD left it? First our own look at the kernel, then the delegates'.

use std::time::Instant;

use crate::cni::{CniResult, Command, Version};
use crate::fault::{CniError, code, quote};
use crate::names::{ContainerId, NetnsPath, mac_text};
use crate::ops::chain;
use crate::ops::context::{Context, Pool, left_ms};
use crate::ops::invocation::Invocation;
use crate::ops::runner::Runner;
use crate::ops::steps::Stage as Step;
use crate::ops::takeover;
use crate::records::{Attachment, Record, State};
use crate::sys::links;
use crate::wire::Job;

/// Checks a container.
///
/// # Errors
/// Code 3 for an unknown container, code 104 for a difference we see, else the delegate's own.
pub async fn check<R: Runner>(context: &Context, call: &Invocation, runner: &mut R) -> Result<(), CniError> {
    let (Some(container), Some(netns)) = (&call.request.container_id, &call.request.netns) else { return Ok(()) };
    let turn = context.turns.take(Pool::Others, Some(container), call.deadline);
    let _turn = call.steps.attempt(Step::Wait, turn).await?;
    let record = takeover::current(context, container, call.request.ifname.as_ref());
    let record = record.filter(|record| record.state == State::Added).ok_or_else(|| {
        CniError::new(
            code::UNKNOWN_CONTAINER,
            format!("container {} has no attachments here", quote(container.as_str())),
        )
        .remedy("it was never added, or its ADD did not finish")
    })?;
    if !record.may_be_in(netns, call.netns_id.as_ref()) {
        return Err(another_namespace(netns, container));
    }
    // What is still joining, or did not quite leave, is not promised to anybody.
    let whole = || record.attachments.iter().filter(|attachment| !attachment.hotplug || attachment.result.is_some());
    for attachment in whole() {
        call.steps.attempt(Step::Kernel, link(netns.as_path(), attachment)).await?;
    }
    for attachment in whole() {
        delegates(context, &record, attachment, netns, call.deadline, runner).await?;
    }
    Ok(())
}

/// The path that a request names leads elsewhere than it did at ADD.
pub(super) fn another_namespace(netns: &NetnsPath, container: &ContainerId) -> CniError {
    let text = format!(
        "CNI_NETNS {} is another namespace than the one that container {} was attached in, which is gone",
        quote(&netns.to_string()),
        quote(container.as_str())
    );
    CniError::new(code::INVALID_NETNS, text).remedy("delete the pod's sandbox, so that it is attached anew")
}

/// Checks one attachment of `record`.
///
/// # Errors
/// As [`check`].
pub async fn one<R: Runner>(
    context: &Context,
    record: &Record,
    attachment: &Attachment,
    netns: &NetnsPath,
    deadline: Instant,
    runner: &mut R,
) -> Result<(), CniError> {
    link(netns.as_path(), attachment).await?;
    delegates(context, record, attachment, netns, deadline, runner).await
}

async fn delegates<R: Runner>(
    context: &Context,
    record: &Record,
    attachment: &Attachment,
    netns: &NetnsPath,
    deadline: Instant,
    runner: &mut R,
) -> Result<(), CniError> {
    for job in jobs(record, attachment, netns, deadline) {
        let plugin = job.plugin.clone();
        let context_of = format!("check network {} ({plugin}) on {}", quote(&attachment.network), attachment.ifname);
        chain::run(context, runner, job).await.map_err(|error| error.within(context_of))?;
    }
    Ok(())
}

/// The interface is there, with the hardware address and the addresses of the result.
async fn link(netns: &std::path::Path, attachment: &Attachment) -> Result<(), CniError> {
    let name = attachment.ifname.as_str();
    let differs = |what: String| {
        CniError::new(code::CHECK, format!("interface {name} of network {}: {what}", quote(&attachment.network)))
            .remedy("delete the pod's sandbox, so that it is attached anew")
    };
    let Some(result) = attachment.result.as_ref().and_then(|value| CniResult::parse(value.to_string().as_bytes()).ok())
    else {
        return Ok(());
    };
    let Some(at) = result.interfaces.iter().position(|i| i.name == name && !i.sandbox.is_empty()) else {
        return Ok(());
    };
    let found =
        links::find(Some(netns), name).await.map_err(|error| CniError::new(code::INVALID_NETNS, error.to_string()))?;
    let found = found.ok_or_else(|| differs("it is gone from the pod's namespace".into()))?;
    let mac = mac_text(found.mac);
    let promised = result.interfaces.get(at).map(|i| i.mac.to_ascii_lowercase()).unwrap_or_default();
    if !promised.is_empty() && promised != mac {
        return Err(differs(format!("its hardware address is {mac}, it was added with {}", quote(&promised))));
    }
    let has =
        links::addresses(netns, found.ifindex).await.map_err(|error| CniError::new(code::CHECK, error.to_string()))?;
    for ip in result.ips.iter().filter(|ip| ip.interface.is_none_or(|index| index == at)) {
        if !has.contains(&(ip.address.ip, ip.address.prefix)) {
            return Err(differs(format!("its address {} is gone", ip.address)));
        }
    }
    Ok(())
}

fn jobs(record: &Record, attachment: &Attachment, netns: &NetnsPath, deadline: Instant) -> Vec<Job> {
    let speaks = |version: &str| Version::parse(version).is_ok_and(Version::has_check);
    attachment
        .delegates
        .iter()
        .filter(|delegate| !delegate.skips_check && speaks(&delegate.cni_version))
        .map(|delegate| Job {
            id: 0,
            plugin: delegate.plugin.clone(),
            verb: Command::Check,
            container: Some(record.container.clone()),
            netns: Some(netns.clone()),
            ifname: Some(attachment.ifname.clone()),
            args: delegate.args.clone(),
            stdin: delegate.stdin.clone(),
            timeout_ms: left_ms(deadline),
        })
        .collect()
}
