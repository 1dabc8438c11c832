//! What might be a secret, and how it is taken out of sentences? Every value in a network's configuration, in a plugin's
//! input or in its arguments that does not stand under a key whose values are known to be none.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fault::escape;
use crate::ops::context::Context;

/// What stands in its place.
const TAKEN_OUT: &str = "<taken out>";
/// Shorter ones are no secrets: taking them out would tear words.
const LEAST: usize = 4;
/// The most that are looked for.
const MOST: usize = 20_000;

/// Keys whose values say how a network is built. Values of all others might be secrets.
const HARMLESS: [&str; 45] = [
    "cniVersion",
    "name",
    "type",
    "plugins",
    "master",
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
const POD: [&str; 5] =
    ["IgnoreUnknown", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"];

/// Values that are to be taken out, the longest first.
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Those that this agent knows.
    pub(super) fn of(context: &Context) -> Self {
        let (mut secret, mut harmless) = (BTreeSet::new(), BTreeSet::new());
        let mut read = |text: &str| {
            if let Ok(value) = serde_json::from_str::<Value>(text) {
                sort(&value, false, &mut secret, &mut harmless);
            }
        };
        for network in context.cluster.networks() {
            read(network.config.as_deref().unwrap_or_default());
        }
        let records = context.ledger.all();
        let delegates = || records.iter().flat_map(|record| &record.attachments).flat_map(|each| &each.delegates);
        delegates().for_each(|delegate| read(&delegate.stdin));
        for delegate in delegates() {
            let pairs = delegate.args.split(';').filter_map(|pair| pair.split_once('='));
            secret.extend(pairs.filter(|(key, _)| !POD.contains(key)).map(|(_, value)| value.to_owned()));
        }
        Self::from(&secret, &harmless)
    }

    fn from(secret: &BTreeSet<String>, harmless: &BTreeSet<String>) -> Self {
        let is_secret = |value: &&String| value.len() >= LEAST && !harmless.contains(*value);
        let mut all: Vec<String> = secret.iter().filter(is_secret).take(MOST).cloned().collect();
        // As sentences quote them.
        let escaped: Vec<String> = all.iter().map(|value| escape(value)).collect();
        all.extend(escaped);
        all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        Self(all)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A text without them.
    pub(super) fn out_of_text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in &self.0 {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), TAKEN_OUT);
            }
        }
        text
    }

    /// A document without them in any of its texts.
    pub(super) fn out_of(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.out_of_text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.out_of(item)).collect(),
            Value::Object(map) => map.into_iter().map(|(key, value)| (key, self.out_of(value))).collect(),
            plain => plain,
        }
    }
}

/// Sorts the texts and numbers of a configuration; what is below a key that is not harmless is not either.
fn sort(value: &Value, is_secret: bool, secret: &mut BTreeSet<String>, harmless: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let is_secret = is_secret || !HARMLESS.iter().any(|known| known.eq_ignore_ascii_case(key));
                sort(value, is_secret, secret, harmless);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| sort(item, is_secret, secret, harmless)),
        Value::String(text) if is_secret => drop(secret.insert(text.clone())),
        Value::String(text) => drop(harmless.insert(text.clone())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_may_be_a_secret_is_taken_out_wherever_it_stands() {
        let (mut secret, mut harmless) = (BTreeSet::new(), BTreeSet::new());
        let config = json!({
            "type": "macvlan", "master": "eth0", "password": "hunter22", "ipam": {"type": "host-local", "key": "k\u{1}ey1"},
            "args": {"cni": {"name": "s3cret", "list": ["t0ken", "abc"]}}, "note": "eth0", "mode": "bridge",
        });
        sort(&config, false, &mut secret, &mut harmless);
        let secrets = Secrets::from(&secret, &harmless);
        let text = "macvlan on eth0: hunter22 s3cret t0ken abc k\\u{1}ey1 k\u{1}ey1";
        let expected = format!("macvlan on eth0: {TAKEN_OUT} {TAKEN_OUT} {TAKEN_OUT} abc {TAKEN_OUT} {TAKEN_OUT}");
        assert_eq!(secrets.out_of_text(text), expected);
        let document = secrets.out_of(json!({"a": ["hunter22", {"b": "x hunter22 y"}], "n": 5}));
        assert_eq!(document, json!({"a": [TAKEN_OUT, {"b": format!("x {TAKEN_OUT} y")}], "n": 5}));
    }
}
