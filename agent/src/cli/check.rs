//! `check`: what is wrong with this node and what to do about it; the first command of a bad night.
//!
//! The agent checks; without one, what files tell is checked here. Prints, decides nothing.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::output::{self, Ink, Level, cell, paint, safe};
use crate::cli::{Agent, Ending, query};
use crate::config::Settings;
use crate::fault::many;
use crate::ops::checks;

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent check
  multus-agent check --pre                            before an installation
  multus-agent check --category networks,ipam -o short
  multus-agent check --wait 30s                       in a script, after a roll-out

Every check is explained in docs/reference/checks.md.";

/// Pause between two tries of `--wait`.
const PAUSE: Duration = Duration::from_millis(500);

/// What is checked, and how it is told.
#[derive(Debug, Args)]
pub struct Asked {
    /// Before an installation: only what can be seen without an agent
    #[arg(long)]
    pub pre: bool,
    /// Only these categories; may be given more than once, or with commas
    #[arg(long, value_name = "CATEGORY", value_delimiter = ',', value_parser = category)]
    pub category: Vec<String>,
    /// Wait up to this long for errors that may pass, such as an agent that starts; 30s or 2m
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    pub wait: Option<Duration>,
    /// The daemon's configuration, for what is checked without an agent
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the agent is.
    #[command(flatten)]
    pub agent: Agent,
    /// How to print it
    #[arg(short, long, help_heading = "Output", value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub output: Format,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Everything, by category.
    Table,
    /// Only what is wrong.
    Short,
    /// The whole document, stable.
    Json,
    /// The same in YAML.
    Yaml,
}

fn category(text: &str) -> Result<String, String> {
    let known = checks::CATEGORIES.map(checks::Category::as_str);
    if known.contains(&text) { Ok(text.to_owned()) } else { Err(format!("there are {}", known.join(", "))) }
}

/// Checks. An error is a problem found; warnings alone are fine.
pub fn check(asked: &Asked) -> Ending {
    let until = Instant::now() + asked.wait.unwrap_or_default();
    loop {
        let (document, ending) = match look(asked) {
            Ok(looked) => looked,
            Err(ending) => return ending,
        };
        if document["mayPass"] == true && Instant::now() < until {
            thread::sleep(PAUSE);
            continue;
        }
        let text = match asked.output {
            Format::Json => output::json(&document),
            Format::Yaml => output::yaml(&document),
            Format::Table => table(&document, true, !asked.category.is_empty()),
            Format::Short => table(&document, false, false),
        };
        return match output::print(&text) {
            Ending::Fine => ending,
            failed => failed,
        };
    }
}

/// One look, and how the command ends with it.
fn look(asked: &Asked) -> Result<(Value, Ending), Ending> {
    let outside = |why: Option<String>| {
        let settings = settings(asked)?;
        let viewpoint = why.map_or(checks::Viewpoint::Before, checks::Viewpoint::Outside);
        let view = checks::from_outside(&settings, viewpoint, &checks::named(&asked.category));
        serde_json::to_value(&view).map_err(|error| Ending::Failed(format!("print what was found: {error}")))
    };
    if asked.pre {
        let document = outside(None)?;
        let ending = by(&document);
        return Ok((document, ending));
    }
    match query::document(&asked.agent.socket, &format!("/v1/check?category={}", asked.category.join(","))) {
        Ok(document) => {
            let ending = by(&document);
            Ok((document, ending))
        }
        // The document says it all; the exit code says that it is not the whole truth.
        Err(Ending::NotReachable(text)) => {
            Ok((outside(Some(text))?, Ending::NotReachable("the agent did not answer".to_owned())))
        }
        Err(Ending::TimedOut(text)) => {
            Ok((outside(Some(text))?, Ending::TimedOut("the agent did not answer".to_owned())))
        }
        Err(ending) => Err(ending),
    }
}

fn by(document: &Value) -> Ending {
    if document["success"] == true { Ending::Fine } else { Ending::Problem }
}

fn settings(asked: &Asked) -> Result<Settings, Ending> {
    let read = |text: &str| Settings::parse(text).map(|(settings, _)| settings);
    let Some(file) = &asked.config else {
        return read("{}").map_err(|error| Ending::Failed(error.to_string()));
    };
    let shown = safe(&file.to_string_lossy());
    let text = fs::read_to_string(file).map_err(|error| Ending::Failed(format!("read {shown}: {error}")))?;
    read(&text).map_err(|error| Ending::Failed(format!("configuration {shown}: {error}")))
}

/// By category, each problem with its remedy and where to read on; what is fine only when `all`, what was skipped only
/// when it was asked for by name.
fn table(document: &Value, all: bool, skipped_too: bool) -> String {
    let mut text = String::new();
    let categories = list(document, "/categories");
    for category in categories {
        let mut lines = String::new();
        for check in list(category, "/checks") {
            one(&mut lines, check, all, skipped_too);
        }
        if !lines.is_empty() && all {
            let name = cell(category, "/name");
            let _ = writeln!(text, "{}\n{}", paint(&name, Ink::Strong), "-".repeat(name.len()));
        }
        text += &lines;
        if !lines.is_empty() && all {
            text.push('\n');
        }
    }
    let count = |pointer: &str| document.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let verdict = match (count("/errors"), count("/warnings")) {
        (0, 0) => "healthy",
        (0, _) => "works, but look at the warnings",
        _ => "not healthy",
    };
    let categories = match categories.len() {
        1 => "1 category".to_owned(),
        many => format!("{many} categories"),
    };
    let _ = writeln!(
        text,
        "{categories}, {}, {}: {verdict}",
        many(count("/errors"), "error"),
        many(count("/warnings"), "warning")
    );
    text
}

fn one(lines: &mut String, check: &Value, all: bool, skipped_too: bool) {
    let (about, detail) = (cell(check, "/description"), cell(check, "/detail"));
    let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    let mark = match check["result"].as_str() {
        Some("ok") if all => Level::Good.mark(),
        Some("skipped") if skipped_too => "-".to_owned(),
        Some("error") => Level::Bad.mark(),
        Some("warning") => Level::Warning.mark(),
        _ => return,
    };
    let problems = list(check, "/problems");
    if problems.is_empty() {
        let _ = writeln!(lines, "{mark} {}", safe(&format!("{about}{detail}")));
    }
    for problem in problems {
        let _ = writeln!(lines, "{mark} {}", safe(&cell(problem, "/cause")));
        let _ = writeln!(lines, "    {}", safe(&cell(problem, "/remedy")));
    }
    if !problems.is_empty() {
        let _ = writeln!(lines, "    {}", paint(&format!("see {}", cell(check, "/hint")), Ink::Faint));
    }
}

fn list<'a>(document: &'a Value, pointer: &str) -> &'a [Value] {
    document.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_stand_with_remedy_and_hint_and_short_leaves_out_the_rest() {
        let document = serde_json::json!({"success": false, "errors": 1, "warnings": 0, "categories": [
            {"name": "kernel", "checks": [
                {"name": "a", "description": "fine", "result": "ok", "detail": "6.18", "problems": [], "hint": "h#a"},
                {"name": "s", "description": "skipped", "result": "skipped", "detail": "why", "problems": [], "hint": "h#s"}]},
            {"name": "cni-install", "checks": [
                {"name": "b", "description": "bad", "result": "error", "detail": "", "hint": "h#b",
                    "problems": [{"cause": "x\u{1b}[2J", "remedy": "y"}]}]},
        ]});
        let problem = "× x\\u{1b}[2J\n    y\n    see h#b\n";
        let end = "2 categories, 1 error, 0 warnings: not healthy\n";
        assert_eq!(
            table(&document, true, false),
            format!("kernel\n------\n√ fine: 6.18\n\ncni-install\n-----------\n{problem}\n{end}")
        );
        assert_eq!(table(&document, false, false), format!("{problem}{end}"));
        assert!(table(&document, true, true).contains("- skipped: why\n"));
    }

    #[test]
    fn categories_are_known_by_name() {
        assert!(category("kernel").is_ok() && category("kernal").unwrap_err().contains("cni-install"));
    }
}
