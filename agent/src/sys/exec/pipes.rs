//! What goes to a plugin and comes from it, all at once: nobody waits for one pipe while another is full.
//!
//! Keeps no more than is read.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use crate::wire::{MOST_STDERR, MOST_STDOUT, Outcome, Problem};

/// How long output may still come after the plugin has ended.
const DRAIN: Duration = Duration::from_millis(50);

/// The three pipes of a plugin, and what came through them.
pub(super) struct Pipes<'a> {
    stdin: Option<ChildStdin>,
    feed: &'a [u8],
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl<'a> Pipes<'a> {
    /// Takes them; `feed` is what it reads.
    pub(super) fn of(child: &mut Child, feed: &'a [u8]) -> io::Result<Self> {
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
    pub(super) fn wait(&mut self, exit: Option<RawFd>, pause: Duration) -> io::Result<()> {
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

    /// Has it said more than anybody reads?
    pub(super) fn say_too_much(&self) -> bool {
        self.out.len() > MOST_STDOUT
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
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let until = Instant::now() + DRAIN;
        self.stdin = None;
        while self.stdout.is_some() && !self.say_too_much() {
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

    /// What became of it.
    pub(super) fn outcome(self, status: ExitStatus, problem: Option<Problem>) -> Outcome {
        let too_much = self.say_too_much().then_some(Problem::TooMuchOutput);
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
