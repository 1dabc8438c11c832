//! VERSION, and which versions are spoken (CNI 1.1.0, sections 2 and 5).

use lab::{Lab, Runtime};
use serde_json::Value;

use crate::clause::{Clause, clause};
use crate::pair;

pub(super) const CLAUSES: &[Clause] = &[
    clause("cni.version.list", "VERSION prints cniVersion and supportedVersions, 0.3.0 to 1.1.0 among them", list),
    clause("cni.version.alone", "VERSION needs nothing but CNI_COMMAND: no daemon, no further variable", alone),
    clause("cni.version.old-input", "VERSION answers whatever version the input names, and without input", old_input),
];

fn shim(lab: &Lab) -> Runtime {
    let mut runtime = Runtime::new(lab);
    runtime.program.clone_from(&pair::judged().shim);
    runtime
}

fn is_version_answer(answer: &Value) {
    let versions: Vec<_> =
        answer["supportedVersions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        assert!(versions.contains(&version), "{version} is not among {versions:?}");
    }
    let spoken = answer["cniVersion"].as_str().unwrap_or_default();
    assert!(versions.contains(&spoken), "cniVersion {spoken:?} is not among {versions:?}");
}

fn list() {
    let lab = Lab::new("c-version");
    is_version_answer(&shim(&lab).call("VERSION", None).run(&lab.node).result());
}

fn alone() {
    let lab = Lab::new("c-version-alone");
    let mut call = shim(&lab).call("VERSION", None);
    call.env.retain(|name, _| name == "CNI_COMMAND");
    is_version_answer(&call.run(&lab.node).result());
}

fn old_input() {
    let lab = Lab::new("c-version-old");
    for stdin in [r#"{"cniVersion":"0.2.0"}"#, r#"{"cniVersion":"1.1.0"}"#, ""] {
        let mut call = shim(&lab).call("VERSION", None);
        call.stdin = stdin.into();
        is_version_answer(&call.run(&lab.node).result());
    }
}
