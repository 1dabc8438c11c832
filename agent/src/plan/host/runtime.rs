//! What do the configurations of containerd and CRI-O say about CNI folders? As much of TOML as that takes.
//!
//! What it does not understand it passes over: a folder that nobody names is found in other ways.

use super::{Facts, Place, Preset};

/// What a runtime's own configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Where it reads configurations.
    pub(super) conf_dir: Option<Place>,
    /// Where it looks for plugins, in that order.
    pub(super) bin_dirs: Vec<Place>,
}

impl Told {
    /// Does the runtime find what lies in `folder`? K3s names the folder that its link leads to.
    pub(super) fn looks_in(&self, folder: &str) -> bool {
        let behind_link = folder == Preset::K3sOld.bin_dir();
        self.bin_dirs.iter().any(|dir| {
            dir.path == folder
                || (behind_link && dir.path.starts_with("/var/lib/rancher/k3s/data/") && dir.path.ends_with("/bin"))
        })
    }
}

/// Where `imports` of a containerd configuration lead: paths, perhaps with a `*`.
pub fn imports(text: &str) -> Vec<String> {
    entries(text)
        .into_iter()
        .filter(|entry| entry.table.is_empty() && entry.key == "imports")
        .flat_map(|e| e.values)
        .collect()
}

/// What the files say that belong to this distribution's runtime.
pub(super) fn told(facts: &Facts, distribution: Option<Preset>) -> Told {
    let mut told = Told::default();
    for (path, text) in facts.files.iter().filter(|(path, _)| is_of(path, distribution)) {
        let place = |value: &String| {
            let value = value.replace("${SNAP_DATA}", "/var/snap/microk8s/current");
            let path_of = if value.len() > 1 { value.trim_end_matches('/') } else { &value };
            let is_whole = path_of.starts_with('/') && !path_of.contains('$');
            is_whole.then(|| Place { path: path_of.to_owned(), because: format!("says {path}") })
        };
        for entry in entries(text).into_iter().filter(Entry::is_about_cni) {
            let mut places = entry.values.iter().filter_map(place);
            match entry.key.as_str() {
                "conf_dir" | "network_dir" => told.conf_dir = places.next().or(told.conf_dir),
                // A later file replaces the list.
                _ => told.bin_dirs = places.collect(),
            }
        }
    }
    told
}

fn is_of(path: &str, distribution: Option<Preset>) -> bool {
    let begins = |begins: &[&str]| begins.iter().any(|begin| path.starts_with(begin));
    match distribution {
        Some(Preset::K3s | Preset::K3sOld) => begins(&["/var/lib/rancher/k3s/"]),
        Some(Preset::Rke2) => begins(&["/var/lib/rancher/rke2/"]),
        Some(Preset::Microk8s) => begins(&["/var/snap/microk8s/"]),
        Some(Preset::K0s) => path.contains("/k0s/"),
        Some(Preset::Talos | Preset::TalosVar) => begins(&["/etc/cri/"]),
        Some(Preset::CriO | Preset::Openshift) => path.contains("/crio"),
        _ => !path.contains("/crio") && !begins(&["/var/lib/", "/var/snap/", "/etc/cri/"]) && !path.contains("/k0s/"),
    }
}

/// One key with its values, and the table it stands in.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    table: Vec<String>,
    key: String,
    values: Vec<String>,
}

impl Entry {
    /// containerd: `plugins.<its CRI plugin>.cni`, whatever version that is of; CRI-O: `crio.network`.
    fn is_about_cni(&self) -> bool {
        let table: Vec<&str> = self.table.iter().map(String::as_str).collect();
        let (is_containerd, is_crio) = match table.as_slice() {
            ["plugins", plugin, "cni"] => (plugin.contains("cri"), false),
            ["crio", "network"] => (false, true),
            _ => (false, false),
        };
        match self.key.as_str() {
            "conf_dir" | "bin_dir" | "bin_dirs" => is_containerd,
            "network_dir" | "plugin_dirs" => is_crio,
            _ => false,
        }
    }
}

/// Every key whose value is a string or a list of strings.
fn entries(text: &str) -> Vec<Entry> {
    let (mut entries, mut table) = (Vec::new(), Vec::new());
    let mut lines = text.lines().map(without_comment);
    while let Some(line) = lines.next() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = parts(name.trim_matches(['[', ']']));
            continue;
        }
        let Some((key, value)) = split(line) else { continue };
        let mut value = value.trim().to_owned();
        while value.starts_with('[') && !value.ends_with(']') {
            let Some(more) = lines.next() else { break };
            value.push_str(more.trim());
        }
        let mut path = parts(key);
        let Some(key) = path.pop() else { continue };
        let table = table.iter().cloned().chain(path).collect();
        entries.push(Entry { table, key, values: strings(&value) });
    }
    entries
}

/// Key and value, at the first `=` outside quotes.
fn split(line: &str) -> Option<(&str, &str)> {
    let at = outside_quotes(line).find(|(_, c)| *c == '=').map(|(at, _)| at)?;
    Some((line.get(..at)?, line.get(at + 1..)?))
}

fn without_comment(line: &str) -> &str {
    let end = outside_quotes(line).find(|(_, c)| *c == '#').map_or(line.len(), |(at, _)| at);
    line.get(..end).unwrap_or(line)
}

/// The characters that are not in quotes, quotes themselves left out, with their places.
fn outside_quotes(line: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    line.char_indices().filter(move |(_, c)| match (quote, *c) {
        (None, '"' | '\'') => {
            quote = Some(*c);
            false
        }
        (None, _) => true,
        (Some(open), c) => {
            if c == open {
                quote = None;
            }
            false
        }
    })
}

/// The parts of a dotted name.
fn parts(name: &str) -> Vec<String> {
    let mut dots: Vec<usize> = outside_quotes(name).filter(|(_, c)| *c == '.').map(|(at, _)| at).collect();
    dots.push(name.len());
    let mut from = 0;
    dots.into_iter()
        .filter_map(|dot| {
            let part = name.get(from..dot);
            from = dot + 1;
            part.map(|part| part.trim().trim_matches(['"', '\'']).to_owned())
        })
        .collect()
}

/// The strings of a value: itself, or those of its list.
fn strings(value: &str) -> Vec<String> {
    let inner = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
    let texts = inner.split(',').map(str::trim);
    let unquote = |text: &str| {
        let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        Some(text.strip_prefix(quote)?.strip_suffix(quote)?.to_owned())
    };
    texts.filter_map(unquote).collect()
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
        ] {
            assert_eq!(told_by("/etc/containerd/config.toml", text), wanted, "{text}");
        }
        let text = "[crio.network]\nnetwork_dir = \"/c\"\nplugin_dirs = [\n\t\"/b\",\n\t\"/b2\",\n]";
        assert_eq!(told_by("/etc/crio/crio.conf", text).1, ["/b", "/b2"]);
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
    fn imports_are_read_of_the_top_alone() {
        let text = "imports = [\"/etc/containerd/conf.d/*.toml\", '/x#y.toml']\n[a]\nimports = ['/no']\n";
        assert_eq!(imports(text), ["/etc/containerd/conf.d/*.toml", "/x#y.toml"]);
    }
}
