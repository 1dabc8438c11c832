//! Which devices the device manager's checkpoint file lists for a pod, where the kubelet serves no podresources socket.
//!
//! Reads the two shapes the file has had. Its checksum is the kubelet's own affair, and never written here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use super::note;
use crate::fault::escape;
use crate::names::PodRef;
use crate::objects::Allocated;

/// Most bytes of the file, as of a podresources answer.
const MOST_BYTES: u64 = 16 << 20;

/// `kubelet_internal_checkpoint` (kubelet, `devicemanager/checkpoint`), trimmed.
#[derive(Deserialize)]
struct Checkpoint {
    #[serde(rename = "Data")]
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "PodDeviceEntries")]
    entries: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    #[serde(rename = "DeviceIDs")]
    ids: Option<Ids>,
}

/// Since Kubernetes 1.20 by NUMA node, before that one list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    ByNode(BTreeMap<String, Option<Vec<String>>>),
    Plain(Vec<String>),
}

/// The file's text; `None` when it is not there.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut text = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {MOST_BYTES} bytes")));
    }
    Ok(Some(text))
}

/// What `text` lists for `pod`, which it knows by its UID.
///
/// # Errors
/// A sentence: the UID is not known, or the text is not the checkpoint's JSON.
pub(super) fn devices(text: &[u8], pod: &PodRef) -> Result<Allocated, String> {
    let uid = pod.uid.as_deref().ok_or("it lists pods by UID, and the runtime gave no K8S_POD_UID")?;
    let checkpoint: Checkpoint = serde_json::from_slice(text).map_err(|error| escape(&error.to_string()))?;
    let mut devices = Allocated::new();
    for entry in checkpoint.data.entries.iter().flatten().filter(|entry| entry.pod == uid) {
        let ids: Vec<&String> = match &entry.ids {
            Some(Ids::ByNode(nodes)) => nodes.values().flatten().flatten().collect(),
            Some(Ids::Plain(ids)) => ids.iter().collect(),
            None => Vec::new(),
        };
        for id in ids {
            note(&mut devices, &entry.resource, id);
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ObjectName;

    fn found(entries: &str, uid: Option<&str>) -> Result<String, String> {
        let name = |text| ObjectName::new(text).unwrap();
        let pod = PodRef { namespace: name("x"), name: name("a"), uid: uid.map(str::to_owned) };
        let text = format!(
            r#"{{"Data":{{"PodDeviceEntries":{entries},"RegisteredDevices":{{"v/f":["a","b"]}}}},"Checksum":7}}"#
        );
        let devices = devices(text.as_bytes(), &pod)?;
        let ids = |ids: &std::collections::BTreeSet<_>| {
            ids.iter().map(ToString::to_string).collect::<Vec<String>>().join(",")
        };
        Ok(devices.iter().map(|(resource, all)| format!("{resource}={}", ids(all))).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn both_shapes_are_read_for_one_pod_only() {
        let entry = |uid: &str, container: &str, ids: &str| {
            format!(
                r#"{{"PodUID":"{uid}","ContainerName":"{container}","ResourceName":"v/f","DeviceIDs":{ids},"AllocResp":"CgA="}}"#
            )
        };
        let table = [
            (format!("[{}]", entry("u1", "c", r#"{"1":["b"],"-1":["a"]}"#)), "v/f=a,b"),
            (format!("[{}]", entry("u1", "c", r#"["b","a","b"]"#)), "v/f=a,b"),
            (format!("[{},{}]", entry("u1", "c", r#"["b"]"#), entry("u1", "d", r#"{"0":["a"]}"#)), "v/f=a,b"),
            (format!("[{}]", entry("u2", "c", r#"["b"]"#)), ""),
            (format!("[{}]", entry("u1", "c", "null")), ""),
            (format!("[{}]", entry("u1", "c", r#"{"0":null}"#)), ""),
            (format!("[{}]", entry("u1", "c", r#"["a b","c"]"#)), "v/f=c"),
            ("null".to_owned(), ""),
        ];
        for (entries, wanted) in table {
            assert_eq!(found(&entries, Some("u1")).unwrap(), wanted, "{entries}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        assert!(found("[]", None).unwrap_err().contains("K8S_POD_UID"));
        assert!(found("5", Some("u1")).is_err());
        assert!(found(r#"[{"PodUID":"u1","ResourceName":"v/f","DeviceIDs":5}]"#, Some("u1")).is_err());
        let name = |text| ObjectName::new(text).unwrap();
        let pod = PodRef { namespace: name("x"), name: name("a"), uid: Some("u1".into()) };
        assert!(devices(b"garbage", &pod).is_err());
    }

    #[test]
    fn mutated_checkpoints_never_panic() {
        let good = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u1","ResourceName":"v/f","DeviceIDs":{"0":["a"]}}]}}"#;
        let name = |text| ObjectName::new(text).unwrap();
        let pod = PodRef { namespace: name("x"), name: name("a"), uid: Some("u1".into()) };
        crate::cni::mutation::of(good, 5_000, |bytes| drop(devices(bytes, &pod)));
    }
}
