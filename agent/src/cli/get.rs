//! `get`: lists of what the agent knows.

use std::path::Path;

use serde_json::Value;

use crate::cli::listing::{Listing, What, items};
use crate::cli::output::{self, Format, cell, safe};
use crate::cli::{Ending, query};

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent get attachments -o wide
  multus-agent get networks -o json
  multus-agent get attachments -o name        one name on each line, as describe takes it";

/// Lists `what`.
pub fn get(socket: &Path, what: What, format: Format) -> Ending {
    let listing = what.listing();
    let document = match query::document(socket, listing.path) {
        Ok(document) => document,
        Err(ending) => return ending,
    };
    let items = items(&document);
    output::print(&match format {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        Format::Name => items.iter().map(|item| safe(&(listing.name)(item)) + "\n").collect(),
        Format::Table | Format::Wide if what == What::Relay => relay(items, format == Format::Wide),
        Format::Table => table(listing, items, false),
        Format::Wide => table(listing, items, true),
    })
}

fn table(listing: &Listing, items: &[Value], wide: bool) -> String {
    let columns: Vec<_> = listing.columns.iter().filter(|column| wide || !column.wide).collect();
    let heads: Vec<_> = columns.iter().map(|column| column.head).collect();
    let row = |item: &Value| columns.iter().map(|column| column.cell(item)).collect();
    output::table(&heads, items.iter().map(row).collect())
}

fn row(item: &Value, pointers: &[&str]) -> Vec<String> {
    pointers.iter().map(|pointer| cell(item, pointer)).collect()
}

/// Members first, then the counters that are not zero; with `wide` those that are, too.
fn relay(items: &[Value], wide: bool) -> String {
    let mut members = Vec::new();
    let mut frames = Vec::new();
    let mut guarded = Vec::new();
    for item in items {
        let parent = cell(item, "/parent");
        let list = |key: &str| item.pointer(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let counts = |count: &&Value| wide || cell(count, "/frames") != "0";
        for member in list("/members") {
            let mut line = vec![parent.clone()];
            line.extend(row(
                &member,
                &["/namespace", "/pod", "/interface", "/mac", "/protocols", "/relayed", "/hostAccess"],
            ));
            members.push(line);
        }
        for count in list("/frames").iter().filter(counts) {
            let mut line = vec![parent.clone()];
            line.extend(row(count, &["/protocol", "/path", "/verdict", "/reason", "/frames"]));
            frames.push(line);
        }
        for count in list("/guardFrames").iter().filter(counts) {
            let mut line = vec![parent.clone(), cell(item, "/guard")];
            line.extend(row(count, &["/protocol", "/verdict", "/reason", "/frames"]));
            guarded.push(line);
        }
    }
    let heads = ["PARENT", "NAMESPACE", "POD", "INTERFACE", "MAC", "PROTOCOLS", "RELAYED", "HOST"];
    let mut text = output::table(&heads, members);
    if !frames.is_empty() {
        let heads = ["PARENT", "PROTOCOL", "PATH", "VERDICT", "REASON", "FRAMES"];
        text = text + "\n" + &output::table(&heads, frames);
    }
    if !guarded.is_empty() {
        let heads = ["PARENT", "GUARD", "PROTOCOL", "VERDICT", "REASON", "FRAMES"];
        text = text + "\n" + &output::table(&heads, guarded);
    }
    text
}
