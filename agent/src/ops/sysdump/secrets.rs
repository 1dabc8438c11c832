//! What might be a secret, and how it is taken out of sentences? Every value in a network's configuration, in a plugin's
//! input or in its arguments that does not stand under a key whose values are known to be none.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::fault::escape;
use crate::ops::context::Context;

/// What stands in its place.
const TAKEN_OUT: &str = "<taken out>";
/// Shorter ones are no secrets: taking them out would tear words.
const LEAST: usize = 4;
/// So much of a long one gives it away: sentences cut what they quote.
const TELLING: usize = 24;
/// Shorter numbers are sizes and counts.
const LEAST_DIGITS: usize = 6;
/// The most that are looked for.
const MOST: usize = 20_000;

/// Keys whose values say how a network is built. Values of all others might be secrets.
const HARMLESS: [&str; 48] = [
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
const POD: [&str; 5] =
    ["IgnoreUnknown", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"];

/// Values that are to be taken out: texts by their first bytes, so that a page is read once however many there are.
pub(super) struct Secrets {
    texts: HashMap<[u8; LEAST], Vec<String>>,
    numbers: BTreeSet<String>,
}

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
        let is_secret = |value: &&String| value.len() >= LEAST && !harmless.contains(*value);
        let (mut texts, mut numbers): (HashMap<_, Vec<String>>, _) = (HashMap::new(), BTreeSet::new());
        for value in secret.iter().filter(is_secret).take(MOST) {
            if is_number(value) {
                numbers.extend(Some(value.clone()).filter(|value| value.len() >= LEAST_DIGITS));
                continue;
            }
            // As it is, and as sentences quote it.
            for form in BTreeSet::from([value.clone(), escape(value)]) {
                let Some(head) = form.as_bytes().first_chunk::<LEAST>() else { continue };
                texts.entry(*head).or_default().push(form);
            }
        }
        Self { texts, numbers }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.texts.values().map(Vec::len).sum::<usize>() + self.numbers.len()
    }

    /// A text without them.
    pub(super) fn out_of_text(&self, text: &str) -> String {
        self.without(text, true)
    }

    /// A page of figures without them: a number there is a figure, and no secret.
    pub(super) fn out_of_figures(&self, text: &str) -> String {
        self.without(text, false)
    }

    fn without(&self, text: &str, numbers_too: bool) -> String {
        let mut out = String::with_capacity(text.len());
        let (mut rest, mut before) = (text, None);
        while let Some(next) = rest.chars().next() {
            let is_number = numbers_too && next.is_ascii_digit() && !before.is_some_and(char::is_alphanumeric);
            let length = self.text_at(rest).or_else(|| self.number_at(rest).filter(|_| is_number));
            if length.is_some() {
                out.push_str(TAKEN_OUT);
            } else {
                out.push(next);
            }
            let (passed, left) = rest.split_at(length.unwrap_or(next.len_utf8()));
            (rest, before) = (left, passed.chars().next_back());
        }
        out
    }

    /// How long the secret is that `rest` begins with: a whole one, or as much of one as gives it away.
    fn text_at(&self, rest: &str) -> Option<usize> {
        let candidates = self.texts.get(rest.as_bytes().first_chunk::<LEAST>()?)?;
        let same = |value: &String| -> usize {
            rest.chars().zip(value.chars()).take_while(|(one, other)| one == other).map(|(c, _)| c.len_utf8()).sum()
        };
        let lengths = candidates.iter().map(|value| (same(value), value.len()));
        lengths.filter(|(same, whole)| same == whole || *same >= TELLING).map(|(same, _)| same).max()
    }

    fn number_at(&self, rest: &str) -> Option<usize> {
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        rest.get(..end).filter(|number| self.numbers.contains(*number)).map(str::len)
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
    fn a_part_that_gives_a_secret_away_goes_and_numbers_do_where_they_are_no_figures() {
        let long = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImNhbmFyeSJ9.eyJpc3MiOiJjYW5hcnkifQ.c2lnbmF0dXJlLW9mLWEtY2FuYXJ5";
        let (mut secret, mut harmless) = (BTreeSet::new(), BTreeSet::new());
        sort(&json!({"jwt": long, "pin": 4_711_815, "rate": 1500, "mtu": 900_000}), false, &mut secret, &mut harmless);
        let secrets = Secrets::from(&secret, &harmless);
        let cut = crate::fault::quote(long);
        assert!(cut.ends_with('…') && cut.len() < long.len(), "sentences cut it: {cut}");
        let text = format!("bad {cut}, whole {long}, pin 4711815, id 14711815, 1500 of 900000");
        let expected = format!("bad \"{TAKEN_OUT}\"…, whole {TAKEN_OUT}, pin {TAKEN_OUT}, id 14711815, 1500 of 900000");
        assert_eq!(secrets.out_of_text(&text), expected);
        assert_eq!(secrets.out_of_figures("multus_x 4711815\n"), "multus_x 4711815\n");
    }

    #[test]
    fn many_secrets_cost_no_more_than_a_few() {
        let secret: BTreeSet<String> = (0..20_000).map(|n| format!("value-of-network-{n}")).collect();
        let secrets = Secrets::from(&secret.iter().map(|s| format!("{}{s}", &s[17..])).collect(), &BTreeSet::new());
        let (page, began) = ("a line of a log that has none of them\n".repeat(20_000), std::time::Instant::now());
        assert_eq!(secrets.out_of_text(&page), page);
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }
}
