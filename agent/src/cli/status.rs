//! `status`: how the agent is, worst subsystem first; once, or until it is fine.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::output::{self, Format, Ink, Level, cell, paint, safe};
use crate::cli::{Ending, query};

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent status                         every subsystem, the worst first
  multus-agent status --brief                 one line, for a probe
  multus-agent status --wait --timeout 2m     in a script, after a roll-out";

/// Pause between two looks of `--wait`.
const PAUSE: Duration = Duration::from_millis(250);

/// How `status` looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// How it is printed.
    pub format: Format,
    /// One line; only what does not work counts as a problem.
    pub brief: bool,
    /// How long it may take until all is well; `None`: one look.
    pub patience: Option<Duration>,
}

/// Prints the status; anything but `ok` is a problem found.
pub fn status(socket: &Path, look: Look) -> Ending {
    let document = match patiently(socket, look) {
        Ok(document) => document,
        Err(ending) => return ending,
    };
    let ending = output::print(&text(&document, look));
    match (ending, look.patience) {
        (Ending::Fine, None) if !is_fine(&document, look) => Ending::Problem,
        (Ending::Fine, Some(patience)) if !is_fine(&document, look) => {
            Ending::TimedOut(format!("the status is still not fine after {} s", patience.as_secs()))
        }
        (ending, _) => ending,
    }
}

/// The document when all is well; else the last one, or why there is none.
fn patiently(socket: &Path, look: Look) -> Result<Value, Ending> {
    let until = look.patience.map(|patience| Instant::now() + patience);
    loop {
        // The last look ends with the waiting.
        let left = until.map_or(query::PATIENCE, |until| until.saturating_duration_since(Instant::now()));
        let patience = left.clamp(PAUSE, query::PATIENCE);
        let found = query::ask(socket, "GET", "/v1/status", patience);
        let done = match &found {
            Ok(document) => is_fine(document, look),
            Err(ending) => !matches!(ending, Ending::NotReachable(_) | Ending::TimedOut(_)),
        };
        if done || until.is_none_or(|until| Instant::now() + PAUSE > until) {
            return match (found, look.patience) {
                (Err(Ending::NotReachable(text) | Ending::TimedOut(text)), Some(patience)) => {
                    Err(Ending::TimedOut(format!("gave up after {} s: {text}", patience.as_secs())))
                }
                (found, _) => found,
            };
        }
        std::thread::sleep(PAUSE);
    }
}

/// A warning is worth a look, not a restart: only what does not work is a problem for a probe.
fn is_fine(document: &Value, look: Look) -> bool {
    match Level::of_health(&cell(document, "/health")) {
        Level::Good => true,
        Level::Warning => look.brief,
        Level::Bad => false,
    }
}

fn text(document: &Value, look: Look) -> String {
    let lines = document.pointer("/subsystems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    match look.format {
        Format::Json => output::json(document),
        Format::Yaml => output::yaml(document),
        Format::Name => lines.iter().map(|line| safe(&cell(line, "/name")) + "\n").collect(),
        Format::Table | Format::Wide if look.brief => one_line(document, lines),
        Format::Table => table(lines),
        Format::Wide => table(lines) + &datapath(document),
    }
}

fn one_line(document: &Value, lines: &[Value]) -> String {
    let health = cell(document, "/health");
    let worst = lines.first().filter(|_| health != "ok");
    let text = worst.map(|line| format!(": {}: {}", cell(line, "/name"), cell(line, "/text"))).unwrap_or_default();
    safe(&format!("{health}{text}")) + "\n"
}

/// What a sentence has more of stands below it, so that no line needs a wide terminal.
fn table(lines: &[Value]) -> String {
    let width = lines.iter().map(|line| cell(line, "/name").chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for line in lines {
        let level = Level::of_health(&cell(line, "/health"));
        let said = safe(&cell(line, "/text"));
        let mut parts = said.split("; ");
        let name = safe(&cell(line, "/name"));
        let _infallible = writeln!(text, "{} {name:width$}  {}", level.mark(), parts.next().unwrap_or_default());
        for part in parts {
            let _infallible = writeln!(text, "  {:width$}  {part}", "");
        }
    }
    text
}

/// The shared programs and the parents.
fn datapath(document: &Value) -> String {
    let rows = |at: &str, pointers: &[&str]| -> Vec<Vec<String>> {
        let items = document.pointer(at).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().map(|item| pointers.iter().map(|pointer| cell(item, pointer)).collect()).collect()
    };
    let mut text = String::new();
    let parents = ["/name", "/ifindex", "/attachedBy", "/guard", "/members", "/beyondFanout"];
    let programs = ["/name", "/id", "/verifiedInstructions"];
    for (title, heads, rows) in [
        (
            "Parents",
            &["NAME", "IFINDEX", "ATTACHED", "GUARD", "MEMBERS", "BEYOND"][..],
            rows("/datapath/parents", &parents),
        ),
        ("Programs", &["NAME", "ID", "VERIFIED"][..], rows("/datapath/programs", &programs)),
    ] {
        if !rows.is_empty() {
            let _infallible = write!(text, "\n{}\n{}", paint(title, Ink::Strong), output::table(heads, rows));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_its_first_sentence_beside_its_name_and_the_rest_below() {
        let line =
            |name: &str, health: &str, text: &str| serde_json::json!({"name": name, "health": health, "text": text});
        let lines = [line("cluster", "failed", "no \"x\"\u{1b}; second; third"), line("records", "ok", "fine")];
        let wanted = "× cluster  no \"x\"\\u{1b}\n           second\n           third\n√ records  fine\n";
        assert_eq!(table(&lines), wanted);
    }
}
