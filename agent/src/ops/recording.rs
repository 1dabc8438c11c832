//! How what is planned and what came of it gets into a container's record.
//!
//! Runs no plugin, and decides nothing about what is written down.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cni::{CniResult, Command, Request};
use crate::fault::{CniError, code};
use crate::names::ContainerId;
use crate::ops::context::Context;
use crate::ops::invocation::{Invocation, Sandbox};
use crate::ops::runner;
use crate::plan::{self, Attachment, Plan};
use crate::records::{self, Origin, Record, Stage, State};

/// Writes down what is about to be done: from here on the first delegate counts as called.
pub(super) fn begin(
    context: &Context,
    call: &Invocation,
    sandbox: &Sandbox<'_>,
    plan: &Plan,
) -> Result<Record, CniError> {
    let planned = |attachment| recorded(attachment, &call.request, Stage::Planned);
    let attachments = plan.attachments.iter().map(planned).collect::<Result<_, _>>()?;
    let mut record = Record {
        container: sandbox.container.clone(),
        netns: Some(sandbox.netns.clone()),
        netns_id: call.netns_id.clone().or_else(|| runner::netns_of_the_host(sandbox.netns)),
        pod: call.request.pod.clone(),
        ifname: sandbox.ifname.clone(),
        state: State::Adding,
        since: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        attachments,
        status: None,
        reflect: None,
        origin: Origin::Agent,
        rest: records::Rest::new(),
    };
    record.mark((0, 0), Stage::Called);
    save(context, &record)?;
    Ok(record)
}

/// One attachment as its record begins; its delegates are at `stage`.
pub(super) fn recorded(
    attachment: &Attachment,
    request: &Request,
    stage: Stage,
) -> Result<records::Attachment, CniError> {
    let environment = plan::stdin::environment(Command::Del, request, "", attachment)?;
    let args = environment.get("CNI_ARGS").unwrap_or_default();
    Ok(records::Attachment {
        network: attachment.network.clone(),
        conf_name: attachment.config.name.to_string(),
        nad: attachment.nad.clone(),
        ifname: attachment.ifname.clone(),
        master: attachment.master,
        hotplug: false,
        delegates: delegates(attachment, args, None, stage)?,
        result: None,
        link: None,
        device_info: attachment.device_info.as_ref().map(|files| files.shown.clone()),
        rest: records::Rest::new(),
    })
}

fn delegates(
    attachment: &Attachment,
    args: &str,
    result: Option<&CniResult>,
    stage: Stage,
) -> Result<Vec<records::Delegate>, CniError> {
    let config = &attachment.config;
    let delegate = |(index, plugin): (usize, &crate::cni::PluginConfig)| {
        Ok(records::Delegate {
            plugin: plugin.plugin.clone(),
            cni_version: config.cni_version.to_string(),
            stage,
            stdin: plan::stdin::stdin(Command::Del, attachment, index, result)?,
            args: args.to_owned(),
            skips_check: config.disable_check,
            rest: records::Rest::new(),
        })
    };
    config.plugins.iter().enumerate().map(delegate).collect()
}

/// Writes the record as it stands. That of an ADD on its way is flushed when the ADD is over.
pub(super) fn save(context: &Context, record: &Record) -> Result<(), CniError> {
    let is_on_its_way = record.state == State::Adding;
    let saved = if is_on_its_way { context.ledger.advance(record) } else { context.ledger.save(record) };
    saved.map_err(|error| unwritten(record, &error))
}

/// Writes down that an ADD is done. The record is owed to the disk afterwards ([`persist`]).
pub(super) fn conclude(context: &Context, record: &mut Record) -> Result<(), CniError> {
    record.state = State::Added;
    context.ledger.advance(record).map_err(|error| unwritten(record, &error))
}

fn unwritten(record: &Record, error: &io::Error) -> CniError {
    CniError::new(code::IO, format!("write the record of container {}: {error}", record.container))
        .remedy("free space below cniDir, or mount it writable")
}

/// The record says what came of an attachment, and its DEL and CHECK will say it to the plugins.
pub(super) fn note(
    recorded: &mut records::Attachment,
    attachment: &Attachment,
    result: &CniResult,
) -> Result<(), CniError> {
    let args = recorded.delegates.first().map(|delegate| delegate.args.clone()).unwrap_or_default();
    recorded.delegates = delegates(attachment, &args, Some(result), Stage::Called)?;
    recorded.result = result.print(crate::cni::Version::NEWEST).ok().and_then(|text| serde_json::from_str(&text).ok());
    Ok(())
}

/// What is owed after the reply: the record survives power loss, too.
pub(super) fn persist(context: &Arc<Context>, container: ContainerId) {
    let context = Arc::clone(context);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = context.ledger.persist(&container)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%container, "flush a record: {error}");
        }
    });
}
