//! How the lab speaks to the kernel where std does not: namespaces, sockets with options, signals, one mount.
//!
//! All of the lab's `unsafe` is here, and nothing here decides anything.

#![allow(unsafe_code, reason = "the only file of the lab that calls libc")]

use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
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

/// Mounts a BPF file system at `path`.
pub fn mount_bpffs(path: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let target = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all pointers are NUL-terminated strings that live through the call; no data argument.
    check(unsafe { libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null()) }).map(drop)
}

/// A socket of the calling thread's network namespace.
pub fn socket(domain: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket takes numbers; a non-negative return is a descriptor that is ours.
    unsafe {
        let fd = check(libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sets an option whose value is a plain C type.
pub fn set_option<T: Copy>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: T) -> io::Result<()> {
    // SAFETY: `value` is a plain C value that lives through the call, and its true size is passed.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<T>() as libc::socklen_t)
    })
    .map(drop)
}

/// Joins an IPv4 group on one interface.
pub fn join_v4(socket: &OwnedFd, group: Ipv4Addr, ifindex: u32) -> io::Result<()> {
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: u32::from(group).to_be() },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: ifindex.cast_signed(),
    };
    set_option(socket, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, request)
}

/// Joins an IPv6 group on one interface.
pub fn join_v6(socket: &OwnedFd, group: Ipv6Addr, ifindex: u32) -> io::Result<()> {
    let request =
        libc::ipv6_mreq { ipv6mr_multiaddr: libc::in6_addr { s6_addr: group.octets() }, ipv6mr_interface: ifindex };
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, request)
}

/// The IPv4 multicast interface of a sender.
pub fn multicast_if_v4(socket: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: 0 },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: ifindex.cast_signed(),
    };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, request)
}

/// Binds a packet socket to every protocol of one interface.
pub fn bind_packet(socket: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let address = packet_address(ifindex, (libc::ETH_P_ALL as u16).to_be());
    // SAFETY: `address` is a sockaddr_ll that lives through the call, and its size is passed.
    check(unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    })
    .map(drop)
}

fn packet_address(ifindex: u32, protocol_be: u16) -> libc::sockaddr_ll {
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol_be;
    address.sll_ifindex = ifindex.cast_signed();
    address
}

/// One frame from a packet socket: its length and the kernel's packet type (`PACKET_OUTGOING`, …); `None` when none waits.
pub fn receive_frame(socket: &OwnedFd, buffer: &mut [u8]) -> Option<(usize, u8)> {
    // SAFETY: all-zero is a valid sockaddr_ll; buffer and address live through the call with their true sizes.
    unsafe {
        let mut from: libc::sockaddr_ll = zeroed();
        let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let length = libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
            (&raw mut from).cast(),
            &raw mut size,
        );
        usize::try_from(length).ok().map(|length| (length, from.sll_pkttype))
    }
}

/// Sends a whole frame out of an interface.
pub fn send_frame(socket: &OwnedFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let address = packet_address(ifindex, 0);
    // SAFETY: frame and address live through the call with their true sizes.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `IPV6_MULTICAST_ALL` of linux/in6.h, absent from libc: 0 delivers only groups this very socket joined.
pub const IPV6_MULTICAST_ALL: libc::c_int = 29;

/// Binds an inet socket.
pub fn bind_inet(socket: &OwnedFd, address: std::net::SocketAddr) -> io::Result<()> {
    use std::net::SocketAddr;
    // SAFETY: the all-zero patterns are valid sockaddrs; each lives through the call and its true size is passed.
    let outcome = unsafe {
        match address {
            SocketAddr::V4(v4) => {
                let mut raw: libc::sockaddr_in = zeroed();
                raw.sin_family = libc::AF_INET as u16;
                raw.sin_port = v4.port().to_be();
                raw.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), size_of_val(&raw) as libc::socklen_t)
            }
            SocketAddr::V6(v6) => {
                let mut raw: libc::sockaddr_in6 = zeroed();
                raw.sin6_family = libc::AF_INET6 as u16;
                raw.sin6_port = v6.port().to_be();
                raw.sin6_addr.s6_addr = v6.ip().octets();
                raw.sin6_scope_id = v6.scope_id();
                libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), size_of_val(&raw) as libc::socklen_t)
            }
        }
    };
    check(outcome).map(drop)
}

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
    bpf(PROG_LOAD, &Load { prog_type: SCHED_CLS, insn_cnt: instructions.len() as u32, insns, license, rest: [0; 12] })
}

/// Attaches a classifier behind what an interface of the calling thread's namespace transmits, until the link is closed
/// (TCX, Linux 6.6).
pub fn attach_egress(program: &OwnedFd, ifindex: u32) -> io::Result<OwnedFd> {
    const LINK_CREATE: libc::c_long = 28;
    const TCX_EGRESS: u32 = 47;
    #[repr(C)]
    struct Link {
        program: u32,
        ifindex: u32,
        attach_type: u32,
        flags: u32,
        rest: [u64; 4],
    }
    let program = program.as_raw_fd().cast_unsigned();
    bpf(LINK_CREATE, &Link { program, ifindex, attach_type: TCX_EGRESS, flags: 0, rest: [0; 4] })
}

/// A call of bpf(2) that makes a descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes live through the call and have the stated length, and so does what they point to. A
    // non-negative return is a descriptor that is ours.
    unsafe {
        let made = libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>());
        let made = i32::try_from(made).unwrap_or(-1);
        Ok(OwnedFd::from_raw_fd(check(made)?))
    }
}

/// A pseudo-terminal of this size: the end that a person sits at, and the program's (openpty(3)).
pub fn terminal(columns: u16, lines: u16) -> io::Result<(File, File)> {
    let size = libc::winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut person, mut program) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: both numbers are ours to be written, a name is not asked for, and modes and size are read or null. The two
    // descriptors are new, and nobody else's.
    unsafe {
        check(libc::openpty(&raw mut person, &raw mut program, none, std::ptr::null(), &raw const size))?;
        Ok((File::from(OwnedFd::from_raw_fd(person)), File::from(OwnedFd::from_raw_fd(program))))
    }
}

/// The local modes of a terminal: whether it echoes, whether it gathers lines.
pub fn terminal_modes(terminal: &File) -> io::Result<libc::tcflag_t> {
    // SAFETY: the termios is ours, of plain numbers, and tcgetattr(3) fills it.
    unsafe {
        let mut modes: libc::termios = zeroed();
        check(libc::tcgetattr(terminal.as_raw_fd(), &raw mut modes))?;
        Ok(modes.c_lflag)
    }
}
