//! The Multus that upstream ships, by its own programs: the daemon with its shim, or the one plugin of thin mode.
//!
//! None of them is of this project. They are looked for in the folder that `MULTUS_PEER_BIN_DIR` names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::runtime::ANNOTATIONS;
use crate::{Lab, Runtime, http, sys, wait_for, wait_until};

/// Names the folder of `multus-daemon`, `multus-shim` and `multus`.
pub const FOLDER: &str = "MULTUS_PEER_BIN_DIR";
/// Longest wait for its daemon: it looks for the cluster's network once a second, and its shim for the daemon as often.
const PATIENCE: Duration = Duration::from_secs(30);

/// How Multus is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A daemon, and a shim that asks it.
    Thick,
    /// One plugin that does all, and reads the API server by itself.
    Thin,
}

impl Mode {
    /// The CNI plugin of this mode, as the runtime's conf names it.
    pub fn plugin(self) -> &'static str {
        match self {
            Self::Thick => "multus-shim",
            Self::Thin => "multus",
        }
    }

    /// The file that it has in the runtime's folder.
    pub fn conf(self) -> &'static str {
        match self {
            Self::Thick => "00-multus.conf",
            Self::Thin => "00-multus.conflist",
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Thick => &["multus-daemon", "multus-shim"],
            Self::Thin => &["multus"],
        }
    }

    /// Why it cannot be run here; `None`: it can.
    pub fn missing(self) -> Option<String> {
        let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
            return Some(format!("{FOLDER} is not set: it names the folder of upstream's programs"));
        };
        let lost = self.programs().iter().find(|name| !folder.join(name).is_file())?;
        Some(format!("no {lost} in {}", folder.display()))
    }
}

fn program(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(FOLDER).unwrap_or_default()).join(name)
}

/// It on a lab's node.
#[derive(Debug)]
pub struct Original {
    mode: Mode,
    daemon: Option<Child>,
    /// What it is configured by: `daemon-config.json`, or the runtime's conf of thin mode.
    pub file: PathBuf,
}

impl Original {
    /// Puts its plugin into `binDir`, and its configuration into its place: `settings`, as the daemon's file or thin
    /// mode's plugin have them. `master` is the cluster's network.
    pub fn install(mode: Mode, lab: &Lab, settings: &Value, master: &Value) -> Self {
        fs::copy(program(mode.plugin()), lab.bin_dir.join(mode.plugin())).expect("install its CNI plugin");
        fs::write(lab.cni_conf_dir.join("10-default.conflist"), master.to_string())
            .expect("write the cluster's network");
        let (file, text) = match mode {
            Mode::Thick => (lab.dir.join("multus/daemon-config.json"), format!("{settings:#}")),
            Mode::Thin => (lab.cni_conf_dir.join(mode.conf()), thin_conf(settings, master)),
        };
        fs::create_dir_all(file.parent().expect("a folder")).expect("make a folder");
        fs::write(&file, text).expect("write its configuration");
        Self { mode, daemon: None, file }
    }

    /// Starts its daemon, if it has one, and waits until the runtime's folder has its conf.
    pub fn start(&mut self, lab: &Lab) {
        if self.mode == Mode::Thin {
            return;
        }
        let log = lab.dir.join("multus/daemon.log");
        let out = File::options().create(true).append(true).open(&log).expect("open its log");
        let mut command = lab.node.command(program("multus-daemon"));
        command.arg("-config").arg(&self.file).env("MULTUS_NODE_NAME", "lab-node").stdin(Stdio::null());
        command.stdout(out.try_clone().expect("a second handle")).stderr(out);
        self.daemon = Some(command.spawn().expect("start its daemon"));
        let (socket, conf) = (lab.socket_dir.join("multus.sock"), lab.cni_conf_dir.join(self.mode.conf()));
        let is_whole = || fs::read(&conf).is_ok_and(|bytes| serde_json::from_slice::<Value>(&bytes).is_ok());
        let is_up = || http::get_unix(&socket, "/healthz").is_ok_and(|reply| reply.status == 200) && is_whole();
        let up = wait_until(PATIENCE, is_up);
        assert!(up, "Multus is not up after {PATIENCE:?}:\n{}", fs::read_to_string(log).unwrap_or_default());
    }

    /// Ends its daemon as a kubelet does, if it has one.
    pub fn end(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        sys::signal(daemon.id(), libc::SIGTERM);
        let over = wait_until(PATIENCE, || matches!(daemon.try_wait(), Ok(Some(_))));
        let _ = daemon.kill();
        let _ = daemon.wait();
        assert!(over, "Multus did not end");
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// The runtime's conf as thin mode's entry point writes it.
fn thin_conf(settings: &Value, master: &Value) -> String {
    let mut plugin = json!({"type": "multus", "capabilities": {"portMappings": true}, "logLevel": "verbose"});
    for (key, value) in settings.as_object().into_iter().flatten().filter(|(key, _)| *key != "cniVersion") {
        plugin[key] = value.clone();
    }
    plugin["delegates"] = json!([master]);
    json!({"cniVersion": settings["cniVersion"], "name": "multus-cni-network", "plugins": [plugin]}).to_string()
}

/// Configures `runtime` by the first file of its folder, as containerd does: from now on it calls what that names.
pub fn follow(runtime: &mut Runtime, lab: &Lab) {
    let is_conf = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "conf" || ending == "conflist");
    let entries = fs::read_dir(&lab.cni_conf_dir).expect("the runtime's folder").flatten().map(|entry| entry.path());
    let first = entries.filter(is_conf).min().expect("a conf for the runtime");
    // Multus writes its own in place: for a moment it is empty.
    let whole = || serde_json::from_slice::<Value>(&fs::read(&first).ok()?).ok();
    let conf = wait_for(Duration::from_secs(5), whole).unwrap_or_else(|| panic!("{} is no JSON", first.display()));
    let mut plugin = if conf["plugins"].is_array() { conf["plugins"][0].clone() } else { conf.clone() };
    for added in ["name", "cniVersion"] {
        plugin.as_object_mut().expect("an object").remove(added);
    }
    runtime.version = conf["cniVersion"].as_str().unwrap_or("0.1.0").to_owned();
    runtime.gives_annotations = plugin["capabilities"][ANNOTATIONS] == true;
    runtime.program = lab.bin_dir.join(plugin["type"].as_str().expect("a plugin's name"));
    runtime.limit = Duration::from_secs(75);
    runtime.plugin = plugin;
}

/// What makes upstream's daemon take the API server of `kubeconfig`: it does so only together with a certificate of its
/// own, which is made here, below `folder`, and good for years, so that nobody is asked for another. `None`: there is no
/// openssl that could make it.
pub fn certificate(folder: &Path, kubeconfig: &Path) -> Option<Value> {
    fs::create_dir_all(folder).expect("make a folder");
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "3650", "-subj", "/O=system:multus/CN=system:multus:lab-node"]);
    command.arg("-keyout").arg(folder.join("key.pem")).arg("-out").arg(folder.join("cert.pem"));
    if !command.output().is_ok_and(|done| done.status.success()) {
        return None;
    }
    let both = ["cert.pem", "key.pem"].map(|part| fs::read_to_string(folder.join(part)).expect("read what was made"));
    fs::write(folder.join("multus-client-current.pem"), both.concat()).expect("write the certificate");
    Some(json!({"enabled": true, "bootstrapKubeconfig": kubeconfig, "certDir": folder, "certDuration": "720h"}))
}
