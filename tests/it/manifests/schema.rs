//! Does an object fit the schema that a Kubernetes version publishes for its kind? Unknown fields do not fit.
//!
//! Reads what those schemas use of JSON Schema and no more; a word it does not know is a failure, not a pass.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value};

/// Words that say nothing about what fits.
const SILENT: [&str; 7] = ["description", "format", "default", "$schema", "$id", "$defs", "title"];

/// The schemas of one version.
pub(super) struct Schemas {
    folder: PathBuf,
    definitions: Map<String, Value>,
}

impl Schemas {
    /// Those of `version`, such as `1.30`.
    pub(super) fn of(version: &str) -> Self {
        let name = format!("kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict");
        let folder = super::rendered::libraries().join(name);
        let text = fs::read_to_string(folder.join("_definitions.json")).expect("the schemas of this version");
        let mut document: HashMap<String, Value> = serde_json::from_str(&text).expect("JSON");
        let definitions = document.remove("$defs").and_then(|found| found.as_object().cloned());
        Self { folder, definitions: definitions.expect("definitions") }
    }

    /// What does not fit, each with where; `None`: Kubernetes itself has no such kind.
    pub(super) fn faults(&self, object: &Value) -> Option<Vec<String>> {
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_lowercase();
        let (group, version) = match text("apiVersion").split_once('/') {
            Some((group, version)) => (group.split('.').next().unwrap_or_default().to_owned(), version.to_owned()),
            None => (String::new(), text("apiVersion")),
        };
        let parts: Vec<String> = [text("kind"), group, version].into_iter().filter(|part| !part.is_empty()).collect();
        let schema = fs::read_to_string(self.folder.join(format!("{}.json", parts.join("-")))).ok()?;
        let mut faults = Vec::new();
        self.check(&serde_json::from_str(&schema).expect("JSON"), object, &text("kind"), &mut faults);
        Some(faults)
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let Some(rules) = schema.as_object() else { return };
        for (word, rule) in rules {
            match word.as_str() {
                "$ref" => {
                    let name = rule.as_str().and_then(|link| link.rsplit('/').next()).unwrap_or_default();
                    self.check(self.definitions.get(name).expect("a definition"), value, at, faults);
                }
                "type" => {
                    if !listed(rule).iter().any(|kind| is_a(kind.as_str().unwrap_or_default(), value)) {
                        faults.push(format!("{at}: {value} is not {rule}"));
                    }
                }
                "enum" => {
                    if !listed(rule).contains(value) {
                        faults.push(format!("{at}: {value} is none of {rule}"));
                    }
                }
                "required" => {
                    let missing =
                        listed(rule).into_iter().filter(|key| value.get(key.as_str().unwrap_or("")).is_none());
                    faults.extend(missing.filter(|_| value.is_object()).map(|key| format!("{at}: lacks {key}")));
                }
                "properties" => {
                    for (key, inner) in rule.as_object().into_iter().flatten() {
                        if let Some(found) = value.get(key) {
                            self.check(inner, found, &format!("{at}.{key}"), faults);
                        }
                    }
                }
                "additionalProperties" => {
                    let known = rules.get("properties").and_then(Value::as_object);
                    let others = value.as_object().into_iter().flatten();
                    for (key, found) in others.filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key))) {
                        match rule {
                            Value::Bool(true) => {}
                            Value::Bool(false) => faults.push(format!("{at}: unknown field {key}")),
                            inner => self.check(inner, found, &format!("{at}.{key}"), faults),
                        }
                    }
                }
                "items" => {
                    for (index, found) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, found, &format!("{at}[{index}]"), faults);
                    }
                }
                "oneOf" | "anyOf" => {
                    let fits = |inner: &Value| {
                        let mut inside = Vec::new();
                        self.check(inner, value, at, &mut inside);
                        inside.is_empty()
                    };
                    if !listed(rule).iter().any(fits) {
                        faults.push(format!("{at}: {value} fits none of {rule}"));
                    }
                }
                word if SILENT.contains(&word) || word.starts_with("x-kubernetes-") => {}
                word => faults.push(format!("{at}: this test does not know the word {word} of the schema")),
            }
        }
    }
}

fn listed(rule: &Value) -> Vec<Value> {
    rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()])
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}
