//! Programs of somebody else: a few instructions on a hook, and a BPF file system of their own (bpf(2), Linux 6.6).
//!
//! The agent's own are loaded by the agent alone.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::check;

/// Mounts a BPF file system at `path`.
pub fn mount(path: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let target = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all pointers are NUL-terminated strings that live through the call; no data argument.
    check(unsafe { libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null()) }).map(drop)
}

/// A hook of an interface (TCX).
#[derive(Debug, Clone, Copy)]
pub enum Hook {
    /// What it receives.
    Ingress,
    /// What it transmits.
    Egress,
}

/// Where among those who are on the hook already.
#[derive(Debug, Clone, Copy)]
pub enum Position {
    /// Before all of them.
    First,
    /// Behind all of them.
    Last,
}

/// Loads a SCHED_CLS program of these instructions.
pub fn load_classifier(instructions: &[u64]) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_long = 5;
    const SCHED_CLS: u32 = 3;
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        rest: [u64; 12],
    }
    let license = c"GPL";
    let insns = instructions.as_ptr().addr() as u64;
    let license = license.as_ptr().addr() as u64;
    call(PROG_LOAD, &Load { prog_type: SCHED_CLS, insn_cnt: instructions.len() as u32, insns, license, rest: [0; 12] })
}

/// Attaches a classifier to an interface of the calling thread's namespace, until the link is closed.
pub fn attach(program: &OwnedFd, ifindex: u32, hook: Hook, position: Position) -> io::Result<OwnedFd> {
    const LINK_CREATE: libc::c_long = 28;
    const BEFORE: u32 = 1 << 3;
    const AFTER: u32 = 1 << 4;
    #[repr(C)]
    struct Link {
        program: u32,
        ifindex: u32,
        attach_type: u32,
        flags: u32,
        rest: [u64; 4],
    }
    let attach_type = match hook {
        Hook::Ingress => 46,
        Hook::Egress => 47,
    };
    let flags = match position {
        Position::First => BEFORE,
        Position::Last => AFTER,
    };
    let program = program.as_raw_fd().cast_unsigned();
    call(LINK_CREATE, &Link { program, ifindex, attach_type, flags, rest: [0; 4] })
}

/// A call of bpf(2) that makes a descriptor.
fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes live through the call and have the stated length, and so does what they point to. A
    // non-negative return is a descriptor that is ours.
    unsafe {
        let made = libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>());
        let made = i32::try_from(made).unwrap_or(-1);
        Ok(OwnedFd::from_raw_fd(check(made)?))
    }
}
