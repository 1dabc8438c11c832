//! Who runs delegates: the shim that asked, or the agent itself on the host. Operations never know which.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use crate::cni::Command;
use crate::cni::secrets::input;
use crate::config::HostExec;
use crate::names::{NetnsId, NetnsPath};
use crate::sys::exec::{self, Confines};
use crate::sys::files::netns_id;
use crate::sys::mounts::MountNamespace;
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

    /// Does anybody still wait for the answer? An ADD that nobody waits for is undone.
    fn is_heard(&self) -> bool {
        !self.is_gone()
    }
}

/// Most private memory of a delegate that the agent runs by itself: it counts against the agent's own limit. A reference
/// plugin (Go) runs from 88 MiB of address space that counts as such (seen on 6.18), and touches 5 of them.
const MEMORY: u64 = 512 << 20;

/// What a plugin was given, which no word of its failure may repeat: each runner keeps it until the plugin has ended, so that
/// nobody behind a runner ever sees such words.
#[derive(Debug)]
pub struct Unsaid {
    stdin: String,
    args: String,
}

impl Unsaid {
    /// That of a job.
    pub fn of(job: &Job) -> Self {
        Self { stdin: job.stdin.clone(), args: job.args.clone() }
    }

    /// The outcome without it.
    pub fn stay(self, mut outcome: Outcome) -> Outcome {
        if outcome.problem.is_some() || outcome.exit != Some(0) {
            input::take_out(&mut outcome, &input::of_input(&self.stdin, &self.args));
        }
        outcome
    }
}

/// Runs delegates as children of the agent: only with the host's file system before their eyes, or a plugin would see
/// another one than its state is in.
#[derive(Debug, Clone)]
pub struct HostRunner {
    folders: Vec<PathBuf>,
    /// The host's mount namespace, where it is not our own.
    host: Option<Arc<MountNamespace>>,
    confines: Confines,
    /// Who asked; gone when nobody holds it any more.
    asker: Option<Weak<Asker>>,
}

/// Whoever waits for an answer keeps this.
#[derive(Debug)]
pub struct Asker;

impl HostRunner {
    /// A runner over the plugins in `folders`, if `host_exec` and the agent's rights allow one.
    pub fn new(folders: Vec<PathBuf>, host_exec: &HostExec) -> Option<Self> {
        let confines = Confines { bare: true, memory: Some(MEMORY) };
        let of = |host| Self { folders, host, confines, asker: None };
        let namespace = match host_exec {
            HostExec::Off => return None,
            HostExec::Auto if is_in_first_mounts() => return Some(of(None)),
            HostExec::Auto if !sees_first_processes() => return None,
            HostExec::Auto => "/proc/1/ns/mnt",
            HostExec::Namespace(path) => path,
        };
        match MountNamespace::open(Path::new(namespace)) {
            Ok(host) => Some(of(Some(Arc::new(host)))),
            Err(error) if *host_exec == HostExec::Auto => {
                tracing::debug!("plugins are not run by the agent itself: enter {namespace}: {error}");
                None
            }
            Err(error) => {
                tracing::error!("hostExec: enter the mount namespace {namespace}: {error}");
                None
            }
        }
    }

    /// A runner where the process is, whatever that is: for a plugin that the runtime itself started.
    pub fn here(folders: Vec<PathBuf>) -> Self {
        Self { folders, host: None, confines: Confines::default(), asker: None }
    }

    /// The same for somebody who waits: once the other value is dropped, nobody does.
    pub fn asked(&self) -> (Self, Arc<Asker>) {
        let asker = Arc::new(Asker);
        (Self { asker: Some(Arc::downgrade(&asker)), ..self.clone() }, asker)
    }
}

impl Runner for HostRunner {
    fn label(&self) -> &'static str {
        "host"
    }

    async fn run(&mut self, job: Job) -> Result<Outcome, Gone> {
        if job.verb == Command::Add && !self.is_heard() {
            return Err(Gone);
        }
        let Self { folders, host, confines, .. } = self.clone();
        let id = job.id;
        let secrets = Unsaid::of(&job);
        let run = move || match host {
            None => Ok(exec::run_within(&job, &folders, confines)),
            Some(host) => host.inside(|| exec::run_within(&job, &folders, confines)),
        };
        let ran = tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let outcome = ran.unwrap_or_else(|error| Outcome {
            id,
            problem: Some(Problem::NotStarted(error.to_string())),
            ..Outcome::default()
        });
        Ok(secrets.stay(outcome))
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn is_heard(&self) -> bool {
        self.asker.as_ref().is_none_or(|asker| asker.strong_count() > 0)
    }
}

/// Are we in the first pid namespace (its inode is fixed, `PROC_PID_INIT_INO`), so that process 1 is the machine's?
fn sees_first_processes() -> bool {
    let pids = std::fs::read_link("/proc/self/ns/pid");
    pids.is_ok_and(|ns| ns.as_os_str() == "pid:[4026531836]")
}

/// Which namespace the host has under this path, as far as we can say: what a process stands for may be another one to us.
pub(super) fn netns_of_the_host(netns: &NetnsPath) -> Option<NetnsId> {
    let path = netns.as_path();
    if path.starts_with("/proc") && !sees_first_processes() { None } else { netns_id(path) }
}

/// Do we surely see the files that the host's first process sees?
pub(super) fn is_in_first_mounts() -> bool {
    sees_first_processes() && shares_first_mounts()
}

/// Are we in the mount namespace of process 1? A container is not.
fn shares_first_mounts() -> bool {
    first_mount("self").is_some_and(|mine| Some(mine) == first_mount("1"))
}

/// The number of the first mount that `process` sees (proc(5), `mountinfo`). The kernel gives no number twice, so two
/// processes with the same one share their mount namespace; unlike the namespace itself, anybody may read it.
fn first_mount(process: &str) -> Option<u32> {
    let mounts = std::fs::read_to_string(format!("/proc/{process}/mountinfo")).ok()?;
    mounts.split_whitespace().next()?.parse().ok()
}
