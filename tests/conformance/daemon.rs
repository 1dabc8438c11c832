//! How the judged daemon is started, stopped and watched on a node. What it is told is `node`'s affair.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lab::{Lab, http, place, sys, wait_until};
use serde_json::Value;

use crate::pair::{self, Flavour};

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    config: PathBuf,
    log: PathBuf,
    pub(crate) socket: PathBuf,
}

impl Daemon {
    /// Writes its configuration, starts it, and does not wait.
    pub(crate) fn spawn(lab: &Lab, config: &Value) -> Self {
        Self::spawn_as(lab, config, "daemon")
    }

    /// The same under another name for its files, beside one that runs.
    pub(crate) fn spawn_as(lab: &Lab, config: &Value, name: &str) -> Self {
        let file = lab.dir.join(format!("{name}-config.json"));
        fs::write(&file, format!("{config:#}")).expect("write the daemon's configuration");
        Self::run(lab, file, lab.dir.join(format!("{name}.log")))
    }

    fn run(lab: &Lab, config: PathBuf, log: PathBuf) -> Self {
        let out = File::options().create(true).append(true).open(&log).expect("open the daemon's log");
        let mut command = lab.node.command(&pair::judged().agent);
        match pair::judged().flavour {
            Flavour::Ours => command.args(["run", "--config"]).arg(&config),
            Flavour::Multus => command.arg("-config").arg(&config),
        };
        command.env("MULTUS_NODE_NAME", "lab-node").stdin(Stdio::null());
        command.stdout(out.try_clone().expect("a second handle")).stderr(out);
        let child = command.spawn().expect("start the daemon");
        fs::write(lab.dir.join(place::AGENT_PID), child.id().to_string()).expect("write the daemon's process id");
        Self { child, config, log, socket: lab.socket_dir.join("multus.sock") }
    }

    /// Waits until the socket answers, as a kubelet's probe would ask.
    pub(crate) fn wait_healthy(&mut self) {
        let mut last = String::new();
        let healthy = wait_until(Duration::from_secs(20), || {
            assert!(self.is_running(), "the daemon ended while starting:\n{}", self.last_words());
            let reply = http::get_unix(&self.socket, "/healthz");
            last = format!("{reply:?}");
            reply.is_ok_and(|reply| reply.status == 200)
        });
        assert!(healthy, "the daemon was not healthy after 20 s: {last}\n{}", self.last_words());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; does not wait.
    pub(crate) fn ask_to_end(&self) {
        sys::signal(self.child.id(), libc::SIGTERM);
    }

    /// Waits for its end; how long that took, or `None` when it still runs after `limit`.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> Option<Duration> {
        let began = Instant::now();
        wait_until(limit, || !self.is_running()).then(|| began.elapsed())
    }

    /// Starts it anew with the same files; it must be down.
    pub(crate) fn start_again(&mut self, lab: &Lab) {
        *self = Self::run(lab, self.config.clone(), self.log.clone());
        self.wait_healthy();
    }

    /// How many files it has open.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(Path::new("/proc").join(self.pid().to_string()).join("fd")).map_or(0, Iterator::count)
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<_> = text.lines().rev().take(8).collect();
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
    }
}
