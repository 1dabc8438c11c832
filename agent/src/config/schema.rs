//! The configuration as a JSON Schema (draft 2020-12) and as a document of defaults, both made of `keys`.
//!
//! The schema is stricter than the agent: it knows each key in its usual spelling alone, and no key that is not known.

use serde_json::{Value, json};

use super::datapath::{MOST_CUSTOM, PROTOCOLS};
use super::keys::{self, Key, Kind, ReadBy};

/// The schema's address in documents that name it.
const ID: &str = "https://multus-ebpf.io/schemas/daemon-config.v1.json";

/// The JSON Schema of `daemon-config.json`.
pub fn schema() -> Value {
    let mut root = object("Configuration of the multus-ebpf agent");
    for key in keys::all() {
        put(&mut root, &key.name.split('.').collect::<Vec<_>>(), of(key));
    }
    if let Some(map) = root.as_object_mut() {
        map.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("$id".into(), json!(ID));
    }
    root
}

/// A document in which every key that has a default has it; but not those whose presence alone does something.
pub fn defaults() -> Value {
    let mut root = json!({});
    for key in keys::all().filter(|key| key.has_default()) {
        let mut at = &mut root;
        for part in key.name.split('.') {
            if !at.is_object() {
                *at = json!({});
            }
            let Value::Object(fields) = at else { return root };
            at = fields.entry(part).or_insert(Value::Null);
        }
        *at = key.default_value();
    }
    root
}

fn object(title: &str) -> Value {
    json!({"type": "object", "description": title, "additionalProperties": false, "properties": {}})
}

/// Puts `schema` under the names in `path`, with objects on the way.
fn put(root: &mut Value, path: &[&str], schema: Value) {
    let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) else { return };
    match path {
        [] => {}
        [last] => drop(properties.insert((*last).to_owned(), schema)),
        [first, rest @ ..] => {
            let below = properties.entry(*first).or_insert_with(|| object(&format!("The keys of {first}")));
            put(below, rest, schema);
        }
    }
}

fn of(key: &Key) -> Value {
    let Value::Object(mut schema) = value(key.kind) else { return Value::Null };
    schema.insert("description".into(), json!(key.meaning));
    if key.has_default() {
        schema.insert("default".into(), key.default_value());
    }
    let read_by = if key.read_by == ReadBy::Both { json!(["agent", "conf"]) } else { json!(["agent"]) };
    schema.insert("x-read-by".into(), read_by);
    schema.insert("x-since".into(), json!(key.since));
    Value::Object(schema)
}

fn value(kind: Kind) -> Value {
    let text = |pattern: &str| json!({"type": "string", "pattern": pattern});
    match kind {
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Number(from, to) => json!({"type": "integer", "minimum": from, "maximum": to}),
        Kind::Text => json!({"type": "string"}),
        Kind::Path => text("^(/.*)?$"),
        Kind::FileName => text("^[^/]*$"),
        Kind::Duration => text("^(0|([0-9]+(\\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h))+)$"),
        Kind::Address => text("^.*:[0-9]+$"),
        Kind::Words(words) => json!({"enum": words}),
        Kind::WordsOr(words, pattern) => json!({"anyOf": [{"enum": words}, text(pattern)]}),
        Kind::Pattern(pattern) => text(pattern),
        Kind::Texts => json!({"type": "array", "items": {"type": "string", "minLength": 1}}),
        Kind::SomeOf(words) => json!({"type": "array", "items": {"enum": words}}),
        // The operator's own protocols are in the same file, where a schema cannot look.
        Kind::Protocols => json!({"type": "array", "items": {"type": "string", "examples": PROTOCOLS}}),
        Kind::Flags => json!({"type": "object", "additionalProperties": {"type": "boolean"}}),
        Kind::Custom => json!({
            "type": "object",
            "maxProperties": MOST_CUSTOM,
            "propertyNames": {"pattern": "^[-a-z0-9]{1,31}$"},
            "additionalProperties": {
                "type": "object",
                "additionalProperties": false,
                "required": ["port"],
                "anyOf": [{"required": ["v4"]}, {"required": ["v6"]}],
                "properties": {
                    "v4": {"type": "string", "format": "ipv4"},
                    "v6": {"type": "string", "format": "ipv6"},
                    "port": {"type": "integer", "minimum": 1, "maximum": 65_535},
                },
            },
        }),
        Kind::Configs => json!({"type": "array", "items": {"type": "object"}}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn what_nothing_written_leaves_is_the_default_of_the_table() {
        let (settings, _) = Settings::parse("{}").unwrap();
        for key in keys::all() {
            assert_eq!((key.now)(&settings), key.default_value(), "{}", key.name);
        }
    }

    #[test]
    fn the_document_of_defaults_loads_and_changes_nothing() {
        let text = defaults().to_string();
        let (settings, warnings) = Settings::parse(&text).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert!(!settings.generator.on, "the runtime's folder is touched by who asks for it alone");
        for key in keys::all() {
            assert_eq!((key.now)(&settings), key.default_value(), "{}", key.name);
            assert_eq!(settings.origin.has(key.name), key.has_default(), "{}", key.name);
        }
    }

    /// A value that another than the default fits, by type.
    fn example(key: &Key) -> Value {
        match key.kind {
            Kind::Flag => json!(key.default != "true"),
            Kind::Number(from, _) => json!(from + 1),
            Kind::Text if key.name == "auxiliaryCNIChainName" => json!("aux"),
            Kind::Pattern(_) if key.name == "datapath.mark" => json!("0x00010000/0x00ff0000"),
            Kind::Pattern(_) if key.name == "cniVersion" => json!("1.0.0"),
            Kind::Text | Kind::FileName | Kind::Pattern(_) => json!("other"),
            Kind::Duration => json!("45s"),
            Kind::Address => json!("127.0.0.1:9"),
            Kind::Words(words) => json!(words.iter().find(|word| json!(word) != key.default_value())),
            Kind::WordsOr(..) if key.name.ends_with("election") => json!("node:n1"),
            Kind::Path | Kind::WordsOr(..) => json!("/other"),
            Kind::Texts => json!(["other"]),
            Kind::SomeOf(words) => json!([words[0]]),
            Kind::Protocols => json!(["knx"]),
            Kind::Flags => json!({"mac": true}),
            Kind::Custom => json!({"mine": {"v4": "239.1.2.3", "port": 5000}}),
            Kind::Configs => json!([{"name": "other", "type": "bridge"}]),
        }
    }

    #[test]
    fn every_key_is_read_and_seen_and_the_schema_has_it() {
        let without_effect = ["name", "cniBinDir"];
        let schema = schema();
        for key in keys::all() {
            let mut document = example(key);
            let mut place = &schema;
            for part in key.name.split('.') {
                place = &place["properties"][part];
            }
            assert_eq!(place["description"], key.meaning, "{}", key.name);
            for part in key.name.rsplit('.') {
                document = json!({ part: document });
            }
            if key.name == "perNodeCertificate.enabled" {
                document["perNodeCertificate"]["certDir"] = json!("/c");
                document["perNodeCertificate"]["bootstrapKubeconfig"] = json!("/b");
            } else if key.name.starts_with("perNodeCertificate") {
                continue;
            }
            let (settings, warnings) =
                Settings::parse(&document.to_string()).unwrap_or_else(|error| panic!("{}: {error}", key.name));
            assert!(!warnings.iter().any(|warning| warning.contains("not a known key")), "{}: {warnings:?}", key.name);
            assert!(settings.origin.has(key.name), "{}", key.name);
            let is_seen = (key.now)(&settings) != key.default_value();
            assert_eq!(is_seen, !without_effect.contains(&key.name), "{}: {}", key.name, (key.now)(&settings));
        }
    }
}
