//! What does a record say that this build does not know? Fields of a later release: kept as they are, and written back,
//! so that the later one finds them again when the node comes back to it.
//!
//! Knows no field by name: what a record does not say again was not understood. What `reflect` and `parent` hold is replaced
//! as a whole: fields inside them that are not known are lost.

use serde_json::{Map, Value};

use super::Record;

/// Fields by name.
pub type Rest = Map<String, Value>;

/// Reads a record with all that it says.
pub(super) fn parse(text: &[u8]) -> serde_json::Result<Record> {
    let said: Value = serde_json::from_slice(text)?;
    let mut record: Record = serde::Deserialize::deserialize(&said)?;
    let known = serde_json::to_value(&record)?;
    record.rest = beyond(&said, &known);
    for (a, attachment) in record.attachments.iter_mut().enumerate() {
        let [said, known] = [&said, &known].map(|text| item(text, "attachments", a));
        attachment.rest = beyond(said, known);
        for (d, delegate) in attachment.delegates.iter_mut().enumerate() {
            delegate.rest = beyond(item(said, "delegates", d), item(known, "delegates", d));
        }
        if let Some(link) = &mut attachment.link {
            let [said, known] = [said, known].map(|text| text.get("link").unwrap_or(&Value::Null));
            link.rest = beyond(said, known);
        }
    }
    Ok(record)
}

/// Prints a record with all that it said.
pub(super) fn print(record: &Record) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_value(record)?;
    add(Some(&mut text), &record.rest);
    for (a, attachment) in record.attachments.iter().enumerate() {
        let Some(text) = item_mut(&mut text, "attachments", a) else { continue };
        add(Some(text), &attachment.rest);
        for (d, delegate) in attachment.delegates.iter().enumerate() {
            add(item_mut(text, "delegates", d), &delegate.rest);
        }
        if let Some(link) = &attachment.link {
            add(text.get_mut("link"), &link.rest);
        }
    }
    serde_json::to_vec(&text)
}

/// The fields of `said` that `known` does not have.
fn beyond(said: &Value, known: &Value) -> Rest {
    let is_unknown = |name: &String| known.get(name).is_none();
    let fields = said.as_object().into_iter().flatten();
    fields.filter(|(name, _)| is_unknown(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Adds fields that are not there; what is known goes first.
fn add(text: Option<&mut Value>, rest: &Rest) {
    let Some(fields) = text.and_then(Value::as_object_mut) else { return };
    for (name, value) in rest {
        fields.entry(name).or_insert_with(|| value.clone());
    }
}

fn item<'a>(text: &'a Value, list: &str, at: usize) -> &'a Value {
    text.get(list).and_then(|list| list.get(at)).unwrap_or(&Value::Null)
}

fn item_mut<'a>(text: &'a mut Value, list: &str, at: usize) -> Option<&'a mut Value> {
    text.get_mut(list).and_then(|list| list.get_mut(at))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text() -> Value {
        json!({
            "container": "a", "ifname": "eth0", "state": "added", "since": 7, "later": [1, {"x": null}],
            "attachments": [{
                "network": "default/lan", "conf_name": "lan", "ifname": "net1", "master": false, "later": "attachment",
                "delegates": [
                    {"plugin": "macvlan", "cni_version": "1.0.0", "stage": "called", "stdin": "{}", "args": ""},
                    {"plugin": "tuning", "cni_version": "1.0.0", "stage": "called", "stdin": "{}", "args": "", "later": 2},
                ],
                "link": {"ifindex": 2, "mac": [2, 0, 0, 0, 0, 1], "kind": "macvlan", "instance": 3, "later": {"y": true}},
            }],
        })
    }

    fn back(record: &Record) -> Value {
        serde_json::from_slice(&print(record).unwrap()).unwrap()
    }

    #[test]
    fn what_is_not_known_is_written_back_at_every_level() {
        let record = parse(text().to_string().as_bytes()).unwrap();
        assert_eq!(back(&record), text());
        let link = record.attachments[0].link.as_ref().unwrap();
        assert_eq!((link.instance, link.rest.len()), (Some(3), 1));
    }

    #[test]
    fn what_is_known_goes_before_what_was_said() {
        let mut record = parse(text().to_string().as_bytes()).unwrap();
        record.since = 8;
        record.rest.insert("status".into(), "said once".into());
        record.status = Some("known now".into());
        let other = Record { attachments: Vec::new(), ..record.clone() };
        // Another attachment in front of it: what is not known stays with its own.
        record.attachments.insert(0, parse(text().to_string().as_bytes()).unwrap().attachments.remove(0));
        record.attachments[0].rest = Rest::new();
        record.attachments[0].link = None;
        let said = back(&record);
        assert_eq!((&said["since"], &said["status"]), (&json!(8), &json!("known now")));
        assert_eq!(
            (said["attachments"][0].get("later"), &said["attachments"][1]["later"]),
            (None, &json!("attachment"))
        );
        assert_eq!(back(&other)["attachments"], json!([]));
    }

    #[test]
    fn the_first_releases_records_are_read() {
        let mut oldest = text();
        for later in ["since", "later"] {
            oldest.as_object_mut().unwrap().remove(later);
        }
        let record = parse(oldest.to_string().as_bytes()).unwrap();
        assert_eq!((record.since, record.reflect, record.origin), (0, None, crate::records::Origin::Agent));
    }
}
