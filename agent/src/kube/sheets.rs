//! What the manifests in a text are for somebody who only reads: every object with its place, workloads as their pods.
//!
//! Says more than the folder that stands in for an API server, which takes Pods and networks alone. Reads no file.

use serde_json::{Value, json};

use super::documents::{self, MOST_DOCUMENTS};
use super::yaml;
use crate::objects::{Network, Pod};

/// A list inside a list is nobody's manifest.
const DEEPEST_LIST: usize = 2;

/// One object of a text.
#[derive(Debug)]
pub struct Sheet {
    /// Where it stands: `document 2`, `document 2: items[0]`.
    pub place: String,
    /// Its `kind`, as written; empty where there is none.
    pub kind: String,
    /// What it is, or what of it cannot be used.
    pub object: Result<Object, String>,
}

/// What an object is.
#[derive(Debug)]
pub enum Object {
    /// A pod, or the pods that a workload makes, under the workload's name.
    Pod(Pod),
    /// A NetworkAttachmentDefinition.
    Network(Network),
    /// Of no concern here.
    Other,
}

/// Every object of `text`: YAML documents, or JSON documents one after the other when `json`.
pub fn sheets(text: &str, json: bool) -> Vec<Sheet> {
    let documents = if json { documents::json_documents(text) } else { yaml::documents(text, MOST_DOCUMENTS) };
    let mut sheets = Vec::new();
    for (at, document) in documents.into_iter().take(MOST_DOCUMENTS).enumerate() {
        let place = format!("document {}", at + 1);
        match document {
            Ok(Value::Null) => {}
            Ok(value) => take(&value, place, 0, &mut sheets),
            Err(error) => sheets.push(Sheet { place, kind: String::new(), object: Err(error) }),
        }
    }
    sheets
}

fn take(value: &Value, place: String, depth: usize, sheets: &mut Vec<Sheet>) {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let (true, Some(Value::Array(items))) = (kind.ends_with("List"), value.get("items"))
        && depth < DEEPEST_LIST
    {
        for (at, item) in items.iter().take(MOST_DOCUMENTS).enumerate() {
            take(item, format!("{place}: items[{at}]"), depth + 1, sheets);
        }
        return;
    }
    let object = match kind.as_str() {
        "" => Err("kind: missing; is this a Kubernetes object?".to_owned()),
        "Pod" => documents::pod(&named(value)).map(Object::Pod),
        "NetworkAttachmentDefinition" => documents::network(value).map(Object::Network),
        _ => template(value).map_or(Ok(Object::Other), |pod| documents::pod(&pod).map(Object::Pod)),
    };
    sheets.push(Sheet { place, kind, object });
}

/// The pod that a workload makes, under its own name: Deployment, DaemonSet, StatefulSet, ReplicaSet, Job, CronJob, and
/// whatever else has a template in their place.
fn template(workload: &Value) -> Option<Value> {
    let template =
        ["/spec/template", "/spec/jobTemplate/spec/template", "/template"].iter().find_map(|at| workload.pointer(at));
    let annotations = template?.pointer("/metadata/annotations").cloned().unwrap_or(Value::Null);
    let metadata = workload.get("metadata").cloned().unwrap_or(Value::Null);
    let mut pod = json!({ "metadata": metadata });
    if let Some(slot) = pod.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        slot.insert("annotations".to_owned(), annotations);
        slot.remove("uid");
    }
    Some(named(&pod))
}

/// With a name of the kind that an API server makes of `generateName`.
fn named(object: &Value) -> Value {
    let mut object = object.clone();
    let prefix = object.pointer("/metadata/generateName").and_then(Value::as_str).map(str::to_owned);
    if let (Some(prefix), Some(metadata)) = (prefix, object.pointer_mut("/metadata").and_then(Value::as_object_mut)) {
        metadata.entry("name").or_insert_with(|| format!("{prefix}x").into());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::annotation;

    #[test]
    fn workloads_are_the_pods_they_make() {
        let with = |head: &str, path: &[&str]| {
            let pod = json!({"metadata": {"annotations": {annotation::NETWORKS: "lan"}}});
            let inner = path.iter().rev().fold(pod, |value, key| json!({ *key: value }));
            let mut object =
                json!({"kind": head, "metadata": {"name": "web", "namespace": "shop", "annotations": {"k": "v"}}});
            object.as_object_mut().unwrap().extend(inner.as_object().unwrap().clone());
            object.to_string()
        };
        for text in [
            with("Deployment", &["spec", "template"]),
            with("CronJob", &["spec", "jobTemplate", "spec", "template"]),
            with("PodTemplate", &["template"]),
            with("Rollout", &["spec", "template"]),
        ] {
            let sheets = sheets(&text, true);
            let Ok(Object::Pod(pod)) = &sheets[0].object else { panic!("{text}: {sheets:?}") };
            assert_eq!(pod.id.to_string(), "shop/web");
            assert_eq!(pod.annotations.get(annotation::NETWORKS).map(String::as_str), Some("lan"), "{text}");
        }
    }

    #[test]
    fn every_object_has_its_place_and_the_rest_is_no_concern() {
        let text = "kind: Service\nmetadata: {name: s}\n---\nkind: List\nitems:\n- kind: Pod\n  metadata: {generateName: job-}\n---\nkind: [\n---\na: 1\n";
        let sheets = sheets(text, false);
        let places: Vec<_> = sheets.iter().map(|sheet| (sheet.place.as_str(), sheet.object.is_ok())).collect();
        assert_eq!(
            places,
            [("document 1", true), ("document 2: items[0]", true), ("document 3", false), ("document 4", false)]
        );
        assert!(matches!(sheets[0].object, Ok(Object::Other)));
        assert!(matches!(&sheets[1].object, Ok(Object::Pod(pod)) if pod.id.name.as_str() == "job-x"));
    }
}
