//! What files tell about a node: kernel, CNI's folders, the plugin. For an agent and for the command line alike.

use std::path::{Path, PathBuf};

use crate::config::{DatapathMode, HostExec, Settings};
use crate::diagnosis::facts::{Conf, Confs, Facts, Install, Kernel, Layout, Wanted};
use crate::ops::install::{self as hosts, Place, Preset, Wishes};
use crate::ops::{cluster_network, runner};
use crate::plan::master::{self, Candidate};
use crate::sys::{mounts, survey};

/// What Cilium appends to configurations that it puts aside (`cni.exclusive`).
const PUT_ASIDE: &str = ".cilium_bak";
/// The socket's folder unless configured: Multus's and ours.
const USUAL_SOCKET: &str = "/run/multus/multus.sock";

/// Everything that can be seen without an agent's memory. Reads files, and starts the plugin for its version.
pub(super) fn facts(settings: &Settings) -> Facts {
    Facts { install: install(settings), ..rights(settings) }
}

/// The kernel, what this process may do there, and what is wanted of both. Reads files.
pub(super) fn rights(settings: &Settings) -> Facts {
    let mode = settings.datapath.mode;
    let folder = settings.datapath.bpffs.clone();
    let is_on_bpffs = mounts::is_on_bpffs(Path::new(&folder)).ok();
    Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: Kernel { release: survey::kernel_release(), btf: survey::has_btf(), bpffs: (folder, is_on_bpffs) },
        capabilities: survey::capabilities(),
        wanted: Wanted {
            datapath: mode != DatapathMode::Off,
            relay: mode == DatapathMode::Full,
            generated: settings.generator.on,
            host_exec: matches!(settings.host_exec, HostExec::Namespace(_)),
        },
        ..Facts::default()
    }
}

fn install(settings: &Settings) -> Install {
    let generator = &settings.generator;
    let conf_dir = generator.cni_config_dir.clone();
    let bin_dir = settings.delegation.bin_dir.clone().unwrap_or_else(|| "/opt/cni/bin".to_owned());
    let names = survey::names(Path::new(&conf_dir)).unwrap_or_default();
    let plugins = survey::names(Path::new(&bin_dir));
    let has_own = plugins.as_ref().is_some_and(|plugins| plugins.contains(&generator.plugin));
    let shim = has_own.then(|| {
        let said = survey::introduction(&Path::new(&bin_dir).join(&generator.plugin))?;
        // "multus-shim 0.1.0: …"
        let version = said.split_whitespace().nth(1).map(|word| word.trim_end_matches(':').to_owned());
        version.ok_or_else(|| "it does not say its version".to_owned())
    });
    Install {
        confs: confs(Path::new(&conf_dir), &generator.plugin),
        put_aside: names.iter().filter(|name| name.ends_with(PUT_ASIDE)).cloned().collect(),
        leftovers: leftovers(settings, &conf_dir),
        layout: layout(settings, &conf_dir, &bin_dir),
        conf_dir,
        bin_dir,
        plugins,
        own: generator.plugin.clone(),
        shim,
    }
}

/// Where the host's runtime looks, by the host's own files: below `chrootDir`, or ours where we see what process 1 sees.
fn layout(settings: &Settings, conf_dir: &str, bin_dir: &str) -> Option<Layout> {
    let root = match &settings.chroot_dir {
        Some(root) => PathBuf::from(root),
        None if runner::is_in_first_mounts() => PathBuf::from("/"),
        None => return None,
    };
    // As the host has it; `chrootDir` may stand before it.
    let of_host = |folder: &str| match Path::new(folder).strip_prefix(&root) {
        Ok(below) => Path::new("/").join(below).to_string_lossy().into_owned(),
        Err(_) => folder.to_owned(),
    };
    let seen = hosts::found(&root, &Wishes::default());
    let place = |what: &str, place: &Place| format!("{what} in {} ({})", place.path, place.because);
    let host = seen.recognised.map_or("distribution not recognised", Preset::as_str);
    // A folder that no distribution has was chosen on purpose; one of another distribution hardly was.
    let known = |folder: &str, of: fn(Preset) -> &'static str| {
        Some(of_host(folder)).filter(|folder| Preset::ALL.into_iter().any(|preset| of(preset) == folder))
    };
    let (conf_dir, bin_dir) = (known(conf_dir, Preset::conf_dir), known(bin_dir, Preset::bin_dir));
    let configured = Wishes { preset: None, conf_dir, bin_dir };
    Some(Layout {
        found: format!("{host}; {}; {}", place("configurations", &seen.conf_dir), place("plugins", &seen.bin_dir)),
        doubts: hosts::found(&root, &configured).doubts,
    })
}

fn confs(folder: &Path, own: &str) -> Confs {
    let candidates = cluster_network::candidates(folder).map_err(|error| error.to_string())?;
    Ok(candidates.into_iter().map(|candidate| conf(candidate, own)).collect())
}

fn conf(candidate: Candidate, own: &str) -> Conf {
    let file = candidate.file;
    let bytes = match candidate.content {
        Ok(bytes) => bytes,
        Err(why) => return Conf { file, problem: Some(why), ..Conf::default() },
    };
    let multus = master::leads_to_multus(&bytes, own);
    match master::network(&bytes, None) {
        Ok(config) => {
            let plugins: Vec<String> = config.plugins.iter().map(|plugin| plugin.plugin.to_string()).collect();
            Conf { file, ours: plugins.iter().any(|plugin| plugin == own), multus, plugins, problem: None }
        }
        Err(error) => Conf { file, multus, problem: Some(error.msg), ..Conf::default() },
    }
}

/// What Multus's own daemon and installer leave on a host, beside configurations.
fn leftovers(settings: &Settings, conf_dir: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let kubeconfig = Path::new(conf_dir).join("multus.d");
    if kubeconfig.is_dir() {
        let text = format!("{} is of Multus, with a service account's token in it", kubeconfig.display());
        found.push((text, "remove it once Multus is gone from the cluster".to_owned()));
    }
    let ours = PathBuf::from(&settings.socket_dir).join("multus.sock");
    let usual = Path::new(USUAL_SOCKET);
    if ours != usual && std::fs::canonicalize(&ours).ok() != std::fs::canonicalize(usual).ok() && usual.exists() {
        let text = format!("{USUAL_SOCKET} is there, and ours is {}", ours.display());
        found.push((
            text,
            "end the other daemon, or remove what it left; shims without daemonSocketDir go there".to_owned(),
        ));
    }
    found
}
