//! How the known keys are taken out of a plugin's result, each with its type, so that the unknown ones remain.
//!
//! Nothing here knows what a key means.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::cidr::Cidr;
use crate::fault::{CniError, code, quote};

/// An object of a result, with where it stands, from which known keys are taken.
pub(super) struct Fields {
    at: String,
    /// What was not taken yet.
    pub(super) map: Map<String, Value>,
}

impl Fields {
    /// The outermost object.
    pub(super) fn new(map: Map<String, Value>) -> Self {
        Self { at: String::new(), map }
    }

    fn path(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, key: &str) -> Result<String, CniError> {
        match self.take(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(wrong(&self.path(key), &other, "a string")),
        }
    }

    pub(super) fn texts(&mut self, key: &str) -> Result<Vec<String>, CniError> {
        let path = self.path(key);
        let text = |value| match value {
            Value::String(text) => Ok(text),
            other => Err(wrong(&path, &other, "a list of strings")),
        };
        self.values(key)?.into_iter().map(text).collect()
    }

    pub(super) fn ip(&mut self, key: &str) -> Result<Option<IpAddr>, CniError> {
        let text = self.text(key)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_bad| wrong(&self.path(key), &Value::String(text), "an IP address"))
    }

    pub(super) fn cidr(&mut self, key: &str) -> Result<Cidr, CniError> {
        let text = self.text(key)?;
        Cidr::parse(&text)
            .ok_or_else(|| wrong(&self.path(key), &Value::String(text), "an address with a prefix length"))
    }

    pub(super) fn object(&mut self, key: &str) -> Result<Option<Fields>, CniError> {
        let at = self.path(key);
        match self.take(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { at, map })),
            Some(other) => Err(wrong(&at, &other, "an object")),
        }
    }

    fn values(&mut self, key: &str) -> Result<Vec<Value>, CniError> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(wrong(&self.path(key), &other, "a list")),
        }
    }

    pub(super) fn objects(&mut self, key: &str) -> Result<Vec<Fields>, CniError> {
        let path = self.path(key);
        let fields = |(index, value): (usize, Value)| {
            let at = format!("{path}[{index}]");
            match value {
                Value::Object(map) => Ok(Fields { at, map }),
                other => Err(wrong(&at, &other, "an object")),
            }
        };
        self.values(key)?.into_iter().enumerate().map(fields).collect()
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<u64>, CniError> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| wrong(&self.path(key), &value, "a number from 0 on")),
        }
    }
}

/// The error for a value that does not fit its field.
pub(super) fn wrong(field: &str, value: &Value, fits: &str) -> CniError {
    let shown = value.as_str().map_or_else(|| quote(&value.to_string()), quote);
    CniError::new(code::DECODE, format!("field {} is {shown}, which is not {fits}", quote(field)))
}
