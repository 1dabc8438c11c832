//! What of a configuration must not be shown: values under keys that name a secret, and texts that carry one.
//!
//! Decides by key and by form, never by plugin: a network may call any plugin with any key. Nothing here prints.

pub mod inherited;
#[cfg(feature = "daemon")]
pub mod input;
#[cfg(feature = "daemon")]
pub mod values;

use serde_json::Value;

#[cfg(feature = "daemon")]
pub use values::Values;

/// What is shown instead.
pub const HIDDEN: &str = "(hidden)";

/// Parts of keys, in lower case without `-` and `_`, whose values nobody needs to see.
const SECRET_WORDS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "psk",
    "pin",
    "cookie",
    "authorization",
];
/// Keys that have such a word in them and are none.
const PLAIN_KEYS: [&str; 3] = ["mapping", "portmappings", "pinned"];

/// Hides every secret in `value`, at any depth. Everything below a key that names a secret goes, whatever it is.
pub fn hide(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                if names_a_secret(key) && !value.is_null() && !value.is_boolean() {
                    *value = HIDDEN.into();
                } else {
                    hide(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::String(text) if carries_a_secret(text) => *value = HIDDEN.into(),
        // Configurations inside configurations, as `etcd_endpoints` or a delegate as text.
        Value::String(text) if text.trim_start().starts_with(['{', '[']) => {
            match serde_json::from_str::<Value>(text) {
                Ok(mut inner) => {
                    let before = inner.clone();
                    hide(&mut inner);
                    if inner != before {
                        *text = inner.to_string();
                    }
                }
                // It was meant to be one: which of its values are secrets nobody can say.
                Err(_) if names_a_secret(text) => HIDDEN.clone_into(text),
                Err(_) => {}
            }
        }
        _ => {}
    }
}

/// `json` with its secrets hidden; of what is no JSON nothing is shown.
pub fn shown(json: &str) -> Value {
    let mut value = serde_json::from_str(json).unwrap_or_else(|_not_json| HIDDEN.into());
    hide(&mut value);
    value
}

fn names_a_secret(key: &str) -> bool {
    let plain: String = key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    if PLAIN_KEYS.iter().any(|known| plain.ends_with(known)) {
        return false;
    }
    SECRET_WORDS.iter().any(|word| match *word {
        // Too short to be looked for inside of other words.
        "pin" | "psk" => plain == *word || plain.ends_with(word) && plain.len() > 6,
        word => plain.contains(word),
    })
}

/// A private key or certificate in PEM, a URL with a password in it, a JSON web token.
fn carries_a_secret(text: &str) -> bool {
    let is_jwt = || text.starts_with("eyJ") && text.matches('.').count() == 2;
    text.contains("-----BEGIN ") || password_of(text).is_some() || is_jwt()
}

/// The password in a URL (RFC 3986, section 3.2.1).
fn password_of(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_go_at_any_depth_and_the_rest_stays() {
        let text = json!({
            "type": "x", "apiToken": "canary1", "auth": {"Password": "canary2", "user": "u"},
            "list": [{"client-secret": {"a": "canary3"}}, "https://u:canary4@host/x", "https://host/x"],
            "inner": "{\"psk\":\"canary5\",\"a\":1}", "cert": "-----BEGIN PRIVATE KEY-----\ncanary6",
            "args": {"cni": {"wifi_psk": "canary7", "vlan": 5}}, "jwt": "eyJcanary8.b.c",
            "portMappings": [{"hostPort": 80}], "mapping": "m", "pinned": true, "hasSecret": false,
        });
        let shown = shown(&text.to_string());
        assert!(!shown.to_string().contains("canary"), "{shown:#}");
        for (pointer, kept) in [
            ("/auth/user", json!("u")),
            ("/list/2", json!("https://host/x")),
            ("/args/cni/vlan", json!(5)),
            ("/portMappings/0/hostPort", json!(80)),
            ("/mapping", json!("m")),
            ("/hasSecret", json!(false)),
            ("/inner", json!("{\"a\":1,\"psk\":\"(hidden)\"}")),
        ] {
            assert_eq!(shown.pointer(pointer), Some(&kept), "{pointer}");
        }
    }

    #[test]
    fn what_is_no_json_is_not_shown() {
        assert_eq!(shown("{\"a\": canary"), json!(HIDDEN));
        // An annotation with a slip of the pen.
        let mut text = json!(r#"[{"name": "lan", "cni-args": {"password": "canary"}}"#);
        hide(&mut text);
        assert_eq!(text, json!(HIDDEN));
    }
}
