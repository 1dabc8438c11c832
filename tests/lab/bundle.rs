//! Which sandbox a container runtime makes of a container in the rendered manifest, and how runc keeps it.
//!
//! Nothing is added that a runtime would not add: what the container may do is what the manifest says. Only folders of
//! the host are a lab's. The manifest is read, never interpreted for the agent's sake.

mod seccomp;
mod spec;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::process::{self, Finished};
use crate::{Lab, agent, wait_for};

/// Where every container finds its pod's service account.
pub const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Folder of a lab that holds its containers.
const FOLDER: &str = "containers";

/// Why no container can be run here, or `None` when one can.
pub fn missing() -> Option<String> {
    let known =
        |program: &str| Path::new("/usr/sbin").join(program).exists() || Path::new("/usr/bin").join(program).exists();
    if !known("runc") {
        return Some("no runc: run `cargo xtask setup`".to_owned());
    }
    let profile = !Path::new(seccomp::PROFILE).exists();
    profile.then(|| format!("no {} (golang-github-containers-common): run `cargo xtask setup`", seccomp::PROFILE))
}

/// Can a container's memory be limited here? A machine that is a container itself may lack the right to.
pub fn limits_memory() -> bool {
    let file = "/sys/fs/cgroup/cgroup.subtree_control";
    match fs::read_to_string(file) {
        Ok(controllers) => {
            controllers.split_whitespace().any(|one| one == "memory") || fs::write(file, "+memory").is_ok()
        }
        // Version 1 has a hierarchy for it.
        Err(_) => true,
    }
}

/// Writes what a pod of the manifest finds as its service account: here a kubeconfig, whose path inside is the answer.
pub fn place_account(lab: &Lab, api: &crate::apiserver::ApiServer) -> String {
    let folder = lab.dir.join("account");
    fs::create_dir_all(&folder).expect("make the account's folder");
    let file = api.write_kubeconfig(&folder).expect("write a kubeconfig");
    let text = fs::read_to_string(&file).expect("read the kubeconfig");
    fs::write(&file, text.replace(&folder.display().to_string(), ACCOUNT)).expect("write the kubeconfig");
    format!("{ACCOUNT}/kubeconfig")
}

/// A container of the manifest, before it is run.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Its name there: `agent` or `install`.
    pub name: &'static str,
    /// The content of the ConfigMap; its paths are where the folders are mounted.
    pub config: &'a Value,
    /// A capability of the manifest that it does not get.
    pub without: Option<&'static str>,
    /// An unpacked image; none: the two programs under test, as they lie in one.
    pub image: Option<&'a Path>,
    /// Other words than the manifest's command line.
    pub words: Option<&'a [&'a str]>,
}

impl<'a> Wanted<'a> {
    /// As the manifest has it.
    pub fn new(name: &'static str, config: &'a Value) -> Self {
        Self { name, config, without: None, image: None, words: None }
    }
}

/// A container: made, running or ended.
#[derive(Debug)]
pub struct Container {
    folder: PathBuf,
    id: String,
}

impl Container {
    /// Writes its bundle; an earlier container of that name in this lab has ended.
    pub fn new(lab: &Lab, wanted: &Wanted<'_>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = lab.dir.join(FOLDER).join(wanted.name);
        let container = Self { id: format!("{}-{}{number}", lab.prefix, wanted.name), folder };
        let config = container.folder.join("config");
        fs::create_dir_all(&config).expect("make a bundle");
        fs::write(container.config_file(), format!("{:#}", wanted.config)).expect("write the ConfigMap");
        let root = wanted.image.map_or_else(|| container.place_programs(), Path::to_owned);
        let spec = spec::of(lab, &container.id, wanted, &root, &config);
        fs::write(container.folder.join("config.json"), format!("{spec:#}")).expect("write config.json");
        container
    }

    /// The file that the container's process reads as its configuration, outside.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("config/daemon-config.json")
    }

    /// Its root file system, as far as it is not mounted.
    pub fn root(&self) -> PathBuf {
        self.folder.join("rootfs")
    }

    /// The image's file system, made of the programs under test.
    fn place_programs(&self) -> PathBuf {
        let place = self.root().join("usr/bin");
        fs::create_dir_all(&place).expect("make a root file system");
        for name in ["multus-agent", "multus-shim"] {
            let (from, to) = (agent::program(name), place.join(name));
            let _ = fs::remove_file(&to);
            // No copy where that can be helped: programs with their debugging information are large.
            let linked = fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop));
            linked.unwrap_or_else(|error| panic!("place {}: {error}", from.display()));
        }
        self.root()
    }

    fn runc(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.folder.join("runc"));
        command
    }

    /// The command that runs it; it lasts as long as the container, whose output it passes on.
    pub fn command(&self) -> Command {
        let _ = fs::remove_file(self.pid_file());
        let mut command = self.runc();
        command.args(["run", "--no-new-keyring", "--pid-file"]).arg(self.pid_file());
        command.arg("--bundle").arg(&self.folder).arg(&self.id);
        command
    }

    /// Runs it to its end.
    pub fn run(&self) -> Finished {
        process::run(&mut self.command(), b"", Duration::from_secs(30))
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    /// The process id of its first process, outside, as soon as there is one.
    pub fn pid(&self) -> Option<u32> {
        let read = || fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok();
        wait_for(Duration::from_secs(10), read)
    }

    /// Runs a command inside, as the kubelet runs a probe or a hook: with what the container has.
    pub fn exec(&self, words: &[impl AsRef<std::ffi::OsStr>]) -> Finished {
        let mut command = self.runc();
        process::run(command.arg("exec").arg(&self.id).args(words), b"", Duration::from_secs(15))
    }

    /// Ends it, whatever it does, and forgets it.
    pub fn delete(&self) {
        delete(&self.folder.join("runc"), &self.id);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.delete();
    }
}

/// Ends the containers that a killed run left in the lab whose folder this is.
pub fn sweep(lab: &Path) {
    for container in fs::read_dir(lab.join(FOLDER)).into_iter().flatten().flatten() {
        let state = container.path().join("runc");
        for kept in fs::read_dir(&state).into_iter().flatten().flatten() {
            delete(&state, &kept.file_name().to_string_lossy());
        }
    }
}

fn delete(state: &Path, id: &str) {
    if state.join(id).exists() {
        let _ = Command::new("runc").arg("--root").arg(state).args(["delete", "--force", id]).output();
    }
}
