//! Where does this node's container runtime look for CNI configurations and plugins? Decided from what was seen of the
//! host's files; what the operator says goes before.
//!
//! Reads nothing itself.

mod presets;
mod rancher;
mod runtime;
mod toml;

use serde::Serialize;

use crate::fault::escape;
pub use presets::Preset;
use runtime::Told;
pub use runtime::imports;

/// Files whose text the decision may need, as paths of the host. A `*` stands for every file of its folder with that
/// ending. A later file says what an earlier one of the same runtime does not.
pub const FILES: [&str; 21] = [
    "/etc/os-release",
    "/var/lib/kubelet/kubeadm-flags.env",
    "/etc/rancher/k3s/config.yaml",
    "/etc/rancher/k3s/config.yaml.d/*.yaml",
    "/etc/rancher/rke2/config.yaml",
    "/etc/rancher/rke2/config.yaml.d/*.yaml",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "/var/snap/microk8s/current/args/containerd.toml",
    "/etc/k0s/containerd.toml",
    "/etc/k0s/containerd.d/*.toml",
    "/run/k0s/containerd-cri.toml",
    "/etc/cri/containerd.toml",
    "/etc/cri/conf.d/*.toml",
    "/etc/cri/conf.d/*.part",
    "/usr/etc/containerd/config.toml",
    "/etc/containerd/config.toml",
    "/usr/share/containers/crio.conf",
    "/etc/crio/crio.conf",
    "/usr/lib/crio/crio.conf.d/*.conf",
    "/etc/crio/crio.conf.d/*.conf",
];

/// What was seen of a host.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Texts of [`FILES`] that are there, of [`more_files`], and of what `imports` name, in that order.
    pub files: Vec<(String, String)>,
    /// Those of [`marks`] that are there.
    pub folders: Vec<String>,
    /// Those of [`plugin_dirs`] that hold plugins.
    pub equipped: Vec<String>,
    /// Folders that hold CNI configurations of others.
    pub configured: Vec<String>,
}

/// What the operator says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// A distribution by name.
    pub preset: Option<Preset>,
    /// The folder of CNI configurations.
    pub conf_dir: Option<String>,
    /// The folder of plugins.
    pub bin_dir: Option<String>,
}

/// One folder, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The folder, as a path of the host.
    pub path: String,
    /// Who says so.
    pub because: String,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Places {
    /// The distribution that was recognised.
    pub recognised: Option<Preset>,
    /// Where the runtime's conf goes.
    pub conf_dir: Place,
    /// Where the plugin goes.
    pub bin_dir: Place,
    /// What does not fit together, as sentences.
    pub doubts: Vec<String>,
    /// The folder that a configured one probably is on the host, where that has another name.
    #[serde(skip)]
    pub elsewhere: Option<Elsewhere>,
}

/// Another folder than the one that is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The folder, as a path of the host.
    pub path: String,
    /// The runtime's own configuration says so; else it is only that networks have their configuration there.
    pub is_said: bool,
}

impl Facts {
    fn text(&self, path: &str) -> &str {
        self.files.iter().find(|(file, _)| file == path).map_or("", |(_, text)| text.as_str())
    }

    fn has(&self, folder: &str) -> bool {
        self.folders.iter().any(|seen| seen == folder)
    }
}

/// Every folder in which CNI configurations may lie on some distribution.
pub fn conf_dirs() -> Vec<&'static str> {
    let mut dirs: Vec<&str> = Preset::ALL.into_iter().map(Preset::conf_dir).collect();
    dirs.sort_unstable();
    dirs.dedup();
    dirs
}

/// Files that are named by what was read of [`FILES`].
pub fn more_files(facts: &Facts) -> Vec<String> {
    rancher::files(facts)
}

/// Folders whose existence tells distributions apart, by what was read.
pub fn marks(facts: &Facts) -> Vec<String> {
    Preset::marks().into_iter().map(str::to_owned).chain(rancher::marks(facts)).collect()
}

/// The folders in which the runtime looks for plugins, by what was read and seen.
pub fn plugin_dirs(facts: &Facts, wishes: &Wishes) -> Vec<String> {
    let told = runtime::told(facts, runtime_of(wishes, presets::recognise(facts)));
    told.bin_dirs.into_iter().map(|place| place.path).collect()
}

/// Whose runtime it is. CRI-O is one itself, whatever the operator says of the folders.
fn runtime_of(wishes: &Wishes, recognised: Option<Preset>) -> Option<Preset> {
    recognised.filter(|seen| *seen == Preset::CriO).or(wishes.preset).or(recognised)
}

/// The folders for this host: what the operator says, else what the runtime's configuration says, else what is known of
/// the distribution, else where configurations are, else the usual ones.
pub fn places(facts: &Facts, wishes: &Wishes) -> Places {
    let recognised = presets::recognise(facts);
    let told = runtime::told(facts, runtime_of(wishes, recognised));
    let place = |path: &str, because: String| Place { path: path.to_owned(), because };
    let written = |path: &Option<String>| path.as_deref().map(|path| place(path, "it is configured".to_owned()));
    let preset = |of: fn(Preset) -> &'static str| {
        wishes.preset.map(|preset| place(of(preset), format!("of preset {}", preset.as_str())))
    };
    let known = |of: fn(Preset) -> &'static str| {
        let path = |distribution| rancher::moved(facts, distribution, of(distribution));
        let because = |distribution: Preset| format!("{} has it there", distribution.as_str());
        recognised.map(|distribution| place(&path(distribution), because(distribution)))
    };
    let usual = "it is the usual one, and nothing says otherwise".to_owned();
    let conf_dir = written(&wishes.conf_dir)
        .or_else(|| preset(Preset::conf_dir))
        .or_else(|| told.conf_dir.clone())
        .or_else(|| known(Preset::conf_dir))
        .or_else(|| only_configured(facts))
        .unwrap_or_else(|| place(Preset::Kubeadm.conf_dir(), usual.clone()));
    // CRI-O is no distribution: where its plugins are is its configuration's alone.
    let known_bin_dir = || known(Preset::bin_dir).filter(|_| recognised != Some(Preset::CriO));
    let bin_dir = written(&wishes.bin_dir)
        .or_else(|| preset(Preset::bin_dir))
        .or_else(|| known_bin_dir().filter(|known| told.looks_in(&known.path)))
        .or_else(|| told.bin_dir(facts).cloned())
        .or_else(known_bin_dir)
        .unwrap_or_else(|| place(Preset::Kubeadm.bin_dir(), usual));
    let likely = [told.conf_dir.as_ref().map(|told| told.path.as_str()), recognised.map(Preset::conf_dir)];
    let elsewhere = wishes.conf_dir.as_deref().and_then(|ours| elsewhere(facts, ours, likely));
    let doubts = doubts(facts, wishes, (recognised, &told), (&conf_dir, &bin_dir), elsewhere.as_ref());
    Places { recognised, conf_dir, bin_dir, doubts, elsewhere }
}

/// What does not fit together.
fn doubts(
    facts: &Facts,
    wishes: &Wishes,
    (recognised, told): (Option<Preset>, &Told),
    (conf_dir, bin_dir): (&Place, &Place),
    elsewhere: Option<&Elsewhere>,
) -> Vec<String> {
    let mut doubts = Vec::new();
    if let (Some(preset), Some(seen)) = (wishes.preset, recognised)
        && (preset.conf_dir(), preset.bin_dir()) != (seen.conf_dir(), seen.bin_dir())
        && !(seen == Preset::CriO && told.looks_in(preset.bin_dir()))
    {
        doubts.push(format!("preset {} is configured, and this host looks like {}", preset.as_str(), seen.as_str()));
    }
    if let Some(told) = told.conf_dir.as_ref().filter(|told| told.path != conf_dir.path) {
        let (path, because) = (shown(&told.path), &told.because);
        doubts.push(format!("the conf goes to {}, and the runtime reads {path} ({because})", shown(&conf_dir.path)));
    } else if !facts.configured.contains(&conf_dir.path)
        && let Some(other) = elsewhere.map(|other| &other.path).or(facts.configured.first())
    {
        let (ours, other) = (shown(&conf_dir.path), shown(other));
        doubts.push(format!("no cluster network has a configuration in {ours}, and {other} has some"));
    }
    if let Some(first) = told.bin_dirs.first().filter(|_| !told.looks_in(&bin_dir.path)) {
        let (ours, theirs) = (shown(&bin_dir.path), shown(&first.path));
        doubts.push(format!("the plugin goes to {ours}, and the runtime looks in {theirs} ({})", first.because));
    }
    if wishes.conf_dir.is_none() || wishes.bin_dir.is_none() {
        let unclear = |path: &String| {
            format!("{path} says something about CNI folders that is not understood here: look whether these are right")
        };
        doubts.extend(told.unclear.iter().map(unclear));
        doubts.extend(rancher::doubts(facts));
    }
    doubts
}

/// Where the runtime reads instead of `ours`, as far as can be seen: it says so itself, or only there are networks. `likely`:
/// the folder that it says, and the distribution's.
fn elsewhere(facts: &Facts, ours: &str, likely: [Option<&str>; 2]) -> Option<Elsewhere> {
    let bare = |path: &str| path.trim_end_matches('/').to_owned();
    let is_configured = |path: &str| facts.configured.iter().any(|seen| bare(seen) == bare(path));
    let is_ours = |path: &str| bare(path) == bare(ours);
    let [told, known] = likely;
    if let Some(told) = told.filter(|told| is_ours(told) || is_configured(told) || !is_configured(ours)) {
        return (!is_ours(told)).then(|| Elsewhere { path: told.to_owned(), is_said: true });
    }
    let known = known.filter(|known| is_configured(known)).or(facts.configured.first().map(String::as_str));
    known.filter(|_| !is_configured(ours)).map(|known| Elsewhere { path: known.to_owned(), is_said: false })
}

/// A folder as sentences have it: whole.
fn shown(path: &str) -> String {
    format!("\"{}\"", escape(path))
}

/// The one folder that holds CNI configurations, if it is only one.
fn only_configured(facts: &Facts) -> Option<Place> {
    match facts.configured.as_slice() {
        [only] => {
            Some(Place { path: only.clone(), because: "the cluster's network has its configuration there".into() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CNI_V2: &str =
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"BIN\"\n  conf_dir = \"CONF\"\n";
    const CNI_V3: &str =
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = ['BIN']\n  conf_dir = 'CONF'\n";

    fn toml(form: &str, conf: &str, bin: &str) -> String {
        form.replace("BIN", bin).replace("CONF", conf)
    }

    fn facts(folders: &[&str], files: &[(&str, &str)], configured: &[&str]) -> Facts {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Facts { files, folders: own(folders), configured: own(configured), equipped: Vec::new() }
    }

    const K3S: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";
    const K3S_CONF: &str = "/var/lib/rancher/k3s/agent/etc/cni/net.d";
    const USUAL: (&str, &str) = ("/etc/cni/net.d", "/opt/cni/bin");

    #[test]
    fn each_distribution_is_recognised_by_what_it_leaves_on_the_host() {
        let k3s_new = toml(CNI_V2, K3S_CONF, "/var/lib/rancher/k3s/data/cni");
        let k3s_old = toml(CNI_V2, K3S_CONF, "/var/lib/rancher/k3s/data/abc/bin");
        let rke2 = toml(CNI_V3, "/etc/cni/net.d", "/opt/cni/bin");
        let snap = toml(CNI_V2, "${SNAP_DATA}/args/cni-network", "${SNAP_DATA}/opt/cni/bin");
        let talos_var = toml(CNI_V3, "/var/lib/cni/conf.d", "/var/lib/cni/bin");
        let gke = toml(CNI_V2, "/etc/cni/net.d", "/home/kubernetes/bin");
        let crio =
            "[crio.network]\nnetwork_dir = \"/etc/cni/net.d/\"\nplugin_dirs = [\n  \"/usr/libexec/cni\", # theirs\n]\n";
        let openshift = "[crio.network]\nnetwork_dir = \"/etc/kubernetes/cni/net.d/\"\nplugin_dirs = [ \"/var/lib/cni/bin\", \"/usr/libexec/cni\" ]\n";
        let table: &[(Facts, Option<Preset>, (&str, &str))] = &[
            (facts(&[], &[], &[]), None, USUAL),
            (
                facts(&["/var/lib/rancher/k3s", "/var/lib/rancher/k3s/data/cni"], &[(K3S, &k3s_new)], &[K3S_CONF]),
                Some(Preset::K3s),
                (K3S_CONF, "/var/lib/rancher/k3s/data/cni"),
            ),
            (
                facts(&["/var/lib/rancher/k3s"], &[(K3S, &k3s_old)], &[K3S_CONF]),
                Some(Preset::K3sOld),
                (K3S_CONF, "/var/lib/rancher/k3s/data/current/bin"),
            ),
            (
                facts(
                    &["/var/lib/rancher/rke2"],
                    &[("/var/lib/rancher/rke2/agent/etc/containerd/config.toml", &rke2)],
                    &["/etc/cni/net.d"],
                ),
                Some(Preset::Rke2),
                USUAL,
            ),
            (
                facts(
                    &["/var/snap/microk8s/current"],
                    &[("/var/snap/microk8s/current/args/containerd.toml", &snap)],
                    &[],
                ),
                Some(Preset::Microk8s),
                ("/var/snap/microk8s/current/args/cni-network", "/var/snap/microk8s/current/opt/cni/bin"),
            ),
            (facts(&[], &[("/etc/os-release", "NAME=\"Talos\"\nID=talos\n")], &[]), Some(Preset::Talos), USUAL),
            (
                facts(
                    &[],
                    &[("/etc/os-release", "ID=talos"), ("/etc/cri/conf.d/cri.toml", &talos_var)],
                    &["/var/lib/cni/conf.d"],
                ),
                Some(Preset::TalosVar),
                ("/var/lib/cni/conf.d", "/var/lib/cni/bin"),
            ),
            (facts(&["/var/lib/k0s"], &[], &[]), Some(Preset::K0s), USUAL),
            (facts(&["/kind"], &[], &[]), Some(Preset::Kind), USUAL),
            (
                facts(
                    &["/home/kubernetes/bin"],
                    &[("/etc/os-release", "ID=cos"), ("/etc/containerd/config.toml", &gke)],
                    &[],
                ),
                Some(Preset::Gke),
                ("/etc/cni/net.d", "/home/kubernetes/bin"),
            ),
            (
                facts(
                    &["/etc/kubernetes/cni/net.d"],
                    &[("/etc/os-release", "ID=rhcos"), ("/etc/crio/crio.conf.d/00-default.conf", openshift)],
                    &[],
                ),
                Some(Preset::Openshift),
                ("/etc/kubernetes/cni/net.d", "/var/lib/cni/bin"),
            ),
            (
                facts(&[], &[("/etc/crio/crio.conf", crio)], &[]),
                Some(Preset::CriO),
                ("/etc/cni/net.d", "/usr/libexec/cni"),
            ),
            (
                facts(&[], &[("/etc/containerd/config.toml", &toml(CNI_V2, "/opt/cni/net.d", "/usr/lib/cni"))], &[]),
                None,
                ("/opt/cni/net.d", "/usr/lib/cni"),
            ),
            // A flannel that writes its file elsewhere, and a runtime that says nothing.
            (facts(&[], &[], &["/etc/kubernetes/cni/net.d"]), None, ("/etc/kubernetes/cni/net.d", "/opt/cni/bin")),
        ];
        for (facts, recognised, (conf, bin)) in table {
            let found = places(facts, &Wishes::default());
            let paths = (found.conf_dir.path.as_str(), found.bin_dir.path.as_str());
            assert_eq!((found.recognised, paths), (*recognised, (*conf, *bin)), "{facts:#?}\n{found:#?}");
            assert!(found.doubts.is_empty(), "{:?}", found.doubts);
        }
    }

    #[test]
    fn crio_looks_in_its_own_folder_unless_it_is_told_otherwise() {
        let flags = (
            "/var/lib/kubelet/kubeadm-flags.env",
            "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///var/run/crio/crio.sock\"",
        );
        let says = |dirs: &str| format!("[crio.network]\nplugin_dirs = [{dirs}]\n");
        let (both, other) = (says("\"/usr/libexec/cni/\", \"/opt/cni/bin/\""), says("'/srv/a', '/srv/b'"));
        let conf = "/etc/crio/crio.conf.d/10-crio.conf";
        for (files, equipped, bin) in [
            (vec![flags], vec![], "/opt/cni/bin"),
            (vec![flags, (conf, "[crio.runtime]\ndefault_runtime = \"crun\"\n")], vec![], "/opt/cni/bin"),
            (vec![flags, (conf, both.as_str())], vec!["/opt/cni/bin"], "/opt/cni/bin"),
            (vec![flags, (conf, both.as_str())], vec!["/usr/libexec/cni", "/opt/cni/bin"], "/usr/libexec/cni"),
            (vec![flags, (conf, other.as_str())], vec![], "/srv/a"),
        ] {
            let equipped = equipped.into_iter().map(str::to_owned).collect();
            let host = Facts { equipped, ..facts(&[], &files, &["/etc/cni/net.d"]) };
            let found = places(&host, &Wishes::default());
            assert_eq!((found.recognised, found.bin_dir.path.as_str()), (Some(Preset::CriO), bin), "{host:#?}");
            assert!(found.doubts.is_empty(), "{:?}", found.doubts);
        }
        let preset = |preset| places(&facts(&[], &[flags], &[]), &Wishes { preset: Some(preset), ..Wishes::default() });
        assert!(preset(Preset::Kubeadm).doubts.is_empty(), "its folders are CRI-O's own");
        let theirs = preset(Preset::CriO).doubts;
        assert!(theirs.len() == 1 && theirs[0].contains("looks in \"/opt/cni/bin\""), "{theirs:?}");
    }

    #[test]
    fn data_of_k3s_and_rke2_are_where_their_configuration_says() {
        let config = ("/etc/rancher/k3s/config.yaml", "data-dir: /mnt/k3s\n");
        let (moved, plugins) = ("/mnt/k3s/agent/etc/cni/net.d", "/mnt/k3s/data/cni");
        let text = toml(CNI_V3, moved, plugins);
        let runtimes = ("/mnt/k3s/agent/etc/containerd/config.toml", text.as_str());
        let old = toml(CNI_V2, moved, "/mnt/k3s/data/abc/bin");
        let olds = ("/mnt/k3s/agent/etc/containerd/config.toml", old.as_str());
        let rke2 = ("/etc/rancher/rke2/config.yaml", "data-dir: \"/mnt/rke2\"\n");
        let text = toml(CNI_V3, "/etc/cni/net.d", "/opt/cni/bin");
        let rke2s = ("/mnt/rke2/agent/etc/containerd/config.toml", text.as_str());
        for (folders, files, configured, recognised, dirs) in [
            (vec!["/mnt/k3s", plugins], vec![config, runtimes], moved, Preset::K3s, (moved, plugins)),
            (vec!["/mnt/k3s", plugins], vec![config], moved, Preset::K3s, (moved, plugins)),
            (vec!["/mnt/k3s"], vec![config, olds], moved, Preset::K3sOld, (moved, "/mnt/k3s/data/current/bin")),
            (vec!["/mnt/rke2"], vec![rke2, rke2s], "/etc/cni/net.d", Preset::Rke2, USUAL),
        ] {
            let host = facts(&folders, &files, &[configured]);
            let found = places(&host, &Wishes::default());
            let paths = (found.conf_dir.path.as_str(), found.bin_dir.path.as_str());
            assert_eq!((found.recognised, paths), (Some(recognised), dirs), "{found:#?}");
            assert!(found.doubts.is_empty(), "{:?}", found.doubts);
        }
        assert!(more_files(&facts(&[], &[config], &[])).contains(&runtimes.0.to_owned()));
        assert!(marks(&facts(&[], &[config], &[])).contains(&plugins.to_owned()));
    }

    #[test]
    fn what_the_operator_says_goes_before_and_doubts_are_told() {
        let text = toml(CNI_V2, K3S_CONF, "/var/lib/rancher/k3s/data/cni");
        let host = facts(&["/var/lib/rancher/k3s", "/var/lib/rancher/k3s/data/cni"], &[(K3S, &text)], &[K3S_CONF]);
        let preset = places(&host, &Wishes { preset: Some(Preset::Kubeadm), ..Wishes::default() });
        assert_eq!((preset.conf_dir.path.as_str(), preset.bin_dir.path.as_str()), USUAL);
        assert!(preset.doubts[0].contains("preset kubeadm") && preset.doubts[0].contains("k3s"), "{:?}", preset.doubts);
        let explicit =
            Wishes { preset: Some(Preset::Kubeadm), conf_dir: Some(K3S_CONF.into()), bin_dir: Some("/x".into()) };
        let explicit = places(&host, &explicit);
        assert_eq!((explicit.conf_dir.path.as_str(), explicit.bin_dir.path.as_str()), (K3S_CONF, "/x"));
        let far = places(&facts(&[], &[], &["/a", "/b"]), &Wishes::default());
        assert_eq!(far.conf_dir.path, "/etc/cni/net.d");
        assert!(far.doubts[0].contains("\"/a\" has some"), "{:?}", far.doubts);
    }

    #[test]
    fn a_configured_folder_is_another_one_where_the_runtime_or_the_networks_say_so() {
        let text = toml(CNI_V2, K3S_CONF, "/var/lib/rancher/k3s/data/cni");
        let says: &[(&str, &str)] = &[(K3S, &text)];
        let k3s = "/var/lib/rancher/k3s";
        // What the file says, whether the runtime says something, where networks are, and where it is then.
        let table: [(&str, bool, &[&str], Option<&str>); 9] = [
            ("/etc/cni/net.d", true, &[K3S_CONF], Some(K3S_CONF)),
            ("/etc/cni/net.d", false, &["/a", K3S_CONF], Some(K3S_CONF)),
            ("/etc/cni/net.d", false, &["/a", "/b"], Some("/a")),
            // What podman left there is no network of the cluster.
            ("/etc/cni/net.d", true, &["/etc/cni/net.d", K3S_CONF], Some(K3S_CONF)),
            ("/etc/cni/net.d", false, &["/etc/cni/net.d", K3S_CONF], None),
            ("/etc/cni/net.d", true, &["/etc/cni/net.d"], None),
            ("/etc/cni/net.d", false, &[], None),
            (K3S_CONF, true, &["/etc/cni/net.d"], None),
            (K3S_CONF, true, &[K3S_CONF, "/etc/cni/net.d"], None),
        ];
        for (ours, is_said, configured, wanted) in table {
            for ours in [ours.to_owned(), format!("{ours}/")] {
                let wishes = Wishes { conf_dir: Some(ours.clone()), ..Wishes::default() };
                let found = places(&facts(&[k3s], if is_said { says } else { &[] }, configured), &wishes);
                let path = found.elsewhere.as_ref().map(|other| other.path.as_str());
                assert_eq!(path, wanted, "{ours} {configured:?}");
                assert!(found.elsewhere.is_none_or(|other| other.is_said == is_said));
            }
        }
        assert_eq!(places(&facts(&[k3s], &[], &["/a", "/b"]), &Wishes::default()).elsewhere, None);
    }

    #[test]
    fn every_preset_has_a_name_of_its_own() {
        for preset in Preset::ALL {
            assert_eq!(Preset::named(preset.as_str()), Some(preset));
        }
        assert_eq!(Preset::named("rancher"), None);
    }
}
