//! The distributions: where each has its folders, and by what it is known.
//!
//! The same folders are in `deploy/kustomize/overlays`; a test keeps them equal.

use serde::{Serialize, Serializer};

use super::{Facts, rancher};

/// A distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the distributions' own names")]
pub enum Preset {
    Kubeadm,
    Kind,
    K3s,
    /// Before 1.28.15, 1.29.10, 1.30.6 and 1.31.2.
    K3sOld,
    Rke2,
    Talos,
    /// With its CNI folders below `/var/lib/cni`.
    TalosVar,
    Microk8s,
    K0s,
    CriO,
    Openshift,
    Gke,
    Eks,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Kubeadm,
        Self::Kind,
        Self::K3s,
        Self::K3sOld,
        Self::Rke2,
        Self::Talos,
        Self::TalosVar,
        Self::Microk8s,
        Self::K0s,
        Self::CriO,
        Self::Openshift,
        Self::Gke,
        Self::Eks,
    ];

    /// As the chart and the overlays name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kubeadm => "kubeadm",
            Self::Kind => "kind",
            Self::K3s => "k3s",
            Self::K3sOld => "k3s-old",
            Self::Rke2 => "rke2",
            Self::Talos => "talos",
            Self::TalosVar => "talos-var",
            Self::Microk8s => "microk8s",
            Self::K0s => "k0s",
            Self::CriO => "cri-o",
            Self::Openshift => "openshift",
            Self::Gke => "gke",
            Self::Eks => "eks",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.as_str() == name)
    }

    /// Where the runtime reads CNI configurations.
    pub fn conf_dir(self) -> &'static str {
        match self {
            Self::K3s | Self::K3sOld => "/var/lib/rancher/k3s/agent/etc/cni/net.d",
            Self::TalosVar => "/var/lib/cni/conf.d",
            Self::Microk8s => "/var/snap/microk8s/current/args/cni-network",
            Self::Openshift => "/etc/kubernetes/cni/net.d",
            _ => "/etc/cni/net.d",
        }
    }

    /// Where it finds plugins.
    pub fn bin_dir(self) -> &'static str {
        match self {
            Self::K3s => K3S_PLUGINS,
            Self::K3sOld => "/var/lib/rancher/k3s/data/current/bin",
            Self::TalosVar | Self::Openshift => "/var/lib/cni/bin",
            Self::Microk8s => "/var/snap/microk8s/current/opt/cni/bin",
            Self::CriO => "/usr/libexec/cni",
            Self::Gke => GKE_PLUGINS,
            _ => "/opt/cni/bin",
        }
    }

    /// Folders whose existence tells distributions apart.
    pub const fn marks() -> [&'static str; 8] {
        [K3S, K3S_PLUGINS, RKE2, MICROK8S, K0S, KIND, EKS, GKE_PLUGINS]
    }
}

impl Serialize for Preset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

const K3S: &str = "/var/lib/rancher/k3s";
/// What the patch releases of October 2024 brought: a folder that upgrades leave alone.
const K3S_PLUGINS: &str = "/var/lib/rancher/k3s/data/cni";
const RKE2: &str = "/var/lib/rancher/rke2";
const MICROK8S: &str = "/var/snap/microk8s/current";
const K0S: &str = "/var/lib/k0s";
const KIND: &str = "/kind";
const EKS: &str = "/etc/eks";
const GKE_PLUGINS: &str = "/home/kubernetes/bin";

/// The distribution that this host looks like.
pub(super) fn recognise(facts: &Facts) -> Option<Preset> {
    let os = os_id(facts.text("/etc/os-release"));
    let uses_crio = |(path, _): &(String, String)| path.contains("/crio");
    let runtime = facts.text("/var/lib/kubelet/kubeadm-flags.env");
    match os.as_str() {
        "talos" if has_var_layout(facts) => return Some(Preset::TalosVar),
        "talos" => return Some(Preset::Talos),
        "rhcos" | "scos" => return Some(Preset::Openshift),
        _ => {}
    }
    let data_dir = |of: rancher::Of| rancher::data_dir(facts, of).unwrap_or(of.usual());
    let (rke2, k3s) = (data_dir(rancher::Of::Rke2), data_dir(rancher::Of::K3s));
    let k3s_plugins = format!("{k3s}/data/cni");
    let marked = [
        (rke2, Preset::Rke2),
        (k3s_plugins.as_str(), Preset::K3s),
        (k3s, Preset::K3sOld),
        (MICROK8S, Preset::Microk8s),
        (K0S, Preset::K0s),
        (KIND, Preset::Kind),
        (EKS, Preset::Eks),
        (GKE_PLUGINS, Preset::Gke),
    ];
    let marked = marked.into_iter().find(|(folder, _)| facts.has(folder)).map(|(_, preset)| preset);
    let has_containerd = facts.files.iter().any(|(path, _)| path.contains("/containerd/"));
    let is_crio = runtime.contains("crio.sock")
        || (facts.files.iter().any(uses_crio) && !has_containerd && !runtime.contains("containerd.sock"));
    marked.or_else(|| is_crio.then_some(Preset::CriO))
}

/// Talos with the folders that machine configurations set which need them writable.
fn has_var_layout(facts: &Facts) -> bool {
    let says =
        |(path, text): &(String, String)| path.starts_with("/etc/cri/") && text.contains(Preset::TalosVar.conf_dir());
    facts.files.iter().any(says) || facts.configured.iter().any(|folder| folder == Preset::TalosVar.conf_dir())
}

/// `ID` of `os-release(5)`.
fn os_id(text: &str) -> String {
    let id = text.lines().find_map(|line| line.strip_prefix("ID="));
    id.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
}
