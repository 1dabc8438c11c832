//! How a file system comes and goes on the host while an agent is in its pod: a folder whose mounts are shared, as a
//! host's are, so that what is mounted there later is seen in mount namespaces that were made before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Lab, process, sys, wait_until};

/// A folder of the host where a file system can be mounted.
#[derive(Debug)]
pub struct HostFolder(PathBuf);

impl HostFolder {
    /// An empty one in the lab's own folder. It must be there before the agent starts.
    pub fn new(lab: &Lab, name: &str) -> Self {
        let path = lab.dir.join(name);
        fs::create_dir_all(&path).expect("make a folder to mount on");
        process::tool(Command::new("mount").arg("--bind").args([&path, &path]));
        process::tool(Command::new("mount").arg("--make-shared").arg(&path));
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Mounts a new, empty bpffs there.
    pub fn mount_bpffs(&self) {
        sys::bpf::mount(&self.0).unwrap_or_else(|e| panic!("mount a bpffs at {}: {e}", self.0.display()));
    }

    /// Takes off what was mounted last, as soon as nobody is at work in it.
    pub fn unmount(&self) {
        let umount = || Command::new("umount").arg(&self.0).output().is_ok_and(|done| done.status.success());
        assert!(wait_until(Duration::from_secs(5), umount), "{} stays busy", self.0.display());
    }
}

/// Takes off whatever is mounted in `dir`, the last first.
pub fn sweep(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| Path::new(point).starts_with(dir));
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").args(["--lazy", point]).output();
    }
}
