//! `version`: this program's version and the running agent's, and whether they fit.

use std::path::Path;

use multus_ebpf_common::LAYOUT;
use serde_json::{Value, json};

use crate::cli::output::{self, Format, Level, cell};
use crate::cli::{Ending, query};
use crate::wire::PROTOCOL;

/// Prints both versions. An agent that is not there is no problem; one that is another is.
pub fn version(socket: &Path, format: Format) -> Ending {
    let client = json!({"version": env!("CARGO_PKG_VERSION"), "protocol": PROTOCOL, "layout": LAYOUT});
    let (agent, reason) = match query::document(socket, "/v1/version") {
        Ok(document) => {
            let of = |key: &str| document.get(key).cloned().unwrap_or(Value::Null);
            (json!({"version": of("version"), "protocol": of("protocol"), "layout": of("layout")}), None)
        }
        Err(Ending::NotReachable(text) | Ending::TimedOut(text) | Ending::Failed(text)) => (Value::Null, Some(text)),
        Err(ending) => return ending,
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
        Ending::Fine if skew => Ending::Problem,
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
    let unreachable = cell(document, "/unreachable");
    if !unreachable.is_empty() {
        text = format!("{text}{} {}\n", Level::Warning.mark(), output::safe(&unreachable));
    }
    if skew {
        text = format!("{text}{} this program and the agent differ: use the agent's own\n", Level::Warning.mark());
    }
    text
}
