//! A container of ours as Multus knows its own: a scratch file that lists its networks, and libcni's results beside it, so
//! that Multus's DEL undoes what we attached.
//!
//! Runs no plugin, and forgets nothing.

use std::io;
use std::path::Path;

use crate::cni::{Args, CniResult, NetworkConfig, RawObject, Version};
use crate::names::{IfName, NetworkName};
use crate::records::results::{Entry, Results};
use crate::records::scratch::{self, Noted};
use crate::records::{Attachment, Origin, Record, Stage};

/// What a DEL's standard input has beside the network's own configuration.
const ADDED: [&str; 2] = ["prevResult", "runtimeConfig"];

/// Has Multus a note of its own that tells of everything `record` has?
pub(super) fn is_noted(cni_dir: &Path, record: &Record) -> bool {
    let noted = scratch::read(cni_dir, &record.container).ok().flatten().unwrap_or_default();
    let is_named = |attachment: &Attachment, (at, noted): (usize, &Noted)| {
        let ifname = noted.ifname.clone().or_else(|| usual(record, at));
        noted.config.name.as_str() == attachment.conf_name && ifname.as_ref() == Some(&attachment.ifname)
    };
    let has = |attachment: &Attachment| noted.iter().enumerate().any(|noted| is_named(attachment, noted));
    record.origin == Origin::Multus && due(record).all(has)
}

/// Without a wish Multus calls the first one as the runtime says, and the others by their position.
fn usual(record: &Record, at: usize) -> Option<IfName> {
    if at == 0 { Some(record.ifname.clone()) } else { IfName::new(format!("net{at}")).ok() }
}

/// Leaves Multus a note of `record`, and libcni's entry of each network where that is missing.
///
/// # Errors
/// The note cannot be written, or a configuration in the record makes no sense.
pub(super) fn hand_over(cni_dir: &Path, record: &Record) -> io::Result<()> {
    let results = Results::at(cni_dir);
    let mut noted = Vec::new();
    for (at, attachment) in due(record).enumerate() {
        let entry = if let Some(entry) = of_cache(&results, record, attachment) {
            entry
        } else {
            let entry = of_record(record, attachment)?;
            results.save(&entry)?;
            entry
        };
        noted.push(note(record, at, attachment, &entry)?);
    }
    scratch::write(cni_dir, &record.container, &noted)
}

/// What a DEL still has to undo.
fn due(record: &Record) -> impl Iterator<Item = &Attachment> {
    let is_due = |attachment: &&Attachment| attachment.delegates.iter().any(|delegate| delegate.stage == Stage::Called);
    record.attachments.iter().filter(is_due)
}

fn of_cache(results: &Results, record: &Record, attachment: &Attachment) -> Option<Entry> {
    let network = NetworkName::new(attachment.conf_name.as_str()).ok()?;
    results.load(&network, &record.container, &attachment.ifname).filter(|entry| entry.config.is_some())
}

/// The entry as libcni would have left it, from what its DEL is to be told.
fn of_record(record: &Record, attachment: &Attachment) -> io::Result<Entry> {
    let odd = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", attachment.ifname));
    let network = NetworkName::new(attachment.conf_name.as_str()).map_err(|bad| odd(bad.to_string()))?;
    let parse = |stdin: &String| RawObject::parse(stdin.as_bytes()).map_err(|error| odd(error.to_string()));
    let delegates = &attachment.delegates;
    let mut plugins = delegates.iter().map(|delegate| parse(&delegate.stdin)).collect::<io::Result<Vec<_>>>()?;
    let capabilities = plugins.first().and_then(|plugin| plugin.object("runtimeConfig").ok().flatten());
    for plugin in &mut plugins {
        for key in ADDED {
            plugin.remove(key);
        }
    }
    let version = delegates.first().map(|delegate| delegate.cni_version.as_str()).unwrap_or_default();
    let config = match plugins.as_slice() {
        [single] => single.print(),
        list => {
            let mut object = RawObject::default();
            object.set_json("cniVersion", version);
            object.set_json("name", network.as_str());
            object.set_json("plugins", list);
            object.print()
        }
    };
    let result = attachment.result.as_ref().and_then(|result| CniResult::parse(result.to_string().as_bytes()).ok());
    let version = Version::parse(version).unwrap_or(Version::NEWEST);
    Ok(Entry {
        network,
        container: record.container.clone(),
        ifname: attachment.ifname.clone(),
        netns: record.netns.clone(),
        config: Some(config),
        args: delegates.first().map(|delegate| delegate.args.clone()).unwrap_or_default(),
        capabilities: capabilities.unwrap_or_default(),
        result: result.map(|result| (result, version)),
    })
}

fn note(record: &Record, at: usize, attachment: &Attachment, entry: &Entry) -> io::Result<Noted> {
    let text = entry.config.as_deref().unwrap_or_default();
    let config = NetworkConfig::parse(text.as_bytes(), Some(&attachment.conf_name))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", attachment.ifname)))?;
    let args = Args::parse_what_fits(&entry.args);
    let asked = args.iter().filter(|(key, _)| matches!(*key, "MAC" | "IP"));
    Ok(Noted {
        label: attachment.network.clone(),
        ifname: Some(attachment.ifname.clone()).filter(|ifname| usual(record, at).as_ref() != Some(ifname)),
        capabilities: entry.capabilities.clone(),
        extra_args: asked.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ContainerId;
    use crate::ops::takeover;

    fn noted(config: &str, ifname: Option<&str>) -> Noted {
        let config = NetworkConfig::parse(config.as_bytes(), None).unwrap();
        Noted {
            label: config.name.to_string(),
            ifname: ifname.map(|name| IfName::new(name).unwrap()),
            capabilities: RawObject::default(),
            extra_args: Vec::new(),
            config,
        }
    }

    #[test]
    fn a_note_that_tells_of_other_networks_is_none() {
        let cni_dir = std::env::temp_dir().join(format!("multus-handing-over-{}", std::process::id()));
        let container = ContainerId::new("c1").unwrap();
        let all = [
            noted(r#"{"cniVersion":"1.0.0","name":"def","type":"bridge"}"#, None),
            noted(r#"{"cniVersion":"1.0.0","name":"lan","type":"macvlan"}"#, None),
            noted(r#"{"cniVersion":"1.0.0","name":"lan","type":"macvlan"}"#, Some("data")),
        ];
        scratch::write(&cni_dir, &container, &all).unwrap();
        let record = takeover::told(&cni_dir, &container, None).unwrap();
        let names: Vec<&str> = record.attachments.iter().map(|attachment| attachment.ifname.as_str()).collect();
        assert_eq!(names, ["eth0", "net1", "data"]);
        assert!(is_noted(&cni_dir, &record));
        assert!(!is_noted(&cni_dir, &Record { origin: Origin::Agent, ..record.clone() }));

        let mut unplugged = record.clone();
        unplugged.attachments.remove(1);
        assert!(is_noted(&cni_dir, &unplugged), "it tells of more than there is");
        let swap = |conf_name: &str, ifname: &str| {
            let mut swapped = record.clone();
            swapped.attachments[1].conf_name = conf_name.to_owned();
            swapped.attachments[1].ifname = IfName::new(ifname).unwrap();
            is_noted(&cni_dir, &swapped)
        };
        // As many as before, but one went and another joined.
        assert_eq!((swap("lan", "net1"), swap("lan", "net2"), swap("wan", "net1")), (true, false, false));
        std::fs::remove_dir_all(cni_dir).unwrap();
    }
}
