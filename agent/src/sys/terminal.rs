//! How large is the terminal that we write to, and which keys are pressed? Whatever is changed about it is put back.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// Columns and lines of the terminal behind `output`; `None` where there is none, or it does not know.
pub fn size(output: &impl AsFd) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    #[expect(unsafe_code, reason = "std does not ask for a terminal's size")]
    // SAFETY: the descriptor is open, and the pointer is to a winsize of ours, which the kernel fills (ioctl_tty(2)).
    let asked = unsafe { libc::ioctl(output.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (asked == 0 && size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// A terminal that gives every key at once and does not print it. Dropping it puts the terminal back, also in a panic.
#[derive(Debug)]
pub struct Keys {
    terminal: File,
    before: libc::termios,
}

impl Keys {
    /// From the terminal behind `input`; `None` where there is none, or where it is not ours to read: whoever reads in the
    /// background is stopped.
    ///
    /// Keys that end or stop a program by a signal which nobody could hear in time (`^\`, `^Z`) do nothing meanwhile; `^C`
    /// interrupts as ever.
    pub fn of(input: &impl AsFd) -> Option<Self> {
        let terminal = File::from(input.as_fd().try_clone_to_owned().ok()?);
        let fd = terminal.as_raw_fd();
        let mut before = MaybeUninit::<libc::termios>::uninit();
        #[expect(unsafe_code, reason = "std knows no terminals")]
        // SAFETY: the descriptor is open; tcgetpgrp(3) and getpgrp(2) take no pointer; tcgetattr(3) fills the termios that
        // is ours, and it is read only after that succeeded.
        let before = unsafe {
            if libc::tcgetpgrp(fd) != libc::getpgrp() || libc::tcgetattr(fd, before.as_mut_ptr()) != 0 {
                return None;
            }
            before.assume_init()
        };
        let mut silent = before;
        silent.c_lflag &= !(libc::ICANON | libc::ECHO);
        for (place, value) in [
            (libc::VMIN, 1),
            (libc::VTIME, 0),
            (libc::VQUIT, libc::_POSIX_VDISABLE),
            (libc::VSUSP, libc::_POSIX_VDISABLE),
        ] {
            silent.c_cc.get_mut(place).into_iter().for_each(|at| *at = value);
        }
        set(&terminal, &silent).then_some(Self { terminal, before })
    }

    /// What is read from it: on a thread of its own, for reading waits.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn reader(&self) -> io::Result<File> {
        self.terminal.try_clone()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        set(&self.terminal, &self.before);
    }
}

fn set(terminal: &File, to: &libc::termios) -> bool {
    #[expect(unsafe_code, reason = "std knows no terminals")]
    // SAFETY: the descriptor is open, and the pointer is to a whole termios that tcsetattr(3) only reads.
    let outcome = unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, to) };
    outcome == 0
}
