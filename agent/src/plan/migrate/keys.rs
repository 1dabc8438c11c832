//! What becomes of each key of a Multus configuration: kept, written as the host has it, without meaning here, or refused.
//!
//! Takes `daemon-config.json` of the thick plugin, and what it or thin mode wrote for the runtime. Reads no file.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::cni::RawObject;
use crate::config::Settings;
use crate::config::keys::{self, Kind, Section};
use crate::fault::{CniError, code, quote};
use crate::plan::master;

/// Where Multus's own manifests mount the host's folders.
const MOUNTED: &str = "/host";
/// Keys that only the thick daemon's own file has.
const OF_DAEMON: [&str; 10] = [
    "socketDir",
    "cniConfigDir",
    "multusAutoconfigDir",
    "multusConfigFile",
    "multusMasterCNI",
    "chrootDir",
    "connectionLimit",
    "metricsPort",
    "perNodeCertificate",
    "enablePprof",
];
/// Keys that stand in old documents and do nothing, in Multus either.
const NEVER_READ: [&str; 3] = ["allowTryDeleteOnErr", "defaultnetworkwaitseconds", "cniConf"];
/// What a runtime adds to a request.
const OF_REQUEST: [&str; 2] = ["prevResult", "runtimeConfig"];
/// The name that Multus and we give the runtime's network.
const NETWORK: &str = "multus-cni-network";

/// Which file of Multus it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// `daemon-config.json` of the thick plugin.
    Daemon,
    /// What the thick plugin wrote for the runtime.
    Generated,
    /// The runtime's conf of thin mode.
    Thin,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is kept, with the same meaning.
    Kept,
    /// It is written in another way.
    Changed,
    /// It is left out: it has no meaning here, or nobody knows it.
    Ignored,
    /// Its value cannot be used.
    Refused,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Its name, as it was written.
    pub key: String,
    /// What becomes of it.
    pub fate: Fate,
    /// Why, or what to do about it; often empty where it is kept.
    pub because: String,
}

/// A configuration of Multus, key by key, and ours made of it.
#[derive(Debug, Clone)]
pub struct Translation {
    /// Which file it is.
    pub form: Form,
    /// Every key, in its order.
    pub keys: Vec<Key>,
    pub(super) ours: RawObject,
}

impl Translation {
    /// Is there a key whose value cannot be used?
    pub fn is_refused(&self) -> bool {
        self.keys.iter().any(|key| key.fate == Fate::Refused)
    }

    /// Our configuration as far as the file alone says it.
    pub fn text(&self) -> String {
        printed(&self.ours)
    }
}

/// One key a line, each value as it was written.
fn printed(object: &RawObject) -> String {
    let line = |(key, value): (&str, &RawValue)| format!("  {}: {}", json!(key), value.get());
    let lines: Vec<String> = object.iter().map(line).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

/// Goes through a configuration of Multus.
///
/// # Errors
/// It is no JSON object, or the configuration of other plugins than Multus.
pub fn translate(text: &str) -> Result<Translation, CniError> {
    let whole = RawObject::parse(text.as_bytes())?;
    let object = multus_of(&whole)?;
    let form = form(&object);
    let mut translation = Translation { form, keys: Vec::new(), ours: RawObject::default() };
    let chroot = value(&object, "chrootDir").and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
    let reader = Reader { form, chroot: chroot.trim_end_matches('/').to_owned(), object: &object };
    for (name, raw) in object.iter().filter(|(_, raw)| raw.get() != "null") {
        let value: Value = serde_json::from_str(raw.get()).unwrap_or(Value::Null);
        let (fate, because, kept) = reader.judge(name, &value);
        translation.keys.push(Key { key: name.to_owned(), fate, because });
        match kept {
            Some(Kept::AsWritten) => translation.ours.set(name, raw.to_owned()),
            Some(Kept::As(key, value)) => translation.ours.set_json(key, &value),
            None => {}
        }
    }
    Ok(translation)
}

/// The object that Multus reads: of a list, its plugin with the list's own `cniVersion` and `name`.
fn multus_of(whole: &RawObject) -> Result<RawObject, CniError> {
    let refused = |why: &str| {
        CniError::new(code::INVALID_CONFIG, why)
            .remedy("name Multus's own file: its daemon-config.json, or 00-multus.conf or 00-multus.conflist")
    };
    let Some(plugins) = whole.list("plugins")? else {
        // The cluster's own network, say, whose plugin would go for ours.
        return match value(whole, "type") {
            Some(kind) if !master::leads_to_multus(whole.print().as_bytes(), NETWORK) && !is_of_daemon(whole) => {
                let kind = kind.as_str().map_or_else(|| quote(&kind.to_string()), quote);
                Err(refused(&format!("this is the configuration of plugin {kind}, and not of Multus")))
            }
            _ => Ok(whole.clone()),
        };
    };
    let leads = |plugin: &&RawValue| master::leads_to_multus(plugin.get().as_bytes(), NETWORK);
    let Some(plugin) = plugins.iter().map(AsRef::as_ref).find(leads) else {
        return Err(refused("none of the plugins of this list is Multus"));
    };
    let mut object = RawObject::parse(plugin.get().as_bytes())?;
    for key in ["cniVersion", "name"] {
        if let (Some(value), false) = (whole.get(key), object.has(key)) {
            object.set(key, value.to_owned());
        }
    }
    Ok(object)
}

/// The value of `key` in any case, the last one written.
pub(super) fn value(object: &RawObject, key: &str) -> Option<Value> {
    let is_it = |(name, value): &(&str, &RawValue)| name.eq_ignore_ascii_case(key) && value.get() != "null";
    let (_, found) = object.iter().filter(is_it).last()?;
    serde_json::from_str(found.get()).ok()
}

/// Does it have a key that only the daemon's file has?
fn is_of_daemon(object: &RawObject) -> bool {
    OF_DAEMON.iter().any(|key| value(object, key).is_some())
}

fn form(object: &RawObject) -> Form {
    let text = |key: &str| value(object, key).and_then(|value| value.as_str().map(str::to_ascii_lowercase));
    let is_of_daemon = is_of_daemon(object);
    match text("type") {
        Some(kind) if !is_of_daemon && text("name").is_some() && kind.contains("shim") => Form::Generated,
        Some(kind) if !is_of_daemon && kind.contains("multus") => Form::Thin,
        _ => Form::Daemon,
    }
}

/// How a key goes on.
enum Kept {
    AsWritten,
    As(&'static str, Value),
}

type Judgement = (Fate, String, Option<Kept>);

/// What all keys are judged by.
struct Reader<'a> {
    form: Form,
    chroot: String,
    object: &'a RawObject,
}

impl Reader<'_> {
    fn judge(&self, name: &str, value: &Value) -> Judgement {
        let ignored = |why: &str| (Fate::Ignored, why.to_owned(), None);
        let warnings = match Settings::parse(&json!({ name: value }).to_string()) {
            Err(error) => return (Fate::Refused, format!("{error}, then run this again"), None),
            Ok((_, warnings)) => warnings.join("; "),
        };
        if let Some(judgement) = self.by_name(name, value) {
            return judgement;
        }
        if NEVER_READ.iter().any(|key| key.eq_ignore_ascii_case(name)) {
            return ignored("it does nothing, in Multus either");
        }
        let is_it = |key: &&keys::Key| key.name.split('.').next().is_some_and(|first| first.eq_ignore_ascii_case(name));
        let Some(key) = keys::all().find(is_it) else { return ignored(&warnings) };
        if key.section == Section::Inert {
            return ignored(key.meaning);
        }
        let path = value.as_str().filter(|_| is_path(key)).and_then(|path| self.on_host(path));
        match path {
            Some(path) => {
                let because = format!("it is {} on the host", quote(&path));
                (Fate::Changed, because, Some(Kept::As(key.name, json!(path))))
            }
            None => (Fate::Kept, self.note(key.name, warnings), Some(Kept::AsWritten)),
        }
    }

    /// Keys whose fate is decided by what they are, not by their type.
    fn by_name(&self, name: &str, value: &Value) -> Option<Judgement> {
        let is = |key: &str| name.eq_ignore_ascii_case(key);
        let ignored = |why: &str| Some((Fate::Ignored, why.to_owned(), None));
        let text = value.as_str().unwrap_or_default();
        if OF_REQUEST.iter().any(|key| is(key)) {
            return ignored("it belongs to a request of the runtime");
        }
        if is("chrootDir") {
            return ignored("nothing is run in a changed root: the CNI plugin runs the others on the host");
        }
        if is("name") {
            return Some(self.name(text));
        }
        let is_of_runtime = self.form != Form::Daemon;
        if is("type") && is_of_runtime {
            return ignored("the runtime will call multus-shim, in daemon mode");
        }
        if self.form == Form::Generated && is("capabilities") {
            return ignored("Multus made it of the cluster network's; the agent does so itself, and follows changes");
        }
        if self.form == Form::Generated && is("clusterNetwork") && text.starts_with('/') {
            return ignored("Multus found it by searching; the agent searches itself, and follows changes");
        }
        None
    }

    /// Thin mode's `name` tells whether the runtime's network has the master's name.
    fn name(&self, name: &str) -> Judgement {
        let master = value(self.object, "delegates").and_then(|all| all[0]["name"].as_str().map(str::to_owned));
        if self.form != Form::Daemon && master.as_deref() == Some(name) && name != NETWORK {
            let because = "the runtime's network goes on having the master's name: overrideNetworkName is true";
            return (Fate::Changed, because.to_owned(), Some(Kept::As("overrideNetworkName", json!(true))));
        }
        let because = format!("the runtime's network is called {NETWORK}, as Multus calls it unless told otherwise");
        (Fate::Ignored, because, None)
    }

    /// A path of the daemon's pod as the host has it; `None`: it is the same.
    fn on_host(&self, path: &str) -> Option<String> {
        let prefixes = [self.chroot.as_str(), MOUNTED].into_iter().filter(|prefix| !prefix.is_empty());
        let below = prefixes.filter_map(|prefix| path.strip_prefix(prefix)).find(|rest| rest.starts_with('/'));
        below.map(str::to_owned)
    }

    fn note(&self, key: &str, warnings: String) -> String {
        match key {
            "kubeconfig" if self.form == Form::Thin => {
                "Multus pasted a token into it, which ends some day; as a pod of the cluster the agent needs none"
                    .into()
            }
            "delegates" if self.form == Form::Thin => {
                "without it the agent would search the cluster's network itself, and follow its changes".into()
            }
            "forceCNIVersion" => "in memory only: the cluster network's file is not rewritten".into(),
            _ => warnings,
        }
    }
}

fn is_path(key: &keys::Key) -> bool {
    matches!(key.kind, Kind::Path | Kind::WordsOr(_, "^/")) || key.name == "clusterNetwork"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::host::{Facts, Wishes, places};

    fn fates(translation: &Translation) -> Vec<(String, Fate)> {
        translation.keys.iter().map(|key| (key.key.clone(), key.fate)).collect()
    }

    fn ours(text: &str) -> Value {
        serde_json::from_str(&translate(text).unwrap().text()).unwrap()
    }

    #[test]
    fn the_daemon_file_that_multus_ships_names_the_hosts_own_folders_here() {
        let shipped = r#"{"chrootDir":"/hostroot","cniVersion":"0.3.1","logLevel":"verbose","logToStderr":true,
            "cniConfigDir":"/host/etc/cni/net.d","multusAutoconfigDir":"/host/etc/cni/net.d","multusConfigFile":"auto",
            "socketDir":"/host/run/multus/","binDir":"/hostroot/opt/cni/bin","namespaceIsolation":true}"#;
        let translation = translate(shipped).unwrap();
        assert_eq!(translation.form, Form::Daemon);
        let wanted = json!({"cniVersion": "0.3.1", "logLevel": "verbose", "logToStderr": true, "multusConfigFile": "auto",
            "cniConfigDir": "/etc/cni/net.d", "multusAutoconfigDir": "/etc/cni/net.d", "socketDir": "/run/multus/",
            "binDir": "/opt/cni/bin", "namespaceIsolation": true});
        assert_eq!(ours(shipped), wanted);
        let fates = fates(&translation);
        assert_eq!(fates[0], ("chrootDir".to_owned(), Fate::Ignored));
        assert_eq!(fates[4], ("cniConfigDir".to_owned(), Fate::Changed));
        let (_, warnings) = Settings::parse(&translation.text()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn every_key_is_told_and_every_refusal_at_once() {
        let text = r#"{"LogLevel":"loud","metricsPort":"9091","perNodeCertificate":{"enabled":false},"retryDeleteOnError":true,
            "allowTryDeleteOnErr":true,"binDirs":"/x","connectionLimit":0,"logFile":null,"forceCNIVersion":true}"#;
        let translation = translate(text).unwrap();
        let wanted = [
            ("LogLevel", Fate::Kept, "not known"),
            ("metricsPort", Fate::Refused, "without quotes"),
            ("perNodeCertificate", Fate::Ignored, "service account"),
            ("retryDeleteOnError", Fate::Ignored, "always kept"),
            ("allowTryDeleteOnErr", Fate::Ignored, "in Multus either"),
            ("binDirs", Fate::Ignored, "the nearest is \"binDir\""),
            ("connectionLimit", Fate::Refused, "from 1"),
            ("forceCNIVersion", Fate::Kept, "in memory"),
        ];
        assert_eq!(translation.keys.len(), wanted.len(), "{:#?}", translation.keys);
        for (key, (name, fate, part)) in translation.keys.iter().zip(wanted) {
            assert_eq!((key.key.as_str(), key.fate), (name, fate), "{}", key.because);
            assert!(key.because.contains(part), "{name}: {}", key.because);
        }
        assert!(translation.is_refused());
    }

    #[test]
    fn thin_confs_keep_their_delegates_in_either_form() {
        let plain = r#"{"cniVersion":"0.3.1","name":"cbr0","type":"multus","kubeconfig":"/etc/cni/net.d/multus.d/multus.kubeconfig",
            "binDir":"/opt/cni/bin","cniConf":"/host/etc/cni/multus/net.d","delegates":[{"name":"cbr0","type":"bridge","x":1.50}]}"#;
        let list = format!(r#"{{"cniVersion":"1.0.0","name":"multus-cni-network","plugins":[{plain}]}}"#);
        let mut translation = translate(plain).unwrap();
        assert_eq!(translation.form, Form::Thin);
        assert!(translation.text().contains(r#"[{"name":"cbr0","type":"bridge","x":1.50}]"#), "{}", translation.text());
        let made = ours(plain);
        assert_eq!((&made["overrideNetworkName"], &made["type"]), (&json!(true), &Value::Null));
        assert_eq!(made["kubeconfig"], "/etc/cni/net.d/multus.d/multus.kubeconfig");
        assert_eq!(ours(&list), made);
        translation.settle(&places(&Facts::default(), &Wishes::default()), false);
        let (settings, warnings) = Settings::parse(&translation.text()).unwrap();
        assert!(warnings.is_empty() && settings.generator.on, "{warnings:?}");
        assert_eq!(settings.generator.plugin, "multus-shim");
    }

    #[test]
    fn what_multus_made_of_the_master_is_made_anew() {
        let text = r#"{"capabilities":{"portMappings":true},"cniVersion":"0.3.1","name":"multus-cni-network",
            "clusterNetwork":"/host/etc/cni/net.d/10-flannel.conflist","type":"multus-shim","daemonSocketDir":"/run/multus"}"#;
        let translation = translate(text).unwrap();
        assert_eq!(translation.form, Form::Generated);
        assert_eq!(ours(text), json!({"cniVersion": "0.3.1", "daemonSocketDir": "/run/multus"}));
    }

    #[test]
    fn what_is_no_configuration_of_multus_is_refused() {
        for (text, part) in [
            ("[", "JSON"),
            ("7", "object"),
            (r#"{"name":"x","plugins":[{"type":"bridge"}]}"#, "none of the plugins"),
            (
                r#"{"cniVersion":"1.0.0","name":"cbr0","type":"bridge","ipam":{"type":"host-local"}}"#,
                "plugin \"bridge\"",
            ),
            (r#"{"Type":"ptp","capabilities":{"portMappings":true}}"#, "not of Multus"),
            (r#"{"type":["multus"]}"#, "not of Multus"),
        ] {
            let error = translate(text).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
        for text in ["{}", r#"{"logLevel":"debug"}"#, r#"{"type":"my-shim","socketDir":"/run/multus"}"#] {
            assert_eq!(translate(text).unwrap().form, Form::Daemon, "{text}");
        }
    }
}
