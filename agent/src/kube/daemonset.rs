//! A DaemonSet of the API server, patched, and how far its roll-out is. When that is far enough, others decide.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use serde_json::Value;

use super::client::{CallError, Contact, Server};
use super::{ClusterError, yaml};
use crate::names::ObjectName;

/// Longest single call.
const CALL: Duration = Duration::from_secs(10);

/// One DaemonSet of a cluster.
#[derive(Debug)]
pub struct DaemonSet {
    server: Server,
    namespace: ObjectName,
    name: ObjectName,
}

/// How far a roll-out is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollOut {
    /// Is the controller's count about what was asked for last?
    pub is_current: bool,
    /// Nodes that should have a pod.
    pub desired: u64,
    /// Those whose pod is what was asked for last.
    pub updated: u64,
    /// Those whose pod is ready.
    pub ready: u64,
    /// What the first container that runs on a node takes us off by; `None`: it does not.
    pub turned: Option<Turned>,
}

/// How the pods of a DaemonSet that was turned around take us off their nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// `uninstall`.
    Uninstall,
    /// `migrate --back`.
    Back,
}

impl Turned {
    /// What a container is told to do, by the first of its arguments.
    fn of(word: &str) -> Option<Self> {
        match word {
            "uninstall" => Some(Self::Uninstall),
            "migrate" => Some(Self::Back),
            _ => None,
        }
    }

    /// What a patch (RFC 6902, in JSON or YAML) has the first container do; `None`: it says nothing of that.
    pub fn wanted(patch: &str) -> Option<Self> {
        let steps = yaml::documents(patch, 1).into_iter().next()?.ok()?;
        let args = |step: &Value| {
            let place = step.get("path")?.as_str()?;
            let is_it = step.get("op")? == "replace" && place.ends_with("/initContainers/0/args");
            is_it.then(|| step.pointer("/value/0")?.as_str().and_then(Self::of)).flatten()
        };
        steps.as_array()?.iter().find_map(args)
    }

    /// The command, as a person types it.
    pub fn command(self) -> &'static str {
        match self {
            Self::Uninstall => "uninstall",
            Self::Back => "migrate --back",
        }
    }
}

impl RollOut {
    /// Every node has what was asked for, and it is ready.
    pub fn is_complete(&self) -> bool {
        self.is_current && self.updated >= self.desired && self.ready >= self.desired
    }
}

/// What became of a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patched {
    /// It is applied.
    Yes,
    /// There is no such DaemonSet.
    Gone,
    /// It does not fit what is there, as the server says.
    DoesNotFit(String),
}

impl DaemonSet {
    /// The one with this name; contacts nobody yet.
    ///
    /// # Errors
    /// There are no usable credentials.
    pub async fn of(namespace: ObjectName, name: ObjectName, kubeconfig: Option<&Path>) -> Result<Self, ClusterError> {
        let server = Server::new(kubeconfig, Arc::new(Contact::default())).await?;
        Ok(Self { server, namespace, name })
    }

    /// Applies a JSON patch (RFC 6902), which may be written in YAML.
    ///
    /// # Errors
    /// The API server did not answer, or refused for another reason than the patch.
    pub async fn patch(&self, patch: &str) -> Result<Patched, ClusterError> {
        let patch = match yaml::documents(patch, 1).into_iter().next() {
            Some(Ok(patch)) => patch.to_string(),
            Some(Err(why)) => return Ok(Patched::DoesNotFit(why)),
            None => return Ok(Patched::DoesNotFit("it is empty".to_owned())),
        };
        let request = Request::patch(self.path()).header("content-type", "application/json-patch+json");
        match self.call("patch", request.body(patch.into_bytes())).await {
            Ok(_) => Ok(Patched::Yes),
            Err(CallError::Refused(404, _)) => Ok(Patched::Gone),
            Err(CallError::Refused(400 | 422, why)) => Ok(Patched::DoesNotFit(why)),
            Err(error) => Err(self.unavailable("patch", &error)),
        }
    }

    /// How far it is; `None`: there is none.
    ///
    /// # Errors
    /// The API server did not answer, or refused.
    pub async fn roll_out(&self) -> Result<Option<RollOut>, ClusterError> {
        match self.call("get", Request::get(self.path()).body(Vec::new())).await {
            Ok(object) => Ok(Some(read(&object))),
            Err(CallError::Refused(404, _)) => Ok(None),
            Err(error) => Err(self.unavailable("read", &error)),
        }
    }

    fn path(&self) -> String {
        format!("/apis/apps/v1/namespaces/{}/daemonsets/{}", self.namespace, self.name)
    }

    async fn call(
        &self,
        verb: &'static str,
        request: hyper::http::Result<Request<Vec<u8>>>,
    ) -> Result<Value, CallError> {
        let request = request.map_err(|error| CallError::Unreached(error.to_string()))?;
        let client = self.server.client();
        self.server.call((verb, "daemonsets"), CALL, client.request::<Value>(request)).await
    }

    fn unavailable(&self, what: &str, error: &CallError) -> ClusterError {
        let action = format!("{what} DaemonSet \"{}/{}\"", self.namespace, self.name);
        ClusterError::Unavailable { action, reason: error.text() }
    }
}

fn read(object: &Value) -> RollOut {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let first = |pointer: &str| {
        object.pointer(&format!("/spec/template/spec/initContainers/0/{pointer}")).and_then(Value::as_str)
    };
    RollOut {
        is_current: object.pointer("/status/observedGeneration").is_some()
            && number("/status/observedGeneration") >= number("/metadata/generation"),
        desired: number("/status/desiredNumberScheduled"),
        updated: number("/status/updatedNumberScheduled"),
        ready: number("/status/numberReady"),
        // An older patch said so by this name alone.
        turned: first("args/0").and_then(Turned::of).or_else(|| first("name").and_then(Turned::of)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_roll_out_is_complete_when_every_node_has_the_newest_and_it_is_ready() {
        let of = |generation: u64, observed: u64, desired: u64, updated: u64, ready: u64| {
            read(&json!({
                "metadata": {"generation": generation},
                "spec": {"template": {"spec": {"initContainers": [{"name": "install", "args": ["uninstall", "--x"]}]}}},
                "status": {"observedGeneration": observed, "desiredNumberScheduled": desired,
                    "updatedNumberScheduled": updated, "numberReady": ready},
            }))
        };
        for (roll_out, complete) in [
            (of(2, 2, 3, 3, 3), true),
            (of(2, 2, 0, 0, 0), true),
            (of(2, 1, 3, 3, 3), false),
            (of(2, 2, 3, 2, 3), false),
            (of(2, 2, 3, 3, 2), false),
        ] {
            assert_eq!(roll_out.is_complete(), complete, "{roll_out:?}");
            assert_eq!(roll_out.turned, Some(Turned::Uninstall));
        }
        assert!(!read(&json!({})).is_complete());
    }

    #[test]
    fn it_is_turned_around_if_its_first_container_takes_us_off() {
        let table = [
            (json!({"name": "install", "args": ["install", "--config=x"]}), None),
            (json!({"name": "install", "args": ["uninstall", "--config=x"]}), Some(Turned::Uninstall)),
            (json!({"name": "install", "args": ["migrate", "--back"]}), Some(Turned::Back)),
            (json!({"name": "uninstall"}), Some(Turned::Uninstall)),
            (json!({"name": "other", "args": ["--x", "uninstall"]}), None),
            (json!({"name": "other", "args": []}), None),
        ];
        for (first, wanted) in table {
            let object = json!({"spec": {"template": {"spec": {"initContainers": [first, {"args": ["uninstall"]}]}}}});
            assert_eq!(read(&object).turned, wanted, "{object}");
        }
        assert_eq!(read(&json!({})).turned, None);
    }

    #[test]
    fn a_patch_says_by_which_command_we_are_taken_off() {
        let patch = |args: &str| {
            format!(
                "# YAML\n- {{ op: test, path: /spec/template/spec/initContainers/0/args/0, value: install }}\n\
                 - {{ op: replace, path: /spec/template/spec/initContainers/0/args, value: [{args}] }}\n"
            )
        };
        assert_eq!(Turned::wanted(&patch("uninstall, --config=x")), Some(Turned::Uninstall));
        assert_eq!(Turned::wanted(&patch("migrate, --back")), Some(Turned::Back));
        for other in [patch("run"), "[]".to_owned(), "{".to_owned(), String::new()] {
            assert_eq!(Turned::wanted(&other), None, "{other}");
        }
    }
}
