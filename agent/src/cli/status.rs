//! `status`: how the agent is, worst subsystem first.

use std::path::Path;

use serde_json::Value;

use crate::cli::Ending;
use crate::cli::output::{self, Format, cell};
use crate::cli::query;
use crate::fault::escape;

/// Prints the status; anything but `ok` is a problem found.
pub fn status(socket: &Path, format: Format, brief: bool) -> Ending {
    let document = match query::document(socket, "/v1/status") {
        Ok(document) => document,
        Err(ending) => return ending,
    };
    let health = cell(&document, "/health");
    let text = match format {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        Format::Table if brief => one_line(&document, &health),
        Format::Table => table(&document),
    };
    match output::print(&text) {
        // A warning is worth a look, not a restart: only what does not work is a problem for a probe.
        Ending::Fine if health == "failed" || (health != "ok" && !brief) => Ending::Problem,
        ending => ending,
    }
}

fn lines(document: &Value) -> &[Value] {
    document.pointer("/subsystems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn one_line(document: &Value, health: &str) -> String {
    let worst = lines(document).first().filter(|_| health != "ok");
    let text = worst.map(|line| format!(": {}: {}", cell(line, "/name"), cell(line, "/text"))).unwrap_or_default();
    escape(&format!("{health}{text}")) + "\n"
}

fn table(document: &Value) -> String {
    let row = |line: &Value| ["/name", "/health", "/text"].map(|pointer| cell(line, pointer)).to_vec();
    output::table(&["SUBSYSTEM", "HEALTH", "DETAIL"], lines(document).iter().map(row).collect())
}
