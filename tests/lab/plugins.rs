//! Which delegate plugins a lab's binDir holds: the reference plugins of the system, and fakes that do as they are told.
//!
//! A fake is programmed by the key `fake` of its own configuration and writes every call down, byte for byte.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Lab;

/// Where Debian's containernetworking-plugins keeps them.
pub const SYSTEM: &str = "/usr/lib/cni";

/// Links every reference plugin of the system into `bin_dir`.
pub fn install_real(bin_dir: &Path) {
    let plugins = fs::read_dir(SYSTEM).unwrap_or_else(|e| panic!("read {SYSTEM} (containernetworking-plugins): {e}"));
    for plugin in plugins.flatten() {
        symlink(plugin.path(), bin_dir.join(plugin.file_name())).expect("link a plugin");
    }
}

/// The folder of this workspace's own debug or release programs: where the running test binary's siblings are.
pub fn own_programs() -> PathBuf {
    let exe = std::env::current_exe().expect("path of the running program");
    let folder = exe.parent().expect("a folder");
    if folder.ends_with("deps") { folder.parent().expect("a folder").to_path_buf() } else { folder.to_path_buf() }
}

/// Installs a fake plugin as `name`; give its programme with [`conf`].
pub fn install_fake(lab: &Lab, name: &str) {
    let program = own_programs().join("fake-plugin");
    assert!(program.exists(), "{} is not built", program.display());
    let target = lab.bin_dir.join(name);
    if !target.exists() {
        symlink(program, target).expect("link the fake plugin");
    }
}

/// A configuration of the fake plugin `name` that behaves as `programme` says and keeps a journal.
///
/// `programme` maps a verb, or `*`, to what to do: `result`, `error`, `exit`, `stdout`, `stdout_bytes`, `stderr`,
/// `stderr_bytes`, `sleep_ms`, `hang`, `hold_pipe_ms`, `signal`, `link`, `wait_for` (go on
/// when that file exists), `until` (behave so until that file exists).
pub fn conf(lab: &Lab, name: &str, programme: &Value) -> Value {
    install_fake(lab, name);
    json!({"cniVersion": "1.0.0", "type": name, "fake": {"journal": journal_path(lab, name), "do": programme}})
}

fn journal_path(lab: &Lab, name: &str) -> PathBuf {
    lab.dir.join(format!("journal-{name}.jsonl"))
}

/// Every call the fake plugin `name` got so far.
pub fn journal(lab: &Lab, name: &str) -> Vec<Entry> {
    let text = fs::read_to_string(journal_path(lab, name)).unwrap_or_default();
    text.lines().map(|line| Entry(serde_json::from_str(line).expect("a journal line"))).collect()
}

/// One call of a fake plugin.
#[derive(Debug, Clone)]
pub struct Entry(pub Value);

impl Entry {
    /// The verb it was called with.
    pub fn verb(&self) -> &str {
        self.env("CNI_COMMAND")
    }

    /// One variable of its environment, empty when absent.
    pub fn env(&self, name: &str) -> &str {
        self.0["env"][name].as_str().unwrap_or_default()
    }

    /// Its exact stdin.
    pub fn stdin(&self) -> &str {
        self.0["stdin"].as_str().unwrap_or_default()
    }

    /// Its stdin, parsed.
    pub fn conf(&self) -> Value {
        serde_json::from_str(self.stdin()).unwrap_or(Value::Null)
    }

    /// Its mount namespace, as `/proc` names it.
    pub fn mounts(&self) -> &str {
        self.0["mounts"].as_str().unwrap_or_default()
    }

    /// Its `RLIMIT_DATA` in bytes, or `unlimited`.
    pub fn data_limit(&self) -> &str {
        self.0["data"].as_str().unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0["pid"].as_u64().unwrap_or_default() as u32
    }
}

/// The verbs of a journal, in order.
pub fn verbs(journal: &[Entry]) -> Vec<&str> {
    journal.iter().map(Entry::verb).collect()
}

/// The files host-local keeps for allocations (not its locks), as `network/address`.
pub fn allocations(ipam_dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for network in fs::read_dir(ipam_dir).into_iter().flatten().flatten() {
        for file in fs::read_dir(network.path()).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if name != "lock" && !name.starts_with("last_reserved_ip") {
                found.push(format!("{}/{name}", network.file_name().to_string_lossy()));
            }
        }
    }
    found.sort();
    found
}
