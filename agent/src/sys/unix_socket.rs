//! Who connects to a Unix socket, and for how long does he wait? std waits for ever where a listener accepts nobody and its
//! queue is full.
//!
//! Knows nothing of what is said then.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Connects to the socket at `path`, until `until` at the latest.
///
/// # Errors
/// `TimedOut` where nobody accepted in time; else what connect(2) says.
pub fn connect(path: &Path, until: Instant) -> io::Result<UnixStream> {
    let (address, length) = address(path)?;
    loop {
        let socket = socket()?;
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        // How long connect(2) waits for room in the listener's queue (socket(7), SO_SNDTIMEO).
        let socket = UnixStream::from(socket);
        socket.set_write_timeout(Some(left))?;
        #[expect(unsafe_code, reason = "std connects before anybody could set a time")]
        // SAFETY: the descriptor is open; the pointer is to a whole sockaddr_un that outlives the call, and `length` is not
        // more than its size.
        let done = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
        if done == 0 {
            socket.set_write_timeout(None)?;
            return Ok(socket);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody accepts connections there"));
            }
            _ => return Err(error),
        }
    }
}

/// A path as the kernel wants it (unix(7)).
fn address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let bytes = path.as_os_str().as_bytes();
    #[expect(unsafe_code, reason = "a sockaddr_un has no constructor")]
    // SAFETY: all of its fields are numbers, for which zero is a value.
    let mut address: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or(0);
    // One byte is left for the zero at the end.
    if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a socket"));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_un>()).unwrap_or(0);
    Ok((address, length))
}

fn socket() -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "std makes no socket that is not connected")]
    // SAFETY: the call takes no pointer; the descriptor is new, and nobody else's.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_listener_that_accepts_nobody_is_not_waited_for() {
        let folder = std::env::temp_dir().join(format!("multus-unix-socket-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, soon) = (folder.join("s"), || Instant::now() + Duration::from_millis(50));
        assert_eq!(connect(&path, soon()).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(&path).unwrap();
        #[expect(
            unsafe_code,
            reason = "std's queue is as long as the kernel allows: more than a process has descriptors"
        )]
        // SAFETY: the call takes no pointer; a second one changes the length of the queue alone (listen(2)).
        let shortened = unsafe { libc::listen(listener.as_raw_fd(), 1) };
        assert_eq!(shortened, 0, "{}", io::Error::last_os_error());
        let mut waiting = Vec::new();
        let refused = loop {
            match connect(&path, soon()) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10, "the queue has no end");
        };
        assert!(!waiting.is_empty(), "nobody was let wait");
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut, "{refused}");
        drop(listener);
        assert_eq!(connect(&path, soon()).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect(Path::new(&"x".repeat(200)), soon()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
