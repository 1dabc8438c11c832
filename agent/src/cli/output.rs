//! How documents reach a terminal: tables and JSON, every foreign text escaped, a closed pipe no failure.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::cli::Ending;
use crate::fault::{escape, is_hidden};

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// The whole document, stable.
    Json,
    /// The same in YAML.
    Yaml,
}

/// Prints to standard output; whoever closed it has read enough.
pub fn print(text: &str) -> Ending {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Ending::Failed(format!("write the output: {error}")),
        _ => Ending::Fine,
    }
}

/// Prints to standard error.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "multus-agent: {text}");
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
                text.push_str(key);
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

/// A table: upper-case heads, columns apart, nothing else.
pub fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heads);
    for row in rows {
        table.add_row(row.iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { escape(cell) }));
    }
    let mut text: String = table.lines().map(|line| line.trim().to_owned() + "\n").collect();
    if table.row_count() == 0 {
        text = "nothing to list\n".into();
    }
    text
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
    fn cells() {
        let item = serde_json::json!({"a": {"b": 1}, "l": ["x", "y"], "n": null});
        for (pointer, text) in [("/a/b", "1"), ("/l", "x,y"), ("/n", ""), ("/none", "")] {
            assert_eq!(cell(&item, pointer), text, "{pointer}");
        }
    }
}
