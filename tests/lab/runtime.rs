//! How a container runtime calls a CNI plugin: environment, stdin, cached result; and what came back.
//!
//! It mirrors containerd with libcni: a single plugin of a conflist, capabilities, `runtimeConfig`, `prevResult`.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::netns::Netns;
use crate::pod::Pod;
use crate::process::{self, Finished, Running};
use crate::{Lab, agent};

/// The capability by which containerd hands over a pod's annotations.
pub const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// One call of a plugin, ready to be changed and run.
#[derive(Debug, Clone)]
pub struct Call {
    /// The plugin's program.
    pub program: PathBuf,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// The whole stdin.
    pub stdin: Vec<u8>,
    /// The runtime's patience.
    pub limit: Duration,
}

impl Call {
    /// The same call with its configuration changed by `change`.
    #[must_use]
    pub fn conf(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut conf = serde_json::from_slice(&self.stdin).expect("the configuration is JSON");
        change(&mut conf);
        self.stdin = conf.to_string().into_bytes();
        self
    }

    /// The same call with one variable set.
    #[must_use]
    pub fn var(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    /// The same call without one variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// The variables that are the specification's.
    pub fn env_of_cni(&self) -> BTreeMap<&str, &str> {
        let all = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        all.filter(|(name, _)| name.starts_with("CNI_")).collect()
    }

    /// Runs it inside `netns` (the node's).
    pub fn run(&self, netns: &Netns) -> Answer {
        Answer {
            verb: self.env.get("CNI_COMMAND").cloned().unwrap_or_default(),
            done: self.start(netns).wait(self.limit),
        }
    }

    /// Starts it inside `netns`.
    pub fn start(&self, netns: &Netns) -> Running {
        let mut command = netns.command(&self.program);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(&self.env);
        process::start(&mut command, &self.stdin)
    }
}

/// What a plugin answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The verb that was asked.
    pub verb: String,
    /// Exit code, output, time.
    pub done: Finished,
}

impl Answer {
    /// True when it exited with 0.
    pub fn ok(&self) -> bool {
        self.done.success()
    }

    /// Demands success; the failure text carries everything that was said.
    pub fn expect_ok(&self) -> &Self {
        assert!(self.ok(), "{} failed: {}", self.verb, self.describe());
        self
    }

    /// The result object of a successful ADD.
    pub fn result(&self) -> Value {
        self.expect_ok();
        serde_json::from_slice(&self.done.stdout)
            .unwrap_or_else(|e| panic!("result is not JSON ({e}): {}", self.describe()))
    }

    /// Demands failure with a CNI error object of this code; returns `msg` and `details` joined.
    pub fn expect_error(&self, code: u64) -> String {
        let error = self.error();
        let text =
            format!("{} {}", error["msg"].as_str().unwrap_or_default(), error["details"].as_str().unwrap_or_default());
        assert_eq!(error["code"], code, "{}: wanted error code {code}: {}", self.verb, self.describe());
        text
    }

    /// The error object of a failed call.
    pub fn error(&self) -> Value {
        assert!(!self.ok(), "{} succeeded: {}", self.verb, self.describe());
        assert!(!self.done.timed_out, "{} did not end: {}", self.verb, self.describe());
        let error: Value = serde_json::from_slice(&self.done.stdout)
            .unwrap_or_else(|e| panic!("error is not JSON ({e}): {}", self.describe()));
        assert!(error["code"].is_u64() && error["msg"].is_string(), "not a CNI error object: {}", self.describe());
        error
    }

    /// Everything about the answer in one text.
    pub fn describe(&self) -> String {
        let done = &self.done;
        format!(
            "exit {:?} signal {:?} after {:?}{}\nstdout: {}\nstderr: {}",
            done.code,
            done.signal,
            done.took,
            if done.timed_out { " (killed by the lab)" } else { "" },
            done.out(),
            done.err()
        )
    }
}

/// A runtime of one node.
#[derive(Debug)]
pub struct Runtime {
    /// The plugin it calls.
    pub program: PathBuf,
    /// Its conflist's only plugin, before `name`, `cniVersion`, `prevResult` and `runtimeConfig` are injected.
    pub plugin: Value,
    /// `cniVersion` of its conflist.
    pub version: String,
    /// Whether annotations ride along (containerd 2.1 and newer with the capability declared).
    pub gives_annotations: bool,
    /// Further `runtimeConfig` for every call.
    pub runtime_config: Value,
    /// The `CNI_PATH` it sets.
    pub path: String,
    /// Its patience per call.
    pub limit: Duration,
    results: Mutex<HashMap<String, Value>>,
}

impl Runtime {
    /// A runtime configured with our shim for `lab`.
    pub fn new(lab: &Lab) -> Self {
        Self {
            program: agent::program("multus-shim"),
            plugin: json!({
                "type": "multus-shim",
                "capabilities": {ANNOTATIONS: true, "portMappings": true},
                "daemonSocketDir": lab.socket_dir, "cniDir": lab.cni_dir, "binDir": lab.bin_dir,
                "requestTimeout": "20s"
            }),
            version: "1.0.0".to_owned(),
            gives_annotations: true,
            runtime_config: json!({}),
            path: lab.bin_dir.display().to_string(),
            limit: Duration::from_secs(30),
            results: Mutex::new(HashMap::new()),
        }
    }

    /// The call of `verb` for `pod`, as the runtime would make it now.
    pub fn call(&self, verb: &str, pod: Option<&Pod>) -> Call {
        let mut env =
            BTreeMap::from([("CNI_COMMAND".to_owned(), verb.to_owned()), ("CNI_PATH".to_owned(), self.path.clone())]);
        let mut conf = self.plugin.clone();
        conf["name"] = "multus-cni-network".into();
        conf["cniVersion"] = self.version.as_str().into();
        if let Some(pod) = pod {
            env.insert("CNI_CONTAINERID".into(), pod.id.clone());
            env.insert("CNI_NETNS".into(), pod.netns.path().display().to_string());
            env.insert("CNI_IFNAME".into(), "eth0".into());
            env.insert("CNI_ARGS".into(), pod.cni_args());
            let mut runtime_config = self.runtime_config.clone();
            if self.gives_annotations {
                runtime_config[ANNOTATIONS] = json!(pod.annotations);
            }
            conf["runtimeConfig"] = runtime_config;
            if let (true, Some(result)) = (verb != "ADD", self.cached(pod)) {
                conf["prevResult"] = result;
            }
        }
        Call { program: self.program.clone(), env, stdin: conf.to_string().into_bytes(), limit: self.limit }
    }

    /// The result the runtime caches for `pod`.
    pub fn cached(&self, pod: &Pod) -> Option<Value> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).get(&pod.id).cloned()
    }

    /// Loses the cached result of `pod`, as a reboot does.
    pub fn forget(&self, pod: &Pod) {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).remove(&pod.id);
    }

    /// Remembers what an ADD answered.
    pub fn remember(&self, pod: &Pod, answer: &Answer) {
        if let (true, Ok(result)) = (answer.ok(), serde_json::from_slice(&answer.done.stdout)) {
            self.results.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.id.clone(), result);
        }
    }

    /// ADD of `pod`.
    pub fn add(&self, lab: &Lab, pod: &Pod) -> Answer {
        let answer = self.call("ADD", Some(pod)).run(&lab.node);
        self.remember(pod, &answer);
        answer
    }

    /// DEL of `pod`.
    pub fn del(&self, lab: &Lab, pod: &Pod) -> Answer {
        let answer = self.call("DEL", Some(pod)).run(&lab.node);
        if answer.ok() {
            self.forget(pod);
        }
        answer
    }

    /// CHECK of `pod`.
    pub fn check(&self, lab: &Lab, pod: &Pod) -> Answer {
        self.call("CHECK", Some(pod)).run(&lab.node)
    }

    /// STATUS of the node.
    pub fn status(&self, lab: &Lab) -> Answer {
        self.call("STATUS", None).run(&lab.node)
    }

    /// GC, with these pods still valid.
    pub fn gc(&self, lab: &Lab, valid: &[&Pod]) -> Answer {
        let list: Vec<_> = valid.iter().map(|pod| json!({"containerID": pod.id, "ifname": "eth0"})).collect();
        self.call("GC", None).conf(|conf| conf["cni.dev/valid-attachments"] = list.into()).run(&lab.node)
    }
}
