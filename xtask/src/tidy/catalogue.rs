//! What exists twice: metrics and error codes in the code and in the documentation, dashboards as tables and as files.

use std::collections::BTreeSet;

use super::Finding;
use super::tree::Tree;
use crate::dashboards;

const METRICS_DOC: &str = "docs/reference/metrics.md";
const ERRORS_DOC: &str = "docs/reference/errors.md";
const CODES: &str = "agent/src/fault.rs";

/// All of them, both ways.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let lists = metrics(tree).into_iter().chain(error_codes(tree));
    lists.chain(drawn(tree, &dashboards::files())).collect()
}

/// Every dashboard's file is as it would be written now, and there is no other.
fn drawn(tree: &Tree, wanted: &[(String, String)]) -> Vec<Finding> {
    let remedy = "run cargo xtask dashboards";
    let stale = wanted.iter().filter(|(path, text)| tree.file(path).is_none_or(|file| file.text != *text));
    let stale = stale.map(|(path, _)| Finding::new(path, 1, format!("is not as its table says: {remedy}")));
    let present = tree.files.iter().filter(|file| file.path.starts_with(dashboards::FOLDER));
    let strange = present.filter(|file| wanted.iter().all(|(path, _)| *path != file.path));
    stale.chain(strange.map(|file| Finding::new(&file.path, 1, "has no table in xtask/src/dashboards"))).collect()
}

/// Where the metric handles are declared: one file.
fn metrics(tree: &Tree) -> Vec<Finding> {
    let places = ["agent/src/metrics/catalogue.rs", "agent/src/telemetry/metrics.rs"];
    let Some(code) = places.iter().find_map(|place| tree.file(place)) else {
        return vec![Finding::advice(METRICS_DOC, 1, "no metrics.rs yet: the catalogue is not compared")];
    };
    let documented: BTreeSet<String> = table_names(tree, METRICS_DOC);
    let declared: BTreeSet<String> = code.text.split('"').skip(1).step_by(2).filter_map(metric).collect();
    differences(&declared, &documented, &code.path, METRICS_DOC)
}

/// A metric's name without the suffix that the exposition appends.
fn metric(word: &str) -> Option<String> {
    let is_name = word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let is_ours = ["multus_", "pod_network_", "process_"].iter().any(|head| word.starts_with(head));
    (is_name && is_ours && !word.ends_with('_')).then(|| word.strip_suffix("_total").unwrap_or(word).to_owned())
}

/// Metrics named in the first column of a document's tables.
fn table_names(tree: &Tree, path: &str) -> BTreeSet<String> {
    let text = tree.file(path).map(|file| file.text.as_str()).unwrap_or_default();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter_map(metric).collect()
}

fn error_codes(tree: &Tree) -> Vec<Finding> {
    let code = tree.file(CODES).map(|file| file.code.as_str()).unwrap_or_default();
    let declared = code.lines().filter_map(|line| {
        let (_, number) = line.trim().strip_prefix("pub const ")?.split_once(": u32 = ")?;
        Some(number.trim_end_matches(';').to_owned())
    });
    let text = tree.file(ERRORS_DOC).map(|file| file.text.as_str()).unwrap_or_default();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let documented = cells.filter(|cell| cell.parse::<u32>().is_ok()).map(str::to_owned);
    differences(&declared.collect(), &documented.collect(), CODES, ERRORS_DOC)
}

fn differences(code: &BTreeSet<String>, docs: &BTreeSet<String>, code_path: &str, docs_path: &str) -> Vec<Finding> {
    let undocumented = code.difference(docs).map(|name| Finding::new(docs_path, 1, format!("{name} is missing")));
    let undeclared =
        docs.difference(code).map(|name| Finding::new(docs_path, 1, format!("{name} is not in {code_path}")));
    undocumented.chain(undeclared).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::File;
    use super::*;

    #[test]
    fn both_directions_are_compared() {
        let code = "register(\"multus_a_packets\", \"help\"); register(\"multus_new\", \"x\")";
        let docs = "| name | type |\n| `multus_a_packets_total`, `multus_old` | counter |\n";
        let faults = "pub const IO: u32 = 5;\npub const NEW: u32 = 6;\n";
        let tree = Tree {
            files: vec![
                File::new("agent/src/telemetry/metrics.rs", code),
                File::new(METRICS_DOC, docs),
                File::new(CODES, faults),
                File::new(ERRORS_DOC, "| code | name |\n| 5 | io |\n| 9 | gone |\n"),
            ],
        };
        let found: Vec<String> =
            metrics(&tree).into_iter().chain(error_codes(&tree)).map(|finding| finding.what).collect();
        assert_eq!(
            found,
            [
                "multus_new is missing",
                "multus_old is not in agent/src/telemetry/metrics.rs",
                "6 is missing",
                "9 is not in agent/src/fault.rs",
            ]
        );
    }

    #[test]
    fn a_dashboard_that_was_changed_by_hand_is_found() {
        let path = |name: &str| format!("{}/{name}.json", dashboards::FOLDER);
        let wanted = ["same", "other", "gone"].map(|name| (path(name), "{}\n".to_owned()));
        let files = [("same", "{}\n"), ("other", "{ }\n"), ("strange", "{}\n")];
        let tree = Tree { files: files.map(|(name, text)| File::new(path(name), text)).into() };
        let found: Vec<String> = drawn(&tree, &wanted).into_iter().map(|finding| finding.at).collect();
        assert_eq!(found, ["other", "gone", "strange"].map(|name| format!("{}:1", path(name))));
    }
}
