//! `drain`: the agent lets nobody in any more, and answers when those within are done.

use crate::fault::many;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::output::{self, Format};
use super::{Ending, query};

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent drain                     before the agent is stopped: pods that come meanwhile wait for the next one
  multus-agent drain --timeout 2m";

/// How much longer than the draining its answer may take.
const GRACE: Duration = Duration::from_secs(5);

/// Drains; exit code 4 if somebody is still at work then. Nobody is let in all the same.
pub fn drain(socket: &Path, patience: Duration, format: Format) -> Ending {
    let path = query::with("/v1/drain", &[("for", Some(patience.as_millis().to_string()))]);
    let document = match query::ask(socket, "POST", &path, patience + GRACE) {
        Ok(document) => document,
        Err(ending) => return ending,
    };
    let at_work = document.get("atWork").and_then(Value::as_u64).unwrap_or_default();
    let printed = output::print(&match format {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        _ if at_work == 0 => "drained: nothing is at work, and new pods wait for the next agent\n".to_owned(),
        _ => String::new(),
    });
    match printed {
        Ending::Fine if at_work > 0 => Ending::TimedOut(format!(
            "still at work after {} s: {}; no further ones begin",
            patience.as_secs(),
            many(at_work, "attachment")
        )),
        ending => ending,
    }
}
