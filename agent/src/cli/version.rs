//! `version`: this program's version and the running agent's, and whether they fit.

use std::path::Path;
use std::time::Duration;

use multus_ebpf_common::LAYOUT;
use serde_json::{Value, json};

use crate::cli::output::{self, Format, Level, cell};
use crate::cli::{Ending, query};
use crate::wire::PROTOCOL;

/// A version is known without work: an agent that does not say it by then hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints both versions. Without the agent's its own part is printed, and the ending says why; another agent's is a
/// problem.
pub fn version(socket: &Path, format: Format) -> Ending {
    let client = json!({"version": env!("CARGO_PKG_VERSION"), "protocol": PROTOCOL, "layout": LAYOUT});
    let (agent, without) = match query::ask(socket, "GET", "/v1/version", PATIENCE) {
        Ok(document) => {
            let of = |key: &str| document.get(key).cloned().unwrap_or(Value::Null);
            (json!({"version": of("version"), "protocol": of("protocol"), "layout": of("layout")}), None)
        }
        Err(ending) => (Value::Null, Some(ending)),
    };
    let reason = match &without {
        Some(Ending::NotReachable(text) | Ending::TimedOut(text) | Ending::Failed(text)) => Some(text.as_str()),
        _ => None,
    };
    let skew = !agent.is_null() && agent != client;
    let document = json!({
        "apiVersion": "multus-ebpf.io/v1", "kind": "Versions",
        "client": client, "agent": agent, "skew": skew, "unreachable": reason,
    });
    let text = match format {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        Format::Name => cell(&document, "/client/version") + "\n",
        Format::Table | Format::Wide => table(&document, skew),
    };
    match output::print(&text) {
        Ending::Fine => without.unwrap_or(if skew { Ending::Problem } else { Ending::Fine }),
        ending => ending,
    }
}

fn table(document: &Value, skew: bool) -> String {
    let row = |who: &str| {
        let at = |key: &str| cell(document, &format!("/{who}/{key}"));
        vec![who.to_owned(), at("version"), at("protocol"), at("layout")]
    };
    let mut rows = vec![row("client")];
    if !document["agent"].is_null() {
        rows.push(row("agent"));
    }
    let mut text = output::table(&["PROGRAM", "VERSION", "PROTOCOL", "LAYOUT"], rows);
    if skew {
        text = format!("{text}{} this program and the agent differ: use the agent's own\n", Level::Warning.mark());
    }
    text
}
