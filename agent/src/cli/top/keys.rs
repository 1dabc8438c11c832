//! What the keys of `top` mean: bytes of a terminal in, another look at the same numbers out.
//!
//! Touches no terminal.

use super::What;
use super::rates::heads;

/// The line that says so.
pub(super) const HELP: &str = "1-9,0 column  ←/→ next column  r reverse  Tab next view  ↑/↓ scroll  q quit";

/// What is looked at, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// What is looked at.
    pub what: What,
    /// The column to sort by; `None`: the first number.
    pub sort: Option<usize>,
    /// From the other end.
    pub reverse: bool,
    /// Rows above the first one that is shown.
    pub above: usize,
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// Go.
    Quit,
    /// Sort by this column.
    Column(usize),
    /// Sort by the column this far to the right.
    Beside(isize),
    /// Turn the order.
    Reverse,
    /// The view this far along.
    View(isize),
    /// So many rows further.
    Scroll(isize),
    /// To the first row.
    Top,
}

/// The keys of what a terminal sent. An escape alone quits; what means nothing is passed over.
pub(super) fn read(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        keys.extend(match first {
            0x1b if after.is_empty() => Some(Key::Quit),
            0x1b => {
                let (key, length) = sequence(after);
                rest = after.get(length..).unwrap_or_default();
                key
            }
            digit @ b'1'..=b'9' => Some(Key::Column(usize::from(digit - b'1'))),
            b'0' => Some(Key::Column(9)),
            b'q' | b'Q' => Some(Key::Quit),
            b'r' => Some(Key::Reverse),
            b'\t' => Some(Key::View(1)),
            b'<' => Some(Key::Beside(-1)),
            b'>' => Some(Key::Beside(1)),
            b'j' => Some(Key::Scroll(1)),
            b'k' => Some(Key::Scroll(-1)),
            b' ' => Some(Key::Scroll(PAGE)),
            b'g' => Some(Key::Top),
            _ => None,
        });
    }
    keys
}

/// Rows of a page, whatever the terminal's size.
const PAGE: isize = 10;

/// What follows an escape (ECMA-48, 5.4; `ESC O` is xterm's): its key, if it is one of ours, and its length.
fn sequence(bytes: &[u8]) -> (Option<Key>, usize) {
    if !matches!(bytes.first(), Some(b'[' | b'O')) {
        // A key together with Alt.
        return (None, 1);
    }
    let Some(last) = bytes.iter().skip(1).position(|byte| (0x40..=0x7e).contains(byte)).map(|at| at + 1) else {
        return (None, bytes.len());
    };
    let key = match bytes.get(1..=last).unwrap_or_default() {
        b"A" => Some(Key::Scroll(-1)),
        b"B" => Some(Key::Scroll(1)),
        b"C" => Some(Key::Beside(1)),
        b"D" => Some(Key::Beside(-1)),
        b"Z" => Some(Key::View(-1)),
        b"H" | b"1~" => Some(Key::Top),
        b"5~" => Some(Key::Scroll(-PAGE)),
        b"6~" => Some(Key::Scroll(PAGE)),
        _ => None,
    };
    (key, last + 1)
}

impl Choice {
    /// The same after a key; `shown` is the column it is sorted by now. `None`: go.
    pub(super) fn after(mut self, key: Key, shown: usize) -> Option<Self> {
        let columns = heads(self.what.name()).len();
        match key {
            Key::Quit => return None,
            // Again on the same column turns it, as in every table with heads to press.
            Key::Column(column) if column < columns => {
                self.reverse = column == shown && !self.reverse;
                self.sort = Some(column);
            }
            Key::Column(_) => {}
            Key::Beside(by) => {
                (self.sort, self.reverse) = (Some(moved(shown, by, columns)), false);
            }
            Key::Reverse => self.reverse = !self.reverse,
            Key::View(by) => {
                let at = What::ALL.iter().position(|what| *what == self.what).unwrap_or(0);
                let what = What::ALL.get(moved(at, by, What::ALL.len())).copied().unwrap_or(self.what);
                self = Self { what, sort: None, reverse: false, above: 0 };
            }
            Key::Scroll(by) => self.above = self.above.saturating_add_signed(by),
            Key::Top => self.above = 0,
        }
        Some(self)
    }
}

/// `by` places further in a ring of `all`.
fn moved(at: usize, by: isize, all: usize) -> usize {
    let by = by.rem_euclid(isize::try_from(all.max(1)).unwrap_or(1));
    at.saturating_add_signed(by) % all.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_terminals_send_them() {
        for (bytes, keys) in [
            (&b"3"[..], vec![Key::Column(2)]),
            (b"0r", vec![Key::Column(9), Key::Reverse]),
            (b"\x1b[C\x1b[D", vec![Key::Beside(1), Key::Beside(-1)]),
            (b"\x1bOA", vec![Key::Scroll(-1)]),
            (b"\t\x1b[Z", vec![Key::View(1), Key::View(-1)]),
            (b"\x1b[6~\x1b[5~\x1b[1~", vec![Key::Scroll(10), Key::Scroll(-10), Key::Top]),
            // What is not ours: F5, a mouse report, a letter, UTF-8; nothing of them is taken for a key.
            (b"\x1b[15~\x1b[<0;1;1Mx\xc3\xa9", vec![]),
            (b"\x1b", vec![Key::Quit]),
            (b"\x1b[", vec![]),
            (b"\x1bq1", vec![Key::Column(0)]),
            (b"q", vec![Key::Quit]),
            (b"", vec![]),
        ] {
            assert_eq!(read(bytes), keys, "{bytes:?}");
        }
    }

    #[test]
    fn a_choice_follows_its_keys() {
        let first = Choice { what: What::Attachments, sort: None, reverse: false, above: 0 };
        let after = |choice: Choice, keys: &[(Key, usize)]| {
            keys.iter().try_fold(choice, |choice, (key, shown)| choice.after(*key, *shown))
        };
        let by = |sort, reverse| Some(Choice { sort: Some(sort), reverse, ..first });
        assert_eq!(after(first, &[(Key::Column(1), 4)]), by(1, false));
        assert_eq!(after(first, &[(Key::Column(1), 4), (Key::Column(1), 1)]), by(1, true), "again turns it");
        assert_eq!(after(first, &[(Key::Beside(1), 9)]), by(0, false), "a ring");
        assert_eq!(after(first, &[(Key::Beside(-1), 0)]), by(9, false));
        assert_eq!(after(first, &[(Key::Column(40), 4)]), Some(first), "there is no such column");
        let networks = Choice { what: What::Networks, ..first };
        assert_eq!(after(Choice { above: 7, sort: Some(1), ..first }, &[(Key::View(1), 1)]), Some(networks));
        assert_eq!(after(first, &[(Key::View(-1), 0)]).map(|choice| choice.what), Some(What::Delegates));
        assert_eq!(after(first, &[(Key::Scroll(-1), 0), (Key::Scroll(3), 0)]).map(|choice| choice.above), Some(3));
        assert_eq!(after(first, &[(Key::Quit, 0)]), None);
    }
}
