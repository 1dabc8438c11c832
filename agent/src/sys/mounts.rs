//! How work is done with another mount namespace's eyes: the host's, for an agent that lives in a pod. And what kind of
//! file system is mounted somewhere.
//!
//! Never changes a thread that goes on living. Knows nothing of plugins.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;

use super::netns::file_system;

/// Whether `path` lies, or would lie, on a bpffs: the nearest folder that exists decides (`statfs(2)`).
///
/// # Errors
/// No folder above it can be opened.
pub fn is_on_bpffs(path: &Path) -> io::Result<bool> {
    let mut open = Err(io::ErrorKind::NotFound.into());
    for folder in path.ancestors() {
        open = File::open(folder);
        if !matches!(&open, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    Ok(file_system(&open?)? == libc::BPF_FS_MAGIC)
}

/// A mount namespace that work can be done in.
#[derive(Debug)]
pub struct MountNamespace(File);

impl MountNamespace {
    /// Opens the namespace file at `path`, and enters it once to see whether that is allowed: it takes the right to
    /// look at the process (`CAP_SYS_PTRACE`) and to change root (`CAP_SYS_ADMIN`, `CAP_SYS_CHROOT`; `setns(2)`).
    ///
    /// # Errors
    /// It cannot be opened, it is no mount namespace, or we may not enter it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let namespace = Self(File::open(path)?);
        namespace.inside(|| ())?;
        Ok(namespace)
    }

    /// Runs `work` on a thread of its own that sees this namespace's files, and waits for it.
    ///
    /// # Errors
    /// There is no thread, or the namespace cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("host".into()).spawn_scoped(scope, || {
                enter(&self.0)?;
                Ok(work())
            })?;
            thread.join().map_err(|_panic| io::Error::other("the thread panicked"))?
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that enters mount namespaces")]
#[expect(unsafe_code, reason = "std has neither unshare nor setns")]
fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: unshare changes the calling thread only, which is ours and ends; it touches no memory. A thread that
    // shares its root and working directory with others may not change its mount namespace.
    if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open; setns changes the calling thread only.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bpffs_is_told_from_other_file_systems() {
        assert!(!is_on_bpffs(&std::env::temp_dir().join("none/of/these")).unwrap());
        assert!(is_on_bpffs(Path::new("/sys/fs/bpf/none/of/these")).unwrap());
    }

    #[test]
    fn our_own_namespace_can_be_entered_and_others_are_refused() {
        let own = MountNamespace::open(Path::new("/proc/self/ns/mnt")).unwrap();
        let seen = own.inside(|| std::fs::read_link("/proc/thread-self/ns/mnt").unwrap()).unwrap();
        assert_eq!(seen, std::fs::read_link("/proc/self/ns/mnt").unwrap());
        assert!(MountNamespace::open(Path::new("/proc/self/ns/net")).is_err());
        assert!(MountNamespace::open(Path::new("/nonexistent")).is_err());
    }
}
