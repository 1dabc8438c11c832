//! A host's files below a folder: made, looked at as a whole, compared name by name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lab::process::{self, Finished};
use lab::{Netns, agent};
use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What the plugin says of itself is in every version of it.
pub(crate) const SHIM: &str = "#!/bin/sh\n# hands CNI requests to the multus-ebpf agent\n";
/// The configuration of a cluster's own network.
pub(crate) const FLANNEL: &str =
    r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[{"type":"flannel"},{"type":"portmap"}]}"#;

/// A host's files.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
}

/// Every path with its kind, content, mode and owner.
pub(crate) type Snapshot = BTreeMap<PathBuf, String>;

impl Tree {
    /// One with what every host has.
    pub(crate) fn new(name: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // The lab sweeps folders of this form that a killed run left.
        let root = std::env::temp_dir().join(format!("mlab-{}-tree{number}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let tree = Self { root };
        tree.folders(&["/etc", "/run", "/var/lib/cni", "/opt"]);
        tree
    }

    /// A path of the host, as we see it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(crate) fn folders(&self, paths: &[&str]) -> &Self {
        for path in paths {
            fs::create_dir_all(self.path(path)).expect("make a folder");
        }
        self
    }

    /// A file with folders above it.
    pub(crate) fn file(&self, path: &str, text: &str, mode: u32) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        fs::write(&path, text).expect("write a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set a mode");
        self
    }

    pub(crate) fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.path(path);
        let _ = fs::remove_file(&path);
        symlink(target, path).expect("make a link");
        self
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        snapshot(&self.root)
    }

    /// Demands that it is as it was.
    pub(crate) fn assert_is(&self, before: &Snapshot, after: &str) {
        assert_same(before, &self.snapshot(), after);
    }

    /// The program with these arguments and `--host-root`, `--config` and `--shim` for this host.
    pub(crate) fn command(&self, args: &[&str], config: &Value) -> Command {
        let beside = |what: &str| self.root.with_extension(what);
        fs::write(beside("json"), config.to_string()).expect("write the configuration");
        let mut command = Command::new(agent::program("multus-agent"));
        command.args(args).arg("--host-root").arg(&self.root).arg("--config").arg(beside("json"));
        if args.first() == Some(&"install") && !args.contains(&"--shim") {
            let shim = beside("shim");
            fs::write(&shim, SHIM).expect("write a plugin");
            command.arg("--shim").arg(shim);
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str], config: &Value) -> Finished {
        process::run(&mut self.command(args, config), b"", Duration::from_secs(20))
    }

    /// The same for what must succeed, as a document.
    pub(crate) fn document(&self, args: &[&str], config: &Value) -> Value {
        let args = [args, &["-o", "json"]].concat();
        let done = self.run(&args, config);
        assert_eq!(done.code, Some(0), "{args:?}: {}\n{}", done.out(), done.err());
        let document: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.out()));
        assert_eq!(document["apiVersion"], "multus-ebpf.io/v1", "{document:#}");
        document
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
        let _ = fs::remove_file(self.root.with_extension("json"));
        let _ = fs::remove_file(self.root.with_extension("shim"));
    }
}

/// A configuration for a host, with what is given; pins below no bpffs.
pub(crate) fn config(more: &Value) -> Value {
    let mut config = json!({"cniVersion": "1.0.0", "datapath": {"bpffs": "/nowhere/multus"}});
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

/// Everything below `root`.
pub(crate) fn snapshot(root: &Path) -> Snapshot {
    let mut seen = Snapshot::new();
    walk(root, root, &mut seen);
    seen
}

fn walk(root: &Path, folder: &Path, seen: &mut Snapshot) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let about = fs::symlink_metadata(&path).expect("look at a file");
        let mut how = format!("{:o} {}:{} ", about.mode(), about.uid(), about.gid());
        if about.is_symlink() {
            let _ = write!(how, "-> {}", fs::read_link(&path).expect("a link").display());
        } else if about.is_file() {
            let bytes = fs::read(&path).expect("read a file");
            let _ = write!(how, "{}", String::from_utf8_lossy(&bytes));
        }
        seen.insert(path.strip_prefix(root).expect("below").to_owned(), how);
        if about.is_dir() {
            walk(root, &path, seen);
        }
    }
}

/// Everything below `root` with its inode and the times of its last change: what is only written as it was shows, too.
pub(crate) fn stamps(root: &Path) -> Snapshot {
    let mut seen = snapshot(root);
    for (path, how) in &mut seen {
        let about = fs::symlink_metadata(root.join(path)).expect("look at a file");
        let (changed, moment) = (about.mtime(), about.mtime_nsec());
        let _ = write!(how, " inode {} {changed}.{moment} {}.{}", about.ino(), about.ctime(), about.ctime_nsec());
    }
    seen
}

/// Demands that two snapshots are equal, and names what is not.
pub(crate) fn assert_same(before: &Snapshot, now: &Snapshot, after: &str) {
    let gone = before.keys().filter(|path| !now.contains_key(*path)).map(|path| format!("gone: {}", path.display()));
    let new = now.keys().filter(|path| !before.contains_key(*path)).map(|path| format!("left: {}", path.display()));
    let other = before.iter().filter(|(path, how)| now.get(*path).is_some_and(|is| is != *how));
    let other = other.map(|(path, how)| {
        let cut = |text: &str| text.chars().take(200).collect::<String>();
        format!("changed: {}: {} -> {}", path.display(), cut(how), cut(&now[path]))
    });
    let lines: Vec<String> = gone.chain(new).chain(other).collect();
    assert!(lines.is_empty(), "after {after}:\n  {}", lines.join("\n  "));
}

/// The program on a lab's node.
pub(crate) fn on(node: &Netns, args: &[&str]) -> Finished {
    process::run(node.command(agent::program("multus-agent")).args(args), b"", Duration::from_mins(1))
}

/// The sentences of a report.
pub(crate) fn sentences(document: &Value) -> String {
    let steps = document["steps"].as_array().expect("steps");
    let mut text = String::new();
    for step in steps {
        let _ = writeln!(text, "{}: {}", step["kind"].as_str().unwrap(), step["text"].as_str().unwrap());
    }
    text
}
