//! What a Kubernetes protobuf body says, as far as the double needs it: a pod's metadata, an event's few lines.
//!
//! Clients written in Go send their writes this way; answers to them are JSON, which they accept.

use serde_json::{Value, json};

/// What every such body begins with (apimachinery, `serializer/protobuf`).
const MAGIC: &[u8] = b"k8s\0";

/// The object as JSON, or nothing for a body that is not of this kind. `runtime.Unknown` wraps it: type in 1, bytes in 2.
pub(super) fn read(body: &[u8]) -> Option<Value> {
    let wrapped = fields(body.strip_prefix(MAGIC)?)?;
    let kind = text(&fields(one(&wrapped, 1)?)?, 2);
    let object = fields(one(&wrapped, 2)?)?;
    let mut out = json!({"metadata": metadata(&fields(one(&object, 1)?)?)});
    if kind.as_deref() == Some("Event") {
        let about = fields(one(&object, 2)?)?;
        out["involvedObject"] = json!({"kind": text(&about, 1), "namespace": text(&about, 2),
                                       "name": text(&about, 3), "uid": text(&about, 4)});
        out["reason"] = json!(text(&object, 3));
        out["message"] = json!(text(&object, 4));
        out["source"] = json!({"component": one(&object, 5).and_then(fields).and_then(|source| text(&source, 1))});
        out["type"] = json!(text(&object, 9));
    }
    Some(out)
}

fn metadata(fields_of: &[(u64, &[u8])]) -> Value {
    let mut annotations = json!({});
    for (_, entry) in fields_of.iter().filter(|(number, _)| *number == 12) {
        let entry = fields(entry).unwrap_or_default();
        if let Some(key) = text(&entry, 1) {
            annotations[key] = text(&entry, 2).unwrap_or_default().into();
        }
    }
    let names = [("name", 1), ("generateName", 2), ("namespace", 3), ("uid", 5), ("resourceVersion", 6)];
    let mut out = json!({ "annotations": annotations });
    for (name, number) in names {
        if let Some(value) = text(fields_of, number).filter(|value| !value.is_empty()) {
            out[name] = value.into();
        }
    }
    out
}

fn one<'a>(fields: &[(u64, &'a [u8])], number: u64) -> Option<&'a [u8]> {
    fields.iter().find(|(found, _)| *found == number).map(|(_, bytes)| *bytes)
}

fn text(fields: &[(u64, &[u8])], number: u64) -> Option<String> {
    one(fields, number).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The length-delimited fields of a message; others are stepped over.
fn fields(mut message: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut out = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let length = match key & 7 {
            0 => {
                varint(&mut message)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (value, rest) = message.split_at_checked(length)?;
        if key & 7 == 2 {
            out.push((key >> 3, value));
        }
        message = rest;
    }
    Some(out)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap();
        assert!(length < 128);
        [&[number << 3 | 2, length], value].concat()
    }

    #[test]
    fn a_pod_with_its_annotations() {
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        // Field 7 (generation) is a number and is stepped over.
        let metadata = [field(1, b"a"), field(3, b"x"), field(5, b"u"), vec![7 << 3, 5], field(12, &entry)].concat();
        let kind = [field(1, b"v1"), field(2, b"Pod")].concat();
        let body = [MAGIC.to_vec(), field(1, &kind), field(2, &field(1, &metadata))].concat();
        let expected = json!({"metadata": {"name": "a", "namespace": "x", "uid": "u", "annotations": {"k": "v"}}});
        assert_eq!(read(&body), Some(expected));
        assert_eq!(read(b"{}"), None);
        assert_eq!(read(&body[..body.len() - 1]), None);
    }
}
