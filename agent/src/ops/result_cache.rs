//! libcni's result cache after an ADD: one entry per network, as libcni itself would have left it.
//!
//! For whoever comes after us, and for ourselves when a record is lost. Never makes an ADD fail.

use crate::cni::{CniResult, RawObject};
use crate::names::NetworkName;
use crate::ops::context::Context;
use crate::plan::Plan;
use crate::records::Record;
use crate::records::results::{Entry, Results};

/// Writes the entries of a container whose networks are attached. They are gone with its record.
pub fn write(context: &Context, record: &Record, plan: &Plan, results: &[CniResult]) {
    write_from(context, record, 0, plan, results);
}

/// The same for what joins a container that is attached already: the record's attachments from position `first` on.
pub fn write_from(context: &Context, record: &Record, first: usize, plan: &Plan, results: &[CniResult]) {
    let folder = Results::at(&context.ledger.cni_dir());
    for ((recorded, attachment), result) in record.attachments.iter().skip(first).zip(&plan.attachments).zip(results) {
        let Ok(network) = NetworkName::new(recorded.conf_name.as_str()) else { continue };
        let mut capabilities = RawObject::default();
        for (key, value) in attachment.runtime_config.iter().filter(|(key, _)| attachment.config.declares(key)) {
            capabilities.set(key, value.to_owned());
        }
        let entry = Entry {
            network,
            container: record.container.clone(),
            ifname: recorded.ifname.clone(),
            netns: record.netns.clone(),
            config: Some(attachment.config.print()),
            args: recorded.delegates.first().map(|delegate| delegate.args.clone()).unwrap_or_default(),
            capabilities,
            result: Some((result.clone(), attachment.config.cni_version)),
        };
        if let Err(error) = folder.save(&entry) {
            tracing::warn!(container = %record.container, "write the result of {}: {error}", recorded.ifname);
        }
    }
}
