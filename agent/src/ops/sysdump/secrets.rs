//! What might be a secret, and how it is taken out of sentences? Every value in a network's configuration, in a plugin's
//! input or in its arguments that does not stand under a key whose values are known to be none.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cni::secrets::Values;
use crate::cni::secrets::input::{HARMLESS, POD};
use crate::ops::context::Context;

/// What stands in its place.
const TAKEN_OUT: &str = "<taken out>";
/// Shorter numbers are sizes and counts.
const LEAST_DIGITS: usize = 6;
/// The most that are looked for.
const MOST: usize = 20_000;

/// Values that are to be taken out.
pub(super) struct Secrets(Values);

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
        let gone = context.refusals.inputs();
        for stdin in delegates().map(|delegate| &*delegate.stdin).chain(gone.iter().map(|(stdin, _)| stdin.as_str())) {
            read(stdin);
        }
        let all_args = delegates().map(|delegate| &*delegate.args).chain(gone.iter().map(|(_, args)| args.as_str()));
        for args in all_args {
            let pairs = args.split(';').filter_map(|pair| pair.split_once('='));
            secret.extend(pairs.filter(|(key, _)| !POD.contains(key)).map(|(_, value)| value.to_owned()));
        }
        Self::from(&secret, &harmless)
    }

    fn from(secret: &BTreeSet<String>, harmless: &BTreeSet<String>) -> Self {
        let is_number = |value: &str| value.bytes().all(|byte| byte.is_ascii_digit());
        let is_secret =
            |value: &&String| !harmless.contains(*value) && (value.len() >= LEAST_DIGITS || !is_number(value));
        let mut values = Values::default();
        secret.iter().filter(is_secret).take(MOST).for_each(|value| values.add(value, TAKEN_OUT));
        Self(values)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A text without them.
    pub(super) fn out_of_text(&self, text: &str) -> String {
        self.0.out_of_text(text)
    }

    /// A page of figures without them: a number there is a figure, and no secret.
    pub(super) fn out_of_figures(&self, text: &str) -> String {
        self.0.out_of_figures(text)
    }

    /// A document without them in any of its texts.
    pub(super) fn out_of(&self, value: Value) -> Value {
        self.0.out_of(value)
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
        Value::Number(number) if is_secret => drop(secret.insert(number.to_string())),
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

    #[test]
    fn numbers_go_where_they_are_no_figures() {
        let (mut secret, mut harmless) = (BTreeSet::new(), BTreeSet::new());
        sort(&json!({"pin": 4_711_815, "rate": 1500, "mtu": 900_000}), false, &mut secret, &mut harmless);
        let secrets = Secrets::from(&secret, &harmless);
        let text = "pin 4711815, id 14711815, 1500 of 900000";
        assert_eq!(secrets.out_of_text(text), format!("pin {TAKEN_OUT}, id 14711815, 1500 of 900000"));
        assert_eq!(secrets.out_of_figures("multus_x 4711815\n"), "multus_x 4711815\n");
    }
}
