//! How is the plan of a pod shown: what is refused, what is selected, and what would be attached?
//!
//! The plan comes from the agent, or from manifests; this prints.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::output::{self, Level, cell, safe};

/// Output formats of what has no columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// The whole document, stable.
    Json,
    /// The same in YAML.
    Yaml,
}

/// How it is printed.
#[derive(Debug, Args)]
pub struct Show {
    /// How to print it
    #[arg(short, long, help_heading = "Output", value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub output: Format,
}

/// One explanation for people: what is refused first, for that is what one came for.
pub fn table(document: &Value) -> String {
    let mut text = String::new();
    let pod = format!("{}/{}", cell(document, "/namespace"), cell(document, "/name"));
    let is_refused = document.get("refusal").is_some_and(|refusal| !refusal.is_null());
    let state = match (document["known"] == false, document["attached"] == true, is_refused) {
        (true, ..) => "cannot be explained",
        (_, true, true) => "is attached; a new ADD would be refused",
        (_, true, false) => "is attached; a new ADD would be planned like this",
        (_, false, true) => "is not attached; an ADD would be refused",
        (_, false, false) => "is not attached; an ADD would be planned like this",
    };
    let _ = writeln!(text, "pod {} {state}", safe(&pod));
    if let Some(refusal) = document.get("refusal").filter(|refusal| !refusal.is_null()) {
        refused(&mut text, "  ", refusal);
    }
    for warning in list(document, "/warnings") {
        let _ = writeln!(text, "  {} {}", Level::Warning.mark(), safe(&cell(warning, "/message")));
    }
    let selections = list(document, "/selections");
    if document["known"] == false {
        return text;
    }
    let _ = writeln!(text, "\nselections:{}", if selections.is_empty() { " none" } else { "" });
    for selection in selections {
        one_selection(&mut text, selection, &cell(document, "/refusal/message"));
    }
    let attachments = list(document, "/attachments");
    if !attachments.is_empty() {
        text.push_str("\nattachments, in order:\n");
    }
    for attachment in attachments {
        one_attachment(&mut text, attachment);
    }
    text.lines().fold(String::new(), |all, line| all + line.trim_end() + "\n")
}

fn refused(text: &mut String, indent: &str, refusal: &Value) {
    let _ = writeln!(
        text,
        "{indent}{} {} (code {})",
        Level::Bad.mark(),
        safe(&cell(refusal, "/message")),
        cell(refusal, "/code")
    );
    let remedy = cell(refusal, "/remedy");
    if !remedy.is_empty() {
        let _ = writeln!(text, "{indent}  remedy: {}", safe(&remedy));
    }
}

/// What is said of the whole pod already is not said again.
fn one_selection(text: &mut String, selection: &Value, said: &str) {
    let problems = list(selection, "/problems");
    let mark = if problems.is_empty() { Level::Good } else { Level::Bad }.mark();
    let (network, plugins) = (safe(&cell(selection, "/network")), safe(&cell(selection, "/plugins")));
    let asked = match cell(selection, "/interface") {
        ifname if ifname.is_empty() => String::new(),
        ifname => format!(" as {}", safe(&ifname)),
    };
    let made = if plugins.is_empty() { String::new() } else { format!(": {plugins}") };
    let _ = writeln!(text, "  {mark} {network}{asked}{made}");
    if selection["wishes"].as_object().is_some_and(|wishes| !wishes.is_empty()) {
        let _ = writeln!(text, "      wishes {}", output::plain(&selection["wishes"].to_string()));
    }
    for problem in problems.iter().filter(|problem| !said.ends_with(&cell(problem, "/message"))) {
        refused(text, "      ", problem);
    }
    let meant = cell(selection, "/meant");
    if !meant.is_empty() {
        let _ = writeln!(text, "      did you mean {}?", safe(&meant));
    }
}

fn one_attachment(text: &mut String, attachment: &Value) {
    let first = if attachment["default"] == true { ", the pod's own" } else { "" };
    let _ =
        writeln!(text, "  {} on {}{first}", safe(&cell(attachment, "/interface")), safe(&cell(attachment, "/network")));
    for (head, pointer) in [("parent", "/parent"), ("device", "/device"), ("default route", "/defaultRoute")] {
        let value = cell(attachment, pointer);
        if !value.is_empty() {
            let _ = writeln!(text, "    {head:<14} {}", safe(&value));
        }
    }
    if attachment["default"] != true {
        let (relay, note) = (cell(attachment, "/relay"), cell(attachment, "/relayNote"));
        let relay = if relay.is_empty() { "nothing".to_owned() } else { relay };
        let note = if note.is_empty() { String::new() } else { format!(": {note}") };
        let _ = writeln!(text, "    {:<14} {}{}", "relay", safe(&relay), safe(&note));
    }
    if attachment["hostAccess"] == true {
        let ports = cell(attachment, "/hostPorts");
        let ports = if ports.is_empty() { "everything".to_owned() } else { format!("ports {ports}") };
        let _ = writeln!(text, "    {:<14} {}", "host access", safe(&ports));
    }
    for delegate in list(attachment, "/delegates") {
        let (plugin, stdin) = (cell(delegate, "/plugin"), output::plain(&delegate["stdin"].to_string()));
        let _ = writeln!(text, "    plugin {:<7} {stdin}", safe(&plugin));
    }
}

fn list<'a>(document: &'a Value, pointer: &str) -> &'a [Value] {
    document.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_comes_first_and_nothing_hostile_comes_through() {
        let document = serde_json::json!({
            "namespace": "a", "name": "b", "attached": false,
            "refusal": {"code": 101, "message": "cannot find \"x\u{1b}[2J\"", "remedy": "create it"},
            "warnings": [{"reason": "r", "message": "odd"}],
            "selections": [{"network": "a/\u{202e}x", "plugins": [], "wishes": {"mac": "\u{9b}"}, "problems": [{"code": 101, "message": "m", "remedy": ""}]}],
            "attachments": [{"interface": "net1", "network": "n", "default": false, "relay": [], "relayNote": "off",
                "delegates": [{"plugin": "p", "stdin": {"k": "\u{7f}"}}]}],
        });
        let text = table(&document);
        assert!(
            text.starts_with(
                "pod a/b is not attached; an ADD would be refused\n  × cannot find \"x\\u{1b}[2J\" (code 101)\n    remedy: create it\n"
            ),
            "{text}"
        );
        assert!(text.contains("relay          nothing: off"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !(c.is_control() || crate::fault::is_hidden(c))), "{text:?}");
    }
}
