//! Alerts and recording rules: what promtool says of them, and that each alert says what it means and what to do.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lab::prometheus;

const FOLDER: &str = "deploy/alerts";

/// What stands between one alert's name and the next.
fn alerts() -> Vec<(String, String)> {
    let read = |path: &Path| fs::read_to_string(path).expect("read a rule file");
    let text: String = prometheus::files(FOLDER, "yaml").iter().map(|path| read(path)).collect();
    let named = text.split("- alert: ").skip(1).filter_map(|rest| rest.split_once('\n'));
    named.map(|(name, rest)| (name.trim().to_owned(), rest.to_owned())).collect()
}

/// What follows `key:` in a rule: the rest of the line, or the lines below it.
fn field<'a>(rule: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = rule.split_once(&format!(" {key}:"))?;
    let line = rest.lines().next()?.trim();
    Some(if line == ">-" || line == "|" { rest.lines().nth(1)?.trim() } else { line })
}

#[test]
fn promtool_takes_every_rule() {
    let (content, said) =
        prometheus::promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &prometheus::files(FOLDER, "yaml"));
    assert!(content, "{said}");
}

#[test]
fn every_rule_does_what_its_tests_say() {
    let (content, said) =
        prometheus::promtool(&["test", "rules"], &prometheus::files(&format!("{FOLDER}/tests"), "yaml"));
    assert!(content, "{said}");
}

#[test]
fn every_rule_has_a_test_in_which_it_fires_and_every_alert_one_in_which_it_does_not() {
    let read = |path: &Path| fs::read_to_string(path).expect("read a test file");
    let tests: String = prometheus::files(&format!("{FOLDER}/tests"), "yaml").iter().map(|path| read(path)).collect();
    let (mut fire, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for expectation in tests.split("- alertname: ").skip(1) {
        let name = expectation.lines().next().unwrap_or_default();
        let next =
            expectation.split_once("exp_alerts:").map_or("", |(_, rest)| rest.lines().next().unwrap_or_default());
        if next.trim() == "[]" {
            silent.insert(name)
        } else {
            fire.insert(name)
        };
    }
    let wanted: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    assert!(wanted.len() >= 20, "{wanted:?}");
    for tested in [fire, silent] {
        let tested: BTreeSet<String> = tested.into_iter().map(str::to_owned).collect();
        assert_eq!(tested, wanted);
    }
    let rules: String = prometheus::files(FOLDER, "yaml").iter().map(|path| read(path)).collect();
    for line in rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")) {
        assert!(
            tests.contains(&format!("labels: {line}{{")) || tests.contains(&format!("({line},")),
            "{line} has no test"
        );
    }
}

/// Of each alert: how bad, what, where, and a runbook with its four parts.
#[test]
fn every_alert_says_where_to_read_what_to_do() {
    for (name, rule) in alerts() {
        let severity = field(&rule, "severity").unwrap_or_default();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: severity {severity:?}");
        for key in ["summary", "description"] {
            assert!(field(&rule, key).is_some_and(|text| text.len() > 10), "{name}: {key}");
        }
        let is_of_all = ["MultusAgentsAbsent", "MultusNetworkInvalid"].contains(&name.as_str());
        assert!(is_of_all || rule.contains("{{ $labels.instance }}"), "{name}: on which node?");
        let address = field(&rule, "runbook_url").unwrap_or_default();
        let base = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/");
        let place = address.strip_prefix(base).unwrap_or_else(|| panic!("{name}: {address} is not below {base}"));
        let (file, anchor) = place.split_once('#').unwrap_or_else(|| panic!("{name}: {address} has no anchor"));
        assert_eq!(anchor, name.to_ascii_lowercase(), "{name}");
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: read {file}: {error}"));
        let chapter = text.split("\n## ").find_map(|chapter| chapter.strip_prefix(&format!("{name}\n")));
        let chapter = chapter.unwrap_or_else(|| panic!("{name}: {file} has no chapter"));
        for part in ["Meaning", "Impact", "Diagnosis", "Mitigation"] {
            assert!(chapter.contains(&format!("\n**{part}.** ")), "{name}: the runbook has no {part}");
        }
    }
}

/// A chapter of a runbook that no alert leads to is of an alert that was renamed.
#[test]
fn every_runbook_belongs_to_an_alert() {
    let names: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    for path in prometheus::files("docs/runbooks", "md") {
        let text = fs::read_to_string(&path).expect("read a runbook");
        for chapter in text.lines().filter_map(|line| line.strip_prefix("## ")) {
            assert!(names.contains(chapter), "{}: {chapter} is no alert", path.display());
        }
    }
}
