//! What does the part of a request's target behind the question mark say? Names with values, percent signs undone.
//!
//! Knows no name. What is written twice, or not as `name=value`, is refused.

use std::collections::BTreeMap;

/// The most bytes of a query.
const MOST_BYTES: usize = 4096;

/// The names and values of a query.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads it; `None`: it is no such thing.
    pub(super) fn read(text: Option<&str>) -> Option<Self> {
        let text = text.unwrap_or_default();
        let mut values = BTreeMap::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=')?;
            if values.insert(plain(name)?, plain(value)?).is_some() {
                return None;
            }
        }
        (text.len() <= MOST_BYTES).then_some(Self(values))
    }

    /// Takes the value of `name`, if there is one that is not empty.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// A name that nobody took.
    pub(super) fn rest(&self) -> Option<&str> {
        self.0.keys().next().map(String::as_str)
    }
}

fn plain(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let pair = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let read = |text: &str| Query::read(Some(text)).map(|query| query.0.into_iter().collect::<Vec<_>>());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read(""), Some(vec![]));
        assert_eq!(read("a=b%20c%26&d="), Some(vec![pair("a", "b c&"), pair("d", "")]));
        for bad in ["a", "a=%", "a=%2", "a=%zz", "a=%ff", "a=1&a=2", &format!("a={}", "x".repeat(5000))] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let mut query = Query::read(Some("a=1&b=2")).unwrap();
        assert_eq!((query.take("a"), query.take("a"), query.rest()), (Some("1".into()), None, Some("b")));
    }
}
