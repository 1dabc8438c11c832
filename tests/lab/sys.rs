//! How the lab speaks to the kernel where std does not: namespaces, what a child begins with, signals.
//!
//! All of the lab's `unsafe` is here and in the files below, and nothing here decides anything.

#![allow(unsafe_code, reason = "the only place of the lab that calls libc")]

pub mod bpf;
pub mod sockets;
pub mod terminal;
pub mod traced;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

fn check(outcome: libc::c_int) -> io::Result<libc::c_int> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome) }
}

/// Lets one connection wait to be accepted, and no more.
pub fn shorten_queue(listener: &std::os::unix::net::UnixListener) -> io::Result<()> {
    // SAFETY: listen takes no pointers; a second call changes the length of the queue alone (listen(2)).
    check(unsafe { libc::listen(listener.as_raw_fd(), 0) }).map(drop)
}

/// Runs `work` on a thread of its own inside the network namespace `netns`; the thread ends with it.
pub fn in_netns<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> T {
    let fd = netns.as_raw_fd();
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            enter(fd).expect("enter a network namespace");
            work()
        });
        match inside.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[allow(clippy::disallowed_methods, reason = "the lab's own way into a namespace, on a thread or a child that ends")]
fn enter(fd: libc::c_int) -> io::Result<()> {
    // SAFETY: setns takes no pointers; it moves the calling thread alone.
    check(unsafe { libc::setns(fd, libc::CLONE_NEWNET) }).map(drop)
}

/// Makes `command` run inside `netns` (its mounts stay, so bpffs is visible); a `mortal` one dies with the thread that
/// starts it.
pub fn confine(command: &mut Command, netns: Arc<File>, mortal: bool) {
    // SAFETY: the closure calls only async-signal-safe functions (setns, prctl) and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            enter(netns.as_raw_fd())?;
            if mortal {
                check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            }
            Ok(())
        });
    }
}

/// Gives `command` a mount namespace of its own, which sees what is mounted outside later on, as a pod's
/// HostToContainer mounts do.
pub fn own_mounts(command: &mut Command) {
    // SAFETY: the closure calls only async-signal-safe functions (unshare, mount) with constant strings.
    unsafe {
        command.pre_exec(|| {
            check(libc::unshare(libc::CLONE_NEWNS))?;
            let flags = libc::MS_SLAVE | libc::MS_REC;
            check(libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null())).map(drop)
        });
    }
}

/// Gives `command`, which has mounts of its own, an empty folder of its own at `path`.
pub fn own_folder(command: &mut Command, path: &'static std::ffi::CStr) {
    // SAFETY: the closure calls only an async-signal-safe function (mount) with constant strings.
    unsafe {
        command.pre_exec(move || {
            let (kind, none) = (c"tmpfs".as_ptr(), std::ptr::null());
            check(libc::mount(kind, path.as_ptr(), kind, 0, none)).map(drop)
        });
    }
}

/// Starts `command`, which must be root's, with these capabilities and no way to others, as a container runtime does.
pub fn only_capabilities(command: &mut Command, wanted: u64) {
    // SAFETY: the closure calls only async-signal-safe functions (prctl, two system calls) and allocates nothing; the
    // system calls get a header of version 3 and the two sets of data that it takes (capget(2)).
    unsafe {
        command.pre_exec(move || {
            for number in (0..64).filter(|number| wanted & (1 << number) == 0) {
                // Beyond the last one that this kernel has there is nothing to drop.
                let _ = libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0);
            }
            let header = [0x2008_0522_u32, 0];
            // Effective, permitted and inheritable, twice. Root's program gets what is inheritable, too.
            let mut sets = [[0_u32; 3]; 2];
            check(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) as libc::c_int)?;
            for set in &mut sets {
                set[2] = 0;
            }
            check(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) as libc::c_int)?;
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)).map(drop)
        });
    }
}

/// Sends `signal` to the process `pid`, which the lab started.
pub fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: kill takes no pointers.
    let _ = unsafe { libc::kill(pid.cast_signed(), signal) };
}

/// Ends this very process by `signal`.
pub fn die_by(signal: libc::c_int) {
    // SAFETY: signal is given the default action and raise takes no pointers. Rust's runtime handles SIGSEGV itself, so
    // the default has to be put back first.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Forks; the child keeps every descriptor open for `hold` and ends. The parent returns at once.
pub fn fork_holding_descriptors(hold: Duration) {
    // SAFETY: the process is single-threaded here; the child sleeps and exits without returning.
    unsafe {
        if libc::fork() == 0 {
            std::thread::sleep(hold);
            libc::_exit(0);
        }
    }
}

/// A descriptor that becomes readable when the process `pid` ends.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the syscall takes numbers only; a non-negative return is a descriptor that is ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as libc::c_int)) }
    }
}

/// Waits until one of `fds` is readable, at most `limit`; says which are.
pub fn readable(fds: &[libc::c_int], limit: Duration) -> Vec<bool> {
    let mut polls: Vec<_> = fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let millis = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `polls` is valid for its length during the call.
    let _ = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, millis) };
    polls.iter().map(|poll| poll.revents != 0).collect()
}

/// Takes an exclusive lock on `file` until it is closed.
pub fn lock(file: &File) {
    // SAFETY: flock takes a descriptor and a number.
    let _ = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
}
