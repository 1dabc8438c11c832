//! A program of somebody else on the same hook: two instructions that end the chain with "accept".
#![expect(unsafe_code, reason = "aya loads no program without an object; bpf(2) has no safe form")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use multus_agent::sys::netns;

use crate::bench::within;

const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const BEFORE: u32 = 1 << 3;
const AFTER: u32 = 1 << 4;

/// A TCX link of somebody else; it goes with the value.
pub(crate) struct Stranger {
    _program: OwnedFd,
    _links: [OwnedFd; 2],
}

impl Stranger {
    /// At the head or at the end of both chains.
    pub(crate) fn on(netns: &str, ifname: &str, first: bool) -> Self {
        within(netns, || {
            let program = load();
            let links = [TCX_INGRESS, TCX_INGRESS + 1].map(|hook| attach(&program, ifname, hook, first));
            Self { _program: program, _links: links }
        })
    }
}

#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    rest: [u64; 12],
}

#[repr(C)]
#[derive(Default)]
struct Link {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 4],
}

/// `r0 = 0; exit`: `TCX_PASS`.
fn load() -> OwnedFd {
    let instructions: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    let insns = instructions.as_ptr().addr() as u64;
    let license = license.as_ptr().addr() as u64;
    bpf(PROG_LOAD, &Load { prog_type: SCHED_CLS, insn_cnt: 2, insns, license, ..Load::default() })
}

fn attach(program: &OwnedFd, ifname: &str, attach_type: u32, first: bool) -> OwnedFd {
    let target_ifindex = netns::interface_index(ifname).unwrap();
    let prog_fd = u32::try_from(program.as_raw_fd()).unwrap();
    let flags = if first { BEFORE } else { AFTER };
    bpf(LINK_CREATE, &Link { prog_fd, target_ifindex, attach_type, flags, ..Link::default() })
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> OwnedFd {
    // SAFETY: the attributes live through the call and have the stated length; what they point to lives as long. The
    // descriptor is owned at once.
    unsafe {
        let made = libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>());
        assert!(made >= 0, "bpf({command}): {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(i32::try_from(made).unwrap())
    }
}
