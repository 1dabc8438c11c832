//! Every key of `daemon-config.json` as data: its type, its default, what it means, since when, and who reads it.
//!
//! The JSON Schema, the default document, `config view` and docs/reference/configuration.md are made of this table.
//! Reading is done elsewhere; a test holds the two together: what nothing written leaves is the default here.

mod conf;
mod datapath;
mod node;

use std::time::Duration;

use serde_json::{Value, json};

use super::settings::Settings;

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its name; a dot is an object.
    pub name: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// What holds while it is not written, as JSON; else in words; empty: nothing.
    pub default: &'static str,
    /// What it does, in Markdown.
    pub meaning: &'static str,
    /// `Multus`: a key of Multus's daemon; else our version that brought it.
    pub since: &'static str,
    /// Who reads it.
    pub read_by: ReadBy,
    /// Where the reference tells it.
    pub section: Section,
    /// What holds now.
    pub now: fn(&Settings) -> Value,
}

/// Who reads a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBy {
    /// The agent, from its file.
    Agent,
    /// The agent, from its file or a request's configuration.
    Both,
}

/// The sections of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are titles")]
pub enum Section {
    Places,
    Execution,
    Log,
    Sources,
    Networks,
    Limits,
    Datapath,
    Inert,
    Conf,
}

/// What may be a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds.
    Number(u32, u32),
    /// Any string but the empty one.
    Text,
    /// An absolute path.
    Path,
    /// A file name without a slash.
    FileName,
    /// A duration as Go writes it.
    Duration,
    /// `host:port` or `:port`.
    Address,
    /// One of these.
    Words(&'static [&'static str]),
    /// One of these, or a string of this pattern.
    WordsOr(&'static [&'static str], &'static str),
    /// A string of this pattern.
    Pattern(&'static str),
    /// A list of strings.
    Texts,
    /// A list of some of these.
    SomeOf(&'static [&'static str]),
    /// A list of protocols, built-in or the operator's own.
    Protocols,
    /// An object of booleans.
    Flags,
    /// An object of the operator's own protocols.
    Custom,
    /// A list of CNI configurations.
    Configs,
}

impl Kind {
    /// In a word, for the reference.
    pub fn word(self) -> &'static str {
        match self {
            Self::Flag => "boolean",
            Self::Number(..) => "number",
            Self::Path => "path",
            Self::FileName => "file name",
            Self::Duration => "duration",
            Self::Address => "address",
            Self::Text | Self::Words(_) | Self::WordsOr(..) | Self::Pattern(_) => "string",
            Self::Texts | Self::SomeOf(_) | Self::Protocols | Self::Configs => "list",
            Self::Flags | Self::Custom => "object",
        }
    }
}

impl Key {
    /// Is there a default that can be written?
    pub fn has_default(&self) -> bool {
        serde_json::from_str::<Value>(self.default).is_ok()
    }

    /// The default as a value; `null` where there is none.
    pub fn default_value(&self) -> Value {
        serde_json::from_str(self.default).unwrap_or(Value::Null)
    }
}

/// Every key, in the order of the reference.
pub fn all() -> impl Iterator<Item = &'static Key> {
    node::KEYS.iter().chain(datapath::KEYS).chain(conf::KEYS)
}

/// The key that is called `name`.
pub fn of(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// The keys that `text` writes, by their names here, whatever case they are written in; `null` is nothing.
pub fn written(text: &str) -> Vec<&'static str> {
    let Ok(document) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let is_written = |key: &&Key| {
        let found = key.name.split('.').try_fold(&document, |object, part| {
            let fields = object.as_object()?;
            fields
                .iter()
                .filter(|(name, value)| name.eq_ignore_ascii_case(part) && !value.is_null())
                .map(|(_, value)| value)
                .next_back()
        });
        found.is_some_and(|value| *value != json!(""))
    };
    all().filter(is_written).map(|key| key.name).collect()
}

fn text<T: AsRef<str>>(value: Option<&T>) -> Value {
    value.map_or(Value::Null, |value| json!(value.as_ref()))
}

fn shown<T: ToString>(value: Option<&T>) -> Value {
    value.map_or(Value::Null, |value| json!(value.to_string()))
}

/// As Go writes it.
fn duration(time: Duration) -> Value {
    let millis = time.as_millis();
    if millis.is_multiple_of(1000) { json!(format!("{}s", millis / 1000)) } else { json!(format!("{millis}ms")) }
}

const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    section: Section,
    now: fn(&Settings) -> Value,
    meaning: &'static str,
) -> Key {
    Key { name, kind, default, meaning, since: "Multus", read_by: ReadBy::Agent, section, now }
}

const fn own(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    section: Section,
    now: fn(&Settings) -> Value,
    meaning: &'static str,
) -> Key {
    Key { since: "0.1", ..key(name, kind, default, section, now, meaning) }
}

const fn both(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    section: Section,
    now: fn(&Settings) -> Value,
    meaning: &'static str,
) -> Key {
    Key { read_by: ReadBy::Both, ..key(name, kind, default, section, now, meaning) }
}

/// A namespace, a node's name.
const NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
const NOTHING: fn(&Settings) -> Value = |_| Value::Null;
