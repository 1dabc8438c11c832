//! How a program is run with input, captured output and a time limit that always holds.
//!
//! It never interprets what the program printed.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::sys;

/// How a program ended and what it said.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code, absent when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// From start to exit.
    pub took: Duration,
    /// True when the limit passed and the lab killed it.
    pub timed_out: bool,
}

impl Finished {
    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// True when it exited with code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// A program under way.
pub struct Running {
    child: Child,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    started: Instant,
}

/// Runs `command` with `input` on its stdin and waits for its end, at most `limit`.
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Finished {
    start(command, input).wait(limit)
}

/// Starts `command`. A program that a test has just written is busy for as long as a child of another test's thread, forked
/// at that moment, has not come to its own exec(2) yet: it holds what we had open for writing.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(2));
            }
            outcome => return outcome,
        }
    }
}

/// Starts `command` with `input` on its stdin.
pub fn start(command: &mut Command, input: &[u8]) -> Running {
    let started = Instant::now();
    let program = format!("{}", command.get_program().display());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command).unwrap_or_else(|e| panic!("start {program}: {e}"));
    let mut stdin = child.stdin.take().expect("piped stdin");
    if input.len() <= 32 * 1024 {
        // Fits the pipe, so writing cannot block.
        let _ = stdin.write_all(input);
        drop(stdin);
    } else {
        let input = input.to_vec();
        std::thread::spawn(move || stdin.write_all(&input));
    }
    let stdout = collect(child.stdout.take().expect("piped stdout"));
    let stderr = collect(child.stderr.take().expect("piped stderr"));
    Running { child, stdout, stderr, started }
}

fn collect(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (give, take) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = from.read_to_end(&mut text);
        give.send(text)
    });
    take
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// True while it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; kills it when `limit` passes.
    pub fn wait(mut self, limit: Duration) -> Finished {
        let left = limit.saturating_sub(self.started.elapsed());
        let ended = match sys::pidfd(self.child.id()) {
            Ok(fd) => sys::readable(&[fd.as_raw_fd()], left).first().copied().unwrap_or(false),
            Err(_) => true,
        };
        if !ended {
            let _ = self.child.kill();
        }
        let status = self.child.wait().expect("wait for a child");
        let took = self.started.elapsed();
        // A grandchild may hold the pipes; what was said by then does not matter to any test.
        let patience = Duration::from_secs(3);
        let stdout = self.stdout.recv_timeout(patience).unwrap_or_default();
        let stderr = self.stderr.recv_timeout(patience).unwrap_or_default();
        Finished { code: status.code(), signal: status.signal(), stdout, stderr, took, timed_out: !ended }
    }
}

/// Runs a tool of the system that must succeed, and returns its output.
pub fn tool(command: &mut Command) -> Vec<u8> {
    let line = format!("{command:?}");
    let done = run(command, b"", Duration::from_secs(20));
    assert!(done.success(), "{line}: exit {:?} signal {:?}: {}", done.code, done.signal, done.err());
    done.stdout
}
