//! `metrics.md`: every family and every label, from the catalogue.

use std::fmt::Write as _;

use multus_agent::metrics::catalogue::{CATALOGUE, Described, Group, Kind, Label};

use crate::block::{page, table};

#[test]
fn the_metrics_reference_says_every_family_and_label() {
    let mut families = String::new();
    for Group { title, families: all } in CATALOGUE {
        let rows = table(&["name", "type", "labels", "meaning"], all.iter().map(row));
        let _ = write!(families, "## {title}\n\n{rows}\n");
    }
    page("metrics.md", &[("families", families), ("labels", table(&["label", "values"], labels()))]);
}

fn row(family: &Described) -> Vec<String> {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let unit = family.unit();
    let kind = if unit.is_empty() { kind.to_owned() } else { format!("{kind}, {unit}") };
    let labels: Vec<&str> = family.labels.iter().map(|label| label.name).collect();
    vec![format!("`{}`", family.queried()), kind, labels.join(", "), family.help.to_owned()]
}

/// Each label once, in the order in which families have them.
fn labels() -> Vec<Vec<String>> {
    let mut seen: Vec<&Label> = Vec::new();
    for label in CATALOGUE.iter().flat_map(|group| group.families).flat_map(|family| family.labels) {
        if !seen.iter().any(|known| (known.name, known.of) == (label.name, label.of)) {
            seen.push(label);
        }
    }
    let name = |label: &Label| {
        if label.of.is_empty() { format!("`{}`", label.name) } else { format!("`{}` of {}", label.name, label.of) }
    };
    seen.iter().map(|label| vec![name(label), label.values.to_owned()]).collect()
}
