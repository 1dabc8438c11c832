//! What a Grafana dashboard asks: its panels and variables, with Grafana's own variables filled in.
//!
//! It draws nothing and asks nobody.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// A dashboard's file.
#[derive(Debug)]
pub struct Dashboard {
    /// File name without ending.
    pub name: String,
    /// The whole document.
    pub document: Value,
}

/// One panel.
#[derive(Debug)]
pub struct Panel {
    /// Its title.
    pub title: String,
    /// `stat`, `timeseries` or `table`.
    pub kind: String,
    /// Grafana's name of its unit.
    pub unit: String,
    /// Columns from the left, rows from the top, width, height.
    pub place: [u32; 4],
    /// What it asks.
    pub queries: Vec<Query>,
}

/// What a panel asks.
#[derive(Debug)]
pub struct Query {
    /// PromQL that Prometheus can read.
    pub expr: String,
    /// The template of a series' name; of a table, the column's head.
    pub legend: String,
    /// Grafana's name of its unit.
    pub unit: String,
}

impl Dashboard {
    /// Reads a file.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        let document =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{} is not JSON: {error}", path.display()));
        Self { name: path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(), document }
    }

    /// Its panels, whose queries look at `seconds` and take rates over `rate` seconds.
    pub fn panels(&self, seconds: u32, rate: u32) -> Vec<Panel> {
        let panels = self.document["panels"].as_array().into_iter().flatten();
        let panel = |panel: &Value| Panel {
            title: text(&panel["title"]),
            kind: text(&panel["type"]),
            unit: text(&panel["fieldConfig"]["defaults"]["unit"]),
            place: ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap_or_default() as u32),
            queries: (panel["targets"].as_array().into_iter().flatten())
                .map(|target| {
                    let legend = legend(panel, target);
                    let unit = unit(panel, &legend);
                    Query { expr: self.filled(&text(&target["expr"]), seconds, rate), legend, unit }
                })
                .collect(),
        };
        panels.map(panel).collect()
    }

    /// Variables that are read from series: name, and the selector they are read from.
    pub fn variables(&self) -> Vec<(String, String)> {
        let list = self.document["templating"]["list"].as_array().into_iter().flatten();
        let query = |variable: &Value| {
            let query = variable["query"].as_str()?.strip_prefix("label_values(")?.strip_suffix(')')?;
            let (selector, label) = query.rsplit_once(", ")?;
            (variable["name"] == label).then(|| (label.to_owned(), self.filled(selector, 1, 1)))
        };
        list.filter_map(query).collect()
    }

    /// With "all" chosen everywhere.
    fn filled(&self, query: &str, seconds: u32, rate: u32) -> String {
        let times = [
            ("$__rate_interval", format!("{rate}s")),
            ("$__range_s", seconds.to_string()),
            ("$__range", format!("{seconds}s")),
        ];
        let query = times.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
        let variables = self.document["templating"]["list"].as_array().into_iter().flatten();
        let names = variables.filter_map(|variable| variable["name"].as_str());
        names.fold(query, |query, name| query.replace(&format!("\"${name}\""), "\".+\""))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A series' name; a column's head, which Grafana has where it renames the value.
fn legend(panel: &Value, target: &Value) -> String {
    let steps = panel["transformations"].as_array().into_iter().flatten();
    let renamed = steps.map(|step| &step["options"]["renameByName"]).find(|names| names.is_object());
    let Some(names) = renamed else { return text(&target["legendFormat"]) };
    let of_many = &names[format!("Value #{}", text(&target["refId"]))];
    text(if of_many.is_null() { &names["Value"] } else { of_many })
}

/// That of the column, or the panel's.
fn unit(panel: &Value, column: &str) -> String {
    let overrides = panel["fieldConfig"]["overrides"].as_array().into_iter().flatten();
    let mut own = overrides.filter(|one| one["matcher"]["options"] == column).map(|one| &one["properties"][0]["value"]);
    text(own.next().unwrap_or(&panel["fieldConfig"]["defaults"]["unit"]))
}

/// A vector selector in PromQL.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector<'a> {
    /// The metric.
    pub metric: &'a str,
    /// What stands between the braces; `None` where there are none.
    pub matchers: Option<&'a str>,
    /// What stands between the brackets, if there are any.
    pub range: Option<&'a str>,
    /// The function whose argument it is, if it stands right in one.
    pub function: Option<&'a str>,
}

/// Words of PromQL that are no metric.
const WORDS: [&str; 13] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "or",
    "and",
    "unless",
    "bool",
    "offset",
    "inf",
    "nan",
];

/// Every vector selector of an expression that Prometheus can read. Matchers hold no `}`.
pub fn selectors(expr: &str) -> Vec<Selector<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = next_word(expr, &mut at) {
        let rest = expr[at..].trim_start();
        if WORDS.contains(&word) {
            // Labels are no metrics.
            if rest.starts_with('(') && !matches!(word, "or" | "and" | "unless" | "bool") {
                at = expr.len() - rest.len() + rest.find(')').unwrap_or_default();
            }
            continue;
        }
        if rest.starts_with('(') || rest.starts_with("by (") || rest.starts_with("without (") {
            continue;
        }
        let before = expr[..at - word.len()].trim_end();
        let function = before.strip_suffix('(').map(|before| {
            let start = before.rfind(|c: char| !is_of_word(c)).map_or(0, |at| at + 1);
            &before[start..]
        });
        let matchers = between(expr, &mut at, ['{', '}']);
        let range = between(expr, &mut at, ['[', ']']);
        found.push(Selector { metric: word, matchers, range, function: function.filter(|name| !name.is_empty()) });
    }
    found
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The next word outside of quotes that is no number and no variable; `at` is behind it then.
fn next_word<'a>(expr: &'a str, at: &mut usize) -> Option<&'a str> {
    loop {
        let rest = &expr[*at..];
        let start = rest.find(|c: char| is_of_word(c) || c == '"')?;
        if rest[start..].starts_with('"') {
            *at += start + 1 + rest[start + 1..].find('"')? + 1;
            continue;
        }
        let end = rest[start..].find(|c| !is_of_word(c)).map_or(rest.len(), |length| start + length);
        *at += end;
        if !rest[start..].starts_with(|c: char| c.is_ascii_digit()) && !rest[..start].ends_with('$') {
            return Some(&rest[start..end]);
        }
    }
}

/// What stands between these two right behind `at`, which is behind them then.
fn between<'a>(expr: &'a str, at: &mut usize, [open, close]: [char; 2]) -> Option<&'a str> {
    let inner = expr[*at..].strip_prefix(open)?;
    let end = inner.find(close)?;
    *at += end + 2;
    Some(&inner[..end])
}
