//! How a description looks: a title, fields, then a section for each object and each list that is not empty.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::cli::output::{self, Ink, cell, paint, safe};

/// How the lists of a description are shown: key, title, heads, and where their cells are.
type Sheet = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const SHEETS: &[Sheet] = &[
    (
        "plugins",
        "Plugins, in the order of ADD",
        &[("TYPE", "/type"), ("CNIVERSION", "/cniVersion"), ("STAGE", "/stage")],
    ),
    ("routes", "Routes", &[("DESTINATION", "/dst"), ("GATEWAY", "/gw")]),
    (
        "members",
        "Members",
        &[
            ("NAMESPACE", "/namespace"),
            ("POD", "/pod"),
            ("INTERFACE", "/interface"),
            ("MAC", "/mac"),
            ("PROTOCOLS", "/protocols"),
            ("RELAYED", "/relayed"),
            ("HOST", "/hostAccess"),
        ],
    ),
    (
        "attachedTo",
        "Attached to",
        &[
            ("NAMESPACE", "/namespace"),
            ("POD", "/pod"),
            ("INTERFACE", "/interface"),
            ("IPS", "/ips"),
            ("STATE", "/state"),
        ],
    ),
    (
        "programs",
        "Programs",
        &[("PROGRAM", "/program"), ("ID", "/id"), ("ATTACHED-BY", "/attachedBy"), ("PROBLEM", "/problem")],
    ),
    (
        "relayFrames",
        "Relayed on its parent, and not",
        &[
            ("PROTOCOL", "/protocol"),
            ("PATH", "/path"),
            ("VERDICT", "/verdict"),
            ("REASON", "/reason"),
            ("FRAMES", "/frames"),
        ],
    ),
    (
        "announced",
        "Announced",
        &[
            ("TYPE", "/type"),
            ("INSTANCE", "/instance"),
            ("HOST", "/host"),
            ("ADDRESSES", "/addresses"),
            ("PORT", "/port"),
        ],
    ),
    (
        "lastRequests",
        "Last requests of its pod (multus-agent trace has every step)",
        &[
            ("TIME", "/time"),
            ("VERB", "/verb"),
            ("CODE", "/code"),
            ("TOOK", "/took"),
            ("LONGEST-STEPS", "/longest"),
            ("ERROR", "/error"),
        ],
    ),
    (
        "refusals",
        "Refused or failed lately",
        &[
            ("TIME", "/time"),
            ("TIMES", "/times"),
            ("VERB", "/verb"),
            ("CODE", "/code"),
            ("MESSAGE", "/message"),
            ("REMEDY", "/remedy"),
        ],
    ),
];

/// Fields that a reader looks for first; the others follow by name.
const FIRST: &[&str] = &[
    "namespace",
    "pod",
    "interface",
    "network",
    "state",
    "note",
    "problem",
    "ips",
    "mac",
    "linkKind",
    "parent",
    "program",
    "id",
    "on",
    "type",
    "instance",
    "host",
    "port",
    "addresses",
    "verb",
    "code",
    "message",
    "object",
    "field",
    "remedy",
];

/// Plain fields first, then objects, then lists; what is long or of no use to a reader only with `wide`.
pub fn sections(document: &Value, wide: bool) -> String {
    let empty = Map::new();
    let fields = document.as_object().unwrap_or(&empty);
    let is_sheet = |key: &str| SHEETS.iter().any(|(sheet, ..)| *sheet == key);
    let is_plain = |key: &str, value: &Value| !is_sheet(key) && !value.is_object() && (wide || key != "networkStatus");
    let mut plain: Vec<_> = fields.iter().filter(|(key, value)| is_plain(key, value)).collect();
    plain.sort_by_key(|(key, _)| FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()));
    let heads = [("kind", "/kind"), ("name", "/name")].map(|(_, at)| cell(document, at));
    let mut text = format!("{}\n", paint(&safe(&heads.join(" ")), Ink::Strong));
    text += &lines(plain.into_iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind" | "name")));
    for (key, value) in fields.iter().filter(|(_, value)| value.is_object()) {
        let inner = value.as_object().unwrap_or(&empty);
        // Zeros of a long list of counters say nothing.
        let counted = inner.iter().filter(|(_, value)| wide || !is_nothing(value));
        let _infallible = write!(text, "\n{}\n{}", paint(&safe(&title(key)), Ink::Strong), lines(counted));
    }
    for (key, title, columns) in SHEETS {
        let Some(list) = fields.get(*key).and_then(Value::as_array).filter(|list| !list.is_empty()) else { continue };
        let heads: Vec<_> = columns.iter().map(|(head, _)| *head).collect();
        let row = |item: &Value| columns.iter().map(|(_, pointer)| cell(item, pointer)).collect();
        let table = output::table(&heads, list.iter().map(row).collect());
        let _infallible = writeln!(text, "\n{}", paint(title, Ink::Strong));
        for line in table.lines() {
            let _infallible = writeln!(text, "  {line}");
        }
    }
    text
}

fn lines<'a>(fields: impl Iterator<Item = (&'a String, &'a Value)>) -> String {
    let cells: Vec<(String, String)> = fields
        .map(|(key, value)| (safe(&title(key)), value))
        .map(|(key, value)| {
            (key, if let Value::Object(_) = value { inner(value) } else { cell(&json!([value]), "/0") })
        })
        .filter(|(_, text)| !text.is_empty())
        .collect();
    let width = cells.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0) + 1;
    let mut text = String::new();
    for (key, said) in &cells {
        let _infallible = writeln!(text, "  {:width$} {}", format!("{key}:"), safe(said));
    }
    text
}

/// Zero, or zeros alone.
fn is_nothing(value: &Value) -> bool {
    *value == json!(0) || value.as_array().is_some_and(|list| list.iter().all(|each| *each == json!(0)))
}

/// An object on one line, without what is zero.
fn inner(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten().filter(|(_, value)| **value != json!(0));
    fields.map(|(key, value)| format!("{key} {}", cell(&json!([value]), "/0"))).collect::<Vec<_>>().join(", ")
}

/// A key as a title: `attachedBy` becomes `Attached by`.
fn title(key: &str) -> String {
    let mut text = String::new();
    for c in key.chars() {
        match c {
            c if text.is_empty() => text.extend(c.to_uppercase()),
            c if c.is_uppercase() => {
                text.push(' ');
                text.extend(c.to_lowercase());
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_say_fields_then_objects_then_lists() {
        let document = json!({
            "apiVersion": "v", "kind": "Attachment", "name": "a/b/net1", "attachedBy": "t\u{1b}cx", "note": null,
            "receive": {"packets": 3, "bytes": 0, "k\u{1b}": 1, "protocols": {"arp": 2, "tcp": 0}},
            "routes": [{"dst": "0.0.0.0/0", "gw": null}], "plugins": [],
        });
        let wanted = "Attachment a/b/net1\n  Attached by: t\\u{1b}cx\n\nReceive\n  K\\u{1b}:   1\n  Packets:   3\n  Protocols: arp 2\n\n\
                      Routes\n  DESTINATION  GATEWAY\n  0.0.0.0/0    -\n";
        assert_eq!(sections(&document, false), wanted);
    }
}
