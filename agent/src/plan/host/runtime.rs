//! What do the configurations of containerd and CRI-O say about CNI folders?
//!
//! What is not understood is passed over, and told: a folder that nobody names is found in other ways.

use super::toml::{self, Entry};
use super::{Facts, Place, Preset, rancher};

/// CRI-O's own folder of plugins (`crio.conf(5)`).
const CRIO_PLUGINS: &str = "/opt/cni/bin";

/// What a runtime's own configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Where it reads configurations.
    pub(super) conf_dir: Option<Place>,
    /// Where it looks for plugins, in that order.
    pub(super) bin_dirs: Vec<Place>,
    /// Files that say something about CNI folders which is not understood.
    pub(super) unclear: Vec<String>,
}

impl Told {
    /// Does the runtime find what lies in `folder`? K3s names the folder that its link leads to.
    pub(super) fn looks_in(&self, folder: &str) -> bool {
        let data = folder.strip_suffix("current/bin").filter(|data| data.ends_with("/data/"));
        let is_behind_link = |path: &str| data.is_some_and(|data| path.starts_with(data) && path.ends_with("/bin"));
        self.bin_dirs.iter().any(|dir| dir.path == folder || is_behind_link(&dir.path))
    }

    /// The first folder that holds plugins, else the first.
    pub(super) fn bin_dir(&self, facts: &Facts) -> Option<&Place> {
        let is_equipped = |place: &&Place| facts.equipped.contains(&place.path);
        self.bin_dirs.iter().find(is_equipped).or(self.bin_dirs.first())
    }
}

/// Where `imports` of a containerd configuration lead: paths, perhaps with a `*`. A relative one is beside `path`.
pub fn imports(path: &str, text: &str) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let whole = |import: String| if import.starts_with('/') { import } else { format!("{folder}/{import}") };
    let is_import = |entry: &Entry| entry.table.is_empty() && entry.key == "imports";
    toml::entries(text).into_iter().filter(is_import).flat_map(|entry| entry.values).map(whole).collect()
}

/// What the files say that belong to this distribution's runtime.
pub(super) fn told(facts: &Facts, distribution: Option<Preset>) -> Told {
    let mut told = Told::default();
    for (path, text) in facts.files.iter().filter(|(path, _)| is_of(facts, path, distribution)) {
        let place = |value: &String| {
            let value = value.replace("${SNAP_DATA}", "/var/snap/microk8s/current");
            let path_of = if value.len() > 1 { value.trim_end_matches('/') } else { &value };
            let is_whole = path_of.starts_with('/') && !path_of.contains('$');
            is_whole.then(|| Place { path: path_of.to_owned(), because: format!("says {path}") })
        };
        let (mut is_told, mut is_clear) = (false, true);
        for entry in toml::entries(text).into_iter().filter(is_about_cni) {
            let places: Vec<Place> = entry.values.iter().filter_map(place).collect();
            is_told = true;
            match entry.key.as_str() {
                // Newer versions write an older key down, and leave it empty.
                _ if entry.values == [""] => {}
                _ if places.is_empty() => is_clear = false,
                "conf_dir" | "network_dir" => told.conf_dir = places.into_iter().next(),
                // The older key adds to the list.
                "plugin_dir" => told.bin_dirs.extend(places),
                // A later file replaces the list.
                _ => told.bin_dirs = places,
            }
        }
        is_clear &= is_told || !mentions_folders(text);
        if !is_clear {
            told.unclear.push(path.clone());
        }
    }
    if distribution == Some(Preset::CriO) && told.bin_dirs.is_empty() {
        let because = "CRI-O looks there unless it is told otherwise".to_owned();
        told.bin_dirs.push(Place { path: CRIO_PLUGINS.to_owned(), because });
    }
    told
}

/// Is there one of the words that name CNI folders?
fn mentions_folders(text: &str) -> bool {
    let is_word = |word: &str| matches!(word, "conf_dir" | "bin_dir" | "bin_dirs" | "network_dir" | "plugin_dirs");
    let words = |line: &'_ str| {
        let line = toml::without_comment(line);
        line.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-')).any(is_word)
    };
    text.lines().any(words)
}

fn is_of(facts: &Facts, path: &str, distribution: Option<Preset>) -> bool {
    let begins = |begins: &[&str]| begins.iter().any(|begin| path.starts_with(begin));
    let agents = |of: rancher::Of| format!("{}/agent/", rancher::data_dir(facts, of).unwrap_or(of.usual()));
    match distribution {
        Some(Preset::K3s | Preset::K3sOld) => begins(&[&agents(rancher::Of::K3s)]),
        Some(Preset::Rke2) => begins(&[&agents(rancher::Of::Rke2)]),
        Some(Preset::Microk8s) => begins(&["/var/snap/microk8s/"]),
        Some(Preset::K0s) => path.contains("/k0s/"),
        Some(Preset::Talos | Preset::TalosVar) => begins(&["/etc/cri/"]),
        Some(Preset::CriO | Preset::Openshift) => path.contains("/crio"),
        _ => !path.contains("/crio") && !begins(&["/var/lib/", "/var/snap/", "/etc/cri/"]) && !path.contains("/k0s/"),
    }
}

/// containerd: `plugins.<its CRI plugin>.cni`, whatever version that is of; CRI-O: `crio.network`.
fn is_about_cni(entry: &Entry) -> bool {
    let table: Vec<&str> = entry.table.iter().map(String::as_str).collect();
    let (is_containerd, is_crio) = match table.as_slice() {
        ["plugins", plugin, "cni"] => (plugin.contains("cri"), false),
        ["crio", "network"] => (false, true),
        _ => (false, false),
    };
    match entry.key.as_str() {
        "conf_dir" | "bin_dir" | "bin_dirs" => is_containerd,
        "network_dir" | "plugin_dirs" | "plugin_dir" => is_crio,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_by(path: &str, text: &str) -> (Option<String>, Vec<String>) {
        let facts = Facts { files: vec![(path.into(), text.into())], ..Facts::default() };
        let told = told(&facts, path.contains("crio").then_some(Preset::CriO));
        (told.conf_dir.map(|place| place.path), told.bin_dirs.into_iter().map(|place| place.path).collect())
    }

    #[test]
    fn each_version_of_containerd_says_it_in_its_own_way() {
        let wanted = (Some("/c".to_owned()), vec!["/b".to_owned()]);
        for text in [
            "[plugins.cri.cni]\nbin_dir = \"/b\"\nconf_dir = \"/c\"",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox = 'x'\n [plugins.\"io.containerd.grpc.v1.cri\".cni]\n bin_dir='/b' # here\n conf_dir = '/c/'",
            "version=3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dir = ''\nbin_dirs = [\n  '/b', # a\n]\nconf_dir = \"/c\"",
            "[plugins.\"io.containerd.grpc.v1.cri\"]\ncni.bin_dir = \"/b\"\ncni.conf_dir = \"/c\"",
            "[plugins.\"io.containerd.grpc.v1.cri\"]\n  cni = { bin_dir = \"/b\", conf_dir = '/c/' }",
            "[plugins]\n\"io.containerd.cri.v1.runtime\" = { x = 1, cni = { bin_dirs = ['/b'], bin_dir = '', conf_dir = '/c' } }",
        ] {
            assert_eq!(told_by("/etc/containerd/config.toml", text), wanted, "{text}");
        }
        let text = "[crio.network]\nnetwork_dir = \"/c\"\nplugin_dirs = [\n\t\"/b\",\n\t\"/b2\",\n]";
        assert_eq!(told_by("/etc/crio/crio.conf", text).1, ["/b", "/b2"]);
        assert_eq!(told_by("/etc/crio/crio.conf", "[crio.network]\nplugin_dir = '/b'\n").1, ["/b"]);
        assert_eq!(told_by("/etc/crio/crio.conf", "[crio.runtime]\nx = 1\n").1, [CRIO_PLUGINS], "its own");
        for odd in [
            "",
            "[",
            "[[x]]\n=",
            "conf_dir = \"/c\"",
            "[plugins.cri.cni]\nconf_dir = \"rel\"\nbin_dirs = [",
            "= = \"\"",
        ] {
            assert_eq!(told_by("/etc/containerd/config.toml", odd), (None, Vec::new()), "{odd}");
        }
    }

    #[test]
    fn what_is_said_and_not_understood_is_told() {
        for (text, is_clear) in [
            ("", true),
            ("# conf_dir and bin_dir are the usual ones\nplugin_dir = ''\n", true),
            ("[plugins.cri.cni]\nbin_dir = ''\nconf_dir = '/c'", true),
            ("[plugins.cri.cni]\nbin_dir = 'rel'\nconf_dir = '/c'", false),
            ("[plugins.cri.cni]\nconf_dir = \"$X/c\"", false),
            ("[plugins.cri.cni]\nconf_dir = x", false),
            ("[plugins.cri]\nnetworks = { conf_dir = '/c' }", false),
        ] {
            let path = "/etc/containerd/config.toml".to_owned();
            let facts = Facts { files: vec![(path.clone(), text.into())], ..Facts::default() };
            let wanted = if is_clear { vec![] } else { vec![path] };
            assert_eq!(told(&facts, None).unclear, wanted, "{text}");
        }
    }

    #[test]
    fn imports_are_read_of_the_top_alone_and_relative_ones_are_beside_the_file() {
        let text =
            "imports = [\"/etc/containerd/conf.d/*.toml\", '/x#y.toml', 'conf.d/*.toml']\n[a]\nimports = ['/no']\n";
        let wanted = ["/etc/containerd/conf.d/*.toml", "/x#y.toml", "/srv/c/conf.d/*.toml"];
        assert_eq!(imports("/srv/c/config.toml", text), wanted);
    }
}
