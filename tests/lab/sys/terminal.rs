//! Pseudo-terminals.

use std::fs::File;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::check;

/// A pseudo-terminal of this size: the end that a person sits at, and the program's (openpty(3)).
pub fn pair(columns: u16, lines: u16) -> io::Result<(File, File)> {
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
pub fn local_modes(terminal: &File) -> io::Result<libc::tcflag_t> {
    // SAFETY: the termios is ours, of plain numbers, and tcgetattr(3) fills it.
    unsafe {
        let mut modes: libc::termios = zeroed();
        check(libc::tcgetattr(terminal.as_raw_fd(), &raw mut modes))?;
        Ok(modes.c_lflag)
    }
}
