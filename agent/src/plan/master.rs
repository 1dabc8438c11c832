//! Which CNI file of a folder is the cluster's own network, the master behind us.
//!
//! Judged by content and not by name: what leads to Multus or to us is nobody's master, or it would call itself for ever.
//! Nothing here reads a folder.

use crate::cni::{NetworkConfig, PluginConfig, RawObject, Version};
use crate::fault::{CniError, quote};

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name without the folder.
    pub file: String,
    /// What is in it, or why it cannot be read.
    pub content: Result<Vec<u8>, String>,
}

/// What decides among the files.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The plugin that the runtime is told to call: ours.
    pub own: &'a str,
    /// `multusMasterCNI`: this file and no other.
    pub named: Option<&'a str>,
    /// `forceCNIVersion`: the version the master's plugins are called with, whatever the file says.
    pub forced: Option<Version>,
}

/// The file that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// Its name without the folder.
    pub file: String,
    /// What it said when it was chosen.
    pub bytes: Vec<u8>,
}

/// A file that cannot be the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its name without the folder.
    pub file: String,
    /// Why not.
    pub why: Why,
}

/// Why a file cannot be the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It leads to Multus or to us.
    Multus,
    /// It has nothing but the loopback plugin, which is no pod network.
    Loopback,
    /// Empty, half written, unreadable or no CNI configuration: the reason.
    Unusable(String),
}

/// What came of the search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// The first that can be the master.
    pub master: Option<Master>,
    /// Those before it that cannot, in order.
    pub skipped: Vec<Skipped>,
}

/// Chooses the master among `candidates`, which are in the order in which a runtime takes them: by name, byte by byte.
pub fn choose(candidates: Vec<Candidate>, rules: Rules<'_>) -> Search {
    let mut skipped = Vec::new();
    for candidate in candidates {
        if rules.named.is_some_and(|named| named != candidate.file) {
            continue;
        }
        match judge(&candidate, rules) {
            Ok(bytes) => return Search { master: Some(Master { file: candidate.file, bytes }), skipped },
            Err(why) => skipped.push(Skipped { file: candidate.file, why }),
        }
    }
    Search { master: None, skipped }
}

fn judge(candidate: &Candidate, rules: Rules<'_>) -> Result<Vec<u8>, Why> {
    let bytes = candidate.content.as_ref().map_err(|error| Why::Unusable(error.clone()))?;
    if leads_to_multus(bytes, rules.own) {
        return Err(Why::Multus);
    }
    let config = network(bytes, rules.forced).map_err(|error| Why::Unusable(error.to_string()))?;
    if multus_of(&config, rules.own).is_some() {
        return Err(Why::Multus);
    }
    if is_loopback(&config) {
        return Err(Why::Loopback);
    }
    Ok(bytes.clone())
}

/// The network in `bytes`; with a forced version as if its author had written that one and no other. One newer than any
/// there is counts as the newest: the file of tomorrow's network is better than none.
///
/// # Errors
/// As [`NetworkConfig::parse`].
pub fn network(bytes: &[u8], forced: Option<Version>) -> Result<NetworkConfig, CniError> {
    let Some(version) = forced.or_else(|| too_new(bytes).map(|_| Version::NEWEST)) else {
        return NetworkConfig::parse(bytes, None);
    };
    let mut object = RawObject::parse(bytes)?;
    object.set_json("cniVersion", &version);
    object.remove("cniVersions");
    NetworkConfig::parse(object.print().as_bytes(), None)
}

/// The `cniVersion` of a configuration that is newer than any there is, where it offers no other.
pub fn too_new(bytes: &[u8]) -> Option<String> {
    let object = RawObject::parse(bytes).ok()?;
    let version = object.settled(&["cniVersion"]).text("cniVersion").ok()??;
    let offered = object.list("cniVersions").ok()?.unwrap_or_default();
    let is_spoken = |text: &str| Version::parse(text).is_ok();
    let offers_others = offered.iter().any(|value| serde_json::from_str(value.get()).is_ok_and(is_spoken));
    let is_newer = matches!(Version::clamped(&version), Some((_, true)));
    (is_newer && !offers_others).then_some(version)
}

/// Has it nothing but the loopback plugin?
pub fn is_loopback(network: &NetworkConfig) -> bool {
    network.plugins.iter().all(|plugin| plugin.plugin.as_str() == "loopback")
}

/// Does this configuration lead to Multus, or to the plugin `own`? Also where it could not be used for other reasons.
pub fn leads_to_multus(bytes: &[u8], own: &str) -> bool {
    let Ok(object) = RawObject::parse(bytes) else { return false };
    let plugins = object.list("plugins").ok().flatten().unwrap_or_default();
    let plugins = plugins.iter().filter_map(|plugin| RawObject::parse(plugin.get().as_bytes()).ok());
    std::iter::once(object.clone()).chain(plugins).any(|plugin| {
        let kind = plugin.settled(&["type"]).text("type").ok().flatten().unwrap_or_default();
        is_multus(&kind, own) || plugin.has("daemonSocketDir")
    })
}

/// The folder of the socket at which the daemon listens that this configuration of Multus needs; `None`: it needs none,
/// because it is nobody's of Multus, or one that asks the API server itself.
pub fn daemon_socket(bytes: &[u8], own: &str) -> Option<String> {
    const USUAL: &str = "/run/multus";
    if !leads_to_multus(bytes, own) {
        return None;
    }
    let object = RawObject::parse(bytes).ok()?;
    let plugins = object.list("plugins").ok().flatten().unwrap_or_default();
    let plugins = plugins.iter().filter_map(|plugin| RawObject::parse(plugin.get().as_bytes()).ok());
    let all: Vec<RawObject> = std::iter::once(object.clone()).chain(plugins).collect();
    let named =
        all.iter().find_map(|plugin| plugin.settled(&["daemonSocketDir"]).text("daemonSocketDir").ok().flatten());
    let asks_itself = all.iter().any(|plugin| plugin.settled(&["kubeconfig"]).has("kubeconfig"));
    named.filter(|folder| folder.starts_with('/')).or_else(|| (!asks_itself).then(|| USUAL.to_owned()))
}

/// The plugin of a network that is Multus's or ours: such a network would call itself for ever.
pub fn multus_of<'a>(network: &'a NetworkConfig, own: &str) -> Option<&'a PluginConfig> {
    network.plugins.iter().find(|plugin| is_multus(plugin.plugin.as_str(), own))
}

/// Distributions give the plugin names of their own, such as `rke2-multus`; nothing but Multus has it in its name.
fn is_multus(plugin: &str, own: &str) -> bool {
    plugin == own || plugin.to_ascii_lowercase().contains("multus")
}

impl Search {
    /// Why there is no master, in one sentence; `None` when there is one.
    pub fn why_none(&self, folder: &str, rules: Rules<'_>) -> Option<String> {
        if self.master.is_some() {
            return None;
        }
        let folder = quote(folder);
        let Some(named) = rules.named else {
            let mut parts: Vec<String> = self.skipped.iter().take(3).map(ToString::to_string).collect();
            parts.extend((self.skipped.len() > 3).then(|| format!("and {} more", self.skipped.len() - 3)));
            let but = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) };
            return Some(format!("no CNI configuration of the cluster's own network in {folder} yet{but}"));
        };
        Some(match self.skipped.first() {
            None => format!("multusMasterCNI is {}, and {folder} has no such file", quote(named)),
            Some(skipped) => format!("multusMasterCNI in {folder}: {skipped}"),
        })
    }
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = quote(&self.file);
        match &self.why {
            Why::Multus => write!(out, "{file} is a Multus configuration itself"),
            Why::Loopback => write!(out, "{file} is for the loopback interface alone"),
            Why::Unusable(why) => write!(out, "{file} cannot be used: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules<'static> = Rules { own: "our-shim", named: None, forced: None };
    const FLANNEL: &str = r#"{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"flannel"},{"type":"portmap"}]}"#;

    fn file(name: &str, text: &str) -> Candidate {
        Candidate { file: name.into(), content: Ok(text.as_bytes().to_vec()) }
    }

    fn chosen(files: &[(&str, &str)], rules: Rules<'_>) -> (Option<String>, Vec<Why>) {
        let search = choose(files.iter().map(|(name, text)| file(name, text)).collect(), rules);
        let whys = search.skipped.into_iter().map(|skipped| match skipped.why {
            Why::Unusable(_) => Why::Unusable(String::new()),
            why => why,
        });
        (search.master.map(|master| master.file), whys.collect())
    }

    #[test]
    fn content_decides_and_not_the_name() {
        let unusable = || Why::Unusable(String::new());
        let ours = r#"{"name":"x","type":"our-shim"}"#;
        let list = r#"{"name":"x","plugins":[{"type":"multus-shim"}]}"#;
        let second = r#"{"name":"x","plugins":[{"type":"tuning"},{"type":"multus"}]}"#;
        let broken_multus = r#"{"type":"multus","cniVersion":"9"}"#;
        let marked = r#"{"name":"x","type":"renamed","daemonSocketDir":"/run/multus"}"#;
        let table: &[(&str, &str, Option<Why>)] = &[
            ("00-multus.conf", FLANNEL, None),
            ("10-flannel.conflist", FLANNEL, None),
            ("a.json", r#"{"name":"a","type":"bridge"}"#, None),
            ("05-multus.conf", ours, Some(Why::Multus)),
            ("multus.conflist", list, Some(Why::Multus)),
            ("01-x.conflist", second, Some(Why::Multus)),
            ("01-x.conf", broken_multus, Some(Why::Multus)),
            ("01-x.conf", r#"{"name":"x","type":"rke2-multus"}"#, Some(Why::Multus)),
            ("01-x.conf", marked, Some(Why::Multus)),
            ("99-loopback.conf", r#"{"name":"lo","type":"loopback"}"#, Some(Why::Loopback)),
            ("01-x.conf", "", Some(unusable())),
            ("01-x.conflist", r#"{"name":"x","plugins":[{"type":"cali"#, Some(unusable())),
            ("01-x.conflist", r#"{"name":"x","plugins":[]}"#, Some(unusable())),
            ("01-x.conf", r#"{"type":"bridge"}"#, Some(unusable())),
            ("01-x.conf", "[]", Some(unusable())),
            ("01-x.conf", r#"{"name":"x","type":"bridge","cniVersion":"1.2.0"}"#, None),
            ("01-x.conf", r#"{"name":"x","type":"bridge","cniVersion":"9"}"#, Some(unusable())),
            ("01-x.conf", r#"{"name":"x","Type":"multus","cniVersion":"9"}"#, Some(Why::Multus)),
            ("01-x.conf", r#"{"name":"x","type":"bridge","TYPE":"our-shim"}"#, Some(Why::Multus)),
        ];
        for (name, text, why) in table {
            let (master, skipped) = chosen(&[(name, text), ("20-next.conflist", FLANNEL)], RULES);
            let wanted = if why.is_some() { "20-next.conflist" } else { name };
            assert_eq!(
                (master.as_deref(), skipped),
                (Some(wanted), why.clone().into_iter().collect()),
                "{name} {text}"
            );
        }
        let folder = Candidate { file: "01-d.conf".into(), content: Err("is a directory".into()) };
        let search = choose(vec![folder, file("20.conf", FLANNEL)], RULES);
        assert_eq!(search.master.unwrap().file, "20.conf");
        assert_eq!(search.skipped[0].to_string(), "\"01-d.conf\" cannot be used: is a directory");
    }

    #[test]
    fn a_conf_of_multus_says_where_its_daemon_listens() {
        for (text, wanted) in [
            (FLANNEL, None),
            (r#"{"name":"m","type":"multus-shim"}"#, Some("/run/multus")),
            (r#"{"name":"m","type":"multus-shim","daemonSocketDir":"/host/run/multus"}"#, Some("/host/run/multus")),
            (r#"{"name":"m","type":"multus-shim","DaemonSocketDir":"/a"}"#, Some("/a")),
            (r#"{"name":"m","plugins":[{"type":"rke2-multus","daemonSocketDir":"/b"}]}"#, Some("/b")),
            (r#"{"name":"m","type":"multus-shim","daemonSocketDir":"rel"}"#, Some("/run/multus")),
            (r#"{"name":"m","type":"multus","kubeconfig":"/etc/cni/net.d/multus.d/multus.kubeconfig"}"#, None),
            ("", None),
        ] {
            assert_eq!(daemon_socket(text.as_bytes(), RULES.own).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn a_named_master_is_the_only_one_but_never_multus() {
        let files = [("10-a.conf", FLANNEL), ("20-b.conf", FLANNEL), ("30-m.conf", r#"{"name":"m","type":"multus"}"#)];
        let rules = |named| Rules { named: Some(named), ..RULES };
        assert_eq!(chosen(&files, rules("20-b.conf")).0.as_deref(), Some("20-b.conf"));
        for (named, says) in [("30-m.conf", "\"30-m.conf\" is a Multus configuration"), ("40.conf", "no such file")] {
            let candidates = files.iter().map(|(name, text)| file(name, text)).collect();
            let search = choose(candidates, rules(named));
            let why = search.why_none("/etc/cni/net.d", rules(named)).unwrap();
            assert!(why.contains(says) && why.contains("multusMasterCNI") && why.contains("net.d"), "{why}");
        }
    }

    #[test]
    fn no_master_says_why() {
        assert!(choose(vec![], RULES).why_none("/d", RULES).unwrap().contains("in \"/d\" yet"));
        let files = ["1", "2", "3", "4", "5"].map(|name| file(name, "")).to_vec();
        let why = choose(files, RULES).why_none("/d", RULES).unwrap();
        assert!(why.contains("\"1\" cannot be used") && why.contains("and 2 more"), "{why}");
        assert_eq!(choose(vec![file("a", FLANNEL)], RULES).why_none("/d", RULES), None);
    }

    #[test]
    fn a_forced_version_replaces_whatever_is_written() {
        for text in [FLANNEL, r#"{"cniVersion":"1.2.0","cniVersions":["7"],"name":"x","type":"bridge"}"#] {
            let config = network(text.as_bytes(), Some(Version::V0_4_0)).unwrap();
            assert_eq!(config.cni_version, Version::V0_4_0);
        }
        let rules = Rules { forced: Some(Version::V1_0_0), ..RULES };
        let odd = r#"{"name":"x","type":"bridge","cniVersion":"1.2.0"}"#;
        assert_eq!(chosen(&[("a.conf", odd)], rules).0.as_deref(), Some("a.conf"));
    }

    #[test]
    fn a_version_newer_than_any_is_the_newest() {
        let of =
            |text: &str| (network(text.as_bytes(), None).map(|config| config.cni_version), too_new(text.as_bytes()));
        let plugin = r#""name":"x","plugins":[{"type":"bridge"}]"#;
        assert_eq!(of(&format!(r#"{{"cniVersion":"1.2.0",{plugin}}}"#)), (Ok(Version::NEWEST), Some("1.2.0".into())));
        let offered = format!(r#"{{"cniVersion":"1.2.0","cniVersions":["0.4.0","1.3.0"],{plugin}}}"#);
        assert_eq!(of(&offered), (Ok(Version::V0_4_0), None));
        let tomorrows = format!(r#"{{"cniVersion":"1.2.0","cniVersions":["1.2.0"],{plugin}}}"#);
        assert_eq!(of(&tomorrows), (Ok(Version::NEWEST), Some("1.2.0".into())));
        assert_eq!(of(&format!(r#"{{"cniVersion":"1.0.0",{plugin}}}"#)), (Ok(Version::V1_0_0), None));
    }

    #[test]
    fn mutated_files_never_panic() {
        crate::cni::mutation::of(FLANNEL, 5_000, |bytes| {
            let candidate = Candidate { file: "x".into(), content: Ok(bytes.to_vec()) };
            drop(choose(vec![candidate], RULES));
        });
    }
}
