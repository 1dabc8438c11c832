//! A real Prometheus in a node's namespace that scrapes the node's agent every second, and what it answers.
//!
//! Its data is in the lab's folder; it is killed when dropped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::{Lab, agent, http, process, wait_until};

/// Where it listens in the node's namespace.
const ADDRESS: &str = "127.0.0.1:9090";
/// The job that scrapes the agent.
pub const JOB: &str = "multus-ebpf";

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus<'lab> {
    child: Child,
    lab: &'lab Lab,
    /// When it was started, in seconds of the Unix epoch.
    began: f64,
}

/// The values of one set of labels: time in seconds of the Unix epoch, value.
#[derive(Debug, Clone)]
pub struct Series {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Points in order of time; no number is left out.
    pub points: Vec<(f64, f64)>,
}

impl<'lab> Prometheus<'lab> {
    /// Starts it with these rule files and waits until it answers.
    pub fn start(lab: &'lab Lab, rules: &[PathBuf]) -> Self {
        let folder = lab.dir.join("prometheus");
        fs::create_dir_all(&folder).expect("make prometheus's folder");
        // JSON is YAML.
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": [{
                "job_name": JOB,
                "honor_labels": true,
                "static_configs": [{"targets": [agent::METRICS], "labels": {"instance": "lab-node"}}]
            }]
        });
        let file = folder.join("prometheus.yml");
        fs::write(&file, config.to_string()).expect("write prometheus.yml");
        let log = fs::File::create(folder.join("log")).expect("make prometheus's log");
        let mut command = lab.node.command("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.args([&format!("--web.listen-address={ADDRESS}"), "--storage.tsdb.retention.time=1h"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = command.spawn().expect("start prometheus");
        let prometheus = Self { child, lab, began: now() };
        let ready = || http::get_tcp(&lab.node, ADDRESS, "/-/ready").is_ok_and(|reply| reply.status == 200);
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(wait_until(Duration::from_secs(30), ready), "prometheus is not ready:\n{}", log());
        prometheus
    }

    /// The `data` of an answer of its API; what it refuses fails the test.
    pub fn get(&self, path: &str) -> Value {
        self.ask(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    fn ask(&self, path: &str) -> Result<Value, String> {
        let reply = http::get_tcp(&self.lab.node, ADDRESS, path).map_err(|error| error.to_string())?;
        let mut answer: Value =
            serde_json::from_str(&reply.body).map_err(|error| format!("{error}: {}", reply.body))?;
        if answer["status"] == "success" { Ok(answer["data"].take()) } else { Err(answer["error"].to_string()) }
    }

    /// What a query gives now, or why it is refused.
    pub fn now(&self, query: &str) -> Result<Vec<Series>, String> {
        self.ask(&format!("/api/v1/query?query={}", encoded(query))).map(|data| series(&data["result"]))
    }

    /// What a query gives for each second since the start, or why it is refused.
    pub fn since_start(&self, query: &str) -> Result<Vec<Series>, String> {
        let (start, end, query) = (self.began, now(), encoded(query));
        let path = format!("/api/v1/query_range?query={query}&start={start:.0}&end={end:.0}&step=1");
        self.ask(&path).map(|data| series(&data["result"]))
    }

    /// The values of `label` in the series of `selector`.
    pub fn label_values(&self, selector: &str, label: &str) -> Vec<String> {
        let data = self.get(&format!("/api/v1/label/{label}/values?match[]={}", encoded(selector)));
        data.as_array().into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs promtool; what it printed, and whether it was content.
pub fn promtool(arguments: &[&str], files: &[PathBuf]) -> (bool, String) {
    let done = process::run(Command::new("promtool").args(arguments).args(files), b"", Duration::from_mins(1));
    (done.success(), done.out() + &done.err())
}

/// Files of a folder of the repository with this ending, in order.
pub fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("list {}: {error}", folder.display()));
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == ending));
    found.sort();
    found
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|time| time.as_secs_f64()).unwrap_or_default()
}

/// Everything but letters and digits escaped, as a query's value in an address.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A vector, a matrix, or a scalar's one point.
fn series(result: &Value) -> Vec<Series> {
    let point = |pair: &Value| Some((pair[0].as_f64()?, pair[1].as_str()?.parse::<f64>().ok()?));
    let read = |one: &Value| {
        let labels = one["metric"].as_object().into_iter().flatten();
        let labels = labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect();
        let many = one["values"].as_array().into_iter().flatten();
        let points = many.chain(one.get("value")).filter_map(point).filter(|(_, value)| value.is_finite());
        Series { labels, points: points.collect() }
    };
    result.as_array().into_iter().flatten().map(read).filter(|series| !series.points.is_empty()).collect()
}
