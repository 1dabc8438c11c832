//! How documents reach a terminal: tables, JSON and a few colours; every foreign text escaped, a closed pipe no failure.
//!
//! Knows no document: what a column means is said where the command is.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::cli::Ending;
use crate::fault::is_hidden;

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// The whole document, stable.
    Json,
    /// The same in YAML.
    Yaml,
    /// One name on each line, as `describe` takes it.
    Name,
}

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// Works, but look at it.
    Warning,
    /// Does not work.
    Bad,
}

impl Level {
    /// The symbol in front of a line, in its colour.
    pub fn mark(self) -> String {
        match self {
            Self::Good => paint("√", Ink::Good),
            Self::Warning => paint("‼", Ink::Warning),
            Self::Bad => paint("×", Ink::Bad),
        }
    }

    /// What the `health` of a document means.
    pub fn of_health(health: &str) -> Self {
        match health {
            "ok" => Self::Good,
            "warning" => Self::Warning,
            _ => Self::Bad,
        }
    }
}

/// The colours there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Green.
    Good,
    /// Yellow.
    Warning,
    /// Red.
    Bad,
    /// Bold: titles.
    Strong,
    /// Dim: what explains and can be passed over.
    Faint,
}

/// Off until somebody says that a person reads.
static COLOURED: AtomicBool = AtomicBool::new(false);

/// Colours are used on a terminal that can show them, unless `refused` or `NO_COLOR` (no-color.org) says otherwise.
pub fn colours(refused: bool) {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    let wanted = !refused && !is_set("NO_COLOR") && !is_dumb && io::stdout().is_terminal();
    COLOURED.store(wanted, Ordering::Relaxed);
}

/// Our own `text` in a colour, where there are colours. Foreign text goes through [`safe`] first.
pub fn paint(text: &str, ink: Ink) -> String {
    if !COLOURED.load(Ordering::Relaxed) {
        return text.to_owned();
    }
    let code = match ink {
        Ink::Good => 32,
        Ink::Warning => 33,
        Ink::Bad => 31,
        Ink::Strong => 1,
        Ink::Faint => 2,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Foreign text as it may reach a terminal: what moves a cursor, breaks a line or hides is shown as its number.
pub fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Prints to standard output; whoever closed it has read enough.
pub fn print(text: &str) -> Ending {
    write(text).map_or_else(|ending| ending, |_| Ending::Fine)
}

/// The same for whoever goes on after it: false when nobody reads any more.
///
/// # Errors
/// The ending that says why it cannot be written.
pub fn write(text: &str) -> Result<bool, Ending> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Ending::Failed(format!("write the output: {error}"))),
    }
}

/// Prints a sentence to standard error; whoever made it may have quoted anybody.
pub fn complain(text: &str) {
    let _ = io::stderr().write_all(complaint(text).as_bytes());
}

fn complaint(text: &str) -> String {
    format!("multus-agent: {}\n", safe(text))
}

/// A document as JSON.
pub fn json(document: &Value) -> String {
    plain(&serde_json::to_string_pretty(document).unwrap_or_default()) + "\n"
}

/// A document as YAML (1.2), every string in quotes as JSON has them, so that none is taken for something else.
pub fn yaml(document: &Value) -> String {
    let mut text = String::new();
    write_yaml(document, 0, &mut text);
    text.trim_start().to_owned()
}

/// JSON with odd characters as their numbers, which JSON and YAML both read: names can come from anybody.
pub fn plain(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && (c.is_control() || is_hidden(c)) {
            let _infallible = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

/// Writes what follows `key:` or `-`, with its line's end.
fn write_yaml(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (at, (key, value)) in map.iter().enumerate() {
                // The first key of a list's item stands beside its dash.
                if at > 0 || !text.ends_with("- ") {
                    text.push('\n');
                    text.push_str(&"  ".repeat(depth));
                }
                text.push_str(&yaml_key(key));
                text.push(':');
                write_yaml(value, depth + 1, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                text.push('\n');
                text.push_str(&"  ".repeat(depth));
                text.push_str("- ");
                write_yaml(item, depth + 1, text);
            }
        }
        plain => {
            if !text.ends_with(' ') {
                text.push(' ');
            }
            text.push_str(&self::plain(&plain.to_string()));
        }
    }
    if depth == 0 {
        text.push('\n');
    }
}

/// A key that is a plain word of ours stays bare; one that anybody could have chosen is in quotes, as strings are.
fn yaml_key(key: &str) -> String {
    let is_word = key.starts_with(|first: char| first.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    // What YAML 1.1 takes for something else than a text.
    let is_value =
        ["y", "n", "yes", "no", "on", "off", "true", "false", "null"].iter().any(|v| key.eq_ignore_ascii_case(v));
    if is_word && !is_value { key.to_owned() } else { plain(&Value::from(key).to_string()) }
}

/// A table: upper-case heads, columns apart, nothing else.
pub fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heads);
    for row in rows {
        table.add_row(row.iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { safe(cell) }));
    }
    let mut text: String = table.lines().map(|line| line.trim().to_owned() + "\n").collect();
    if table.row_count() == 0 {
        text = "nothing to list\n".into();
    }
    text
}

/// The same, with the symbol of its level before each row.
pub fn judged_table(heads: &[&str], rows: Vec<(Level, Vec<String>)>) -> String {
    let (levels, rows): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let marks = std::iter::once("  ".to_owned()).chain(levels.into_iter().map(|level| level.mark() + " "));
    table(heads, rows).lines().zip(marks).map(|(line, mark)| mark + line + "\n").collect()
}

/// A field's text: strings bare, lists with commas, numbers as they are, nothing for null.
pub fn cell(item: &Value, pointer: &str) -> String {
    match item.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(","),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_cannot_reach_the_terminal() {
        let text = table(&["NAME"], vec![vec!["a\u{1b}[2J\nb".into()]]);
        assert_eq!(text, "NAME\na\\u{1b}[2J\\nb\n");
        assert_eq!(complaint("no \u{1b}[2J\nmultus-agent: ok"), "multus-agent: no \\u{1b}[2J\\nmultus-agent: ok\n");
        assert_eq!(safe("a \"b\" c\\d\u{9b}\u{202e}"), "a \"b\" c\\d\\u{9b}\\u{202e}", "quotes stay quotes");
    }

    #[test]
    fn judged_rows_have_their_symbol_and_no_colour_off_a_terminal() {
        let text = judged_table(
            &["NAME"],
            vec![
                (Level::Bad, vec!["a".into()]),
                (Level::Warning, vec!["b".into()]),
                (Level::Good, vec![String::new()]),
            ],
        );
        assert_eq!(text, "  NAME\n× a\n‼ b\n√ -\n");
    }

    #[test]
    fn yaml_says_the_same() {
        let document = serde_json::json!({
            "kind": "List", "empty": [], "none": null,
            "items": [{"name": "yes", "list": ["1", 2], "more": {"x": "a\u{1b}: b"}}, {"name": "- no", "list": []}],
        });
        let text = yaml(&document);
        let read: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read, document, "{text}");
        assert!(text.starts_with("empty: []\nitems:\n  - list:\n      - \"1\"\n      - 2\n"), "{text}");
    }

    #[test]
    fn yaml_hides_what_a_reader_or_a_terminal_would_stumble_over() {
        let document = serde_json::json!({"name": "\u{7f}\u{9b}2J\u{85}\u{202e}\u{feff}\u{2028}ä\"\\😀"});
        let text = yaml(&document);
        assert!(text.trim_end().chars().all(|c| !c.is_control() && c != '\u{202e}' && c != '\u{feff}'), "{text:?}");
        let read: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read, document, "{text}");
        assert!(text.contains("ä\\\"\\\\😀"), "{text}");
    }

    #[test]
    fn yaml_keys_that_anybody_can_choose_do_no_harm() {
        let document = serde_json::json!({
            "k8s.v1.cni.cncf.io/networks": "lan", "\u{1b}[2Jk: x": {"a\nb": 1, "": 2}, "- x": 3, "#": 4, "no": 5, "1": 6,
            "list": [{"{": 7, "true": 8}],
        });
        let text = yaml(&document);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        let read: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read, document, "{text}");
        assert!(text.contains("\nk8s.v1.cni.cncf.io/networks: \"lan\"\n"), "{text}");
    }

    #[test]
    fn cells() {
        let item = serde_json::json!({"a": {"b": 1}, "l": ["x", "y"], "n": null});
        for (pointer, text) in [("/a/b", "1"), ("/l", "x,y"), ("/n", ""), ("/none", "")] {
            assert_eq!(cell(&item, pointer), text, "{pointer}");
        }
    }
}
