//! Everything that somebody far away needs to see what is wrong on this node, in one archive.
//!
//! Made of fields that are known to be harmless, and of nothing else: what is not on a list is left out. What networks,
//! annotations and arguments say beyond that is taken out of sentences and of the log, too. Every name in the archive is
//! fixed; nothing of a pod or network becomes a path.

mod archive;
mod keep;
mod log;
mod node;
mod records;
mod secrets;

use std::io;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::ops::context::Context;
use archive::Archive;
use secrets::Secrets;

/// The folder that an archive unpacks into.
const FOLDER: &str = "multus-sysdump";
/// The most bytes of one file, and of all.
const MOST_FILE: usize = 8 << 20;
const MOST_ALL: usize = 32 << 20;

/// What is in an archive: file and contents, in order. The manifest, which comes last, says the same with what was left out.
pub const CONTENTS: [(&str, &str); 18] = [
    ("version.json", "versions of agent, map layout and kernel"),
    ("status.json", "how the agent is, subsystem by subsystem"),
    ("check.json", "what is wrong with the node, and what to do"),
    ("attachments.json", "every interface of a pod, with its counters"),
    (
        "networks.json",
        "every NetworkAttachmentDefinition: its plugins and what is wrong with it, not its configuration",
    ),
    ("relay.json", "members and counters of the relay, parent by parent"),
    ("parents.json", "the links below attachments"),
    ("services.json", "services that are announced on parents"),
    ("programs.json", "the eBPF programs, as the kernel has them"),
    ("delegates.json", "plugins, how often they ran and how long that took"),
    ("refusals.json", "what was refused lately, and why"),
    ("traces.json", "the last operations, step by step"),
    ("config.json", "the configuration, as far as it is no secret"),
    ("records.json", "what is attached to which container; of plugins' input the length alone"),
    ("links.json", "the interfaces of pods and parents, with their addresses, as the kernel has them"),
    ("node.json", "kernel, eBPF, memory and rights of the agent"),
    ("metrics.txt", "the page that Prometheus scrapes"),
    ("log.txt", "the end of the log file, where there is one"),
];

/// What is never in an archive.
pub const NEVER: [&str; 6] = [
    "configurations of networks and the input of plugins (CNI stdin and arguments)",
    "annotations of pods",
    "the kubeconfig, tokens and certificates",
    "the environment",
    "files of others, and files that are reached through a link",
    "frames from the wire",
];

/// A file that somebody else made: its name in [`CONTENTS`] and its text, or why there is none.
pub type Document = (&'static str, Result<Value, String>);

/// The archive (ustar in gzip).
///
/// # Errors
/// It cannot be packed.
pub async fn make(context: &Arc<Context>, documents: Vec<Document>, metrics: String) -> io::Result<Vec<u8>> {
    let links = node::links(context).await;
    let context = Arc::clone(context);
    let packed = tokio::task::spawn_blocking(move || pack(&context, documents, links, &metrics)).await;
    packed.map_err(io::Error::other)?
}

fn pack(context: &Context, documents: Vec<Document>, links: Value, metrics: &str) -> io::Result<Vec<u8>> {
    let secrets = Secrets::of(context);
    let mut files: Vec<(&str, Result<String, String>)> = Vec::new();
    let mut dropped = std::collections::BTreeSet::new();
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default() + "\n";
    for (name, document) in documents {
        let kept = document.map(|document| text(&secrets.out_of(keep::document(&document, &mut dropped))));
        files.push((name, kept));
    }
    for (name, document) in [
        ("version.json", node::versions()),
        ("config.json", node::config(&context.settings)),
        ("records.json", records::all(context)),
        ("links.json", links),
        ("node.json", node::facts(&context.settings)),
    ] {
        files.push((name, Ok(text(&secrets.out_of(document)))));
    }
    files.push(("metrics.txt", Ok(secrets.out_of_figures(metrics))));
    files.push(("log.txt", log::end(&context.settings).map(|log| secrets.out_of_text(&log))));

    let mut archive = Archive::new(FOLDER, MOST_FILE, MOST_ALL);
    let mut listed = Vec::new();
    for (name, what) in CONTENTS {
        let there = files.iter().find(|(file, _)| *file == name).map(|(_, text)| text.as_ref());
        let state = match there {
            None => Err("this agent has no such document".to_owned()),
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(text)) => archive.add(name, text.as_bytes())?,
        };
        let (bytes, left_out) = match state {
            Ok(cut) => (there.and_then(Result::ok).map(String::len), cut),
            Err(why) => (None, Some(why)),
        };
        listed.push(json!({"file": name, "what": what, "bytes": bytes, "leftOut": left_out}));
    }
    let manifest = json!({
        "apiVersion": super::view::API_VERSION,
        "kind": "Sysdump",
        "time": node::time(),
        "node": context.cluster.node_name(),
        "files": listed,
        "never": NEVER,
        "fieldsLeftOut": dropped,
        "valuesTakenOut": secrets.len(),
    });
    archive.add("MANIFEST.json", text(&manifest).as_bytes())?.map_err(io::Error::other)?;
    archive.finish()
}
