//! One scratch file of Multus, written as Multus writes it: so that its DEL of a container that we attached undoes the
//! same plugins with the same configurations.
//!
//! Decides nothing; it is for the moment in which a node is given back.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Noted;
use crate::cni::{NetworkConfig, PluginConfig, RawObject};
use crate::names::ContainerId;
use crate::sys::files::{private_folder, replace_for_good, sweep_beside};

/// The keys of a plugin's configuration that Multus repeats beside the exact bytes.
const REPEATED: [&str; 3] = ["cniVersion", "name", "type"];

/// Writes the scratch file of `container`: `delegates` in their order, the master first.
///
/// # Errors
/// The file system's; what was there is there still.
pub fn write(cni_dir: &Path, container: &ContainerId, delegates: &[Noted]) -> io::Result<()> {
    private_folder(cni_dir)?;
    let list: Vec<Value> = delegates.iter().map(delegate).collect();
    let path = cni_dir.join(container.as_str());
    // Nobody else would ever remove what a kill in the middle of this left.
    sweep_beside(&path);
    replace_for_good(&path, &serde_json::to_vec(&list)?)
}

fn delegate(noted: &Noted) -> Value {
    let config = &noted.config;
    let (single, list) = match config.plugins.first().filter(|_| !config.is_list) {
        Some(plugin) => (repeated(plugin), json!({})),
        None => (json!({ "ipam": {} }), repeated_list(config)),
    };
    let mut delegate = json!({
        "Conf": single,
        "ConfList": list,
        "Name": noted.label,
        "IsFilterV4Gateway": false,
        "IsFilterV6Gateway": false,
        "Bytes": STANDARD.encode(config.print()),
    });
    let asked_in_args = |key: &str| noted.extra_args.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    let asked = |key: &str| -> Option<Value> { serde_json::from_str(noted.capabilities.get(key)?.get()).ok() };
    let wishes = [
        ("ifnameRequest", noted.ifname.as_ref().map(|name| json!(name.as_str()))),
        ("macRequest", asked("mac").or_else(|| asked_in_args("MAC").map(|mac| json!(mac)))),
        ("infinibandGUIDRequest", asked("infinibandGUID")),
        (
            "ipRequest",
            asked("ips").or_else(|| asked_in_args("IP").map(|all| json!(all.split(',').collect::<Vec<_>>()))),
        ),
        ("deviceID", asked("deviceID")),
    ];
    if let Some(fields) = delegate.as_object_mut() {
        fields.extend(wishes.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    }
    delegate
}

/// What Multus repeats of one plugin's configuration.
fn repeated(plugin: &PluginConfig) -> Value {
    let of = |object: &RawObject, key: &str| -> Option<Value> { serde_json::from_str(object.get(key)?.get()).ok() };
    let raw = plugin.raw.settled(&["cniVersion", "name", "type", "capabilities", "dns"]);
    let mut fields: Map<String, Value> =
        REPEATED.into_iter().filter_map(|key| Some((key.to_owned(), of(&raw, key)?))).collect();
    fields.extend(of(&raw, "capabilities").map(|value| ("capabilities".to_owned(), value)));
    let dns = of(&raw, "dns").filter(|dns| dns.as_object().is_some_and(|dns| !dns.is_empty()));
    fields.extend(dns.map(|value| ("dns".to_owned(), value)));
    let ipam = plugin.ipam.as_ref().map_or_else(|| json!({}), |kind| json!({ "type": kind.as_str() }));
    fields.insert("ipam".to_owned(), ipam);
    Value::Object(fields)
}

fn repeated_list(config: &NetworkConfig) -> Value {
    let plugins: Vec<Value> = config.plugins.iter().map(repeated).collect();
    let mut list = json!({ "cniVersion": config.cni_version, "name": config.name.as_str(), "plugins": plugins });
    if let Some(fields) = list.as_object_mut() {
        let flags = [("disableCheck", config.disable_check), ("disableGC", config.disable_gc)];
        fields.extend(flags.into_iter().filter(|(_, set)| *set).map(|(key, set)| (key.to_owned(), json!(set))));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::IfName;
    use crate::records::scratch;

    fn noted(config: &str, ifname: Option<&str>, capabilities: &str) -> Noted {
        Noted {
            label: "default/lan".to_owned(),
            config: NetworkConfig::parse(config.as_bytes(), Some("lan")).unwrap(),
            ifname: ifname.map(|name| IfName::new(name).unwrap()),
            capabilities: RawObject::parse(capabilities.as_bytes()).unwrap(),
            extra_args: Vec::new(),
        }
    }

    #[test]
    fn it_is_as_multus_would_have_written_it() {
        let table = [
            (
                noted(
                    r#"{"cniVersion":"0.3.1","type":"macvlan","master":"p","dns":{"nameservers":["1.1.1.1"]},
                        "ipam":{"type":"static","addresses":[]}}"#,
                    Some("data"),
                    "{}",
                ),
                json!({
                    "Conf": {"cniVersion": "0.3.1", "dns": {"nameservers": ["1.1.1.1"]}, "ipam": {"type": "static"},
                        "name": "lan", "type": "macvlan"},
                    "ConfList": {}, "Name": "default/lan", "ifnameRequest": "data",
                    "IsFilterV4Gateway": false, "IsFilterV6Gateway": false,
                }),
            ),
            (
                noted(
                    r#"{"cniVersion":"1.0.0","disableCheck":true,"plugins":[
                        {"type":"macvlan","capabilities":{"ips":true,"mac":true},"ipam":{"type":"static"}},
                        {"type":"tuning","dns":{},"sysctl":{}}]}"#,
                    None,
                    r#"{"mac":"02:00:00:00:00:77","ips":["10.5.0.9/24"],"deviceID":"0000:01:00.0"}"#,
                ),
                json!({
                    "Conf": {"ipam": {}},
                    "ConfList": {"cniVersion": "1.0.0", "name": "lan", "disableCheck": true, "plugins": [
                        {"capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}, "type": "macvlan"},
                        {"ipam": {}, "type": "tuning"}]},
                    "Name": "default/lan", "macRequest": "02:00:00:00:00:77", "ipRequest": ["10.5.0.9/24"],
                    "deviceID": "0000:01:00.0", "IsFilterV4Gateway": false, "IsFilterV6Gateway": false,
                }),
            ),
        ];
        for (noted, mut wanted) in table {
            wanted["Bytes"] = json!(STANDARD.encode(noted.config.print()));
            assert_eq!(delegate(&noted), wanted);
        }
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let cni_dir = std::env::temp_dir().join(format!("multus-note-{}", std::process::id()));
        let container = ContainerId::new("c1").unwrap();
        let plugins = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a","odd":1.50},{"type":"b"}]}"#;
        let mut lan = noted(r#"{"type":"macvlan","name":"lan","x":{"b":1,"a":2}}"#, Some("data"), "{}");
        lan.capabilities = RawObject::parse(br#"{"mac":"02:00:00:00:00:77","ips":["10.5.0.9/24"]}"#).unwrap();
        lan.extra_args = vec![("MAC".into(), "02:00:00:00:00:77".into()), ("IP".into(), "10.5.0.9/24".into())];
        let all = [Noted { label: "n".into(), ..noted(plugins, None, "{}") }, lan];
        let half = cni_dir.join("c1.17-1.tmp");
        std::fs::create_dir_all(&cni_dir).unwrap();
        std::fs::write(&half, "[").unwrap();
        assert_eq!(scratch::containers(&cni_dir), [], "half a note is no container");
        write(&cni_dir, &container, &all).unwrap();
        assert!(!half.exists() && scratch::containers(&cni_dir) == std::slice::from_ref(&container));
        assert_eq!(scratch::read(&cni_dir, &container).unwrap().unwrap(), all);
        std::fs::remove_dir_all(cni_dir).unwrap();
    }
}
