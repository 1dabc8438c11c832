//! How large is the terminal that we write to? Changes nothing about it.

use std::os::fd::{AsFd, AsRawFd};

/// Columns and lines of the terminal behind `output`; `None` where there is none, or it does not know.
pub fn size(output: &impl AsFd) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    #[expect(unsafe_code, reason = "std does not ask for a terminal's size")]
    // SAFETY: the descriptor is open, and the pointer is to a winsize of ours, which the kernel fills (ioctl_tty(2)).
    let asked = unsafe { libc::ioctl(output.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (asked == 0 && size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}
