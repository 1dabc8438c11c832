//! One file of libcni's result cache: what is in it, read and written.
//!
//! Not part of the CNI plugin, which only removes such files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MOST_FILES, Results, is_too_long};
use crate::cni::{Args, CniResult, RawObject, Version};
use crate::names::{ContainerId, IfName, NetnsPath, NetworkName};
use crate::sys::files::{private_folder, replace};

/// libcni's own word for the format.
const KIND: &str = "cniCacheV1";
/// Most bytes of one file: a configuration in base64, a result, and some room.
const MOST_BYTES: u64 = 4 << 20;

/// What one network gave one container.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The network's CNI name.
    pub network: NetworkName,
    /// The sandbox.
    pub container: ContainerId,
    /// The interface.
    pub ifname: IfName,
    /// The sandbox's namespace, where it is known.
    pub netns: Option<NetnsPath>,
    /// The network's configuration as text; none in files of libcni before 0.8.
    pub config: Option<String>,
    /// `CNI_ARGS`, `K=V;K=V`.
    pub args: String,
    /// Capability to value.
    pub capabilities: RawObject,
    /// The last plugin's result, and the version it is printed in.
    pub result: Option<(CniResult, Version)>,
}

/// The file, key by key, in libcni's order.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    kind: String,
    container_id: String,
    config: String,
    if_name: String,
    network_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cni_args: Option<Vec<(String, String)>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capability_args: Option<RawObject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

/// Whose file it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    kind: String,
    container_id: String,
}

impl Results {
    /// Writes one, its folder first where that is missing. Not flushed: it can be lost, never torn by us.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, entry: &Entry) -> io::Result<()> {
        let pairs: Vec<_> =
            Args::parse_what_fits(&entry.args).iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let print = |(result, version): &(CniResult, Version)| {
            result.print_compact(*version).ok().and_then(|text| serde_json::from_str(&text).ok())
        };
        let written = Written {
            kind: KIND.to_owned(),
            container_id: entry.container.to_string(),
            config: STANDARD.encode(entry.config.as_deref().unwrap_or_default()),
            if_name: entry.ifname.to_string(),
            network_name: entry.network.to_string(),
            netns: entry.netns.clone().map(String::from).unwrap_or_default(),
            cni_args: Some(pairs).filter(|pairs| !pairs.is_empty()),
            capability_args: Some(entry.capabilities.clone()).filter(|given| !given.is_empty()),
            result: entry.result.as_ref().and_then(print),
        };
        let path = self.path(&entry.network, &entry.container, &entry.ifname);
        let bytes = serde_json::to_vec(&written)?;
        let saved = match replace(&path, &bytes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                private_folder(&self.folder)?;
                replace(&path, &bytes)
            }
            saved => saved,
        };
        saved.or_else(|error| if is_too_long(&error) { Ok(()) } else { Err(error) })
    }

    /// The entry of one network, container and interface, if it is there and readable.
    pub fn load(&self, network: &NetworkName, container: &ContainerId, ifname: &IfName) -> Option<Entry> {
        let entry = read(File::open(self.path(network, container, ifname)).ok()?)?;
        let same = entry.network == *network && entry.container == *container && entry.ifname == *ifname;
        same.then_some(entry)
    }

    /// Every readable entry of `container`, by interface.
    pub fn of(&self, container: &ContainerId) -> Vec<Entry> {
        let part = format!("-{container}-");
        self.entries(|name| name.contains(&part)).into_iter().filter(|entry| entry.container == *container).collect()
    }

    /// The files of every container. Whoever asks for many goes through the folder, which may have thousands, once.
    pub fn by_container(&self) -> BTreeMap<ContainerId, Vec<PathBuf>> {
        let mut found = BTreeMap::<ContainerId, Vec<PathBuf>>::new();
        for file in fs::read_dir(&self.folder).into_iter().flatten().flatten().take(MOST_FILES) {
            let owner = File::open(file.path()).ok().and_then(parsed::<Owner>);
            let owner =
                owner.filter(|owner| owner.kind == KIND).and_then(|owner| ContainerId::new(owner.container_id).ok());
            if let Some(container) = owner {
                found.entry(container).or_default().push(file.path());
            }
        }
        found
    }

    /// What is readable of these files of `container`, by interface.
    pub fn of_files(files: &[PathBuf], container: &ContainerId) -> Vec<Entry> {
        let read = files.iter().filter_map(|file| read(File::open(file).ok()?));
        let mut entries: Vec<Entry> = read.filter(|entry| entry.container == *container).collect();
        entries.sort_by(|a, b| a.ifname.cmp(&b.ifname));
        entries
    }

    /// Every readable entry.
    pub fn all(&self) -> Vec<Entry> {
        self.entries(|_| true)
    }

    fn entries(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Entry> {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten().take(MOST_FILES);
        let wanted = files.filter(|file| is_wanted(&file.file_name().to_string_lossy()));
        let mut entries: Vec<Entry> = wanted.filter_map(|file| File::open(file.path()).ok()).filter_map(read).collect();
        entries.sort_by(|a, b| a.ifname.cmp(&b.ifname));
        entries
    }
}

/// A file's JSON.
fn parsed<T: for<'de> Deserialize<'de>>(file: File) -> Option<T> {
    let mut text = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// What fits of a file; `None` when it is no entry at all.
fn read(file: File) -> Option<Entry> {
    let written = parsed::<Written>(file).filter(|written| written.kind == KIND)?;
    let config = STANDARD.decode(written.config).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pairs = written.cni_args.unwrap_or_default();
    let is_pair = |(key, value): &&(String, String)| !format!("{key}{value}").contains([';', '\0']);
    let args: Vec<_> = pairs.iter().filter(is_pair).map(|(key, value)| format!("{key}={value}")).collect();
    let result = written.result.and_then(|value| {
        let version = value["cniVersion"].as_str().and_then(|text| Version::parse(text).ok());
        let result = CniResult::parse(value.to_string().as_bytes()).ok()?;
        Some((result, version.unwrap_or(Version::NEWEST)))
    });
    Some(Entry {
        network: NetworkName::new(written.network_name).ok()?,
        container: ContainerId::new(written.container_id).ok()?,
        ifname: IfName::new(written.if_name).ok()?,
        netns: NetnsPath::new(written.netns).ok(),
        config: config.filter(|text| !text.is_empty()),
        args: args.join(";"),
        capabilities: written.capability_args.unwrap_or_default(),
        result,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    fn entry() -> Entry {
        let result = r#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.5/24"}]}"#;
        Entry {
            network: NetworkName::new("lan").unwrap(),
            container: ContainerId::new("c-1").unwrap(),
            ifname: IfName::new("net1").unwrap(),
            netns: NetnsPath::new("/run/netns/x").ok(),
            config: Some(r#"{"name":"lan","type":"a"}"#.to_owned()),
            args: "IgnoreUnknown=true;K8S_POD_NAME=p".to_owned(),
            capabilities: RawObject::parse(br#"{"portMappings":[{"hostPort":80}]}"#).unwrap(),
            result: Some((CniResult::parse(result.as_bytes()).unwrap(), Version::V0_4_0)),
        }
    }

    fn results(name: &str) -> (PathBuf, Results) {
        let cni_dir = std::env::temp_dir().join(format!("multus-results-{}-{name}", std::process::id()));
        fs::create_dir_all(&cni_dir).unwrap();
        let results = Results::at(&cni_dir);
        (cni_dir, results)
    }

    #[test]
    fn an_entry_is_as_libcni_writes_it_and_comes_back() {
        let (cni_dir, results) = results("whole");
        let entry = entry();
        results.save(&entry).unwrap();
        let path = cni_dir.join("results/lan-c-1-net1");
        let text = fs::read_to_string(&path).unwrap();
        let wanted = r#"{"kind":"cniCacheV1","containerId":"c-1","config":"eyJuYW1lIjoibGFuIiwidHlwZSI6ImEifQ==","ifName":"net1","networkName":"lan","netns":"/run/netns/x","cniArgs":[["IgnoreUnknown","true"],["K8S_POD_NAME","p"]],"capabilityArgs":{"portMappings":[{"hostPort":80}]},"result":{"cniVersion":"0.4.0","dns":{},"ips":[{"address":"10.0.0.5/24","version":"4"}]}}"#;
        assert_eq!(text, wanted);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(cni_dir.join("results")).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(results.of(&entry.container), std::slice::from_ref(&entry));
        assert!(results.has(&entry.container) && !results.has(&ContainerId::new("c-2").unwrap()));
        results.remove("lan", &entry.container, &entry.ifname).unwrap();
        results.remove("lan", &entry.container, &entry.ifname).unwrap();
        results.remove("../x", &entry.container, &entry.ifname).unwrap();
        assert_eq!(results.all(), []);
        fs::remove_dir_all(cni_dir).unwrap();
    }

    #[test]
    fn what_is_no_entry_is_left_out() {
        let (cni_dir, results) = results("odd");
        let entry = entry();
        results.save(&entry).unwrap();
        let path = cni_dir.join("results/lan-c-1-net1");
        let whole = fs::read_to_string(&path).unwrap();
        for (what, text) in [
            ("torn", whole[..whole.len() / 2].to_owned()),
            ("empty", String::new()),
            ("a list", "[]".to_owned()),
            ("another kind", whole.replace("cniCacheV1", "x")),
            ("a path for a name", whole.replace(r#""networkName":"lan""#, r#""networkName":"../lan""#)),
            ("a number for a name", whole.replace(r#""ifName":"net1""#, r#""ifName":7"#)),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(results.all(), [], "{what}");
        }
        fs::write(&path, whole.replace("eyJ", "***").replace("IgnoreUnknown", "X;Y")).unwrap();
        let read = results.all();
        assert_eq!((read[0].config.as_deref(), read[0].args.as_str()), (None, "K8S_POD_NAME=p"));
        fs::remove_dir_all(cni_dir).unwrap();
    }
}
