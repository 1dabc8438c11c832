//! How is an eBPF link held by its descriptor, pinned under a name, and taken off? Commands of bpf(2) for links that aya
//! gives away only together with the link itself.
//!
//! Makes no links and knows no program. A link lives as long as a descriptor or a pin of it does.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Commands of bpf(2), `enum bpf_cmd` of the kernel's `linux/bpf.h`.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// From Linux 5.9 on.
const BPF_LINK_DETACH: libc::c_long = 34;

/// The part of `union bpf_attr` that pins and opens pins.
#[repr(C)]
#[derive(Debug, Default)]
struct Named {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that asks for information.
#[repr(C)]
#[derive(Debug, Default)]
struct Ask {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`.
#[repr(C)]
#[derive(Debug, Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
}

/// The object that is pinned at `path`.
///
/// # Errors
/// There is none, or it may not be opened.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut named = Named { path: address(path.as_ptr()), ..Named::default() };
    let fd = call(BPF_OBJ_GET, &mut named)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    #[expect(unsafe_code, reason = "bpf(2) gives a bare descriptor")]
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins what `object` is at `path`, where nothing may be yet.
///
/// # Errors
/// Something is there, or the folder is not on a bpffs.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    call(BPF_OBJ_PIN, &mut Named { path: address(path.as_ptr()), fd: number(object), flags: 0 }).map(drop)
}

/// The kernel's number of a link.
///
/// # Errors
/// The kernel does not say.
pub fn link_id(link: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = LinkInfo::default();
    let length = u32::try_from(size_of::<LinkInfo>()).unwrap_or_default();
    call(BPF_OBJ_GET_INFO_BY_FD, &mut Ask { fd: number(link), length, info: address(&raw mut info) })?;
    Ok(info.id)
}

/// Takes a link's program off its interface at once, whoever else holds the link.
///
/// # Errors
/// It is off already, or the kernel does not have this.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    call(BPF_LINK_DETACH, &mut number(link)).map(drop)
}

/// One call of bpf(2) with an argument of the type that `command` takes.
fn call<T>(command: libc::c_long, argument: &mut T) -> io::Result<i32> {
    // SAFETY: each caller gives the beginning of `union bpf_attr` that the command reads, the kernel takes the rest as
    // zeros; addresses in it are those of NUL-terminated text, or of a value as long as it says, which outlive the call.
    #[expect(unsafe_code, reason = "libc has no form of bpf(2)")]
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *argument, size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(done).unwrap_or(i32::MAX)) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

/// As bpf(2) wants a pointer.
fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.expose_provenance()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_no_pin_and_no_link_is_refused() {
        assert!(open_pin(Path::new("/sys/fs/bpf/none/of/ours")).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(link_id(file.as_fd()).is_err() && detach(file.as_fd()).is_err());
        assert!(pin(file.as_fd(), Path::new("/sys/fs/bpf/none/of/ours")).is_err());
    }
}
