//! What every dashboard's file must be before anybody imports it: the rules of Grafana's own linter, and ours.

use std::collections::BTreeSet;

use lab::dashboard::{Dashboard, Selector, selectors};
use lab::prometheus;
use serde_json::{Value, json};

fn dashboards() -> Vec<Dashboard> {
    prometheus::files("deploy/dashboards", "json").iter().map(|path| Dashboard::read(path)).collect()
}

/// Units of Grafana that mean something here.
const UNITS: [&str; 12] = [
    "short",
    "none",
    "percentunit",
    "s",
    "ns",
    "bytes",
    "Bps",
    "pps",
    "ops",
    "reqps",
    "dateTimeFromNow",
    "bool_on_off",
];

#[test]
fn selectors_are_found() {
    let expr = "sum by (a, le) (rate(x_total{k=\"(y{\", b!~\"z\"}[5m])) / on (c) group_left (d) up offset 5m > 0.5 or vector(0)";
    let wanted = [
        Selector {
            metric: "x_total",
            matchers: Some("k=\"(y{\", b!~\"z\""),
            range: Some("5m"),
            function: Some("rate"),
        },
        Selector { metric: "up", matchers: None, range: None, function: None },
    ];
    assert_eq!(selectors(expr), wanted);
}

#[test]
fn each_is_a_fixed_document_with_its_own_name() {
    let all = dashboards();
    assert!(all.len() >= 5);
    for dashboard in &all {
        let (name, document) = (&dashboard.name, &dashboard.document);
        assert_eq!(document["uid"], format!("multus-ebpf-{name}"), "{name}: links of users hold it");
        assert_eq!(document["editable"], false, "{name}");
        assert_eq!(document["tags"], json!(["multus-ebpf"]), "{name}: by which they are linked");
        assert_eq!(document["links"][0]["tags"], document["tags"], "{name}");
        assert!(document.get("id").is_none() && document["schemaVersion"].is_u64(), "{name}");
        for key in ["title", "description"] {
            assert!(document[key].as_str().is_some_and(|text| !text.is_empty()), "{name}: {key}");
        }
    }
    let titles: BTreeSet<_> = all.iter().map(|dashboard| dashboard.document["title"].as_str()).collect();
    assert_eq!(titles.len(), all.len(), "each has one question");
}

#[test]
fn each_can_be_pointed_at_any_prometheus_job_and_instance() {
    for Dashboard { name, document } in dashboards() {
        let list = document["templating"]["list"].as_array().expect("variables");
        let of_name = |wanted: &str| {
            let found = list.iter().find(|variable| variable["name"] == wanted);
            found.unwrap_or_else(|| panic!("{name}: no variable {wanted}"))
        };
        let source = of_name("datasource");
        assert_eq!((&source["type"], &source["query"]), (&json!("datasource"), &json!("prometheus")), "{name}");
        assert_eq!(source["label"], "Data source", "{name}");
        assert_eq!((&of_name("job")["label"], &of_name("instance")["label"]), (&json!("Job"), &json!("Instance")));
        for variable in list.iter().filter(|variable| variable["name"] != "datasource") {
            let which = format!("{name}: variable {}", variable["name"]);
            let all = [
                ("type", json!("query")),
                ("multi", json!(true)),
                ("includeAll", json!(true)),
                ("allValue", json!(".+")),
            ];
            for (key, value) in all {
                assert_eq!(variable[key], value, "{which}: {key}");
            }
            assert_eq!(variable["refresh"], 2, "{which}: follows the time range");
            assert_eq!(variable["datasource"]["uid"], "${datasource}", "{which}");
            let query = variable["query"].as_str().unwrap_or_default();
            assert!(query.starts_with("label_values("), "{which}: {query}");
        }
    }
}

#[test]
fn each_panel_says_what_it_shows() {
    for Dashboard { name, document } in dashboards() {
        let mut titles = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in document["panels"].as_array().expect("panels") {
            let which = format!("{name}: {}", panel["title"]);
            for key in ["title", "description"] {
                assert!(panel[key].as_str().is_some_and(|text| !text.is_empty()), "{which}: no {key}");
            }
            assert!(titles.insert(panel["title"].as_str()), "{which}: twice");
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
            assert!(UNITS.contains(&unit), "{which}: unit {unit:?}");
            assert_eq!(panel["datasource"], json!({"type": "prometheus", "uid": "${datasource}"}), "{which}");
            let [left, top, width, height] =
                ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
            assert!(left + width <= 24 && width > 0 && height > 0, "{which}: beyond the 24 columns");
            for cell in (left..left + width).flat_map(|x| (top..top + height).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{which}: lies on another panel");
            }
        }
    }
}

#[test]
fn each_query_keeps_the_rules_of_its_kind() {
    for Dashboard { name, document } in dashboards() {
        for panel in document["panels"].as_array().expect("panels") {
            let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
            assert!(!targets.is_empty(), "{name}: {} asks nothing", panel["title"]);
            let names: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str()).collect();
            assert_eq!(names.len(), targets.len(), "{name}: {}: refId twice", panel["title"]);
            for target in targets {
                let which = format!("{name}: {}: {}", panel["title"], target["expr"]);
                assert_eq!(target["datasource"], panel["datasource"], "{which}");
                let is_table = panel["type"] == "table";
                assert_eq!(target["instant"], is_table, "{which}");
                let has_legend = target["legendFormat"].as_str().is_some_and(|text| !text.is_empty());
                assert!(has_legend || is_table, "{which}: no legend");
                query(&which, target["expr"].as_str().unwrap_or_default(), &document);
            }
        }
    }
}

fn query(which: &str, expr: &str, dashboard: &Value) {
    let selectors = selectors(expr);
    assert!(!selectors.is_empty(), "{which}: no selector");
    for Selector { metric, matchers, range, function } in selectors {
        let matchers = matchers.unwrap_or_else(|| panic!("{which}: {metric} without job and instance"));
        assert!(matchers.starts_with("job=~\"$job\", instance=~\"$instance\""), "{which}: {metric}");
        for word in matchers.split('"').skip(1).step_by(2).filter_map(|value| value.strip_prefix('$')) {
            let list = dashboard["templating"]["list"].as_array().expect("variables");
            assert!(list.iter().any(|variable| variable["name"] == word), "{which}: no variable {word}");
        }
        match (function, range) {
            (Some("rate" | "increase"), Some("$__rate_interval")) | (Some("increase"), Some("$__range")) => {}
            (_, Some(range)) => panic!("{which}: {metric}[{range}]"),
            (_, None) => {
                let is_counter = ["_total", "_count", "_sum", "_bucket"].iter().any(|end| metric.ends_with(end));
                assert!(!is_counter, "{which}: the counter {metric} is shown as it is");
            }
        }
    }
}
