//! `config`: the settings that hold, the defaults, the schema, and whether a file is right.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::output::{self, Format, Ink, Level, cell, paint, safe};
use crate::cli::{Agent, Ending, Show, query};
use crate::config::{Settings, schema};
use crate::fault::quote;

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent config view --changed                 what differs from the defaults, and why
  multus-agent config validate daemon-config.json    before the agent is restarted with it";

/// Most bytes of a file that is validated.
const MOST: u64 = 16 << 20;

/// What to do with it.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Show the settings of the running agent, and where each came from
    View {
        /// Only those that are written in the file or come from the environment
        #[arg(long)]
        changed: bool,
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
    },
    /// Print a configuration in which every key has its default; keep what you change
    Default,
    /// Print the JSON Schema of the configuration
    Schema,
    /// Say whether a file would do, as `run` would
    Validate {
        /// The file; - is the standard input
        file: PathBuf,
        /// How to print it.
        #[command(flatten)]
        show: Show,
    },
}

/// Does it.
pub fn config(what: &What) -> Ending {
    match what {
        What::View { changed, agent, show } => view(&agent.socket, show.output, *changed),
        What::Default => output::print(&output::json(&schema::defaults())),
        What::Schema => output::print(&output::json(&schema::schema())),
        What::Validate { file, show } => validate(file, show.output),
    }
}

fn view(socket: &Path, format: Format, changed: bool) -> Ending {
    let mut document = match query::document(socket, "/v1/config") {
        Ok(document) => document,
        Err(ending) => return ending,
    };
    if changed && let Some(settings) = document.get_mut("settings").and_then(Value::as_array_mut) {
        settings.retain(|setting| cell(setting, "/from") != "default");
    }
    let settings = document.get("settings").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = match format {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        Format::Name => settings.iter().map(|setting| safe(&cell(setting, "/key")) + "\n").collect(),
        Format::Table | Format::Wide => {
            let mut heads = vec!["KEY", "VALUE", "FROM"];
            let mut pointers = vec!["/key", "/value", "/from"];
            if format == Format::Wide {
                heads.push("DEFAULT");
                pointers.push("/default");
            }
            let row = |setting: &Value| pointers.iter().map(|pointer| cell(setting, pointer)).collect();
            let file = cell(&document, "/file");
            format!(
                "{}\n{}{}",
                safe(&file),
                output::table(&heads, settings.iter().map(row).collect()),
                warnings(&document)
            )
        }
    };
    output::print(&text)
}

/// A line for each of the document's warnings.
fn warnings(document: &Value) -> String {
    let warnings = document.get("warnings").and_then(Value::as_array).into_iter().flatten();
    let line = |text: &str| format!("{} {}\n", Level::Warning.mark(), safe(text));
    warnings.filter_map(Value::as_str).map(line).collect()
}

fn validate(file: &Path, format: Format) -> Ending {
    let shown = file.display().to_string();
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => return Ending::Failed(format!("read {}: {error}", quote(&shown))),
    };
    let document = judged(&shown, &text);
    let text = match format {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        Format::Name => safe(&shown) + "\n",
        Format::Table | Format::Wide => verdict(&document),
    };
    match output::print(&text) {
        Ending::Fine if document["valid"] == json!(false) => Ending::Problem,
        ending => ending,
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().take(MOST).read_to_string(&mut text)?;
    } else {
        fs::File::open(file)?.take(MOST).read_to_string(&mut text)?;
    }
    Ok(text)
}

/// What the agent would make of it.
fn judged(file: &str, text: &str) -> Value {
    let (error, warnings) = match Settings::parse(text) {
        Ok((_, warnings)) => (Value::Null, warnings),
        Err(error) => {
            (json!({"key": error.key, "value": error.value, "remedy": format!("write {}", error.fits)}), Vec::new())
        }
    };
    json!({
        "apiVersion": "multus-ebpf.io/v1", "kind": "Validation",
        "file": file, "valid": error.is_null(), "error": error, "warnings": warnings,
    })
}

fn verdict(document: &Value) -> String {
    let file = safe(&cell(document, "/file"));
    if document["valid"] == json!(true) {
        return format!("{} {file} will do\n{}", Level::Good.mark(), warnings(document));
    }
    let [key, value, remedy] = ["/error/key", "/error/value", "/error/remedy"].map(|at| safe(&cell(document, at)));
    format!("{} {file}: {} is {value}\n    {remedy}\n", Level::Bad.mark(), paint(&key, Ink::Strong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_judged_as_run_would() {
        let good = judged("f", r#"{"binDri": "/x"}"#);
        assert_eq!(good["valid"], json!(true));
        assert!(good["warnings"][0].as_str().unwrap().contains("the nearest is \"binDir\""), "{good}");
        assert!(verdict(&good).starts_with("√ f will do\n‼ "), "{}", verdict(&good));
        let bad = judged("f", r#"{"datapath": {"slots": 0}}"#);
        assert_eq!((&bad["valid"], &bad["error"]["key"]), (&json!(false), &json!("datapath.slots")));
        assert_eq!(
            verdict(&bad),
            "× f: datapath.slots is 0\n    write a whole number from 1 to 65534, without quotes\n"
        );
    }
}
