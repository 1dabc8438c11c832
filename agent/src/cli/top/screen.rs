//! Where frames go: in place on a terminal, one write each, and off it again however that ends; else one after the other.
//!
//! With the feature `tui` ratatui draws what changed; without it a frame is written over the last one.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::keys::{self, Key};
use super::table::Table;
use crate::cli::Ending;
use crate::cli::output;
use crate::sys::terminal;

/// The alternate screen without a cursor, and back (xterm's control sequences, which terminals have in common).
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// Is the alternate screen shown? Whoever leaves it must do so once: the next time would take the cursor back over what was
/// written meanwhile.
static IS_SHOWN: AtomicBool = AtomicBool::new(false);
/// Keys that wait: whoever leans on one loses the rest.
const WAITING: usize = 64;

/// One table with what stands above and below it.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// The first line.
    pub title: String,
    /// The table.
    pub table: &'a Table,
    /// Rows of it above the first one that is shown.
    pub above: usize,
    /// The last line, where keys are heard.
    pub help: &'static str,
}

/// A place for frames; dropping it leaves the terminal as it was.
#[derive(Debug)]
pub(super) struct Screen {
    place: Option<Place>,
    is_first: bool,
}

/// A terminal on which frames replace each other.
#[derive(Debug)]
struct Place {
    keys: Option<terminal::Keys>,
    #[cfg(feature = "tui")]
    painter: super::tui::Painter,
}

impl Screen {
    /// `stays`: frames replace each other, if that is a terminal which can.
    pub(super) fn begin(stays: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        let in_place = stays && !is_dumb && io::stdout().is_terminal();
        let place = in_place.then(|| {
            let keys = terminal::Keys::of(&io::stdin());
            enter();
            Place {
                keys,
                #[cfg(feature = "tui")]
                painter: super::tui::Painter::default(),
            }
        });
        Self { place, is_first: true }
    }

    /// Whether frames replace each other.
    pub(super) fn stays(&self) -> bool {
        self.place.is_some()
    }

    /// What is pressed; nothing where no keys are heard.
    pub(super) fn keys(&self) -> mpsc::Receiver<Key> {
        let (give, take) = mpsc::channel(WAITING);
        let reader = self.place.as_ref().and_then(|place| place.keys.as_ref()?.reader().ok());
        if let Some(reader) = reader {
            // It ends with the program: nothing else ends a read.
            std::thread::spawn(move || listen(reader, &give));
        }
        take
    }

    /// Shows a frame; false when nobody reads any more.
    pub(super) fn show(&mut self, frame: &Frame<'_>) -> Result<bool, Ending> {
        let Some(place) = &mut self.place else {
            return self.say(&format!("{}\n{}", frame.title, frame.table.text()));
        };
        if !IS_SHOWN.load(Ordering::Relaxed) {
            return Err(Ending::Failed("a thread of this program ended in a panic; its words are above".to_owned()));
        }
        let help = place.keys.as_ref().map(|_| frame.help);
        #[cfg(feature = "tui")]
        return place.painter.paint(frame, help);
        #[cfg(not(feature = "tui"))]
        over_the_last(&format!("{}\n{}", frame.title, text(frame, help.is_some())), help)
    }

    /// Shows that there is nothing to show yet, where that would stay.
    pub(super) fn waits(&mut self, why: &str, help: &str) -> Result<bool, Ending> {
        let Some(place) = &mut self.place else { return Ok(true) };
        let help = place.keys.as_ref().map(|_| help);
        #[cfg(feature = "tui")]
        place.painter.forget();
        over_the_last(why, help)
    }

    /// Prints a frame of text behind the last one.
    pub(super) fn say(&mut self, text: &str) -> Result<bool, Ending> {
        let is_first = std::mem::replace(&mut self.is_first, false);
        let between = if is_first || text.starts_with(['{', '-']) { "" } else { "\n" };
        output::write(&format!("{between}{text}"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.place.is_some() {
            leave();
        }
    }
}

/// Shows the alternate screen until somebody leaves it. A panic does before it speaks: on the alternate screen its words
/// would be gone with it.
fn enter() {
    IS_SHOWN.store(true, Ordering::Relaxed);
    drop(output::write(ENTER));
    let speak = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        leave();
        speak(panic);
    }));
}

fn leave() {
    if IS_SHOWN.swap(false, Ordering::Relaxed) {
        drop(output::write(LEAVE));
    }
}

fn listen(mut terminal: File, give: &mpsc::Sender<Key>) {
    let mut bytes = [0; 256];
    while let Ok(count @ 1..) = terminal.read(&mut bytes) {
        for key in keys::read(bytes.get(..count).unwrap_or_default()) {
            if let Err(mpsc::error::TrySendError::Closed(_)) = give.try_send(key) {
                return;
            }
        }
    }
}

/// What a head is called where keys choose columns.
pub(super) fn head(at: usize, name: &str, is_chosen: bool) -> String {
    match at {
        at if !is_chosen || at > 9 => name.to_owned(),
        at => format!("{}:{name}", (at + 1) % 10),
    }
}

#[cfg(not(feature = "tui"))]
fn text(frame: &Frame<'_>, is_chosen: bool) -> String {
    let heads: Vec<_> = frame.table.heads().iter().enumerate().map(|(at, name)| head(at, name, is_chosen)).collect();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let rows = frame.table.shown(frame.above).into_iter().map(|row| row.into_iter().map(|(_, text)| text).collect());
    output::table(&heads, rows.collect())
}

fn over_the_last(text: &str, help: Option<&str>) -> Result<bool, Ending> {
    output::write(&placed(text, help, size()))
}

/// The terminal's columns and lines; what terminals had once where it does not know.
pub(super) fn size() -> (u16, u16) {
    terminal::size(&io::stdout()).unwrap_or((80, 24))
}

/// The text over the last one, as much of it as there is room for: no line is empty in between, so nothing flickers.
fn placed(text: &str, help: Option<&str>, (columns, lines): (u16, u16)) -> String {
    let cut = |line: &str| line.chars().take(usize::from(columns)).collect::<String>();
    let room = usize::from(lines) - usize::from(help.is_some());
    let shown: Vec<String> = text.lines().take(room).map(|line| cut(line) + "\u{1b}[K").collect();
    let help = help.map(|help| format!("\u{1b}[{lines};1H{}", cut(help))).unwrap_or_default();
    format!("\u{1b}[H{}\u{1b}[J{help}", shown.join("\r\n"))
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

/// Hears that the terminal has another size.
#[derive(Debug)]
pub(super) struct Resized(Option<Signal>);

impl Resized {
    /// From now on.
    pub(super) fn hear() -> Self {
        Self(signal(SignalKind::window_change()).ok())
    }

    /// The next time; never where it cannot be heard.
    pub(super) async fn again(&mut self) {
        match &mut self.0 {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_terminal_and_leaves_nothing_of_the_last_one() {
        let frame = "HEAD and more\nörtlich\nc\nd\n";
        assert_eq!(placed(frame, None, (6, 3)), "\u{1b}[HHEAD a\u{1b}[K\r\nörtlic\u{1b}[K\r\nc\u{1b}[K\u{1b}[J");
        assert_eq!(placed(frame, None, (80, 24)).matches("\r\n").count(), 3, "no scrolling at the end");
        let helped = placed(frame, Some("q quit"), (4, 3));
        assert_eq!(helped, "\u{1b}[HHEAD\u{1b}[K\r\nörtl\u{1b}[K\u{1b}[J\u{1b}[3;1Hq qu");
    }

    #[test]
    fn heads_have_the_keys_that_choose_them() {
        let heads: Vec<_> = [0, 8, 9, 10].map(|at| head(at, "X", true)).into();
        assert_eq!(heads, ["1:X", "9:X", "0:X", "X"]);
        assert_eq!(head(0, "X", false), "X");
    }
}
