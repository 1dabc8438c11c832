//! What the container runtime is told about us: the text of `00-multus.conflist`, and which files beside it must go.
//!
//! Nothing here writes a file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::master::{self, Candidate};
use crate::cni::{NetworkConfig, RawObject, Version};
use crate::config::Settings;
use crate::fault::quote;

/// The generated file, for every `cniVersion`: lists are older than any version in use, and a runtime asks for STATUS
/// and GC through a list alone.
pub const FILE: &str = "00-multus.conflist";
/// Names under which a Multus before us may have left a file that runtimes would take first.
const FORMER: [&str; 3] = ["00-multus.conf", "00-multus.json", FILE];
/// The endings of the files that runtimes load (libcni's `ConfFiles` as containerd and CRI-O call it).
pub const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// The network's name unless the master's is taken over, as upstream.
const NAME: &str = "multus-cni-network";
/// The capability under which containerd hands over the pod's annotations.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
/// What the shim takes where its conf says nothing.
const SOCKET_DIR: &str = "/run/multus";
const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Conflist<'a> {
    cni_version: Version,
    cni_versions: Vec<Version>,
    name: &'a str,
    plugins: [Plugin<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Plugin<'a> {
    r#type: &'a str,
    capabilities: BTreeMap<String, bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon_socket_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cni_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bin_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_timeout: Option<String>,
}

/// The file's text for a node whose pods get `networks` by configuration, the master first. What the shim reads is
/// copied where it is configured, as paths of the host.
pub fn compose(settings: &Settings, networks: &[NetworkConfig]) -> String {
    let generator = &settings.generator;
    let host = |path: &'_ Option<String>| path.as_deref().map(|path| on_host(settings, path)).map(ToOwned::to_owned);
    let (cni_dir, bin_dir) = (host(&settings.delegation.cni_dir), host(&settings.delegation.bin_dir));
    let master_name = networks.first().map(|network| network.name.as_str());
    let timeout = settings.request_timeout;
    let plugin = Plugin {
        r#type: &generator.plugin,
        capabilities: capabilities(settings, networks),
        daemon_socket_dir: socket_dir(settings),
        cni_dir: cni_dir.as_deref(),
        bin_dir: bin_dir.as_deref(),
        request_timeout: (timeout != REQUEST_TIMEOUT).then(|| format!("{}ms", timeout.as_millis().max(1))),
    };
    let versions = Version::SUPPORTED.into_iter().filter(|version| *version >= generator.cni_version);
    let conflist = Conflist {
        cni_version: generator.cni_version,
        cni_versions: versions.collect(),
        name: master_name.filter(|_| generator.override_network_name).unwrap_or(NAME),
        plugins: [plugin],
    };
    serde_json::to_string_pretty(&conflist).unwrap_or_default() + "\n"
}

/// What is configured and what the networks declare now, so that it shrinks with them; and the annotations, unless they
/// are configured away.
fn capabilities(settings: &Settings, networks: &[NetworkConfig]) -> BTreeMap<String, bool> {
    let written = &settings.generator.capabilities;
    let configured = written.iter().filter(|(_, value)| value.get() == "true").map(|(name, _)| name.to_owned());
    let declared = networks.iter().flat_map(|network| &network.plugins).flat_map(|plugin| plugin.capabilities.clone());
    let annotations =
        written.get(ANNOTATIONS).is_none_or(|value| value.get() == "true").then(|| ANNOTATIONS.to_owned());
    configured.chain(declared.filter(|name| name != ANNOTATIONS)).chain(annotations).map(|name| (name, true)).collect()
}

/// The socket's folder for the shim: as configured; else what `socketDir` is on the host, where that can be known.
fn socket_dir(settings: &Settings) -> Option<&str> {
    if let Some(written) = &settings.generator.daemon_socket_dir {
        return Some(on_host(settings, written));
    }
    let host = on_host(settings, &settings.socket_dir);
    (host != settings.socket_dir && bare(host) != SOCKET_DIR).then_some(host)
}

/// A path of the agent as the host knows it: below `chrootDir`, which is the host's root, without that; else the same.
fn on_host<'a>(settings: &Settings, path: &'a str) -> &'a str {
    let Some(root) = settings.chroot_dir.as_deref().map(bare).filter(|root| !root.is_empty()) else { return path };
    match path.strip_prefix(root) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

fn bare(path: &str) -> &str {
    path.trim_end_matches('/')
}

/// What in the settings cannot work together, as sentences: the shim looking for the socket where the agent has none.
pub fn doubts(settings: &Settings) -> Vec<String> {
    let (ours, shims) = (bare(&settings.socket_dir), bare(socket_dir(settings).unwrap_or(SOCKET_DIR)));
    let mut doubts = Vec::new();
    if !ours.ends_with(shims) {
        doubts.push(format!(
            "socketDir is {} and the CNI plugin will look in {}: unless that is the same folder of the host, set daemonSocketDir",
            quote(ours),
            quote(shims)
        ));
    }
    doubts
}

/// A sentence about a master that is older than what the runtime speaks with us. Nothing is refused for that: each
/// plugin is called at its own version, and its result is converted.
pub fn older_master(settings: &Settings, master: &NetworkConfig) -> Option<String> {
    let (ours, its) = (Version::NEWEST, master.cni_version);
    let lacks = match its {
        _ if settings.generator.force_cni_version || its.has_status() => return None,
        _ if its.has_check() => "STATUS and GC are",
        _ => "CHECK, STATUS and GC are",
    };
    Some(format!(
        "the cluster's network {} declares cniVersion {its}, the runtime may speak {ours}: {lacks} answered by the agent and not passed on to it",
        quote(master.name.as_str())
    ))
}

/// Is this text one that [`compose`] made, of whatever version? Multus names one version only.
pub fn is_generated(bytes: &[u8], own: &str) -> bool {
    let Ok(object) = RawObject::parse(bytes) else { return false };
    let plugins = object.list("plugins").ok().flatten().unwrap_or_default();
    object.has("cniVersions") && plugins.len() == 1 && master::leads_to_multus(bytes, own)
}

/// The names under which a file of ours, or of a Multus before us, stands in the runtime's folder.
pub fn names() -> [&'static str; 3] {
    FORMER
}

/// Files of `cniConfigDir` that would be taken in place of `kept`: a former Multus's, or broken ones under such a name,
/// which are ours to remove.
pub fn superseded<'a>(files: &'a [Candidate], kept: &str, own: &str) -> Vec<&'a str> {
    let names = files.iter().filter(|file| file.file != kept && FORMER.contains(&file.file.as_str()));
    names.filter(|file| !is_somebody_elses(file, own)).map(|file| file.file.as_str()).collect()
}

/// Files of `cniConfigDir` that stay and that a runtime takes before `kept`.
pub fn shadowing<'a>(files: &'a [Candidate], kept: &'a str, own: &str) -> Vec<&'a str> {
    let gone = superseded(files, kept, own);
    let before = files.iter().map(|file| file.file.as_str()).filter(|file| *file < kept);
    before.filter(|file| !gone.contains(file)).collect()
}

fn is_somebody_elses(file: &Candidate, own: &str) -> bool {
    match &file.content {
        Ok(bytes) => !master::leads_to_multus(bytes, own) && master::network(bytes, None).is_ok(),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::parse(text).unwrap().0
    }

    fn network(capabilities: &str) -> NetworkConfig {
        let text = format!(
            r#"{{"name":"cbr0","cniVersion":"0.3.1","plugins":[{{"type":"flannel"}},{{"type":"portmap","capabilities":{capabilities}}}]}}"#
        );
        NetworkConfig::parse(text.as_bytes(), None).unwrap()
    }

    fn plugin(config: &str, capabilities: &str) -> serde_json::Value {
        let text = compose(&settings(config), &[network(capabilities)]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["plugins"][0].clone()
    }

    #[test]
    fn the_smallest_file() {
        let text = compose(&settings(r#"{"cniConfigDir":"/c"}"#), &[network(r#"{"portMappings":true,"x":false}"#)]);
        let compact: String = text.split_whitespace().collect();
        assert_eq!(
            compact,
            r#"{"cniVersion":"0.3.1","cniVersions":["0.3.1","0.4.0","1.0.0","1.1.0"],"name":"multus-cni-network","plugins":[{"type":"multus-shim","capabilities":{"io.kubernetes.cri.pod-annotations":true,"portMappings":true}}]}"#
        );
        NetworkConfig::parse(text.as_bytes(), None).unwrap();
    }

    #[test]
    fn versions_go_from_the_configured_one_to_the_newest() {
        for (version, wanted) in
            [("1.1.0", r#"["1.1.0"]"#), ("1.0.0", r#"["1.0.0","1.1.0"]"#), ("1.2.0", r#"["1.1.0"]"#)]
        {
            let text = compose(&settings(&format!(r#"{{"cniVersion":"{version}"}}"#)), &[]);
            assert!(
                text.split_whitespace().collect::<String>().contains(&format!(r#""cniVersions":{wanted}"#)),
                "{text}"
            );
        }
    }

    #[test]
    fn the_name_is_the_masters_only_when_asked_for() {
        for (config, wanted) in [("{}", "multus-cni-network"), (r#"{"overrideNetworkName":true}"#, "cbr0")] {
            let config: NetworkConfig =
                NetworkConfig::parse(compose(&settings(config), &[network("{}")]).as_bytes(), None).unwrap();
            assert_eq!(config.name.as_str(), wanted);
        }
    }

    #[test]
    fn capabilities_are_what_is_configured_and_declared() {
        let table = [
            ("{}", "{}", vec![ANNOTATIONS]),
            (r#"{"capabilities":{"mac":true,"ips":false}}"#, r#"{"ips":true}"#, vec![ANNOTATIONS, "ips", "mac"]),
            (
                r#"{"capabilities":{"io.kubernetes.cri.pod-annotations":false}}"#,
                r#"{"bandwidth":true}"#,
                vec!["bandwidth"],
            ),
        ];
        for (config, declared, wanted) in table {
            let made = plugin(config, declared)["capabilities"].as_object().unwrap().clone();
            assert_eq!(made.keys().collect::<Vec<_>>(), wanted, "{config} {declared}");
            assert!(made.values().all(|value| *value == true));
        }
    }

    #[test]
    fn what_the_shim_reads_is_copied_as_paths_of_the_host() {
        let all = r#"{"daemonSocketDir":"/hostroot/run/m","cniDir":"/hostroot/var/lib/x","binDir":"/opt/cni/bin","requestTimeout":"90s",
            "chrootDir":"/hostroot/","type":"other-shim"}"#;
        let made = plugin(all, "{}");
        let wanted = [
            ("type", "other-shim"),
            ("daemonSocketDir", "/run/m"),
            ("cniDir", "/var/lib/x"),
            ("binDir", "/opt/cni/bin"),
            ("requestTimeout", "90000ms"),
        ];
        for (key, value) in wanted {
            assert_eq!(made[key], value, "{key}");
        }
        assert_eq!(crate::wire::duration("90000ms"), Some(Duration::from_secs(90)));
        let table = [
            (r#"{"socketDir":"/host/run/multus/","chrootDir":"/hostroot"}"#, None, 0),
            (r#"{"socketDir":"/hostroot/run/multus","chrootDir":"/hostroot"}"#, None, 0),
            (r#"{"socketDir":"/hostroot/run/x","chrootDir":"/hostroot"}"#, Some("/run/x"), 0),
            (r#"{"socketDir":"/hostrooted/x","chrootDir":"/hostroot"}"#, None, 1),
            (r#"{"socketDir":"/run/x"}"#, None, 1),
            (r#"{"socketDir":"/run/x","daemonSocketDir":"/run/x/","chrootDir":"/"}"#, Some("/run/x/"), 0),
        ];
        for (config, wanted, doubtful) in table {
            assert_eq!(plugin(config, "{}").get("daemonSocketDir").and_then(|v| v.as_str()), wanted, "{config}");
            assert_eq!(doubts(&settings(config)).len(), doubtful, "{config}");
        }
    }

    #[test]
    fn an_older_master_is_told_and_not_refused() {
        let told = |config: &str, version: &str| {
            let text = format!(r#"{{"name":"n","type":"x","cniVersion":"{version}"}}"#);
            let sentence = older_master(&settings(config), &NetworkConfig::parse(text.as_bytes(), None).unwrap());
            sentence.map(|text| text.contains("CHECK"))
        };
        for (config, version, wanted) in [
            ("{}", "1.1.0", None),
            ("{}", "1.0.0", Some(false)),
            ("{}", "0.3.1", Some(true)),
            (r#"{"forceCNIVersion":true}"#, "0.3.1", None),
        ] {
            assert_eq!(told(config, version), wanted, "{config} {version}");
        }
    }

    #[test]
    fn former_files_go_and_others_stay() {
        let file = |name: &str, text: &str| Candidate { file: name.into(), content: Ok(text.as_bytes().to_vec()) };
        let multus = r#"{"name":"m","type":"multus-shim"}"#;
        let other = r#"{"name":"m","type":"bridge"}"#;
        let files = [
            file("00-a.conf", other),
            file("00-multus.conf", multus),
            file("00-multus.conflist", multus),
            file("00-multus.json", ""),
            file("05-multus.conf", multus),
        ];
        assert_eq!(superseded(&files, FILE, "x"), ["00-multus.conf", "00-multus.json"]);
        assert_eq!(superseded(&files, "00-multus.conf", "x"), [FILE, "00-multus.json"]);
        assert_eq!(shadowing(&files, FILE, "x"), ["00-a.conf"]);
        assert_eq!(shadowing(&files, "05-multus.conf", "x"), ["00-a.conf"]);
        let theirs = [file("00-multus.conf", other)];
        assert!(superseded(&theirs, FILE, "x").is_empty());
        assert_eq!(shadowing(&theirs, FILE, "x"), ["00-multus.conf"]);
    }
}
