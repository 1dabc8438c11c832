//! What a network configuration asks for: its name, version and plugins, with every other key left as written.
//!
//! Takes one plugin's configuration or a list (CNI SPEC 1.1, section 1). Nothing here knows where the text came from.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use super::object::{RawObject, raw, shown};
use super::version::Version;
use crate::fault::{CniError, code, quote};
use crate::names::{BadName, NetworkName, PluginName};

/// The most plugins of one list.
pub const MOST_PLUGINS: usize = 32;

/// A network, ready to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The CNI name: caches and IPAM go by it.
    pub name: NetworkName,
    /// The version spoken with its plugins: the highest of `cniVersion` and `cniVersions` up to 1.1.0.
    pub cni_version: Version,
    /// CHECK is not run.
    pub disable_check: bool,
    /// GC is not run.
    pub disable_gc: bool,
    /// Written as a list; a result cache tells lists and single plugins apart.
    pub is_list: bool,
    /// At least one, in the order of ADD.
    pub plugins: Vec<PluginConfig>,
    /// The list's own keys; empty for a single plugin.
    list: RawObject,
}

/// One plugin of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginConfig {
    /// Which plugin.
    pub plugin: PluginName,
    /// The capabilities declared with `true`.
    pub capabilities: BTreeSet<String>,
    /// The IPAM plugin it delegates to.
    pub ipam: Option<PluginName>,
    /// The configuration as written.
    pub raw: RawObject,
}

impl NetworkConfig {
    /// Reads a plugin's configuration or a list; `fallback_name` (a NAD's name) stands in where `name` is missing.
    /// A `type` that is not empty means a single plugin, even beside `plugins`, as upstream reads it.
    ///
    /// # Errors
    /// Code 6 when it is not JSON, 1 for a version not spoken, 7 for everything else; each names the field.
    pub fn parse(bytes: &[u8], fallback_name: Option<&str>) -> Result<Self, CniError> {
        let mut object = RawObject::parse(bytes)?;
        // libcni reads one plugin into a struct, and a list by its exact keys.
        let of_plugin = object.settled(&["type", "name", "cniVersion"]);
        let is_list = of_plugin.text("type")?.is_none_or(|kind| kind.is_empty());
        let name = match (is_list, fallback_name) {
            (false, None) => name_of(&mut of_plugin.clone(), None)?,
            _ => name_of(&mut object, fallback_name)?,
        };
        let cni_version = version_of(&object, if is_list { &object } else { &of_plugin })?;
        let disable_check = object.flag("disableCheck")?.unwrap_or(false);
        let disable_gc = object.flag("disableGC")?.unwrap_or(false);
        let (list, plugins) = if is_list {
            let plugins = plugins_of(&object)?;
            (object, plugins)
        } else {
            (RawObject::default(), vec![PluginConfig::new(object)?])
        };
        Ok(Self { name, cni_version, disable_check, disable_gc, is_list, plugins, list })
    }

    /// The whole configuration as text, with what was changed in its plugins: what result caches keep.
    pub fn print(&self) -> String {
        let mut list = self.list.clone();
        if self.is_list {
            list.set_json("plugins", &self.plugins.iter().map(|plugin| &plugin.raw).collect::<Vec<_>>());
            return list.print();
        }
        self.plugins.first().map_or_else(|| "{}".to_owned(), |plugin| plugin.raw.print())
    }

    /// Whether any plugin declares `capability`.
    pub fn declares(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin.capabilities.contains(capability))
    }

    /// Appends a plugin's configuration: the `<dir>/<list name>/*.conf` files of a list that was loaded from a file.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), CniError> {
        let plugin = PluginConfig::new(RawObject::parse(bytes)?)?;
        if self.plugins.len() >= MOST_PLUGINS {
            return Err(too_many(self.plugins.len() + 1));
        }
        self.plugins.push(plugin);
        Ok(())
    }

    /// Whether plugins beside the file belong to the list: `loadOnlyInlinedPlugins` is not set (CNI 1.1 libcni).
    pub fn loads_folder(&self) -> bool {
        let only_inlined = self.list.get("loadOnlyInlinedPlugins").map(RawValue::get);
        self.is_list && !matches!(only_inlined, Some("true" | "\"true\""))
    }
}

impl PluginConfig {
    fn new(raw: RawObject) -> Result<Self, CniError> {
        let keys = raw.settled(&["type", "ipam", "capabilities"]);
        let kind = keys.text("type")?.filter(|kind| !kind.is_empty()).ok_or_else(|| {
            CniError::new(code::INVALID_CONFIG, "field \"type\" is missing")
                .remedy("name the plugin, for example macvlan")
        })?;
        let plugin = PluginName::new(kind).map_err(|bad| refused("type", &bad))?;
        let ipam = ipam_of(&keys)?;
        let capabilities = capabilities_of(&keys)?;
        check_args(&raw)?;
        Ok(Self { plugin, capabilities, ipam, raw })
    }

    /// The text of a string key, for example `master`; `None` when it is missing or something else.
    pub fn word(&self, key: &str) -> Option<String> {
        self.raw.text(key).ok().flatten().filter(|text| !text.is_empty())
    }
}

fn name_of(object: &mut RawObject, fallback: Option<&str>) -> Result<NetworkName, CniError> {
    let written = object.text("name")?.filter(|name| !name.is_empty());
    let name = match (written, fallback) {
        (Some(name), _) => name,
        (None, Some(fallback)) => {
            object.set("name", raw(fallback));
            fallback.to_owned()
        }
        (None, None) => {
            return Err(
                CniError::new(code::INVALID_CONFIG, "field \"name\" is missing").remedy("give the network a name")
            );
        }
    };
    NetworkName::new(name).map_err(|bad| refused("name", &bad))
}

fn version_of(object: &RawObject, with_version: &RawObject) -> Result<Version, CniError> {
    let single = with_version.text("cniVersion")?;
    let offered = object.list("cniVersions")?.unwrap_or_default();
    let mut best = None;
    for value in &offered {
        let text: String = serde_json::from_str(value.get()).map_err(|_wrong_type| {
            CniError::new(
                code::INVALID_CONFIG,
                format!("field \"cniVersions\" has {}, which is not a string", shown(value.get())),
            )
        })?;
        best = best.max(Version::parse(&text).ok());
    }
    match (single, best) {
        (Some(text), Some(best)) => Ok(Version::parse(&text).map_or(best, |version| version.max(best))),
        (None, Some(best)) => Ok(best),
        (single, None) => Version::parse(single.as_deref().unwrap_or_default()),
    }
}

fn plugins_of(object: &RawObject) -> Result<Vec<PluginConfig>, CniError> {
    let remedy = "write one plugin with \"type\", or a list with \"plugins\"";
    let written = object.list("plugins")?.ok_or_else(|| {
        CniError::new(code::INVALID_CONFIG, "neither field \"type\" nor field \"plugins\" is there").remedy(remedy)
    })?;
    if written.is_empty() {
        return Err(CniError::new(code::INVALID_CONFIG, "field \"plugins\" is an empty list").remedy(remedy));
    }
    if written.len() > MOST_PLUGINS {
        return Err(too_many(written.len()));
    }
    let plugin = |(at, value): (usize, &RawValue)| {
        RawObject::parse(value.get().as_bytes())
            .and_then(PluginConfig::new)
            .map_err(|error| error.within(format_args!("plugins[{at}]")))
    };
    written.iter().map(AsRef::as_ref).enumerate().map(plugin).collect()
}

fn ipam_of(raw: &RawObject) -> Result<Option<PluginName>, CniError> {
    let Some(ipam) = raw.object("ipam")? else { return Ok(None) };
    let kind =
        ipam.settled(&["type"]).text("type").map_err(|error| error.within("ipam"))?.filter(|kind| !kind.is_empty());
    kind.map(|kind| PluginName::new(kind).map_err(|bad| refused("ipam.type", &bad))).transpose()
}

fn capabilities_of(raw: &RawObject) -> Result<BTreeSet<String>, CniError> {
    let Some(written) = raw.object("capabilities")? else { return Ok(BTreeSet::new()) };
    let mut enabled = BTreeSet::new();
    for (key, _) in written.iter() {
        if written.flag(key).map_err(|error| error.within("capabilities"))? == Some(true) {
            enabled.insert(key.to_owned());
        }
    }
    Ok(enabled)
}

/// `args` and `args.cni` must be objects, for a pod's `cni-args` are merged into them.
fn check_args(raw: &RawObject) -> Result<(), CniError> {
    if let Some(args) = raw.object("args")? {
        args.object("cni").map_err(|error| error.within("args"))?;
    }
    Ok(())
}

fn refused(field: &str, bad: &BadName) -> CniError {
    CniError::new(code::INVALID_CONFIG, format!("field {}: {bad}", quote(field)))
        .remedy(format!("correct {}", quote(field)))
}

fn too_many(count: usize) -> CniError {
    CniError::new(code::INVALID_CONFIG, format!("field \"plugins\" has {count} items"))
        .remedy(format!("use at most {MOST_PLUGINS} plugins"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NetworkConfig, CniError> {
        NetworkConfig::parse(text.as_bytes(), Some("nad"))
    }

    #[test]
    fn one_plugin_or_a_list() {
        let single = parse(
            r#"{"type":"macvlan","master":"eth0","ipam":{"type":"dhcp"},"capabilities":{"mac":true,"ips":false}}"#,
        )
        .unwrap();
        assert!(!single.is_list && single.name.as_str() == "nad" && single.cni_version == Version::V0_1_0);
        let [plugin] = single.plugins.as_slice() else { panic!() };
        assert_eq!(plugin.plugin.as_str(), "macvlan");
        assert_eq!(plugin.ipam.as_ref().unwrap().as_str(), "dhcp");
        assert!(single.declares("mac") && !single.declares("ips"));
        assert_eq!(plugin.word("master").as_deref(), Some("eth0"));

        let list = parse(
            r#"{"cniVersion":"1.0.0","name":"n","disableCheck":true,"x":1,"plugins":[{"type":"a"},{"type":"b"}]}"#,
        )
        .unwrap();
        assert!(list.is_list && list.disable_check && !list.disable_gc && list.plugins.len() == 2);
        assert_eq!(
            list.print(),
            r#"{"cniVersion":"1.0.0","name":"n","disableCheck":true,"x":1,"plugins":[{"type":"a"},{"type":"b"}]}"#
        );
        assert!(!parse(r#"{"type":"a","plugins":[]}"#).unwrap().is_list, "a type wins");
        assert!(parse(r#"{"type":"","plugins":[{"type":"a"}]}"#).unwrap().is_list);
    }

    #[test]
    fn a_missing_name_is_injected_and_nothing_else_changes() {
        let config = parse(r#"{"type":"x", "k": [1 , 2]}"#).unwrap();
        assert_eq!(config.print(), r#"{"type":"x","k":[1 , 2],"name":"nad"}"#);
        assert_eq!(parse(r#"{"name":"","type":"x"}"#).unwrap().print(), r#"{"name":"nad","type":"x"}"#);
        assert!(NetworkConfig::parse(br#"{"type":"x"}"#, None).unwrap_err().msg.contains("\"name\""));
    }

    #[test]
    fn the_highest_version_offered_wins() {
        let table = [
            (r#""type":"x""#, Version::V0_1_0),
            (r#""type":"x","cniVersion":"0.4.0""#, Version::V0_4_0),
            (r#""type":"x","cniVersion":"0.4.0","cniVersions":["1.0.0","1.1.0","2.0.0"]"#, Version::V1_1_0),
            (r#""type":"x","cniVersion":"1.2.0","cniVersions":["1.0.0"]"#, Version::V1_0_0),
            (r#""type":"x","cniVersion":"1.1.0","cniVersions":["1.0.0"]"#, Version::V1_1_0),
            (r#""type":"x","cniVersion":null,"cniVersions":null"#, Version::V0_1_0),
        ];
        for (keys, wanted) in table {
            assert_eq!(parse(&format!("{{{keys}}}")).unwrap().cni_version, wanted, "{keys}");
        }
    }

    #[test]
    fn refusals_name_the_field() {
        let many = format!(r#"{{"plugins":[{}{{"type":"a"}}]}}"#, r#"{"type":"a"},"#.repeat(40));
        let table = [
            ("{", code::DECODE, "JSON"),
            ("[]", code::INVALID_CONFIG, "not an object"),
            ("{}", code::INVALID_CONFIG, "\"plugins\""),
            (r#"{"plugins":[]}"#, code::INVALID_CONFIG, "\"plugins\" is an empty"),
            (r#"{"plugins":{}}"#, code::INVALID_CONFIG, "\"plugins\""),
            (r#"{"plugins":[{"type":"a"},{}]}"#, code::INVALID_CONFIG, "plugins[1]: field \"type\""),
            (r#"{"plugins":[null]}"#, code::INVALID_CONFIG, "plugins[0]"),
            (r#"{"plugins":[{"type":"../sh"}]}"#, code::INVALID_CONFIG, "\"../sh\""),
            (r#"{"type":"a/b"}"#, code::INVALID_CONFIG, "\"type\""),
            (r#"{"type":5}"#, code::INVALID_CONFIG, "\"type\""),
            (r#"{"type":"a","name":"../x"}"#, code::INVALID_CONFIG, "\"name\""),
            (r#"{"type":"a","name":7}"#, code::INVALID_CONFIG, "\"name\""),
            (r#"{"type":"a","args":[]}"#, code::INVALID_CONFIG, "\"args\""),
            (r#"{"type":"a","args":{"cni":"x"}}"#, code::INVALID_CONFIG, "args: field \"cni\""),
            (r#"{"type":"a","capabilities":["mac"]}"#, code::INVALID_CONFIG, "\"capabilities\""),
            (r#"{"type":"a","capabilities":{"mac":"yes"}}"#, code::INVALID_CONFIG, "capabilities: field \"mac\""),
            (r#"{"type":"a","ipam":"dhcp"}"#, code::INVALID_CONFIG, "\"ipam\""),
            (r#"{"type":"a","ipam":{"type":"/bin/sh"}}"#, code::INVALID_CONFIG, "ipam.type"),
            (r#"{"type":"a","cniVersion":"9"}"#, code::INCOMPATIBLE_VERSION, "cniVersion"),
            (r#"{"type":"a","cniVersion":1}"#, code::INVALID_CONFIG, "\"cniVersion\""),
            (r#"{"type":"a","cniVersions":[1]}"#, code::INVALID_CONFIG, "\"cniVersions\""),
            (r#"{"type":"a","disableCheck":"yes"}"#, code::INVALID_CONFIG, "\"disableCheck\""),
            (many.as_str(), code::INVALID_CONFIG, "41 items"),
        ];
        for (text, code, names) in table {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code, code, "{text}: {error}");
            assert!(error.msg.contains(names), "{text}: {error}");
        }
    }

    #[test]
    fn a_plugins_keys_match_in_any_case_and_a_lists_do_not() {
        let single = parse(
            r#"{"Type":"macvlan","cniversion":"0.4.0","CapaBilities":{"mac":true},"IPAM":{"Type":"dhcp"},"type":null}"#,
        )
        .unwrap();
        assert_eq!((single.is_list, single.cni_version), (false, Version::V0_4_0));
        assert!(single.declares("mac"));
        assert_eq!(single.plugins[0].ipam.as_ref().unwrap().as_str(), "dhcp");
        assert_eq!(single.name.as_str(), "nad", "the object's name is injected for another spelling, too");
        assert_eq!(NetworkConfig::parse(br#"{"Name":"x","TYPE":"y"}"#, None).unwrap().name.as_str(), "x");
        let list = parse(r#"{"cniversion":"1.0.0","disablecheck":true,"plugins":[{"Type":"a"}]}"#).unwrap();
        assert_eq!((list.cni_version, list.disable_check), (Version::V0_1_0, false));
        assert!(parse(r#"{"Plugins":[{"type":"a"}]}"#).unwrap_err().msg.contains("\"plugins\""));
    }

    #[test]
    fn plugins_of_a_folder_are_appended() {
        let mut list = parse(r#"{"plugins":[{"type":"a"}]}"#).unwrap();
        assert!(list.loads_folder());
        list.append(br#"{"type":"b"}"#).unwrap();
        assert!(list.append(b"{}").is_err());
        assert_eq!(list.print(), r#"{"plugins":[{"type":"a"},{"type":"b"}],"name":"nad"}"#);
        assert!(!parse(r#"{"loadOnlyInlinedPlugins":"true","plugins":[{"type":"a"}]}"#).unwrap().loads_folder());
        assert!(!parse(r#"{"type":"a"}"#).unwrap().loads_folder());
    }

    #[test]
    fn mutated_configurations_never_panic() {
        let good = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a","ipam":{"type":"b"},"args":{"cni":{}},"capabilities":{"mac":true}}]}"#;
        crate::cni::mutation::of(good, 20_000, |bytes| {
            if let Ok(config) = NetworkConfig::parse(bytes, Some("nad")) {
                let again = NetworkConfig::parse(config.print().as_bytes(), None).unwrap();
                assert_eq!(again.print(), config.print(), "what is printed is read again");
            }
        });
    }
}
