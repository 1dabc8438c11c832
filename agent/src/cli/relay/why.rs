//! `relay why`: the chain from an announcement to a pod's interface, and the first link that is broken.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use crate::cli::output::{self, Format, Ink, Level, cell, paint, safe};
use crate::cli::{Agent, Ending, Show, query};

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent relay why \"Office Printer\" --pod home/home-assistant
  multus-agent relay why _ipp._tcp                    every service of a type, every pod
  multus-agent relay why printer.local --parent eth0
  multus-agent relay why any --protocol ssdp --pod home/home-assistant";

/// What is asked.
#[derive(Debug, Args)]
pub struct Why {
    /// What is looked for: a service's name or type, or a host's name
    name: String,
    /// Where the agent is.
    #[command(flatten)]
    agent: Agent,
    /// How to print it.
    #[command(flatten)]
    show: Show,
    /// By this pod alone
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pod: Option<String>,
    /// On this parent alone
    #[arg(long, value_name = "INTERFACE")]
    parent: Option<String>,
    /// The discovery protocol; announcements are remembered of mdns alone
    #[arg(long, value_name = "NAME", default_value = "mdns")]
    protocol: String,
}

/// Asks, and prints the chain; exit code 1 unless it is seen.
pub fn why(asked: &Why) -> Ending {
    let path = query::with(
        "/v1/relay/why",
        &[
            ("name", Some(asked.name.clone())),
            ("pod", asked.pod.clone()),
            ("parent", asked.parent.clone()),
            ("protocol", Some(asked.protocol.clone())),
        ],
    );
    let document = match query::document(&asked.agent.socket, &path) {
        Ok(document) => document,
        Err(ending) => return ending,
    };
    let text = match asked.show.output {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        Format::Name => items(&document).iter().map(|item| safe(&cell(item, "/pod")) + "\n").collect(),
        Format::Table | Format::Wide => told(&document),
    };
    match output::print(&text) {
        Ending::Fine if document.get("seen").and_then(Value::as_bool) != Some(true) => Ending::Problem,
        ending => ending,
    }
}

fn items(document: &Value) -> &[Value] {
    document.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn told(document: &Value) -> String {
    let mut text = sentence(document);
    let items = items(document);
    for item in items {
        let [pod, interface, network, parent] =
            ["/pod", "/interface", "/network", "/parent"].map(|pointer| safe(&cell(item, pointer)));
        text += &paint(&format!("\n{pod} {interface}, network {network}, on {parent}"), Ink::Strong);
        text.push('\n');
        for step in item.get("steps").and_then(Value::as_array).into_iter().flatten() {
            let _infallible =
                writeln!(text, "{} {:<10} {}", mark(step), safe(&cell(step, "/name")), safe(&cell(step, "/text")));
        }
        if items.len() > 1 {
            text += &sentence(item);
        }
    }
    if cell(document, "/leftOut") != "0" {
        let _infallible = writeln!(text, "\nnot shown: {} more; name a pod or a parent", cell(document, "/leftOut"));
    }
    text
}

/// The verdict and what to do.
fn sentence(item: &Value) -> String {
    let level = match item.get("seen").and_then(Value::as_bool) {
        Some(true) => Level::Good,
        Some(false) => Level::Bad,
        None => Level::Warning,
    };
    let (verdict, remedy) = (safe(&cell(item, "/verdict")), safe(&cell(item, "/remedy")));
    let remedy = if remedy.is_empty() { remedy } else { format!("  {remedy}\n") };
    format!("{} {verdict}\n{remedy}", level.mark())
}

fn mark(step: &Value) -> String {
    match cell(step, "/state").as_str() {
        "fine" => Level::Good.mark(),
        "warning" => Level::Warning.mark(),
        "broken" => Level::Bad.mark(),
        "unknown" => paint("?", Ink::Warning),
        _ => paint("·", Ink::Faint),
    }
}
