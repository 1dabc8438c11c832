//! Where frames go: in place on a terminal, one write each, and off it again however that ends; else one after the other.

use std::io::{self, IsTerminal};

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Ending;
use crate::cli::output;
use crate::sys::terminal;

/// The alternate screen without a cursor, and back (xterm's control sequences, which terminals have in common).
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// A place for frames; dropping it leaves the terminal as it was.
#[derive(Debug)]
pub(super) struct Screen {
    in_place: bool,
    is_first: bool,
}

impl Screen {
    /// `stays`: frames replace each other, if that is a terminal which can.
    pub(super) fn begin(stays: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        let in_place = stays && !is_dumb && io::stdout().is_terminal();
        if in_place {
            drop(output::write(ENTER));
        }
        Self { in_place, is_first: true }
    }

    /// Shows a frame; false when nobody reads any more.
    pub(super) fn show(&mut self, frame: &str) -> Result<bool, Ending> {
        let is_first = std::mem::replace(&mut self.is_first, false);
        if !self.in_place {
            let between = if is_first || frame.starts_with(['{', '-']) { "" } else { "\n" };
            return output::write(&format!("{between}{frame}"));
        }
        output::write(&placed(frame, terminal::size(&io::stdout()).unwrap_or((80, 24))))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.in_place {
            drop(output::write(LEAVE));
        }
    }
}

/// The frame over the last one, as much of it as there is room for: no line is empty in between, so nothing flickers.
fn placed(frame: &str, (columns, lines): (u16, u16)) -> String {
    let cut = |line: &str| line.chars().take(usize::from(columns)).collect::<String>();
    let shown: Vec<String> = frame.lines().take(usize::from(lines)).map(|line| cut(line) + "\u{1b}[K").collect();
    format!("\u{1b}[H{}\u{1b}[J", shown.join("\r\n"))
}

/// Resolves when the user, or whoever ends programs, says so; never where it cannot be heard.
pub(super) async fn interrupted() {
    let hear = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = hear(SignalKind::interrupt()) => {}
        () = hear(SignalKind::terminate()) => {}
        () = hear(SignalKind::hangup()) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_terminal_and_leaves_nothing_of_the_last_one() {
        let frame = "HEAD and more\nörtlich\nc\nd\n";
        assert_eq!(placed(frame, (6, 3)), "\u{1b}[HHEAD a\u{1b}[K\r\nörtlic\u{1b}[K\r\nc\u{1b}[K\u{1b}[J");
        assert_eq!(placed(frame, (80, 24)).matches("\r\n").count(), 3, "no scrolling at the end");
    }
}
