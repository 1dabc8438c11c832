//! Network namespaces: open one and be sure that it is one; do something inside one.
//!
//! The only place that enters a namespace. It is entered on a thread of its own that ends afterwards, so that no other
//! work ever runs in the wrong one.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use thiserror::Error;

use crate::names::NetnsId;

/// A namespace that cannot be used.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// There is no such file: the sandbox is gone.
    #[error("open netns \"{0}\": no such namespace")]
    Gone(String),
    /// The file is something else.
    #[error("open netns \"{0}\": not a namespace file")]
    NotNetns(String),
    /// The kernel refused.
    #[error("{0} netns \"{1}\": {2}")]
    Refused(&'static str, String, #[source] io::Error),
}

/// Opens the namespace at `path`, checking that it is a namespace file (nsfs, `statfs(2)`).
pub fn open(path: &Path) -> Result<File, NetnsError> {
    let shown = || crate::fault::escape(&path.to_string_lossy());
    // A FIFO or a device in its place must not hold us up.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NetnsError::Gone(shown()),
        _ => NetnsError::Refused("open", shown(), error),
    })?;
    match file_system(&file) {
        Ok(libc::NSFS_MAGIC) => Ok(file),
        Ok(_) => Err(NetnsError::NotNetns(shown())),
        Err(error) => Err(NetnsError::Refused("inspect", shown(), error)),
    }
}

/// Which namespace the file at `path` is, to be compared; `None`: there is none any more.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    let about = open(path).ok()?.metadata().ok()?;
    Some((about.dev(), about.ino()))
}

/// Opens the namespace at `path` if it is the one called `id`; another one in its place means that this one is gone.
fn open_same(path: &Path, id: Option<&NetnsId>) -> Result<File, NetnsError> {
    let file = open(path)?;
    let Some(id) = id else { return Ok(file) };
    let shown = || crate::fault::escape(&path.to_string_lossy());
    let about = file.metadata().map_err(|error| NetnsError::Refused("inspect", shown(), error))?;
    if *id == NetnsId::of(about.dev(), about.ino()) { Ok(file) } else { Err(NetnsError::Gone(shown())) }
}

/// Runs `work` inside the namespace at `path`, on a thread of its own, and waits for it.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    inside_same(path, None, work)
}

/// The same only if it is the namespace called `id`, where that is known.
pub fn inside_same<T: Send>(
    path: &Path,
    id: Option<&NetnsId>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, NetnsError> {
    let file = open_same(path, id)?;
    let refused = |what, error| NetnsError::Refused(what, crate::fault::escape(&path.to_string_lossy()), error);
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
            enter(&file)?;
            Ok(work())
        });
        let thread = thread.map_err(|error| refused("start a thread for", error))?;
        let panicked = || io::Error::other("the thread panicked");
        thread.join().map_err(|_panic| refused("work in", panicked()))?.map_err(|error| refused("enter", error))
    })
}

/// The same for whoever must not hold up others while `work` waits for the kernel.
pub async fn away<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> Result<T, NetnsError> {
    let file = open(path)?;
    let refused = |what, error| NetnsError::Refused(what, crate::fault::escape(&path.to_string_lossy()), error);
    let (tell, told) = tokio::sync::oneshot::channel();
    let work = move || {
        // Whoever asked may have gone.
        let _unheard = tell.send(enter(&file).map(|()| work()));
    };
    let started = thread::Builder::new().name("netns".into()).spawn(work);
    started.map_err(|error| refused("start a thread for", error))?;
    let panicked = || io::Error::other("the thread panicked");
    told.await.map_err(|_panic| refused("work in", panicked()))?.map_err(|error| refused("enter", error))
}

/// The name of interface `index` in the calling thread's namespace; `None`: there is no such interface.
pub fn interface_name(index: u32) -> Option<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    #[expect(unsafe_code, reason = "std has no call for it")]
    // SAFETY: the buffer has the IF_NAMESIZE bytes that if_indextoname(3) asks for, and lives through the call.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return None;
    }
    name.split(|byte| *byte == 0).next().and_then(|text| String::from_utf8(text.to_vec()).ok())
}

/// The index of the interface called `name` in the calling thread's namespace; `None`: there is no such interface.
pub fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    #[expect(unsafe_code, reason = "std has no call for it")]
    // SAFETY: `name` is a NUL-terminated string that lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that enters namespaces")]
#[expect(unsafe_code, reason = "std has no setns")]
fn enter(netns: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; setns changes the calling thread only, which is ours and ends.
    let done = unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "std has no fstatfs")]
pub(super) fn file_system(file: &File) -> io::Result<libc::c_long> {
    let mut about = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open and the pointer is to memory of the right size, which the kernel fills.
    if unsafe { libc::fstatfs(file.as_raw_fd(), about.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fstatfs succeeded, so it filled the whole structure.
    Ok(unsafe { about.assume_init() }.f_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_are_opened() {
        assert!(matches!(open(Path::new("/nonexistent")), Err(NetnsError::Gone(_))));
        assert!(matches!(open(Path::new("/etc/passwd")), Err(NetnsError::NotNetns(_))));
        assert!(open(Path::new("/proc/self/ns/net")).is_ok());
    }

    #[test]
    fn another_namespace_in_its_place_is_not_entered() {
        let path = Path::new("/proc/self/ns/net");
        let own = crate::sys::files::netns_id(path);
        assert!(matches!(inside_same(path, own.as_ref(), || 7), Ok(7)));
        let another = NetnsId::of(0, 0);
        assert!(matches!(inside_same(path, Some(&another), || 7), Err(NetnsError::Gone(_))));
    }

    #[test]
    fn loopback_has_both_name_and_index() {
        assert_eq!(interface_index("lo"), Some(1));
        assert_eq!(interface_name(1).as_deref(), Some("lo"));
        assert_eq!(interface_index("no-such-link"), None);
    }
}
