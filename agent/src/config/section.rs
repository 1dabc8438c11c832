//! How a key is read from one object of the configuration, and which keys nobody asked for.
//!
//! Nothing here knows a key by name.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cni::RawObject;
use crate::fault::{CniError, code, quote};

/// A value that does not fit: says which key, what is there, and what fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}: write {fits}")]
pub struct ConfigError {
    /// The key with the names of the objects around it, `datapath.slots`.
    pub key: String,
    /// The value, escaped and cut.
    pub value: String,
    /// What may stand there.
    pub fits: String,
}

impl From<ConfigError> for CniError {
    fn from(error: ConfigError) -> Self {
        Self::new(code::INVALID_CONFIG, format!("field \"{}\" is {}", error.key, error.value))
            .remedy(format!("write {}", error.fits))
    }
}

/// One object of the configuration, while it is read.
pub(super) struct Section {
    path: String,
    object: RawObject,
    known: Vec<&'static str>,
}

impl Section {
    /// The whole text.
    pub(super) fn parse(text: &[u8]) -> Result<Self, ConfigError> {
        let object = RawObject::parse(text).map_err(|error| ConfigError {
            key: "the configuration".to_owned(),
            value: error.msg,
            fits: "one JSON object".to_owned(),
        })?;
        Ok(Self::of(object))
    }

    /// An object read before.
    pub(super) fn of(object: RawObject) -> Self {
        Self { path: String::new(), object, known: Vec::new() }
    }

    /// The full name of `key`.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of `key` in any case, the last one written; `null` is as if it were not there.
    pub(super) fn raw(&mut self, key: &'static str) -> Option<&RawValue> {
        self.known.push(key);
        let of_key = self.object.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
        of_key.map(|(_, value)| value).filter(|value| value.get() != "null").last()
    }

    /// A value of type `T`, described by `fits`.
    pub(super) fn read<T: for<'de> Deserialize<'de>>(
        &mut self,
        key: &'static str,
        fits: &str,
    ) -> Result<Option<T>, ConfigError> {
        let path = self.path(key);
        let Some(value) = self.raw(key) else { return Ok(None) };
        serde_json::from_str(value.get()).map(Some).map_err(|_wrong_type| wrong(path, value.get(), fits))
    }

    /// A string turned into something by `convert`; an empty one is absence, as in Go.
    pub(super) fn word<T>(
        &mut self,
        key: &'static str,
        fits: &str,
        convert: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.read::<String>(key, fits)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        convert(&text).map(Some).ok_or_else(|| self.refuse(key, &text, fits))
    }

    /// Any string but the empty one.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, ConfigError> {
        self.word(key, "a string", |text| Some(text.to_owned()))
    }

    /// An absolute path.
    pub(super) fn folder(&mut self, key: &'static str) -> Result<Option<String>, ConfigError> {
        self.word(key, "an absolute path", |text| is_path(text).then(|| text.to_owned()))
    }

    /// A path to a file of secrets. Its content may have been written here in its stead, so it is not repeated.
    pub(super) fn secret_file(&mut self, key: &'static str) -> Result<Option<String>, ConfigError> {
        let undisclosed = "no path, and is not shown, for it may hold a token";
        self.folder(key).map_err(|error| ConfigError { value: undisclosed.to_owned(), ..error })
    }

    /// A boolean.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false")
    }

    /// A whole number within bounds, without quotes.
    pub(super) fn number(&mut self, key: &'static str, from: u32, to: u32) -> Result<Option<u32>, ConfigError> {
        let fits = format!("a whole number from {from} to {to}, without quotes");
        let path = self.path(key);
        let Some(value) = self.raw(key) else { return Ok(None) };
        match value.get().parse::<u32>() {
            Ok(number) if (from..=to).contains(&number) => Ok(Some(number)),
            _ => Err(wrong(path, value.get(), &fits)),
        }
    }

    /// A list whose items are turned into something by `convert`.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        fits: &str,
        convert: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        let list_fits = format!("a list: {fits}");
        let Some(texts) = self.read::<Vec<String>>(key, &list_fits)? else { return Ok(None) };
        let item = |text: &String| convert(text).ok_or_else(|| self.refuse(key, text, &list_fits));
        texts.iter().map(item).collect::<Result<_, _>>().map(Some)
    }

    /// The object under `key`; an empty one where there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Self, ConfigError> {
        let object = self.read(key, "an object")?.unwrap_or_default();
        Ok(Self { path: self.path(key), object, known: Vec::new() })
    }

    /// The names and objects under `key`, whatever the names are.
    pub(super) fn sections(&mut self, key: &'static str) -> Result<Vec<(String, Self)>, ConfigError> {
        let path = self.path(key);
        let object: RawObject = self.read(key, "an object")?.unwrap_or_default();
        let section = |(name, value): (&str, &RawValue)| {
            let path = format!("{path}.{}", crate::fault::escape(name));
            let object = serde_json::from_str(value.get())
                .map_err(|_wrong_type| wrong(path.clone(), value.get(), "an object"))?;
            Ok((name.to_owned(), Self { path, object, known: Vec::new() }))
        };
        object.iter().map(section).collect()
    }

    /// The object itself, when every value is a boolean, whatever the names are.
    pub(super) fn flags(self) -> Result<RawObject, ConfigError> {
        let is_odd = |value: &RawValue| !matches!(value.get(), "true" | "false");
        if let Some((key, value)) = self.object.iter().find(|(_, value)| is_odd(value)) {
            return Err(wrong(self.path(&crate::fault::escape(key)), value.get(), "true or false"));
        }
        Ok(self.object)
    }

    /// The error for a value of `key`.
    pub(super) fn refuse(&self, key: &str, value: &str, fits: &str) -> ConfigError {
        ConfigError { key: self.path(key), value: quote(value), fits: fits.to_owned() }
    }

    /// A warning for every key nobody asked for, with the nearest one somebody did.
    pub(super) fn finish(self, warnings: &mut Vec<String>) {
        for (key, _) in self.object.iter() {
            if self.known.iter().any(|known| known.eq_ignore_ascii_case(key)) {
                continue;
            }
            let nearest = self.known.iter().min_by_key(|known| distance(key, known)).copied().unwrap_or_default();
            warnings.push(format!(
                "{} is not a known key and ignored; the nearest is {}",
                quote(&self.path(key)),
                quote(&self.path(nearest))
            ));
        }
    }
}

pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= 4095 && !text.chars().any(char::is_control)
}

fn wrong(key: String, json: &str, fits: &str) -> ConfigError {
    let value = serde_json::from_str::<String>(json).map_or_else(
        |_not_a_string| quote(json).trim_matches('"').to_owned(),
        |text| format!("the string {}", quote(&text)),
    );
    ConfigError { key, value, fits: fits.to_owned() }
}

/// How many letters must be inserted, removed or replaced to get from one word to another (Levenshtein), case aside.
pub fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.to_lowercase().chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, b) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_distances() {
        for (from, to, wanted) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("slot", "slots", 1),
            ("SLOTS", "slots", 0),
            ("kitten", "sitting", 3),
            ("", "ab", 2),
        ] {
            assert_eq!(distance(from, to), wanted, "{from} {to}");
            assert_eq!(distance(to, from), wanted, "{to} {from}");
        }
    }
}
