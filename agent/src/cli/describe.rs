//! `describe`: all that is known about one thing, in sections that can be read.
//!
//! Puts together documents that the agent gives for lists: which of them belong to a thing is said here, per kind; how they
//! look is in `sections`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cli::listing::{What, items};
use crate::cli::output::{self, Format, cell, safe};
use crate::cli::sections::sections;
use crate::cli::trace::{longest, took};
use crate::cli::{Ending, query};
use crate::fault::quote;

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent describe attachment default/camera/net1
  multus-agent describe attachment default/camera      every interface of the pod
  multus-agent describe network lan -o yaml
  multus-agent describe parent eth0";

/// How many requests of a pod are told of; `trace` has the rest.
const REQUESTS: usize = 5;
/// Most names that are offered where one is not known.
const OFFERED: usize = 8;

/// Describes the `what` that is called `name`, or all whose names begin with it.
pub fn describe(socket: &Path, what: What, name: &str, format: Format) -> Ending {
    match found(socket, what, name) {
        Ok(found) => output::print(&text(&found, format)),
        Err(ending) => ending,
    }
}

fn found(socket: &Path, what: What, name: &str) -> Result<Vec<Value>, Ending> {
    let listing = what.listing();
    let list = query::document(socket, listing.path)?;
    let named: Vec<(String, &Value)> = items(&list).iter().map(|item| (safe(&(listing.name)(item)), item)).collect();
    let chosen = choose(&named, name);
    if chosen.is_empty() {
        return Err(unknown(what, name, &named));
    }
    let beside = Beside::ask(socket, what)?;
    Ok(chosen.into_iter().map(|(name, item)| described(what, name, item, &beside)).collect())
}

/// The one of that name; else those below it (all interfaces of a pod); else the one that ends with it, if it is alone.
fn choose<'a>(named: &'a [(String, &'a Value)], name: &str) -> Vec<&'a (String, &'a Value)> {
    let all = |fits: &dyn Fn(&str) -> bool| named.iter().filter(|(own, _)| fits(own)).collect::<Vec<_>>();
    let exact = all(&|own| own == name);
    if !exact.is_empty() {
        return exact;
    }
    let below = all(&|own| own.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')));
    if !below.is_empty() {
        return below;
    }
    let ends = all(&|own| own.strip_suffix(name).is_some_and(|rest| rest.ends_with('/')));
    if ends.len() == 1 { ends } else { Vec::new() }
}

fn unknown(what: What, name: &str, named: &[(String, &Value)]) -> Ending {
    let kind = kind(what).to_lowercase();
    let mut text = format!("there is no {kind} {}", quote(name));
    if named.is_empty() {
        text = format!("{text}, and no {kind} at all");
    } else {
        let some: Vec<_> = named.iter().take(OFFERED).map(|(own, _)| own.as_str()).collect();
        let more = if named.len() > OFFERED { ", …" } else { "" };
        text = format!("{text}; there are {}{more}", some.join(", "));
    }
    Ending::Failed(text)
}

fn kind(what: What) -> &'static str {
    match what {
        What::Attachments => "Attachment",
        What::Networks => "Network",
        What::Relay | What::Parents => "Parent",
        What::Services => "Service",
        What::Delegates => "Delegate",
        What::Programs => "Program",
        What::Refusals => "Refusal",
    }
}

/// What else is asked, once for all that are described.
#[derive(Debug, Default)]
struct Beside {
    attachments: Value,
    relay: Value,
    programs: Value,
    refusals: Value,
    services: Value,
    traces: Value,
}

impl Beside {
    fn ask(socket: &Path, what: What) -> Result<Self, Ending> {
        let ask = |wanted: &[What], path: &str| {
            if wanted.contains(&what) { query::document(socket, path) } else { Ok(Value::Null) }
        };
        Ok(Self {
            attachments: ask(&[What::Networks], "/v1/attachments")?,
            relay: ask(&[What::Attachments, What::Parents, What::Relay], "/v1/relay")?,
            programs: ask(&[What::Attachments, What::Parents, What::Relay], "/v1/programs")?,
            refusals: ask(&[What::Attachments, What::Networks], "/v1/refusals")?,
            services: ask(&[What::Parents, What::Relay], "/v1/services")?,
            traces: ask(&[What::Attachments], "/v1/traces")?,
        })
    }
}

/// The document of one: what its list says, and what belongs to it.
fn described(what: What, name: &str, item: &Value, beside: &Beside) -> Value {
    let mut document = Map::new();
    document.extend(item.as_object().cloned().unwrap_or_default());
    // The kind of an attachment's link, where the document's own must be.
    if let Some(link) = document.remove("kind") {
        document.insert("linkKind".into(), link);
    }
    document.insert("apiVersion".into(), json!("multus-ebpf.io/v1"));
    document.insert("kind".into(), json!(kind(what)));
    // A network's own name is without its namespace.
    document.insert("name".into(), json!(name));
    let same = |at: &'static str, wanted: String| move |each: &&Value| cell(each, at) == wanted;
    let mut add = |key: &str, list: Vec<Value>| document.insert(key.into(), Value::Array(list));
    match what {
        What::Attachments => {
            let pod = format!("{}/{}", cell(item, "/namespace"), cell(item, "/pod"));
            let is_here = |each: &&Value| cell(each, "/interface") == cell(item, "/interface");
            let is_on = |each: &&Value| [&pod, &cell(item, "/container")].contains(&&cell(each, "/on"));
            add("programs", picked(&beside.programs, |each| is_here(each) && is_on(each)));
            add("relayFrames", frames(&beside.relay, &cell(item, "/parent")));
            let about_it = |each: &&Value| {
                let is_pods = format!("{}/{}", cell(each, "/namespace"), cell(each, "/pod")) == pod && pod != "/";
                is_pods || cell(each, "/container") == cell(item, "/container")
            };
            add("refusals", picked(&beside.refusals, about_it));
            add("lastRequests", last_requests(&beside.traces, about_it));
        }
        What::Networks => {
            add("attachedTo", picked(&beside.attachments, same("/network", name.to_owned())));
            // "network-attachment-definition NAMESPACE/NAME"
            let is_about = |each: &&Value| cell(each, "/object").split(' ').next_back() == Some(name);
            add("refusals", picked(&beside.refusals, is_about));
        }
        What::Parents | What::Relay => {
            let parent = if what == What::Relay { cell(item, "/parent") } else { name.to_owned() };
            let relay = items(&beside.relay).iter().find(|each| cell(each, "/parent") == parent);
            let members = relay.and_then(|relay| relay.pointer("/members")).and_then(Value::as_array).cloned();
            add("members", members.unwrap_or_default());
            add("relayFrames", frames(&beside.relay, &parent));
            let is_on = |each: &&Value| cell(each, "/on") == "node" && cell(each, "/interface") == parent;
            add("programs", picked(&beside.programs, is_on));
            add("announced", picked(&beside.services, same("/parent", parent.clone())));
        }
        What::Services | What::Delegates | What::Programs | What::Refusals => {}
    }
    Value::Object(document)
}

fn picked(list: &Value, fits: impl Fn(&&Value) -> bool) -> Vec<Value> {
    items(list).iter().filter(fits).cloned().collect()
}

/// The newest requests of one pod, the newest first, each with its longest steps.
fn last_requests(traces: &Value, is_its: impl Fn(&&Value) -> bool) -> Vec<Value> {
    let its = items(traces).iter().rev().filter(is_its).take(REQUESTS);
    let short = |trace: &Value| {
        let said = |key: &str| trace.get(key).cloned().unwrap_or(Value::Null);
        json!({
            "number": said("number"), "time": said("time"), "verb": said("verb"), "code": said("code"),
            "tookUs": said("tookUs"), "took": took(trace), "longest": longest(trace), "error": said("error"),
        })
    };
    its.map(short).collect()
}

/// The relay's counters on a parent that are not zero.
fn frames(relay: &Value, parent: &str) -> Vec<Value> {
    let of_parent = items(relay).iter().filter(|each| cell(each, "/parent") == parent);
    let counts = of_parent.filter_map(|each| each.pointer("/frames").and_then(Value::as_array)).flatten();
    counts.filter(|count| cell(count, "/frames") != "0").cloned().collect()
}

fn text(found: &[Value], format: Format) -> String {
    let one = match found {
        [one] => one.clone(),
        several => json!({"apiVersion": "multus-ebpf.io/v1", "kind": "DescriptionList", "items": several}),
    };
    match format {
        Format::Json => output::json(&one),
        Format::Yaml => output::yaml(&one),
        Format::Name => found.iter().map(|each| cell(each, "/name") + "\n").collect(),
        Format::Table | Format::Wide => {
            let texts: Vec<_> = found.iter().map(|each| sections(each, format == Format::Wide)).collect();
            texts.join("\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_whole_by_its_beginning_or_by_its_end() {
        let items = ["a/cam/eth0", "a/cam/net1", "b/cam/net1", "b/tv/net2"].map(|name| (name.to_owned(), Value::Null));
        let named: Vec<_> = items.iter().map(|(name, item)| (name.clone(), item)).collect();
        for (name, wanted) in [
            ("a/cam/net1", vec!["a/cam/net1"]),
            ("a/cam", vec!["a/cam/eth0", "a/cam/net1"]),
            ("tv/net2", vec!["b/tv/net2"]),
            ("net1", vec![]),
            ("a/ca", vec![]),
        ] {
            let found: Vec<_> = choose(&named, name).iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(found, wanted, "{name}");
        }
        let Ending::Failed(text) = unknown(What::Attachments, "x\u{1b}", &named) else { panic!() };
        assert!(text.starts_with("there is no attachment \"x\\u{1b}\"; there are a/cam/eth0, "), "{text}");
    }
}
