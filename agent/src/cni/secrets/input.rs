//! Which values of what a plugin is given might be secrets? A plugin's own words about its failure go to the runtime, to
//! logs and into events, and may repeat any of them.
//!
//! Nobody knows the keys of every plugin. So a value goes if its key names a secret or its form is one's; and else if it
//! could be one by its form, and its key is none of those that are known to be harmless. What says where a network is
//! (an address, an interface, a folder) stays, or nobody could find out what is wrong. In a value's place stands its key.

use std::net::IpAddr;

use serde_json::Value;

use super::values::Values;
use super::{carries_a_secret, names_a_secret};
use crate::fault::{CniError, escape};
use crate::wire::{MOST_STDERR, Outcome};

/// Keys whose values say how a network is built.
pub const HARMLESS: [&str; 48] = [
    "cniVersion",
    "name",
    "type",
    "plugins",
    "master",
    "device",
    "deviceID",
    "pciBusID",
    "mode",
    "mtu",
    "bridge",
    "vlan",
    "vlanId",
    "ipam",
    "subnet",
    "ranges",
    "rangeStart",
    "rangeEnd",
    "range",
    "gateway",
    "routes",
    "dst",
    "gw",
    "addresses",
    "address",
    "interface",
    "ips",
    "mac",
    "dataDir",
    "isGateway",
    "isDefaultGateway",
    "ipMasq",
    "hairpinMode",
    "promiscMode",
    "macspoofchk",
    "capabilities",
    "linkInContainer",
    "disableCheck",
    "prevResult",
    "interfaces",
    "sandbox",
    "dns",
    "nameservers",
    "default",
    "version",
    "daemonSocketPath",
    "network",
    "namespace",
];
/// Arguments that say which pod it is.
pub const POD: [&str; 5] =
    ["IgnoreUnknown", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"];

/// More keys of known plugins whose values are no secrets: names of things on the node, levels, and sentences.
const NAMES: [&str; 23] = [
    "datastore_type",
    "nodename",
    "pf",
    "pfName",
    "vfio",
    "if0",
    "links",
    "resourceName",
    "driver",
    "backend",
    "network_name",
    "range_start",
    "range_end",
    "exclude",
    "log_level",
    "logLevel",
    "level",
    "spoofchk",
    "link_state",
    "trust",
    "msg",
    "message",
    "details",
];
/// Ends of keys, in lower case, whose values may be a path.
const PATHS: [&str; 9] = ["path", "file", "dir", "folder", "config", "conf", "socket", "journal", "netns"];
/// Shorter ones under a key of which nobody knows anything stay: they are words.
const LEAST: usize = 8;
/// Of a plugin's input no more values are looked for in its words.
const MOST: usize = 1_000;
/// What stands for the words of a plugin whose input has more than that.
const WITHHELD: &str = "(its configuration has too many values to tell which of its words are secrets)";

/// What may be secret of a plugin's input: its standard input, and `CNI_ARGS`.
pub fn of_input(stdin: &str, args: &str) -> Values {
    let mut values = Values::default();
    if let Ok(config) = serde_json::from_str(stdin) {
        collect(&config, ("", false), &mut values);
    }
    for (key, value) in args.split(';').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| !POD.contains(key)) {
        judge(value, (key, names_a_secret(key)), &mut values);
    }
    values
}

/// Takes `values` out of what a plugin said of its failure; a result is left as it is.
pub fn take_out(outcome: &mut Outcome, values: &Values) {
    if values.is_empty() {
        return;
    }
    outcome.stderr = without(values, &outcome.stderr);
    if outcome.exit == Some(0) && outcome.problem.is_none() {
        return;
    }
    outcome.stdout = match serde_json::from_str::<CniError>(outcome.stdout.trim()) {
        Ok(error) => serde_json::to_string(&out_of_error(values, &error)).unwrap_or_default(),
        Err(_) => without(values, &outcome.stdout),
    };
}

/// An error without `values` in its sentences.
pub fn out_of_error(values: &Values, error: &CniError) -> CniError {
    CniError { code: error.code, msg: without(values, &error.msg), details: without(values, &error.details) }
}

/// The end of `text`, as much as is ever shown of it, without `values`.
fn without(values: &Values, text: &str) -> String {
    if values.len() > MOST && !text.is_empty() {
        return WITHHELD.to_owned();
    }
    if text.len() < MOST_STDERR {
        return values.out_of_text(text);
    }
    let mut from = text.len() - MOST_STDERR;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    values.out_of_end(text.get(from..).unwrap_or_default())
}

/// Walks through a configuration; `key` is the nearest one above, and whether one above names a secret.
fn collect(value: &Value, (key, is_secret): (&str, bool), values: &mut Values) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(key, _)| *key != "prevResult") {
                collect(value, (key, is_secret || names_a_secret(key)), values);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, (key, is_secret), values)),
        // A configuration inside of a configuration.
        Value::String(text) if text.trim_start().starts_with(['{', '[']) => match serde_json::from_str(text) {
            Ok(inner) => collect(&inner, (key, is_secret), values),
            Err(_) => judge(text, (key, true), values),
        },
        Value::String(text) => judge(text, (key, is_secret), values),
        Value::Number(number) if is_secret => judge(&number.to_string(), (key, true), values),
        _ => {}
    }
}

fn judge(text: &str, (key, is_secret): (&str, bool), values: &mut Values) {
    if is_secret || carries_a_secret(text) || might_be_one(key, text) {
        let key: String = key.chars().take(32).collect();
        let instead = format!("<value of {}>", escape(&key));
        values.add(text, &instead);
        if let Some(password) = super::password_of(text) {
            values.add(password, &instead);
        }
    }
}

fn might_be_one(key: &str, text: &str) -> bool {
    let is_known = HARMLESS.iter().chain(&NAMES).any(|known| known.eq_ignore_ascii_case(key));
    let lower = key.to_ascii_lowercase();
    let is_path = PATHS.iter().any(|end| lower.ends_with(end)) && is_a_path(text);
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_word = text.len() < LEAST || text.chars().any(char::is_whitespace);
    !(is_known || is_path || is_number || is_word || is_an_address(text))
}

/// An absolute path of plain letters.
fn is_a_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-@:".contains(&byte))
}

/// An IP address, with or without a prefix length; a hardware address; a PCI address.
fn is_an_address(text: &str) -> bool {
    let ip = text.split_once('/').map_or(text, |(ip, _)| ip);
    let parts = |width: &[usize]| {
        let found: Vec<&str> = text.split([':', '.', '-']).collect();
        found.len() == width.len()
            && found
                .iter()
                .zip(width)
                .all(|(part, width)| part.len() == *width && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    ip.parse::<IpAddr>().is_ok() || parts(&[2; 6]) || parts(&[4, 2, 2, 1])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(stdin: &Value, args: &str, words: &str) -> String {
        let mut outcome = Outcome { exit: Some(1), stderr: words.into(), ..Outcome::default() };
        take_out(&mut outcome, &of_input(&stdin.to_string(), args));
        outcome.stderr
    }

    #[test]
    fn what_a_plugin_says_of_its_input_stands_there_by_its_key() {
        let stdin = json!({
            "type": "macvlan", "master": "enp3s0f0np0", "password": "open sesame", "site": "north-7f3a9c", "psk": 12_345_678,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.56.217.0/24"}]], "via": "10.56.217.1"},
            "proxy": "http://u:s3cret-word@host/", "kubeconfig": "/etc/cni/net.d/x.kubeconfig", "vendor": {"deep": ["abcdefgh9"]},
            "hw": "0a:58:0a:01:02:03", "delegate": "{\"inner\": \"inside-a-text\"}", "fake": {"error": {"msg": "ENOTHING"}},
            "prevResult": {"dns": {"domain": "example.com."}},
        });
        for (words, wanted) in [
            (
                "link enp3s0f0np0 not found in /etc/cni/net.d/x.kubeconfig",
                "link enp3s0f0np0 not found in /etc/cni/net.d/x.kubeconfig",
            ),
            ("open sesame, 12345678", "<value of password>, <value of psk>"),
            ("no north-7f3a9c, abcdefgh9", "no <value of site>, <value of deep>"),
            (
                "no address in 10.56.217.0/24 by 10.56.217.1 for 0a:58:0a:01:02:03",
                "no address in 10.56.217.0/24 by 10.56.217.1 for 0a:58:0a:01:02:03",
            ),
            ("u s3cret-word", "u <value of proxy>"),
            ("inside-a-text ENOTHING example.com.", "<value of inner> ENOTHING example.com."),
            ("pod p of ns-of-pods, arg of-the-runtime", "pod p of ns-of-pods, arg <value of X>"),
        ] {
            let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns-of-pods;X=of-the-runtime";
            assert_eq!(said(&stdin, args, words), wanted);
        }
    }

    #[test]
    fn an_error_object_keeps_its_code_and_a_result_every_byte() {
        let values = of_input(r#"{"key":"north-7f3a9c"}"#, "");
        let of = |exit, stdout: &str| {
            let mut outcome = Outcome { exit: Some(exit), stdout: stdout.into(), ..Outcome::default() };
            take_out(&mut outcome, &values);
            outcome.stdout
        };
        let error: CniError =
            serde_json::from_str(&of(1, r#"{"code":77,"msg":"no north-7f3a9c","details":"x"}"#)).unwrap();
        assert_eq!(error, CniError::new(77, "no <value of key>").remedy("x"));
        assert_eq!(of(1, "garbage north-7f3a9c"), "garbage <value of key>");
        let result = r#"{"dns":{"domain":"north-7f3a9c"}}"#;
        assert_eq!(of(0, result), result);
    }

    #[test]
    fn long_words_lose_their_beginning_and_too_many_values_all() {
        let stdin = json!({"key": "north-7f3a9c"});
        let cut = format!("7f3a9c{}", "x".repeat(MOST_STDERR - 6));
        assert!(said(&stdin, "", &cut).starts_with("<value of key>xx"), "the rest of a value at the cut");
        let many: Vec<String> = (0..=MOST).map(|n| format!("value-number-{n}")).collect();
        assert_eq!(said(&json!({"many": many}), "", "x"), WITHHELD);
    }
}
