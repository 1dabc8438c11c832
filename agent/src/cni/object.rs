//! How a JSON object is changed in a few keys while every other byte stays as its author wrote it.
//!
//! Keys keep their order and values their exact text, so what we do not know reaches a delegate unchanged. Nothing here
//! knows what a key means.

use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::fault::{CniError, code, quote};

/// The largest text read, in bytes.
pub const MOST_BYTES: usize = 1 << 20;
/// The deepest nesting read; serde_json itself stops at 128.
pub const MOST_DEPTH: usize = 100;
/// The most keys of one object; a configuration has some twenty.
pub const MOST_KEYS: usize = 1024;

/// A JSON object: ordered keys, values as raw text. Of duplicate keys the last one wins, as in Go.
#[derive(Debug, Clone, Default)]
pub struct RawObject {
    entries: Vec<(String, Box<RawValue>)>,
}

impl RawObject {
    /// Reads one object.
    ///
    /// # Errors
    /// Code 6 when the text is not JSON or over a bound, code 7 when it is not an object.
    pub fn parse(bytes: &[u8]) -> Result<Self, CniError> {
        let text = bounded(bytes)?;
        if !text.trim_start().starts_with('{') {
            serde_json::from_str::<&RawValue>(text).map_err(|error| not_json(&error))?;
            return Err(CniError::new(code::INVALID_CONFIG, format!("{} is not an object", shown(text)))
                .remedy("write a JSON object: {…}"));
        }
        serde_json::from_str(text).map_err(|error| not_json(&error))
    }

    /// The value of `key`, as its author wrote it.
    pub fn get(&self, key: &str) -> Option<&RawValue> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    /// Whether `key` is there with a value other than `null`.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value.get() != "null")
    }

    /// Replaces `key` where it stands, or appends it.
    pub fn set(&mut self, key: &str, value: Box<RawValue>) {
        match self.entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    /// [`set`](Self::set) with anything that has a JSON form.
    pub fn set_json<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        self.set(key, raw(value));
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Box<RawValue>> {
        let at = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(at).1)
    }

    /// Keys and raw values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), &**value))
    }

    /// The values of `keys` under exactly these spellings, others left out: keys match in any case, the last that is not
    /// `null` counts, as Go reads into a struct.
    #[must_use]
    pub fn settled(&self, keys: &[&str]) -> Self {
        let mut settled = Self::default();
        for (key, value) in self.iter().filter(|(_, value)| value.get() != "null") {
            if let Some(known) = keys.iter().find(|known| known.eq_ignore_ascii_case(key)) {
                settled.set(known, value.to_owned());
            }
        }
        settled
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The object as text, compact between the keys.
    pub fn print(&self) -> String {
        raw(self).get().to_owned()
    }

    /// The string under `key`; `null` is absence.
    ///
    /// # Errors
    /// Code 7 naming key and value when it is something else.
    pub fn text(&self, key: &str) -> Result<Option<String>, CniError> {
        self.typed(key, "a string")
    }

    /// The boolean under `key`; `null` is absence.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn flag(&self, key: &str) -> Result<Option<bool>, CniError> {
        self.typed(key, "true or false")
    }

    /// The object under `key`; `null` is absence.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn object(&self, key: &str) -> Result<Option<Self>, CniError> {
        self.typed(key, "an object")
    }

    /// The list under `key`; `null` is absence.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn list(&self, key: &str) -> Result<Option<Vec<Box<RawValue>>>, CniError> {
        self.typed(key, "a list")
    }

    fn typed<T: for<'de> Deserialize<'de>>(&self, key: &str, fits: &str) -> Result<Option<T>, CniError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        serde_json::from_str(value.get()).map_err(|_wrong_type| {
            CniError::new(
                code::INVALID_CONFIG,
                format!("field {} is {}, which is not {fits}", quote(key), shown(value.get())),
            )
            .remedy(format!("write {fits}"))
        })
    }
}

impl PartialEq for RawObject {
    fn eq(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self.iter().zip(other.iter()).all(|((ka, va), (kb, vb))| ka == kb && va.get() == vb.get())
    }
}

impl Eq for RawObject {}

impl Serialize for RawObject {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(self.entries.len()))?;
        for (key, value) in &self.entries {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawObject;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject, A::Error> {
                let mut object = RawObject::default();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    object.set(&key, value);
                    if object.entries.len() > MOST_KEYS {
                        return Err(A::Error::custom(format_args!("more than {MOST_KEYS} keys in one object")));
                    }
                }
                Ok(object)
            }
        }
        input.deserialize_map(Entries)
    }
}

/// `value` as raw JSON text; `null` where it has no JSON form, which none of our own types is.
pub fn raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|_no_json_form| RawValue::NULL.to_owned())
}

/// A JSON value for a sentence: a string's content, else its text; cut and escaped.
pub fn shown(json: &str) -> String {
    serde_json::from_str::<String>(json).map_or_else(|_not_a_string| quote(json.trim()), |text| quote(&text))
}

/// `bytes` as text once size and nesting are within bounds.
///
/// # Errors
/// Code 6 naming the bound.
pub fn bounded(bytes: &[u8]) -> Result<&str, CniError> {
    if bytes.len() > MOST_BYTES {
        return Err(CniError::new(
            code::DECODE,
            format!("{} bytes of JSON, at most {MOST_BYTES} are read", bytes.len()),
        ));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| CniError::new(code::DECODE, format!("not UTF-8 after byte {}", error.valid_up_to())))?;
    if depth(text) > MOST_DEPTH {
        return Err(CniError::new(code::DECODE, format!("JSON nested deeper than {MOST_DEPTH} levels")));
    }
    Ok(text)
}

/// The error for text that is no JSON: says where, quotes nothing.
pub fn not_json(error: &serde_json::Error) -> CniError {
    let (line, column) = (error.line(), error.column());
    let what = match error.classify() {
        serde_json::error::Category::Eof => "JSON ends early",
        serde_json::error::Category::Data => "JSON has too many keys or a wrong type",
        _ => "not JSON",
    };
    CniError::new(code::DECODE, format!("{what} at line {line} column {column}"))
}

/// How deep brackets nest outside strings.
fn depth(text: &str) -> usize {
    let (mut now, mut most, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_stays_byte_for_byte() {
        let text = r#"{"b": 1.50e3,"a":{ "z" : [ 1,2 ],  "é":"\u00e9" },"n":12345678901234567890123}"#;
        let mut object = RawObject::parse(text.as_bytes()).unwrap();
        object.set_json("x", "new");
        object.set_json("b", &true);
        let wanted = r#"{"b":true,"a":{ "z" : [ 1,2 ],  "é":"\u00e9" },"n":12345678901234567890123,"x":"new"}"#;
        assert_eq!(object.print(), wanted);
        assert_eq!(object.remove("a").unwrap().get(), r#"{ "z" : [ 1,2 ],  "é":"\u00e9" }"#);
        assert!(object.get("a").is_none());
    }

    #[test]
    fn the_last_of_duplicates_wins() {
        let object = RawObject::parse(br#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(object.print(), r#"{"a":3,"b":2}"#);
    }

    #[test]
    fn what_is_no_object_or_too_much_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        let keys: Vec<String> = (0..2000).map(|n| format!("\"k{n}\":1")).collect();
        let wide = format!("{{{}}}", keys.join(","));
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(MOST_BYTES));
        let table: [(&[u8], u32, &str); 9] = [
            (b"", code::DECODE, "ends early"),
            (b"{", code::DECODE, "ends early"),
            (b"{]", code::DECODE, "line 1 column 2"),
            (b"[1]", code::INVALID_CONFIG, "not an object"),
            (b"\"secret\" x", code::DECODE, "not JSON"),
            (b"\xff", code::DECODE, "UTF-8"),
            (deep.as_bytes(), code::DECODE, "nested"),
            (wide.as_bytes(), code::DECODE, "too many keys"),
            (long.as_bytes(), code::DECODE, "at most"),
        ];
        for (bytes, code, text) in table {
            let error = RawObject::parse(bytes).unwrap_err();
            assert_eq!(error.code, code, "{error}");
            assert!(error.msg.contains(text) && error.msg.len() < 120, "{error}");
        }
    }

    #[test]
    fn wrong_types_name_key_and_value() {
        let object = RawObject::parse(br#"{"a":5,"n":null,"s":"x"}"#).unwrap();
        let error = object.text("a").unwrap_err();
        assert_eq!(error.msg, r#"field "a" is "5", which is not a string"#);
        assert_eq!(object.text("n"), Ok(None));
        assert!(object.flag("s").unwrap_err().msg.contains("\"x\""));
        assert!(!object.has("n") && object.has("a"));
    }
}
