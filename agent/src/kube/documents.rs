//! What the Pod and NetworkAttachmentDefinition manifests in a piece of text are.
//!
//! Nothing here reads a file; every refusal names the document and the field.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{kept, yaml};
use crate::fault::{escape, quote};
use crate::names::{NadRef, ObjectName, PodRef};
use crate::objects::{Network, Pod};

/// Most documents in one file, list items included.
pub(super) const MOST_DOCUMENTS: usize = 4096;
/// Most bytes of annotations on one object, as the API server allows (`TotalAnnotationSizeLimitB`).
const MOST_ANNOTATION_BYTES: usize = 256 << 10;
/// Most bytes of a NAD's `spec.config`: what an API server can store in one object.
pub(super) const MOST_CONFIG_BYTES: usize = 1 << 20;
/// A list inside a list is nobody's manifest; deeper than this is refused.
const DEEPEST_LIST: usize = 2;

/// One manifest we understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Manifest {
    /// A `v1` Pod.
    Pod(Pod),
    /// A `k8s.cni.cncf.io/v1` NetworkAttachmentDefinition.
    Network(Network),
}

/// The manifests of one file, and a sentence for each document that was refused.
#[derive(Debug, Default)]
pub(super) struct Documents {
    /// In the order of the text.
    pub(super) manifests: Vec<Manifest>,
    /// `document 2: spec.config: …`.
    pub(super) refusals: Vec<String>,
}

/// Reads `text`: YAML documents, or JSON documents one after the other when `json`.
pub(super) fn read(text: &str, json: bool) -> Documents {
    let mut out = Documents::default();
    let mut number = 0;
    for document in if json { json_documents(text) } else { yaml::documents(text, MOST_DOCUMENTS + 1) } {
        number += 1;
        if number > MOST_DOCUMENTS {
            out.refusals.push(format!("document {number}: more than {MOST_DOCUMENTS} documents in one file"));
            break;
        }
        match document {
            Ok(Value::Null) => {}
            Ok(value) => take(&value, &format!("document {number}"), 0, &mut out),
            Err(error) => out.refusals.push(format!("document {number}: {error}")),
        }
    }
    out
}

pub(super) fn json_documents(text: &str) -> Vec<Result<Value, String>> {
    serde_json::Deserializer::from_str(text)
        .into_iter::<Value>()
        .take(MOST_DOCUMENTS + 1)
        .map(|read| read.map_err(|error| escape(&error.to_string())))
        .collect()
}

fn take(value: &Value, place: &str, depth: usize, out: &mut Documents) {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    if kind == "List" || (kind.ends_with("List") && value.get("items").is_some()) {
        return take_items(value, place, depth, out);
    }
    let read = match kind {
        "Pod" => pod(value).map(Manifest::Pod),
        "NetworkAttachmentDefinition" => network(value).map(Manifest::Network),
        "" => Err("kind: missing; use Pod or NetworkAttachmentDefinition".to_owned()),
        other => Err(format!("kind: {} is not used here; use Pod or NetworkAttachmentDefinition", quote(other))),
    };
    match read {
        Ok(_) if out.manifests.len() >= MOST_DOCUMENTS => {
            out.refusals.push(format!("{place}: more than {MOST_DOCUMENTS} objects in one file"));
        }
        Ok(manifest) => out.manifests.push(manifest),
        Err(error) => out.refusals.push(format!("{place}: {error}")),
    }
}

fn take_items(list: &Value, place: &str, depth: usize, out: &mut Documents) {
    match list.get("items") {
        Some(Value::Array(items)) if depth < DEEPEST_LIST => {
            for (index, item) in items.iter().enumerate() {
                take(item, &format!("{place}: items[{index}]"), depth + 1, out);
            }
        }
        Some(Value::Array(_)) => out.refusals.push(format!("{place}: items: lists are nested too deep")),
        Some(Value::Null) | None => {}
        Some(other) => out.refusals.push(format!("{place}: items: {} is not a list", shown(other))),
    }
}

pub(super) fn pod(value: &Value) -> Result<Pod, String> {
    let (namespace, name) = identity(value)?;
    let annotations = annotations(value)?;
    Ok(Pod {
        id: PodRef { namespace, name, uid: text_at(value, "metadata", "uid")?.map(str::to_owned) },
        is_static: super::is_static(&annotations),
        annotations: kept(annotations),
    })
}

pub(super) fn network(value: &Value) -> Result<Network, String> {
    let (namespace, name) = identity(value)?;
    if let Some(other) = value.get("spec").filter(|spec| !spec.is_object() && !spec.is_null()) {
        return Err(format!("spec: {} is not a mapping", shown(other)));
    }
    let config = text_at(value, "spec", "config")?.filter(|config| !config.is_empty()).map(str::to_owned);
    if config.as_ref().is_some_and(|config| config.len() > MOST_CONFIG_BYTES) {
        return Err(format!("spec.config: longer than {MOST_CONFIG_BYTES} bytes"));
    }
    Ok(Network { id: NadRef { namespace, name }, config, annotations: kept(annotations(value)?) })
}

fn identity(value: &Value) -> Result<(ObjectName, ObjectName), String> {
    let name = text_at(value, "metadata", "name")?.ok_or("metadata.name: missing")?;
    let namespace = text_at(value, "metadata", "namespace")?.unwrap_or("default");
    let name = ObjectName::new(name).map_err(|bad| format!("metadata.name: {bad}"))?;
    let namespace = ObjectName::new(namespace).map_err(|bad| format!("metadata.namespace: {bad}"))?;
    Ok((namespace, name))
}

fn annotations(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let map = match value.get("metadata").and_then(|metadata| metadata.get("annotations")) {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(format!("metadata.annotations: {} is not a mapping", shown(other))),
    };
    let mut bytes = 0;
    let mut out = BTreeMap::new();
    for (key, value) in map {
        let Value::String(text) = value else {
            let place = format!("metadata.annotations[{}]", quote(key));
            return Err(format!("{place}: {} is not a string; put it in quotes", shown(value)));
        };
        bytes += key.len() + text.len();
        out.insert(key.clone(), text.clone());
    }
    if bytes > MOST_ANNOTATION_BYTES {
        return Err(format!("metadata.annotations: {bytes} bytes; at most {MOST_ANNOTATION_BYTES} fit"));
    }
    Ok(out)
}

fn text_at<'a>(value: &'a Value, outer: &str, inner: &str) -> Result<Option<&'a str>, String> {
    match value.get(outer).and_then(|part| part.get(inner)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{outer}.{inner}: {} is not a string", shown(other))),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "a mapping".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => quote(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::objects::annotation;

    const NAD: &str = "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata:\n  name: iot\nspec:\n  config: |\n    {\"type\":\"macvlan\"}\n";

    fn networks(text: &str) -> Vec<Network> {
        let read = read(text, false);
        read.manifests.into_iter().filter_map(|m| if let Manifest::Network(n) = m { Some(n) } else { None }).collect()
    }

    #[test]
    fn a_network_in_the_default_namespace() {
        let found = networks(NAD);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id.to_string(), "default/iot");
        assert_eq!(found[0].config.as_deref(), Some("{\"type\":\"macvlan\"}\n"));
    }

    #[test]
    fn many_documents_and_lists() {
        let text = format!(
            "# heading\n---\n{NAD}---\n\n---\nkind: List\nitems:\n- kind: Pod\n  metadata: {{name: a, namespace: x, uid: u1, annotations: {{{}: iot, other: gone}}}}\n- kind: Pod\n  metadata: {{name: b}}\n",
            annotation::NETWORKS
        );
        let read = read(&text, false);
        assert!(read.refusals.is_empty(), "{:?}", read.refusals);
        assert_eq!(read.manifests.len(), 3);
        let Manifest::Pod(pod) = &read.manifests[1] else { panic!("{:?}", read.manifests) };
        assert_eq!((pod.id.to_string().as_str(), pod.id.uid.as_deref()), ("x/a", Some("u1")));
        assert_eq!(pod.annotations.len(), 1, "others are dropped");
    }

    #[test]
    fn json_one_after_the_other() {
        let one = r#"{"kind":"Pod","metadata":{"name":"a"}}"#;
        let read = read(&format!("{one}\n{one}"), true);
        assert_eq!((read.manifests.len(), read.refusals.len()), (2, 0));
    }

    #[test]
    fn a_bad_document_is_named_and_the_others_load() {
        let table = [
            ("kind: Pod\nmetadata: {}\n", "metadata.name: missing"),
            ("kind: Pod\nmetadata: {name: A_B}\n", "metadata.name: object name \"A_B\""),
            ("kind: Pod\nmetadata: {name: 5}\n", "metadata.name: \"5\" is not a string"),
            ("kind: Pod\nmetadata: {name: a, namespace: ../x}\n", "metadata.namespace: object name"),
            (
                "kind: Pod\nmetadata: {name: a, annotations: {k: 5}}\n",
                "metadata.annotations[\"k\"]: \"5\" is not a string",
            ),
            ("kind: Pod\nmetadata: {name: a, annotations: [k]}\n", "metadata.annotations: a list is not a mapping"),
            (
                "kind: NetworkAttachmentDefinition\nmetadata: {name: a}\nspec: {config: {type: x}}\n",
                "spec.config: a mapping",
            ),
            (
                "kind: NetworkAttachmentDefinition\nmetadata: {name: a}\nspec: x\n",
                "spec: \"\\\"x\\\"\" is not a mapping",
            ),
            ("kind: Deployment\nmetadata: {name: a}\n", "kind: \"Deployment\" is not used here"),
            ("metadata: {name: a}\n", "kind: missing"),
            ("kind: [\n", "document 2: "),
            ("- a\n", "kind: missing"),
        ];
        for (bad, expected) in table {
            let read = read(&format!("{NAD}---\n{bad}---\n{NAD}"), false);
            assert_eq!(read.manifests.len(), 2, "{bad}");
            assert_eq!(read.refusals.len(), 1, "{bad}: {:?}", read.refusals);
            assert!(read.refusals[0].starts_with("document 2: "), "{:?}", read.refusals);
            assert!(read.refusals[0].contains(expected), "{bad}: {:?}", read.refusals);
        }
    }

    #[test]
    fn aliases_do_not_explode() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let refs = vec![format!("*a{}", level - 1); 10].join(",");
            writeln!(text, "a{level}: &a{level} [{refs}]").unwrap();
        }
        let read = read(&text, false);
        assert_eq!(read.refusals.len(), 1);
    }
}
