//! Did something change in one of these folders? inotify, as one question that can be awaited.
//!
//! Says that something changed and never what: whoever asks looks for himself. Events can be lost (`inotify(7)`), so
//! nobody should rely on this alone.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Files that come, go, are renamed or were written to, and the folder itself going away.
const EVENTS: u32 = libc::IN_CREATE
    | libc::IN_CLOSE_WRITE
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_DELETE
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF;

/// An inotify instance; it ends with this value.
#[derive(Debug)]
pub struct Watch {
    queue: AsyncFd<OwnedFd>,
}

impl Watch {
    /// A watch over nothing yet; must be made within a tokio runtime.
    ///
    /// # Errors
    /// The limit of instances (`fs.inotify.max_user_instances`) is reached.
    #[expect(unsafe_code, reason = "std has no inotify")]
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes flags alone.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: it stays open and the same for as long as `AsyncFd` has it, which is its only owner.
        Ok(Self { queue: unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }? })
    }

    /// Watches `folder`, too. To be asked again now and then: a folder that was replaced is another one, and the same
    /// one twice is watched once.
    ///
    /// # Errors
    /// It is not there or no folder, or the limit of watches is reached.
    #[expect(unsafe_code, reason = "std has no inotify")]
    pub fn cover(&self, folder: &Path) -> io::Result<()> {
        let path = CString::new(folder.as_os_str().as_bytes())?;
        // SAFETY: the descriptor is open and the path ends with a zero.
        let wd = unsafe { libc::inotify_add_watch(self.queue.as_raw_fd(), path.as_ptr(), EVENTS | libc::IN_ONLYDIR) };
        if wd < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for a change. What happened until this returns counts as one.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.queue.readable().await?;
        loop {
            match ready.try_io(|queue| drain(queue.get_ref())) {
                Ok(taken) => taken?,
                Err(_nothing_left) => return Ok(()),
            }
        }
    }
}

/// Takes what is queued; an error of kind `WouldBlock` when that is nothing.
#[expect(unsafe_code, reason = "std has no inotify")]
fn drain(queue: &OwnedFd) -> io::Result<()> {
    let mut events = [0_u8; 4096];
    // SAFETY: the buffer is writable for its whole length while the call lasts.
    let taken = unsafe { libc::read(queue.as_raw_fd(), events.as_mut_ptr().cast(), events.len()) };
    match taken {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        taken if taken < 0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn every_kind_of_change_is_noticed_once() {
        let folder = std::env::temp_dir().join(format!("multus-watch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let watch = Watch::new().unwrap();
        assert!(watch.cover(&folder.join("none")).is_err());
        watch.cover(&folder).unwrap();
        watch.cover(&folder).unwrap();
        let (a, b) = (folder.join("a"), folder.join("b"));
        let changes: [&dyn Fn(); 5] = [
            &|| std::fs::write(&a, "x").unwrap(),
            &|| std::fs::rename(&a, &b).unwrap(),
            &|| std::fs::write(&b, "").unwrap(),
            &|| std::fs::remove_file(&b).unwrap(),
            &|| std::fs::remove_dir(&folder).unwrap(),
        ];
        let soon = Duration::from_millis(300);
        for (at, change) in changes.iter().enumerate() {
            let calm = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
            assert!(calm.is_err(), "nothing happened before change {at}");
            change();
            tokio::time::timeout(soon, watch.changed()).await.unwrap_or_else(|_| panic!("change {at}")).unwrap();
        }
    }
}
