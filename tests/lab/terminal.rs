//! What does a person see who runs a program on a terminal, and what comes of the keys he presses?
//!
//! Understands what our programs write: text, the cursor's place, erasing, the alternate screen. Anything else is passed over.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::{sys, wait_for};

/// Runs what it is given, says how that ended, and stays.
const STAY: &str = r#"trap : INT QUIT HUP TERM; "$@"; echo "ended $?"; exec sleep 60"#;

/// A terminal with a program on it.
pub struct Terminal {
    person: File,
    program: File,
    modes: libc::tcflag_t,
    session: Child,
    seen: Arc<Mutex<Seen>>,
}

/// What was written on it.
#[derive(Debug, Default)]
struct Seen {
    screen: Screen,
    raw: Vec<u8>,
}

impl Terminal {
    /// Runs `command` on a terminal of this size, from a shell that stays when it has ended: with the last of its session
    /// a terminal's modes would go back by themselves.
    pub fn run(command: &Command, (columns, lines): (u16, u16)) -> Self {
        let (person, program) = sys::terminal::pair(columns, lines).expect("open a pseudo-terminal");
        let modes = sys::terminal::local_modes(&program).expect("read a terminal's modes");
        let end = || program.try_clone().expect("one more descriptor");
        let mut session = Command::new("setsid");
        session.args(["--ctty", "sh", "-c", STAY, "sh"]).arg(command.get_program()).args(command.get_args());
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))).collect::<Vec<_>>());
        session.env("TERM", "xterm").env_remove("NO_COLOR");
        let session = session.stdin(end()).stdout(end()).stderr(end()).spawn().expect("start setsid");
        let seen = Arc::new(Mutex::new(Seen { screen: Screen::new(columns, lines), raw: Vec::new() }));
        let (mut from, into) = (person.try_clone().expect("one more descriptor"), Arc::clone(&seen));
        // It ends when the terminal does.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                let mut seen = into.lock().expect("what was seen");
                seen.raw.extend_from_slice(&bytes[..count]);
                seen.screen.read(&bytes[..count]);
            }
        });
        Self { person, program, modes, session, seen }
    }

    /// The lines of the screen, without spaces at their ends.
    pub fn lines(&self) -> Vec<String> {
        self.seen.lock().expect("what was seen").screen.lines()
    }

    /// Everything that was written so far.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("what was seen").raw).into_owned()
    }

    /// Is the alternate screen shown?
    pub fn is_alternate(&self) -> bool {
        self.seen.lock().expect("what was seen").screen.alternate
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.person.write_all(keys.as_bytes()).expect("press a key");
    }

    /// Are its modes what they were before the program began?
    pub fn is_as_before(&self) -> bool {
        sys::terminal::local_modes(&self.program).expect("read a terminal's modes") == self.modes
    }

    /// The program's process.
    pub fn pid(&self) -> u32 {
        let shell = self.session.id();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap_or_default();
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a program under way")
    }

    /// Waits until the screen is as wanted; its lines then, or why not.
    pub fn until(&self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let lines = || Some(self.lines()).filter(|lines| wanted(lines));
        wait_for(Duration::from_secs(15), lines).unwrap_or_else(|| panic!("{what}:\n{}", self.lines().join("\n")))
    }

    /// Waits for the program's end, and says its exit code.
    pub fn ended(&self) -> i32 {
        let code = || self.raw().rsplit_once("ended ")?.1.split_once('\n')?.0.trim().parse().ok();
        let end = wait_for(Duration::from_secs(15), code);
        end.unwrap_or_else(|| panic!("it does not end:\n{}", self.lines().join("\n")))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Whoever else is on the terminal hears that it is gone.
        let _ = self.session.kill();
        let _ = self.session.wait();
    }
}

/// Cells, and where the next character goes.
#[derive(Debug, Default)]
struct Screen {
    cells: Vec<Vec<char>>,
    at: (usize, usize),
    alternate: bool,
    rest: Vec<u8>,
}

impl Screen {
    fn new(columns: u16, lines: u16) -> Self {
        Self { cells: vec![vec![' '; columns.into()]; lines.into()], ..Self::default() }
    }

    fn lines(&self) -> Vec<String> {
        self.cells.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned()).collect()
    }

    fn read(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        // A character or a sequence whose end has not come yet waits for it.
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let text = String::from_utf8_lossy(&self.rest[..whole]).into_owned();
        let mut rest = text.as_str();
        while let Some(c) = rest.chars().next() {
            match rest.strip_prefix("\u{1b}[") {
                Some(sequence) => {
                    let Some(end) = sequence.find(|c: char| ('@'..='~').contains(&c)) else { break };
                    self.control(&sequence[..end], &sequence[end..=end]);
                    rest = &sequence[end + 1..];
                }
                None if c == '\u{1b}' && rest.len() == 1 => break,
                None => {
                    self.put(c);
                    rest = &rest[c.len_utf8()..];
                }
            }
        }
        let done = whole - rest.len();
        self.rest.drain(..done);
    }

    fn put(&mut self, c: char) {
        match c {
            '\r' => self.at.1 = 0,
            '\n' => self.at.0 += 1,
            c => {
                if let Some(cell) = self.cells.get_mut(self.at.0).and_then(|line| line.get_mut(self.at.1)) {
                    *cell = c;
                }
                self.at.1 += 1;
            }
        }
    }

    fn control(&mut self, arguments: &str, end: &str) {
        let number = |at: usize| arguments.split(';').nth(at).and_then(|text| text.parse().ok()).unwrap_or(1usize);
        let (line, column) = self.at;
        let erased = match end {
            "H" => {
                self.at = (number(0) - 1, number(1) - 1);
                return;
            }
            "h" | "l" if arguments == "?1049" => {
                self.alternate = end == "h";
                (0, 0)
            }
            "J" if arguments == "2" => (0, 0),
            "J" => (line, column),
            "K" => {
                self.cells
                    .get_mut(line)
                    .into_iter()
                    .flat_map(|cells| cells.iter_mut().skip(column))
                    .for_each(|c| *c = ' ');
                return;
            }
            _ => return,
        };
        for (at, cells) in self.cells.iter_mut().enumerate().skip(erased.0) {
            let from = if at == erased.0 { erased.1 } else { 0 };
            cells.iter_mut().skip(from).for_each(|c| *c = ' ');
        }
    }
}
