//! Which objects there are, in which versions, and what may be done to them.
//!
//! Follows the API conventions that clients rely on: resourceVersion, uid, preconditions, pages, 410.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::http::Request;
use super::path::Place;
use super::resource::Resource;

/// An answer that is no.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    fn not_found(place: &Place, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", place.resource.plural))
    }

    pub(super) fn gone() -> Self {
        Self::new(410, "Expired", "too old resource version")
    }

    /// The `Status` object.
    pub(super) fn status(&self) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
               "message": self.message, "reason": self.reason, "code": self.code})
    }
}

/// How much of an object the client wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) is_metadata_only: bool,
}

impl Shape {
    pub(super) fn of(self, object: &Value) -> Value {
        if self.is_metadata_only {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
        } else {
            object.clone()
        }
    }
}

type Key = (Resource, String, String);

/// One step of history.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) resource: Resource,
    pub(super) before: Option<Value>,
    /// For a deletion the last state, with the version of the deletion.
    pub(super) after: Result<Value, Value>,
}

/// All objects and their history.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) version: u64,
    /// No watch or page may start before this version any more; those under way go on.
    oldest: u64,
    objects: BTreeMap<Key, Value>,
    pub(super) history: Vec<Change>,
    uids: u64,
    pub(super) wrong_uid_status: u16,
}

impl Default for Store {
    fn default() -> Self {
        // A real server's versions never start at 1.
        let (objects, history) = (BTreeMap::new(), Vec::new());
        Self { version: 1000, oldest: 1000, objects, history, uids: 0, wrong_uid_status: 409 }
    }
}

impl Store {
    pub(super) fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<Value> {
        self.objects.get(&(resource, namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(super) fn all(&self, resource: Resource) -> Vec<Value> {
        self.objects.iter().filter(|(key, _)| key.0 == resource).map(|(_, object)| object.clone()).collect()
    }

    /// Those of `place` that the selector fits.
    pub(super) fn chosen(&self, place: &Place, selector: &Selector) -> Vec<Value> {
        let all = self.all(place.resource);
        all.into_iter().filter(|object| selector.fits(place, object)).collect()
    }

    pub(super) fn put(&mut self, resource: Resource, mut object: Value) {
        let key = key_of(resource, &object);
        let before = self.objects.get(&key).cloned();
        let uid = before.as_ref().map(|old| old["metadata"]["uid"].clone());
        self.uids += 1;
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = uid.unwrap_or_else(|| format!("uid-{}", self.uids).into());
        }
        self.commit(key, before, object);
    }

    fn commit(&mut self, key: Key, before: Option<Value>, mut object: Value) -> Value {
        self.version += 1;
        object["apiVersion"] = key.0.version.into();
        object["kind"] = key.0.kind.into();
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        // What real servers send and clients should drop.
        object["metadata"]["managedFields"] = json!([{"manager": "lab", "operation": "Update"}]);
        let change = Change { version: self.version, resource: key.0, before, after: Ok(object.clone()) };
        self.history.push(change);
        self.objects.insert(key, object.clone());
        object
    }

    pub(super) fn delete(&mut self, resource: Resource, namespace: &str, name: &str) {
        if let Some(before) = self.objects.remove(&(resource, namespace.to_owned(), name.to_owned())) {
            self.version += 1;
            let mut last = before.clone();
            last["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.history.push(Change { version: self.version, resource, before: Some(before), after: Err(last) });
        }
    }

    pub(super) fn compact(&mut self) {
        // Even the newest version is too old afterwards: a real server compacts while it moves on.
        self.version += 1;
        self.oldest = self.version;
    }

    /// Whether a watch may start after `version`.
    pub(super) fn still_has(&self, version: u64) -> bool {
        version >= self.oldest
    }

    pub(super) fn list(&self, place: &Place, request: &Request, shape: Shape) -> Result<Value, Refusal> {
        let selector = Selector::read(request)?;
        let mut items = self.chosen(place, &selector);
        let mut skip = 0;
        let mut version = self.version;
        if let Some(token) = request.parameter("continue").filter(|token| !token.is_empty()) {
            let (at, from) = token.split_once('.').unwrap_or_default();
            (version, skip) = (at.parse().unwrap_or(0), from.parse().unwrap_or(0));
            if !self.still_has(version) {
                return Err(Refusal::gone());
            }
        }
        let limit = request.parameter("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
        let rest = items.split_off(skip.min(items.len()));
        let page: Vec<_> = rest.iter().take(limit.unwrap_or(usize::MAX)).map(|object| shape.of(object)).collect();
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if page.len() < rest.len() {
            metadata["continue"] = format!("{version}.{}", skip + page.len()).into();
        }
        let (kind, version) = if shape.is_metadata_only {
            ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1")
        } else {
            (format!("{}List", place.resource.kind), place.resource.version)
        };
        Ok(json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": page}))
    }

    pub(super) fn read(&self, place: &Place, name: &str) -> Result<Value, Refusal> {
        let namespace = place.namespace.as_deref().unwrap_or_default();
        self.get(place.resource, namespace, name).ok_or_else(|| Refusal::not_found(place, name))
    }

    pub(super) fn create(&mut self, place: &Place, body: &Value) -> Result<Value, Refusal> {
        let mut object = body.clone();
        let namespace = place.namespace.clone().unwrap_or_default();
        object["metadata"]["namespace"] = namespace.into();
        self.uids += 1;
        if let (true, Some(head)) = (object["metadata"]["name"].is_null(), body["metadata"]["generateName"].as_str()) {
            object["metadata"]["name"] = format!("{head}{:05}", self.uids).into();
        }
        if object["metadata"]["name"].as_str().is_none_or(str::is_empty) {
            return Err(Refusal::new(
                422,
                "Invalid",
                "metadata.name: Required value: name or generateName is required",
            ));
        }
        object["metadata"]["uid"] = format!("uid-{}", self.uids).into();
        let key = key_of(place.resource, &object);
        if self.objects.contains_key(&key) {
            let message = format!("{} \"{}\" already exists", place.resource.plural, key.2);
            return Err(Refusal::new(409, "AlreadyExists", message));
        }
        Ok(self.commit(key, None, object))
    }

    pub(super) fn replace(&mut self, place: &Place, name: &str, body: &Value) -> Result<Value, Refusal> {
        let before = self.read(place, name)?;
        self.check_preconditions(place, name, &before, body)?;
        // A protobuf body is known by its metadata only: the rest stays.
        let mut object = body.clone();
        for part in ["spec", "status"] {
            if object[part].is_null() {
                object[part] = before[part].clone();
            }
        }
        object["metadata"]["uid"] = before["metadata"]["uid"].clone();
        Ok(self.commit(key_of(place.resource, &before), Some(before.clone()), within(place, &before, object)))
    }

    /// A merge patch (RFC 7386); a strategic one means the same for maps, and nobody patches lists here.
    pub(super) fn patch(&mut self, place: &Place, name: &str, body: &Value) -> Result<Value, Refusal> {
        let before = self.read(place, name)?;
        self.check_preconditions(place, name, &before, body)?;
        let mut object = before.clone();
        merge(&mut object, body);
        let key = key_of(place.resource, &before);
        Ok(self.commit(key, Some(before.clone()), within(place, &before, object)))
    }

    pub(super) fn remove(&mut self, place: &Place, name: &str) -> Result<Value, Refusal> {
        let object = self.read(place, name)?;
        self.delete(place.resource, place.namespace.as_deref().unwrap_or_default(), name);
        Ok(object)
    }

    fn check_preconditions(&self, place: &Place, name: &str, before: &Value, body: &Value) -> Result<(), Refusal> {
        for field in ["uid", "resourceVersion"] {
            let (want, have) = (&body["metadata"][field], &before["metadata"][field]);
            if want.as_str().is_none_or(str::is_empty) || want == have {
                continue;
            }
            let plural = place.resource.plural;
            if field == "uid" && self.wrong_uid_status == 422 {
                let message = format!("{plural} \"{name}\" is invalid: metadata.uid: field is immutable");
                return Err(Refusal::new(422, "Invalid", message));
            }
            let message = format!("Operation cannot be fulfilled on {plural} \"{name}\": precondition failed: {field}");
            return Err(Refusal::new(409, "Conflict", message));
        }
        Ok(())
    }
}

/// The status part of an object changes nothing but status and metadata.
fn within(place: &Place, before: &Value, mut after: Value) -> Value {
    if place.is_status {
        after["spec"] = before["spec"].clone();
    }
    after
}

fn key_of(resource: Resource, object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (resource, text("namespace"), text("name"))
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (key, value) in patch {
        if let Value::Object(map) = target {
            if value.is_null() {
                map.remove(key);
            } else {
                merge(map.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// A field selector: `metadata.name=a,spec.nodeName=b`.
#[derive(Debug, Clone)]
pub(super) struct Selector(Vec<(String, String)>);

impl Selector {
    pub(super) fn read(request: &Request) -> Result<Self, Refusal> {
        let text = request.parameter("fieldSelector").unwrap_or_default();
        let mut terms = Vec::new();
        for term in text.split(',').filter(|term| !term.is_empty()) {
            let (field, value) = term.split_once("==").or_else(|| term.split_once('=')).unwrap_or((term, ""));
            let is_known = match request.path.rsplit('/').next() {
                Some("resourceslices") => matches!(field, "metadata.name" | "spec.nodeName" | "spec.driver"),
                _ => matches!(field, "metadata.name" | "metadata.namespace" | "spec.nodeName" | "status.phase"),
            };
            if !is_known {
                let message = format!("field label not supported: {field}");
                return Err(Refusal::new(400, "BadRequest", message));
            }
            terms.push((field.to_owned(), value.to_owned()));
        }
        Ok(Self(terms))
    }

    pub(super) fn fits(&self, place: &Place, object: &Value) -> bool {
        let in_namespace =
            place.namespace.as_ref().is_none_or(|namespace| object["metadata"]["namespace"] == namespace.as_str());
        in_namespace
            && self.0.iter().all(|(field, value)| {
                let (outer, inner) = field.split_once('.').unwrap_or_default();
                object[outer][inner].as_str().unwrap_or_default() == value
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::resource::PODS;
    use super::*;

    fn place() -> Place {
        Place { resource: PODS, namespace: Some("x".into()), name: None, is_status: false }
    }

    fn store() -> Store {
        let mut store = Store::default();
        for name in ["a", "b", "c"] {
            store.put(PODS, json!({"metadata": {"namespace": "x", "name": name}, "spec": {"nodeName": name}}));
        }
        store
    }

    #[test]
    fn pages_end_and_expire() {
        let mut store = store();
        let ask = |token: &str| Request { query: format!("limit=2&continue={token}"), ..Request::default() };
        let shape = Shape { is_metadata_only: false };
        let first = store.list(&place(), &ask(""), shape).unwrap();
        assert_eq!(first["items"].as_array().unwrap().len(), 2);
        let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
        let second = store.list(&place(), &ask(&token), shape).unwrap();
        assert_eq!(second["items"][0]["metadata"]["name"], "c");
        assert!(second["metadata"]["continue"].is_null());
        store.compact();
        assert_eq!(store.list(&place(), &ask(&token), shape).unwrap_err().code, 410);
    }

    #[test]
    fn preconditions() {
        let mut store = store();
        let annotate = |uid: &str| json!({"metadata": {"uid": uid, "annotations": {"k": "v"}}});
        assert_eq!(store.patch(&place(), "a", &annotate("other")).unwrap_err().code, 409);
        store.wrong_uid_status = 422;
        assert_eq!(store.patch(&place(), "a", &annotate("other")).unwrap_err().code, 422);
        assert_eq!(store.patch(&place(), "a", &annotate("uid-1")).unwrap()["metadata"]["annotations"]["k"], "v");
        let stale = json!({"metadata": {"namespace": "x", "name": "a", "resourceVersion": "1"}});
        assert_eq!(store.replace(&place(), "a", &stale).unwrap_err().code, 409);
        assert_eq!(store.patch(&place(), "z", &annotate("")).unwrap_err().code, 404);
    }

    #[test]
    fn selectors() {
        let store = store();
        let request = Request { query: "fieldSelector=spec.nodeName%3Db".into(), ..Request::default() };
        let chosen = store.chosen(&place(), &Selector::read(&request).unwrap());
        assert_eq!(chosen.len(), 1);
        let request = Request { query: "fieldSelector=spec.x%3Db".into(), ..Request::default() };
        assert_eq!(Selector::read(&request).unwrap_err().code, 400);
    }
}
