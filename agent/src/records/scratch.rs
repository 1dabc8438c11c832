//! Multus's scratch files below `cniDir`: which delegates it gave a container, so that a node can be taken over from it,
//! and given back.
//!
//! Read and removed; written only when Multus takes the node over again. Another program's file: bounded, and nothing in
//! it is believed before it fits.

mod note;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cni::{NetworkConfig, RawObject};
use crate::names::{ContainerId, IfName};
pub use note::write;

/// Most bytes of one file.
const MOST_BYTES: u64 = 4 << 20;
/// Most delegates of one container.
const MOST_DELEGATES: usize = 256;
/// Most entries of `cniDir` that are looked at.
const MOST_FILES: usize = 20_000;

/// One delegate of a container, as Multus noted it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// `<namespace>/<name>` of a NetworkAttachmentDefinition, else the CNI name.
    pub label: String,
    /// Its configuration. Some versions of Multus lost keys of it here; libcni's cache has it whole.
    pub config: NetworkConfig,
    /// The interface that was asked for.
    pub ifname: Option<IfName>,
    /// Capability to value, as far as it was noted.
    pub capabilities: RawObject,
    /// `MAC` and `IP`, as Multus appends them to `CNI_ARGS`.
    pub extra_args: Vec<(String, String)>,
}

/// The containers that have a scratch file below `cni_dir`. What a writer that was killed left beside one is none.
pub fn containers(cni_dir: &Path) -> Vec<ContainerId> {
    let entries = fs::read_dir(cni_dir).into_iter().flatten().flatten().take(MOST_FILES);
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let mut found: Vec<_> = files.filter_map(|file| container(file.file_name().into_string().ok()?)).collect();
    found.sort();
    found
}

fn container(file: String) -> Option<ContainerId> {
    let is_half = Path::new(&file).extension().is_some_and(|ending| ending == "tmp");
    ContainerId::new(file).ok().filter(|_| !is_half)
}

/// What Multus noted of `container`, in its order: the master first. `None`: it noted nothing.
///
/// # Errors
/// `InvalidData` with what is wrong: not JSON, no list, an empty one, or a delegate that is none.
pub fn read(cni_dir: &Path, container: &ContainerId) -> io::Result<Option<Vec<Noted>>> {
    let path = cni_dir.join(container.as_str());
    if !fs::symlink_metadata(&path).is_ok_and(|about| about.is_file()) {
        return Ok(None);
    }
    let mut text = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut text)?;
    let odd = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let list: Vec<Value> =
        serde_json::from_slice(&text).map_err(|error| odd(format!("it is no list of delegates: {error}")))?;
    if list.is_empty() || list.len() > MOST_DELEGATES {
        return Err(odd(format!("it lists {} delegates", list.len())));
    }
    let noted = list
        .iter()
        .enumerate()
        .map(|(at, delegate)| noted(delegate).map_err(|why| odd(format!("delegate {at}: {why}"))));
    noted.collect::<io::Result<Vec<_>>>().map(Some)
}

fn noted(delegate: &Value) -> Result<Noted, String> {
    let word = |key: &str| delegate[key].as_str().filter(|text| !text.is_empty());
    let name =
        word("Name").or_else(|| delegate["ConfList"]["name"].as_str()).or_else(|| delegate["Conf"]["name"].as_str());
    // v4.3 keeps a list that came from a file whole here, and in `Bytes` only its plugins' names.
    let whole = delegate["CNINetworkConfigList"]["Bytes"].as_str().filter(|text| !text.is_empty());
    let bytes = match whole.or_else(|| word("Bytes")) {
        Some(text) => STANDARD.decode(text).map_err(|error| format!("Bytes: {error}"))?,
        None => plain(delegate).to_string().into_bytes(),
    };
    let config =
        NetworkConfig::parse(&bytes, name.filter(|name| !name.is_empty())).map_err(|error| error.to_string())?;
    let ifname = word("ifnameRequest").map(IfName::new).transpose().map_err(|bad| bad.to_string())?;
    let addresses: Vec<&str> =
        delegate["ipRequest"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut capabilities = RawObject::default();
    let mut extra_args = Vec::new();
    if let Some(mac) = word("macRequest") {
        capabilities.set_json("mac", mac);
        extra_args.push(("MAC".to_owned(), mac.to_owned()));
    }
    if !addresses.is_empty() {
        capabilities.set_json("ips", &addresses);
        extra_args.push(("IP".to_owned(), addresses.join(",")));
    }
    for (key, capability) in [("infinibandGUIDRequest", "infinibandGUID"), ("deviceID", "deviceID")] {
        if let Some(value) = word(key) {
            capabilities.set_json(capability, value);
        }
    }
    extra_args.retain(|(_, value)| !value.contains([';', '=', '\0']));
    let label = name.filter(|name| !name.is_empty()).unwrap_or(config.name.as_str()).to_owned();
    Ok(Noted { label, config, ifname, capabilities, extra_args })
}

/// Without `Bytes`, what is there of the configuration.
fn plain(delegate: &Value) -> Value {
    let list = &delegate["ConfList"];
    if list["plugins"].as_array().is_some_and(|plugins| !plugins.is_empty()) {
        return list.clone();
    }
    if delegate["Conf"].is_object() { delegate["Conf"].clone() } else { json!({}) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("multus-scratch-{}-{name}", std::process::id()));
        fs::create_dir_all(folder.join("results")).unwrap();
        folder
    }

    #[test]
    fn delegates_come_in_multus_order_with_what_was_asked_for() {
        let cni_dir = folder("whole");
        let c1 = ContainerId::new("c1").unwrap();
        let bytes = STANDARD.encode(r#"{"cniVersion":"0.3.1","name":"lan","type":"macvlan","odd":1}"#);
        let delegates = json!([
            {"Conf": {"name": "", "type": ""}, "ConfList": {"name": "def", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}, "Name": "def", "Bytes": null},
            {"Conf": {"name": "lan", "type": "macvlan"}, "ConfList": {"plugins": null}, "ifnameRequest": "data", "macRequest": "02:00:00:00:00:01",
             "ipRequest": ["10.0.0.5/24", "fd00::5/64"], "deviceID": "0000:01:00.0", "Bytes": bytes, "IsFilterV4Gateway": true},
        ]);
        fs::write(cni_dir.join("c1"), delegates.to_string()).unwrap();
        assert_eq!(containers(&cni_dir), std::slice::from_ref(&c1));
        let noted = read(&cni_dir, &c1).unwrap().unwrap();
        let [master, lan] = noted.as_slice() else { panic!("{noted:?}") };
        assert_eq!((master.config.name.as_str(), master.config.is_list, master.ifname.as_ref()), ("def", true, None));
        assert_eq!(lan.ifname.as_ref().map(IfName::as_str), Some("data"));
        assert!(lan.config.print().contains(r#""odd":1"#));
        let wanted = r#"{"mac":"02:00:00:00:00:01","ips":["10.0.0.5/24","fd00::5/64"],"deviceID":"0000:01:00.0"}"#;
        assert_eq!(lan.capabilities.print(), wanted);
        assert_eq!(lan.extra_args.len(), 2);
        fs::remove_dir_all(cni_dir).unwrap();
    }

    #[test]
    fn a_list_that_came_from_a_file_is_read_where_it_is_whole() {
        let cni_dir = folder("list");
        let whole = r#"{"name":"def","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[]}}]}"#;
        let names = r#"{"name":"def","plugins":[{"type":"bridge","ipam":{"type":"host-local"}}]}"#;
        let list = json!([{"ConfList": {"name": "def", "plugins": [{"type": "bridge"}]}, "Name": "def",
            "CNINetworkConfigList": {"Name": "def", "Bytes": STANDARD.encode(whole)}, "Bytes": STANDARD.encode(names)}]);
        fs::write(cni_dir.join("c1"), list.to_string()).unwrap();
        let noted = read(&cni_dir, &ContainerId::new("c1").unwrap()).unwrap().unwrap();
        assert!(noted[0].config.print().contains("ranges"), "{}", noted[0].config.print());
        fs::remove_dir_all(cni_dir).unwrap();
    }

    #[test]
    fn what_is_no_list_of_delegates_is_refused() {
        let cni_dir = folder("odd");
        let c1 = ContainerId::new("c1").unwrap();
        assert_eq!(read(&cni_dir, &c1).unwrap(), None);
        assert_eq!(read(&cni_dir, &ContainerId::new("results").unwrap()).unwrap(), None, "a folder is none");
        let many = format!("[{}{{}}]", "{},".repeat(MOST_DELEGATES));
        for text in [
            "",
            "[",
            "{}",
            "[]",
            "null",
            "7",
            "[7]",
            "[null]",
            "[{}]",
            r#"[{"Bytes":"***"}]"#,
            r#"[{"Bytes":7}]"#,
            r#"[{"Bytes":"e30="}]"#,
            r#"[{"Conf":{"name":"../x","type":"y"}}]"#,
            r#"[{"Conf":{"name":"x","type":"../y"}}]"#,
            r#"[{"Conf":{"name":"x","type":"y"},"ifnameRequest":"a/b"}]"#,
            &many,
        ] {
            fs::write(cni_dir.join("c1"), text).unwrap();
            let error = read(&cni_dir, &c1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}");
        }
        fs::remove_dir_all(cni_dir).unwrap();
    }
}
