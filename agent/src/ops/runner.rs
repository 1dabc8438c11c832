//! Who runs delegates: the shim that asked, or the agent itself on the host. Operations never know which.

use std::future::Future;
use std::path::PathBuf;

use crate::sys::exec;
use crate::wire::{Job, Outcome, Problem};

/// The runner is gone: the shim's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Something that runs one delegate after the other.
pub trait Runner: Send {
    /// The value of the `runner` label.
    fn label(&self) -> &'static str;

    /// Runs one job to its end, at the latest at its timeout.
    fn run(&mut self, job: Job) -> impl Future<Output = Result<Outcome, Gone>> + Send;

    /// Has the runner gone already? A cheap look between two steps.
    fn is_gone(&self) -> bool;
}

/// Runs delegates as children of the agent: only where the agent lives in the host's own namespaces, or a plugin would
/// see another file system than the one its state is in.
#[derive(Debug, Clone)]
pub struct HostRunner {
    folders: Vec<PathBuf>,
}

impl HostRunner {
    /// A runner over the plugins in `folders`, if the agent is on the host.
    pub fn new(folders: Vec<PathBuf>) -> Option<Self> {
        is_on_host().then_some(Self { folders })
    }
}

impl Runner for HostRunner {
    fn label(&self) -> &'static str {
        "host"
    }

    async fn run(&mut self, job: Job) -> Result<Outcome, Gone> {
        let folders = self.folders.clone();
        let id = job.id;
        let ran = tokio::task::spawn_blocking(move || exec::run(&job, &folders)).await;
        Ok(ran.unwrap_or_else(|error| Outcome {
            id,
            problem: Some(Problem::NotStarted(error.to_string())),
            ..Outcome::default()
        }))
    }

    fn is_gone(&self) -> bool {
        false
    }
}

/// Are we in the first pid namespace (its inode is fixed, `PROC_PID_INIT_INO`) and in the mount namespace of process 1?
/// A container has another of at least one of them.
fn is_on_host() -> bool {
    let pids = std::fs::read_link("/proc/self/ns/pid");
    let first_pids = pids.is_ok_and(|ns| ns.as_os_str() == "pid:[4026531836]");
    first_pids && first_mount("self").is_some_and(|mine| Some(mine) == first_mount("1"))
}

/// The number of the first mount that `process` sees (proc(5), `mountinfo`). The kernel gives no number twice, so two
/// processes with the same one share their mount namespace; unlike the namespace itself, anybody may read it.
fn first_mount(process: &str) -> Option<u32> {
    let mounts = std::fs::read_to_string(format!("/proc/{process}/mountinfo")).ok()?;
    mounts.split_whitespace().next()?.parse().ok()
}
