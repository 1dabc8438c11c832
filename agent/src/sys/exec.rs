//! Runs one CNI plugin: where it is found, what it inherits, how long it may take, how much it may say.
//!
//! The one way to run a plugin, for the shim and for the agent on the host. The plugin gets its own process group and
//! dies with its parent; a descendant that keeps the pipes open is not waited for.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::cni::request::Command as Verb;
use crate::cni::result::CniResult;
use crate::cni::secrets::inherited;
use crate::names::PluginName;
use crate::wire::{Job, MOST_STDERR, MOST_STDOUT, Outcome, Problem};

/// How often "text file busy" is met with another try, while an installer replaces the plugin (libcni does the same).
const BUSY_TRIES: u32 = 5;
/// Where a plugin finds the programs of the host, if we do not know better.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long output may still come after the plugin has ended.
const DRAIN: Duration = Duration::from_millis(50);

/// Looks `plugin` up in `folders`, in order. The first regular file wins (libcni's rule).
pub fn find(plugin: &PluginName, folders: &[PathBuf]) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.join(plugin.as_str())).find(|path| path.is_file())
}

/// What a plugin is kept to, beyond its time and what it may say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confines {
    /// Of our own environment it gets `PATH` alone.
    pub bare: bool,
    /// Most bytes of private writable memory (`RLIMIT_DATA`, `getrlimit(2)`), for it and each of its children.
    pub memory: Option<u64>,
}

/// Runs `job` with the plugins of `folders`. Blocks until the plugin ended, at the latest at the job's timeout.
pub fn run(job: &Job, folders: &[PathBuf]) -> Outcome {
    run_within(job, folders, Confines::default())
}

/// [`run`] within `confines`.
pub fn run_within(job: &Job, folders: &[PathBuf], confines: Confines) -> Outcome {
    let began = Instant::now();
    let mut outcome = match find(&job.plugin, folders) {
        Some(path) => run_at(&path, job, (folders, confines), began + Duration::from_millis(job.timeout_ms)),
        None => failed(Problem::NotFound(join(folders))),
    };
    if !confines.bare && !is_usable(&outcome, job.verb) {
        // It may say what it inherited, and others will read that, or a sentence about it.
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        inherited::take_out(&mut outcome, variables);
    }
    outcome.id = job.id;
    outcome.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    outcome
}

/// Will what it printed go on as it is: a success, and of an ADD a result?
fn is_usable(outcome: &Outcome, verb: Verb) -> bool {
    let is_result = || CniResult::parse(outcome.stdout.as_bytes()).is_ok();
    outcome.problem.is_none() && outcome.exit == Some(0) && (verb != Verb::Add || is_result())
}

fn failed(problem: Problem) -> Outcome {
    Outcome { problem: Some(problem), ..Outcome::default() }
}

fn join(folders: &[PathBuf]) -> String {
    folders.iter().map(|folder| folder.to_string_lossy()).collect::<Vec<_>>().join(":")
}

fn run_at(path: &Path, job: &Job, (folders, confines): (&[PathBuf], Confines), deadline: Instant) -> Outcome {
    match start(path, &environment(job, folders), confines) {
        Ok(child) => converse(child, job.stdin.as_bytes(), deadline)
            .unwrap_or_else(|error| failed(Problem::NotStarted(format!("talk to {}: {error}", path.display())))),
        Err(error) => failed(Problem::NotStarted(format!("start {}: {error}", path.display()))),
    }
}

/// The `CNI_*` variables of a job, and no others.
fn environment(job: &Job, folders: &[PathBuf]) -> BTreeMap<&'static str, String> {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    BTreeMap::from([
        ("CNI_COMMAND", job.verb.as_str().to_owned()),
        ("CNI_CONTAINERID", text(job.container.as_ref().map(AsRef::as_ref))),
        ("CNI_NETNS", job.netns.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("CNI_IFNAME", text(job.ifname.as_ref().map(AsRef::as_ref))),
        ("CNI_ARGS", job.args.clone()),
        ("CNI_PATH", join(folders)),
    ])
}

fn start(path: &Path, env: &BTreeMap<&'static str, String>, confines: Confines) -> io::Result<Child> {
    let mut tries = 0;
    loop {
        let mut command = Command::new(path);
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if confines.bare {
            command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()));
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"CNI_")) {
            command.env_remove(name);
        }
        command.envs(env.iter().filter(|(_, value)| !value.is_empty()));
        prepare(&mut command, confines.memory);
        match command.spawn() {
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) && tries < BUSY_TRIES => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(200));
            }
            other => return other,
        }
    }
}

#[expect(unsafe_code, reason = "a parent-death signal and a limit can only be set between fork and exec")]
fn prepare(command: &mut Command, memory: Option<u64>) {
    let memory = memory.and_then(|bytes| libc::rlim_t::try_from(bytes).ok());
    let limit = memory.map(|bytes| libc::rlimit { rlim_cur: bytes, rlim_max: bytes });
    // SAFETY: the closure runs after fork in the child and calls prctl and setrlimit only, which are plain system calls
    // and async-signal-safe; `limit` is a copy of its own.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            match &limit {
                Some(limit) if libc::setrlimit(libc::RLIMIT_DATA, limit) != 0 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
}

/// Feeds stdin, collects both outputs, waits; ends the whole group at the deadline or when it says too much.
fn converse(mut child: Child, stdin: &[u8], deadline: Instant) -> io::Result<Outcome> {
    let talked = talk(&mut child, stdin, deadline);
    if talked.is_err() {
        end_group(&child);
        child.wait()?;
    }
    talked
}

fn talk(child: &mut Child, stdin: &[u8], deadline: Instant) -> io::Result<Outcome> {
    let mut pipes = Pipes::of(child, stdin)?;
    let exit = pidfd(child);
    let problem = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break Some(Problem::TimedOut);
        }
        // Without a pidfd (before Linux 5.3) the child is asked every few milliseconds.
        let pause = if exit.is_some() { left } else { left.min(Duration::from_millis(5)) };
        pipes.wait(exit.as_ref().map(AsRawFd::as_raw_fd), pause)?;
        if pipes.out.len() > MOST_STDOUT {
            break Some(Problem::TooMuchOutput);
        }
        if child.try_wait()?.is_some() {
            break None;
        }
    };
    if problem.is_some() {
        end_group(child);
    } else {
        pipes.drain()?;
    }
    let status = child.wait()?;
    Ok(pipes.outcome(status, problem))
}

struct Pipes<'a> {
    stdin: Option<std::process::ChildStdin>,
    feed: &'a [u8],
    stdout: Option<std::process::ChildStdout>,
    stderr: Option<std::process::ChildStderr>,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl<'a> Pipes<'a> {
    fn of(child: &mut Child, feed: &'a [u8]) -> io::Result<Self> {
        let pipes = Self {
            stdin: child.stdin.take(),
            feed,
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            out: Vec::new(),
            err: Vec::new(),
        };
        for fd in [fd_of(pipes.stdin.as_ref()), fd_of(pipes.stdout.as_ref()), fd_of(pipes.stderr.as_ref())] {
            if fd >= 0 {
                do_not_block(fd)?;
            }
        }
        Ok(pipes)
    }

    /// Waits until something happens, at most `pause`, and moves what can be moved.
    fn wait(&mut self, exit: Option<RawFd>, pause: Duration) -> io::Result<()> {
        let mut polled = [
            (fd_of(self.stdin.as_ref()), libc::POLLOUT),
            (fd_of(self.stdout.as_ref()), libc::POLLIN),
            (fd_of(self.stderr.as_ref()), libc::POLLIN),
            (exit.unwrap_or(-1), libc::POLLIN),
        ]
        .map(|(fd, events)| libc::pollfd { fd, events, revents: 0 });
        poll(&mut polled, pause)?;
        let [to, from, aside, _] = polled.map(|entry| entry.revents != 0);
        if to {
            self.write()?;
        }
        if from && !take(self.stdout.as_mut(), &mut self.out, MOST_STDOUT + 1)? {
            self.stdout = None;
        }
        if aside && !take(self.stderr.as_mut(), &mut self.err, usize::MAX)? {
            self.stderr = None;
        }
        if self.err.len() > MOST_STDERR {
            self.err.drain(..self.err.len() - MOST_STDERR);
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(stdin) = self.stdin.as_mut() else { return Ok(()) };
        match stdin.write(self.feed) {
            Ok(sent) => self.feed = self.feed.get(sent..).unwrap_or_default(),
            // A plugin that does not read its configuration says so in its own way.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.feed = &[],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if self.feed.is_empty() {
            self.stdin = None;
        }
        Ok(())
    }

    /// What is still in the pipes after the end; what a surviving descendant may add is not waited for.
    fn drain(&mut self) -> io::Result<()> {
        let until = Instant::now() + DRAIN;
        self.stdin = None;
        while self.stdout.is_some() && self.out.len() <= MOST_STDOUT {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.wait(None, left)?;
        }
        if self.stderr.is_some() {
            self.wait(None, Duration::ZERO)?;
        }
        Ok(())
    }

    fn outcome(self, status: ExitStatus, problem: Option<Problem>) -> Outcome {
        let too_much = (self.out.len() > MOST_STDOUT).then_some(Problem::TooMuchOutput);
        let problem = problem.or(too_much).or_else(|| status.signal().map(Problem::Signal));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let stdout = if problem.is_some() { String::new() } else { text(&self.out) };
        Outcome { exit: status.code(), stdout, stderr: text(&self.err), problem, ..Outcome::default() }
    }
}

/// Reads what is there, up to `most` bytes in all; false at the end of the stream.
fn take(from: Option<&mut impl Read>, into: &mut Vec<u8>, most: usize) -> io::Result<bool> {
    let Some(from) = from else { return Ok(false) };
    let mut chunk = [0; 16 << 10];
    let room = chunk.len().min(most.saturating_sub(into.len()));
    let Some(space) = chunk.get_mut(..room).filter(|space| !space.is_empty()) else { return Ok(true) };
    match from.read(space) {
        Ok(0) => Ok(false),
        Ok(got) => {
            into.extend_from_slice(space.get(..got).unwrap_or_default());
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

fn fd_of(pipe: Option<&impl AsRawFd>) -> RawFd {
    pipe.map_or(-1, AsRawFd::as_raw_fd)
}

#[expect(unsafe_code, reason = "std offers no poll over several pipes")]
fn poll(polled: &mut [libc::pollfd], pause: Duration) -> io::Result<()> {
    let pause = libc::c_int::try_from(pause.as_millis()).unwrap_or(libc::c_int::MAX);
    let count = libc::nfds_t::try_from(polled.len()).unwrap_or(0);
    // SAFETY: the pointer and the count describe `polled`, which outlives the call.
    if unsafe { libc::poll(polled.as_mut_ptr(), count, pause.max(1)) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "std cannot make a child's pipe non-blocking")]
fn do_not_block(fd: RawFd) -> io::Result<()> {
    // SAFETY: `fd` is an open pipe of a living `Child`; fcntl touches no memory of ours.
    let done = unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[expect(unsafe_code, reason = "pidfd_open (Linux 5.3) has no wrapper in stable std")]
fn pidfd(child: &Child) -> Option<OwnedFd> {
    let pid = libc::pid_t::try_from(child.id()).ok()?;
    // SAFETY: the child has not been waited for, so `pid` is its; the call touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[expect(unsafe_code, reason = "std ends single processes only, and a plugin's IPAM is another")]
fn end_group(child: &Child) {
    if let Ok(group) = libc::pid_t::try_from(child.id()) {
        // SAFETY: the child leads its own group (`process_group(0)`) and has not been waited for, so the id is its.
        unsafe { libc::killpg(group, libc::SIGKILL) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn plugin(name: &str, script: &str) -> (PathBuf, PluginName) {
        let folder = std::env::temp_dir().join(format!("multus-exec-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (folder, PluginName::new(name).unwrap())
    }

    fn outcome(name: &str, script: &str, timeout_ms: u64, stdin: &str) -> Outcome {
        confined(name, script, timeout_ms, stdin, Confines::default())
    }

    fn confined(name: &str, script: &str, timeout_ms: u64, stdin: &str, confines: Confines) -> Outcome {
        let (folder, plugin) = plugin(name, script);
        let job = Job {
            id: 7,
            plugin,
            verb: Verb::Add,
            container: None,
            netns: None,
            ifname: None,
            args: "A=b".into(),
            stdin: stdin.into(),
            timeout_ms,
        };
        let outcome = run_within(&job, std::slice::from_ref(&folder), confines);
        std::fs::remove_dir_all(folder).unwrap();
        outcome
    }

    #[test]
    fn stdin_output_and_environment_go_through() {
        let big = "x".repeat(300_000);
        let outcome = outcome("echoes", "echo $CNI_COMMAND $CNI_ARGS; echo aside >&2; wc -c; exit 3", 5_000, &big);
        assert_eq!((outcome.id, outcome.exit, outcome.problem), (7, Some(3), None));
        assert_eq!(outcome.stdout, "ADD A=b\n300000\n");
        assert_eq!(outcome.stderr, "aside\n");
    }

    #[test]
    fn a_plugin_that_hangs_is_ended_with_its_children() {
        let began = Instant::now();
        let outcome = outcome("hangs", "sleep 60 & sleep 60", 200, "");
        assert_eq!(outcome.problem, Some(Problem::TimedOut));
        assert!(began.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn a_descendant_that_keeps_the_pipe_is_not_waited_for() {
        let began = Instant::now();
        let outcome = outcome("forks", "sleep 3 & echo done", 10_000, "");
        assert_eq!((outcome.stdout.as_str(), outcome.problem), ("done\n", None));
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn output_is_capped() {
        let outcome = outcome("talks", "head -c 100000000 /dev/zero", 10_000, "");
        assert_eq!(outcome.problem, Some(Problem::TooMuchOutput));
        assert!(outcome.stdout.is_empty());
    }

    #[test]
    fn a_confined_plugin_has_little_environment_and_memory() {
        let confines = Confines { bare: true, memory: Some(64 << 20) };
        let seen =
            confined("bare", "env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e _ | sort; ulimit -d", 5_000, "", confines);
        let of_cargo = confined("open", "env | grep -c CARGO", 5_000, "", Confines::default());
        assert_eq!(seen.stdout, "PATH\n65536\n", "CNI_ variables have an underscore");
        assert_ne!(of_cargo.stdout.trim(), "0", "unconfined, it inherits");
        let hungry = confined("hungry", "head -c 200m /dev/zero | tail -c 199m | wc -c", 10_000, "", confines);
        assert_ne!(hungry.stdout.trim(), (199 << 20).to_string(), "{hungry:?}");
    }

    #[test]
    fn what_is_inherited_is_repeated_in_a_result_alone() {
        // Cargo runs tests with it.
        let printed = |script: &str| outcome("tells", script, 5_000, "").stdout;
        let result = printed(r#"printf '{"dns": {"domain": "%s"}}' "$CARGO_PKG_NAME""#);
        assert_eq!(result, format!(r#"{{"dns": {{"domain": "{}"}}}}"#, env!("CARGO_PKG_NAME")));
        let none = printed(r#"printf '{"dns": "%s"}' "$CARGO_PKG_NAME""#);
        assert_eq!(none, r#"{"dns": "<value of CARGO_PKG_NAME>"}"#);
    }

    #[test]
    fn signals_and_absence_are_said() {
        assert_eq!(outcome("dies", "kill -9 $$", 5_000, "").problem, Some(Problem::Signal(9)));
        let nowhere = [PathBuf::from("/nonexistent")];
        assert!(find(&PluginName::new("x").unwrap(), &nowhere).is_none());
    }
}
