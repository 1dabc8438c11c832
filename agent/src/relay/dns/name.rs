//! What is a domain name? Labels, at most 255 bytes with their lengths; alike whatever the case (RFC 6762 section 16).
//!
//! Never holds more than a name may be long, and never follows a pointer that does not lead back.

use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use super::{DnsError, HEADER};

/// The longest name, its final zero included (RFC 1035 section 3.1).
const MOST_BYTES: usize = 255;
/// The longest label.
const MOST_LABEL: usize = 63;
/// The most labels: each takes two bytes at least.
const MOST_LABELS: usize = 128;
/// The most pointers one name is followed through.
const MOST_JUMPS: usize = 32;

/// A name: each label behind its length, without the final zero.
#[derive(Clone, Default)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The name with these labels, first one first.
    ///
    /// # Errors
    /// A label is empty or longer than 63 bytes, or the name is longer than 255.
    pub fn of<L: AsRef<[u8]>>(labels: impl IntoIterator<Item = L>) -> Result<Self, DnsError> {
        let mut wire = Vec::new();
        for label in labels {
            let label = label.as_ref();
            let length =
                u8::try_from(label.len()).ok().filter(|length| (1..=MOST_LABEL).contains(&usize::from(*length)));
            wire.push(length.ok_or(DnsError::Name(0))?);
            wire.extend_from_slice(label);
        }
        if wire.len() < MOST_BYTES { Ok(Self(wire.into())) } else { Err(DnsError::Name(0)) }
    }

    /// The name at `at` of a message, and where what follows it begins.
    pub(super) fn read(message: &[u8], at: usize) -> Result<(Self, usize), DnsError> {
        let mut buffer = [0; MOST_BYTES];
        let (length, end) = walk(message, at, &mut buffer)?;
        Ok((Self(buffer.get(..length).unwrap_or_default().into()), end))
    }

    /// Where what follows the name at `at` begins, if it is one.
    pub(super) fn skip(message: &[u8], at: usize) -> Result<usize, DnsError> {
        walk(message, at, &mut [0; MOST_BYTES]).map(|(_, end)| end)
    }

    /// Its labels, first one first.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (label, next) = after.split_at_checked(usize::from(*length))?;
            rest = next;
            Some(label)
        })
    }

    /// The name and its first label; `None` for the root.
    pub fn split_first(&self) -> Option<(&[u8], Self)> {
        let (length, after) = self.0.split_first()?;
        let (label, rest) = after.split_at_checked(usize::from(*length))?;
        Some((label, Self(rest.into())))
    }

    /// Whether it is `other`, or below it.
    pub fn is_within(&self, other: &Self) -> bool {
        let starts = std::iter::successors(Some(&*self.0), |rest| {
            let (length, after) = rest.split_first()?;
            after.get(usize::from(*length)..)
        });
        starts.into_iter().any(|rest| rest.eq_ignore_ascii_case(&other.0))
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes it takes, uncompressed.
    pub fn len(&self) -> usize {
        self.0.len() + 1
    }

    /// Never: the root takes a byte too.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Copies the labels at `at` into `into`; says how many bytes they are and where what follows begins. Every pointer must
/// lead to before the place where the labels it ends began, so there is no way around.
fn walk(message: &[u8], at: usize, into: &mut [u8; MOST_BYTES]) -> Result<(usize, usize), DnsError> {
    let bad = DnsError::Name(at);
    let short = DnsError::Short(message.len());
    let (mut here, mut began, mut end, mut length, mut labels, mut jumps) = (at, at, None, 0, 0, 0);
    loop {
        let first = *message.get(here).ok_or(short)?;
        match first >> 6 {
            0 if first == 0 => return Ok((length, end.unwrap_or(here + 1))),
            0 => {
                let after = here + 1 + usize::from(first);
                let label = message.get(here..after).ok_or(short)?;
                labels += 1;
                // The final zero needs its byte too.
                let room = into.get_mut(length..length + label.len()).filter(|_| length + label.len() < MOST_BYTES);
                room.filter(|_| labels < MOST_LABELS).ok_or(bad)?.copy_from_slice(label);
                length += label.len();
                here = after;
            }
            3 => {
                let low = *message.get(here + 1).ok_or(short)?;
                let target = usize::from(first & 0x3f) << 8 | usize::from(low);
                jumps += 1;
                if target >= began || target < HEADER || jumps > MOST_JUMPS {
                    return Err(bad);
                }
                end = end.or(Some(here + 2));
                (here, began) = (target, target);
            }
            _ => return Err(bad),
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        // Lengths are below the letters, so they compare as themselves.
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|byte| state.write_u8(byte.to_ascii_lowercase()));
        state.write_u8(0);
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let lower = |name: &Self| name.0.iter().map(u8::to_ascii_lowercase).collect::<Vec<_>>();
        lower(self).cmp(&lower(other))
    }
}

impl FromStr for Name {
    type Err = DnsError;

    /// Labels between dots, a dot at the end or not; no escapes: names from people and constants, not from the wire.
    fn from_str(text: &str) -> Result<Self, DnsError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() { Ok(Self::default()) } else { Self::of(text.split('.')) }
    }
}

/// Labels between dots, without one at the end; dots and backslashes in labels behind a backslash, what is not UTF-8
/// replaced. Other odd characters are for whoever prints it to escape.
impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, label) in self.labels().enumerate() {
            if at > 0 {
                out.write_char('.')?;
            }
            for c in String::from_utf8_lossy(label).chars() {
                if matches!(c, '.' | '\\') {
                    out.write_char('\\')?;
                }
                out.write_char(c)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::name;
    use super::super::{Builder, CLASS_IN, Message, kind};
    use super::*;

    #[test]
    fn names_are_as_long_as_they_may_be() {
        let label = "x".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "y".repeat(61));
        assert_eq!(name(&longest).len(), 255);
        let mut query = Builder::query();
        query.question(&name(&longest), kind::A, CLASS_IN, false).unwrap();
        assert_eq!(Message::read(&query.finish()).unwrap().questions[0].name(), name(&longest));
        let deepest = vec!["a"; 127].join(".");
        assert_eq!(name(&deepest).labels().count(), 127);
        for bad in [format!("{label}x"), format!("{longest}y"), "a..b".to_owned(), vec!["a"; 128].join(".")] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_compare_without_case_and_print_without_doubt() {
        let odd = Name::of(["a.b\\c", "\u{1b}[2J", "local"]).unwrap();
        assert_eq!(odd.to_string(), "a\\.b\\\\c.\u{1b}[2J.local");
        assert_eq!(Name::of([&[0xff, b'x'][..]]).unwrap().to_string(), "\u{fffd}x");
        assert_eq!(name("_HTTP._tcp.Local"), name("_http._tcp.local."));
        assert_ne!(name("a.bc"), name("ab.c"));
        assert!(name("x._http._tcp.local").is_within(&name("_HTTP._tcp.local")));
        assert!(name("local").is_within(&Name::default()) && !name("xlocal").is_within(&name("local")));
        let (first, rest) = odd.split_first().unwrap();
        assert_eq!((first, rest.labels().count()), (b"a.b\\c".as_slice(), 2));
        let set: std::collections::HashSet<_> = [name("A.local"), name("a.LOCAL")].into();
        assert_eq!(set.len(), 1);
    }
}
