//! How is something done inside a network namespace? On a thread of its own, which ends.
//!
//! A thread that has changed its namespace never comes back to a pool: whoever ran on it next would act in the wrong
//! namespace. Nothing here decides what to do inside.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;

/// Why nothing was done inside a namespace.
#[derive(Debug)]
pub enum NetnsError {
    /// The namespace's file is not there: the pod's sandbox is gone.
    Gone(PathBuf),
    /// It could not be opened or entered; the text names the action.
    Failed {
        /// The namespace's path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl std::fmt::Display for NetnsError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone(path) => write!(out, "open netns {path:?}: it is gone"),
            Self::Failed { path, action, source } => write!(out, "{action} netns {path:?}: {source}"),
        }
    }
}

impl std::error::Error for NetnsError {}

/// Runs `work` inside the network namespace at `path`, on a thread that ends afterwards; the caller waits.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let failed = |action, source| NetnsError::Failed { path: path.to_owned(), action, source };
    let file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => NetnsError::Gone(path.to_owned()),
        _ => failed("open", source),
    })?;
    thread::scope(|scope| {
        let entered = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || enter(&file).map(|()| work()))
            .map_err(|source| failed("start a thread for", source))?;
        match entered.join() {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(source)) => match source.raw_os_error() {
                // The file outlives the namespace it was bound to (a left-over of a killed runtime).
                Some(libc::EINVAL) => Err(failed("enter (not a network namespace)", source)),
                _ => Err(failed("enter", source)),
            },
            Err(_) => Err(failed("work in", io::Error::other("the thread panicked"))),
        }
    })
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
fn enter(file: &File) -> io::Result<()> {
    #[expect(unsafe_code, reason = "std has no call for it")]
    // SAFETY: setns(2) takes an open descriptor and changes the calling thread alone, which is ours and ends.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_namespace_is_gone_and_another_file_is_not_a_namespace() {
        assert!(matches!(inside(Path::new("/run/netns/never-was"), || ()), Err(NetnsError::Gone(_))));
        let error = inside(Path::new("/etc/hostname"), || ()).unwrap_err();
        assert!(error.to_string().contains("/etc/hostname"), "{error}");
    }

    #[test]
    fn loopback_has_both_name_and_index() {
        assert_eq!(interface_index("lo"), Some(1));
        assert_eq!(interface_name(1).as_deref(), Some("lo"));
        assert_eq!(interface_index("no-such-link"), None);
    }
}
