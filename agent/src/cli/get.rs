//! `get`: lists of what the agent knows.

use std::path::Path;

use clap::ValueEnum;
use serde_json::Value;

use crate::cli::Ending;
use crate::cli::output::{self, Format, cell};
use crate::cli::query;

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Interfaces of pods, with their counters.
    Attachments,
    /// NetworkAttachmentDefinitions.
    Networks,
    /// Discovery frames relayed and not relayed, per parent.
    Relay,
    /// Services that are announced on parents.
    Services,
}

/// Lists `what`.
pub fn get(socket: &Path, what: What, format: Format) -> Ending {
    let path = match what {
        What::Attachments => "/v1/attachments",
        What::Networks => "/v1/networks",
        What::Relay => "/v1/relay",
        What::Services => "/v1/services",
    };
    let document = match query::document(socket, path) {
        Ok(document) => document,
        Err(ending) => return ending,
    };
    let text = match (format, what) {
        (Format::Json, _) => output::json(&document),
        (Format::Yaml, _) => output::yaml(&document),
        (Format::Table, What::Attachments) => attachments(items(&document)),
        (Format::Table, What::Networks) => networks(items(&document)),
        (Format::Table, What::Relay) => relay(items(&document)),
        (Format::Table, What::Services) => services(items(&document)),
    };
    output::print(&text)
}

fn items(document: &Value) -> &[Value] {
    document.pointer("/items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn row(item: &Value, pointers: &[&str]) -> Vec<String> {
    pointers.iter().map(|pointer| cell(item, pointer)).collect()
}

fn attachments(items: &[Value]) -> String {
    let pointers = [
        "/namespace",
        "/pod",
        "/interface",
        "/network",
        "/ips",
        "/mac",
        "/parent",
        "/state",
        "/receive/packets",
        "/transmit/packets",
        "/note",
    ];
    let heads =
        ["NAMESPACE", "POD", "INTERFACE", "NETWORK", "IPS", "MAC", "PARENT", "STATE", "RECEIVED", "SENT", "NOTE"];
    output::table(&heads, items.iter().map(|item| row(item, &pointers)).collect())
}

fn networks(items: &[Value]) -> String {
    let pointers = ["/namespace", "/name", "/plugins", "/cniVersion", "/attachments", "/problem"];
    let heads = ["NAMESPACE", "NAME", "PLUGINS", "CNIVERSION", "ATTACHMENTS", "PROBLEM"];
    output::table(&heads, items.iter().map(|item| row(item, &pointers)).collect())
}

fn services(items: &[Value]) -> String {
    let pointers = ["/parent", "/type", "/instance", "/host", "/addresses", "/port", "/sources", "/expiresIn"];
    let heads = ["PARENT", "TYPE", "INSTANCE", "HOST", "ADDRESSES", "PORT", "SOURCES", "EXPIRES"];
    output::table(&heads, items.iter().map(|item| row(item, &pointers)).collect())
}

/// Members first, then the counters that are not zero.
fn relay(items: &[Value]) -> String {
    let mut members = Vec::new();
    let mut frames = Vec::new();
    let mut guarded = Vec::new();
    for item in items {
        let parent = cell(item, "/parent");
        let list = |key: &str| item.pointer(key).and_then(Value::as_array).cloned().unwrap_or_default();
        for member in list("/members") {
            let mut line = vec![parent.clone()];
            line.extend(row(
                &member,
                &["/namespace", "/pod", "/interface", "/mac", "/protocols", "/relayed", "/hostAccess"],
            ));
            members.push(line);
        }
        for count in list("/frames").iter().filter(|count| cell(count, "/frames") != "0") {
            let mut line = vec![parent.clone()];
            line.extend(row(count, &["/protocol", "/path", "/verdict", "/reason", "/frames"]));
            frames.push(line);
        }
        for count in list("/guardFrames").iter().filter(|count| cell(count, "/frames") != "0") {
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
