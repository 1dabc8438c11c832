//! A program that is killed just before one change of a file or folder, as often as it makes any (ptrace(2)).

use std::io;
use std::mem::{size_of, zeroed};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{check, signal};

/// How [`kill_at_change`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Killed {
    /// At the change that was asked for.
    There,
    /// It made fewer changes, and ended by itself with this code.
    Ended(libc::c_int),
}

/// Runs `command` and kills it just before the `number`th time that its first thread changes a file, a folder or what is
/// in one: from 0 on, until it ends by itself.
#[expect(clippy::zombie_processes, reason = "it is waited for by its number, as tracing wants")]
pub fn kill_at_change(command: &mut Command, number: usize) -> Killed {
    // SAFETY: ptrace(PTRACE_TRACEME) takes no pointers and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            let traced = libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            if traced < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    let child = command.spawn().expect("start a program to be traced");
    let pid = child.id().cast_signed();
    let (mut seen, mut entering, mut is_set_up) = (0, true, false);
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for the write; `pid` is our child, which nobody else waits for.
        check(unsafe { libc::waitpid(pid, &raw mut status, 0) }).expect("wait for a traced program");
        if libc::WIFEXITED(status) {
            return Killed::Ended(libc::WEXITSTATUS(status));
        }
        if libc::WIFSIGNALED(status) {
            return Killed::There;
        }
        let mut pass_on = 0;
        if libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80 {
            if entering && changes_files(pid) {
                if seen == number {
                    signal(child.id(), libc::SIGKILL);
                    continue;
                }
                seen += 1;
            }
            entering = !entering;
        } else if !is_set_up {
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
            // SAFETY: the child is stopped and ours; this request takes its options as a number.
            unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) };
            is_set_up = true;
        } else {
            pass_on = libc::WSTOPSIG(status);
        }
        // SAFETY: the child is stopped and ours; this request takes a signal's number.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, pass_on) };
    }
}

/// Is the system call that the stopped child `pid` is about to make one that changes something on a disk?
fn changes_files(pid: libc::c_int) -> bool {
    const PLAIN: [libc::c_long; 8] = [
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_unlinkat,
        libc::SYS_mkdirat,
        libc::SYS_symlinkat,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_fchown,
    ];
    #[cfg(target_arch = "x86_64")]
    const OLD: [libc::c_long; 6] =
        [libc::SYS_rename, libc::SYS_unlink, libc::SYS_rmdir, libc::SYS_mkdir, libc::SYS_symlink, libc::SYS_chmod];
    #[cfg(not(target_arch = "x86_64"))]
    const OLD: [libc::c_long; 0] = [];
    // SAFETY: a ptrace_syscall_info of zeros is a valid value; the kernel writes at most the size that is given, and
    // `entry` is the variant it writes at a stop before a system call (ptrace(2), Linux 5.3).
    let (nr, args) = unsafe {
        let mut info: libc::ptrace_syscall_info = zeroed();
        let size = size_of::<libc::ptrace_syscall_info>();
        libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &raw mut info);
        (info.u.entry.nr as libc::c_long, info.u.entry.args)
    };
    match nr {
        libc::SYS_openat => args[2] & libc::O_CREAT as u64 != 0,
        libc::SYS_write => args[0] > 2,
        nr => PLAIN.contains(&nr) || OLD.contains(&nr),
    }
}
