//! What is counted while the agent works: the handles of every family that is not read from elsewhere at scrape time.
//!
//! Which families there are says [`catalogue`]. Label values from outside are bounded here: nobody can mint series.

pub mod catalogue;
mod labels;

use std::sync::Mutex;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

pub use catalogue::{CATALOGUE, Described, Group, Kind, Label};
pub use labels::{
    ApiLabels, ApiTimeLabels, DelegateLabels, OutcomeLabels, PoolLabels, RepairLabels, RequestLabels, ServerLabels,
    ShimLabels, StageLabels,
};

use crate::fault::code;
use catalogue as all;

/// A histogram per set of labels.
pub type Times<L> = Family<L, Histogram, fn() -> Histogram>;

/// What is put right, or followed, on what; every pair exists at 0.
const REPAIRS: [(&str, &[&str]); 2] = [
    ("parent", &["programs", "order", "mac", "name"]),
    ("pod", &["programs", "order", "mac", "parent", "interface", "gone"]),
];

/// Verbs of the runtime.
const VERBS: [&str; 6] = ["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"];
/// The stages that verbs mostly have; others begin when they happen.
const STAGES: [(&str, &[&str]); 3] = [
    ("ADD", &["wait", "pod", "plan", "record", "network", "delegate", "datapath", "routes", "result", "rest"]),
    ("DEL", &["wait", "undo", "delegate", "rest"]),
    ("CHECK", &["wait", "kernel", "delegate", "rest"]),
];
/// The pools of places.
pub const POOLS: [&str; 2] = ["attach", "other"];

/// How long the other side of a wait, a plugin or a request takes, in seconds.
pub const DURATIONS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

fn durations() -> Histogram {
    Histogram::new(DURATIONS)
}

/// For what we do by ourselves, which takes less.
fn stages() -> Histogram {
    Histogram::new([0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0])
}

/// The places of [`POOLS`]: who waits, and for how long.
#[derive(Debug, Clone)]
pub struct Admission {
    /// `multus_admission_waiting`.
    pub waiting: Family<PoolLabels, Gauge>,
    /// `multus_admission_refused_total`.
    pub refused: Family<PoolLabels, Counter>,
    /// `multus_admission_wait_seconds`.
    pub waited: Times<PoolLabels>,
}

impl Default for Admission {
    fn default() -> Self {
        let all = Self {
            waiting: Family::default(),
            refused: Family::default(),
            waited: Family::new_with_constructor(durations),
        };
        for pool in POOLS {
            let labels = PoolLabels { pool };
            drop(all.waiting.get_or_create(&labels));
            drop(all.refused.get_or_create(&labels));
            drop(all.waited.get_or_create(&labels));
        }
        all
    }
}

/// What was asked of the API server.
#[derive(Debug, Clone)]
pub struct Api {
    requests: Family<ApiLabels, Counter>,
    times: Times<ApiTimeLabels>,
}

impl Default for Api {
    fn default() -> Self {
        Self { requests: Family::default(), times: Family::new_with_constructor(durations) }
    }
}

impl Api {
    /// Counts a request that took so many seconds. A status beyond those of HTTP counts as 0.
    pub fn count(&self, verb: &'static str, resource: &'static str, code: u16, seconds: f64) {
        self.count_untimed(verb, resource, code);
        self.times.get_or_create(&ApiTimeLabels { verb, resource }).observe(seconds);
    }

    /// The same for a watch that was refused or broke. How long it lasted says nothing of the server, and one that goes
    /// on has no answer yet.
    pub fn count_broken_watch(&self, resource: &'static str, code: u16) {
        self.count_untimed("watch", resource, code);
    }

    fn count_untimed(&self, verb: &'static str, resource: &'static str, code: u16) {
        let code = if (100..600).contains(&code) { code } else { 0 };
        self.requests.get_or_create(&ApiLabels { verb, resource, code }).inc();
    }

    /// Registers the families.
    pub fn register(&self, registry: &mut Registry) {
        add(registry, all::API_REQUESTS, &self.requests);
        add(registry, all::API_DURATION, &self.times);
    }
}

/// The handles.
#[derive(Debug)]
pub struct Metrics {
    /// `multus_cni_requests_total`.
    pub requests: Family<RequestLabels, Counter>,
    /// `multus_cni_request_duration_seconds`.
    pub request_duration: Times<RequestLabels>,
    /// `multus_cni_stage_duration_seconds`.
    pub stage_duration: Times<StageLabels>,
    /// `multus_delegate_duration_seconds`.
    pub delegate_duration: Times<DelegateLabels>,
    /// `multus_delegate_failures_total`.
    pub delegate_failures: Family<DelegateLabels, Counter>,
    /// `multus_admission_*`.
    pub admission: Admission,
    /// `multus_server_request_total`.
    pub server_requests: Family<ServerLabels, Counter>,
    /// `multus_datapath_repairs_total`.
    pub repairs: Family<RepairLabels, Counter>,
    /// `multus_undo_attempts_total`.
    pub undo: Family<OutcomeLabels, Counter>,
    /// `multus_spool_replayed_total`.
    pub replayed: Counter,
    shims: Family<ShimLabels, Counter>,
    skew: Gauge,
    types: Bounded<String>,
    codes: Bounded<u32>,
    versions: Bounded<String>,
}

/// Most plugin types that get a label value of their own.
const MOST_TYPES: usize = 64;
/// Most error codes that do.
const MOST_CODES: usize = 64;
/// Most versions of shims that do, and the longest one.
const MOST_VERSIONS: usize = 8;
const LONGEST_VERSION: usize = 32;
/// The value that stands for all further ones.
const OTHER: &str = "other";

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            requests: Family::default(),
            request_duration: Family::new_with_constructor(durations),
            stage_duration: Family::new_with_constructor(stages),
            delegate_duration: Family::new_with_constructor(durations),
            delegate_failures: Family::default(),
            admission: Admission::default(),
            server_requests: Family::default(),
            repairs: Family::default(),
            undo: Family::default(),
            replayed: Counter::default(),
            shims: Family::default(),
            skew: Gauge::default(),
            types: Bounded::of(MOST_TYPES),
            codes: Bounded::of(MOST_CODES),
            versions: Bounded::of(MOST_VERSIONS),
        };
        metrics.begin_at_zero();
        metrics
    }
}

impl Metrics {
    /// Series whose labels are known exist before anything happens: a rate can be taken of the first time it does.
    fn begin_at_zero(&self) {
        for verb in VERBS {
            drop(self.requests.get_or_create(&RequestLabels { verb, code: 0 }));
            drop(self.request_duration.get_or_create(&RequestLabels { verb, code: 0 }));
        }
        for (verb, stages) in STAGES {
            for stage in stages {
                drop(self.stage_duration.get_or_create(&StageLabels { verb, stage }));
            }
        }
        for (object, reasons) in REPAIRS {
            for reason in reasons {
                drop(self.repairs.get_or_create(&RepairLabels { object, reason }));
            }
        }
        for outcome in ["done", "failed"] {
            drop(self.undo.get_or_create(&OutcomeLabels { outcome }));
        }
        drop(self.shims.get_or_create(&ShimLabels { version: env!("CARGO_PKG_VERSION").to_owned() }));
    }

    /// Registers every family with a handle.
    pub fn register(&self, registry: &mut Registry) {
        add(registry, all::REQUESTS, &self.requests);
        add(registry, all::REQUEST_DURATION, &self.request_duration);
        add(registry, all::STAGE_DURATION, &self.stage_duration);
        add(registry, all::DELEGATE_DURATION, &self.delegate_duration);
        add(registry, all::DELEGATE_FAILURES, &self.delegate_failures);
        add(registry, all::ADMISSION_WAITING, &self.admission.waiting);
        add(registry, all::ADMISSION_REFUSED, &self.admission.refused);
        add(registry, all::ADMISSION_WAIT, &self.admission.waited);
        add(registry, all::SERVER_REQUESTS, &self.server_requests);
        add(registry, all::REPAIRS, &self.repairs);
        add(registry, all::UNDO_ATTEMPTS, &self.undo);
        add(registry, all::SPOOL_REPLAYED, &self.replayed);
        add(registry, all::SHIM_REQUESTS, &self.shims);
        add(registry, all::SHIM_SKEW, &self.skew);
    }

    /// The label value for a plugin type: itself, or `other` when too many were seen (a NAD's author chooses them).
    pub fn type_label(&self, plugin: &str) -> String {
        self.types.admit(plugin.to_owned()).unwrap_or_else(|| OTHER.to_owned())
    }

    /// The label value for an error code: itself, or 999 when too many were seen (a plugin may print any).
    pub fn code_label(&self, code: u32) -> u32 {
        self.codes.admit(code).unwrap_or(code::INTERNAL)
    }

    /// Counts a request of a CNI plugin that calls itself `version`, and whether it is as old as the agent.
    pub fn asked_by(&self, version: &str) {
        let is_sane = version.len() <= LONGEST_VERSION && version.chars().all(|c| c.is_ascii_graphic());
        let label = Some(version.to_owned()).filter(|_| is_sane).and_then(|version| self.versions.admit(version));
        self.shims.get_or_create(&ShimLabels { version: label.unwrap_or_else(|| OTHER.to_owned()) }).inc();
        if version.starts_with(|c: char| c.is_ascii_digit()) {
            self.skew.set(i64::from(version != env!("CARGO_PKG_VERSION")));
        }
    }
}

fn add<M: Metric + Clone>(registry: &mut Registry, family: Described, metric: &M) {
    registry.register(family.name, family.help, metric.clone());
}

/// Label values that were seen, at most so many.
#[derive(Debug)]
struct Bounded<T> {
    most: usize,
    seen: Mutex<Vec<T>>,
}

impl<T: PartialEq + Clone> Bounded<T> {
    fn of(most: usize) -> Self {
        Self { most, seen: Mutex::default() }
    }

    /// `value`, if it was seen before or there is room.
    fn admit(&self, value: T) -> Option<T> {
        let mut seen = self.seen.lock().ok()?;
        if !seen.contains(&value) {
            if seen.len() >= self.most {
                return None;
            }
            seen.push(value.clone());
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many series of a family there are.
    fn series(register: impl FnOnce(&mut Registry), family: &str) -> usize {
        let (mut registry, mut text) = (Registry::default(), String::new());
        register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().filter(|line| line.starts_with(family)).count()
    }

    #[test]
    fn values_from_outside_are_bounded() {
        let metrics = Metrics::default();
        for n in 0..MOST_TYPES {
            assert_eq!(metrics.type_label(&format!("p{n}")), format!("p{n}"));
        }
        assert_eq!(metrics.type_label("one-too-many"), "other");
        assert_eq!(metrics.type_label("p0"), "p0");
        for code in 0..64 {
            assert_eq!(metrics.code_label(code), code);
        }
        assert_eq!((metrics.code_label(4_000_000), metrics.code_label(7)), (code::INTERNAL, 7));
    }

    #[test]
    fn shims_are_told_apart_and_bounded() {
        let metrics = Metrics::default();
        metrics.asked_by(env!("CARGO_PKG_VERSION"));
        assert_eq!(metrics.skew.get(), 0);
        metrics.asked_by("0.0.1-older");
        metrics.asked_by("upstream");
        assert_eq!(metrics.skew.get(), 1, "Multus's shim says nothing about ours");
        for n in 0..100 {
            metrics.asked_by(&format!("9.9.{n}"));
            metrics.asked_by(&"\u{1b}".repeat(n));
        }
        assert_eq!(series(|registry| metrics.register(registry), "multus_shim_requests_total"), MOST_VERSIONS + 1);
    }

    #[test]
    fn answers_of_an_api_server_are_bounded() {
        let api = Api::default();
        (0..=u16::MAX).for_each(|code| api.count("get", "pods", code, 0.1));
        assert_eq!(series(|registry| api.register(registry), "multus_api_requests_total"), 501);
    }
}
