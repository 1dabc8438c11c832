//! What a scrape says: samples by name and labels.
//!
//! It reads the Prometheus text format as far as tests need it and judges nothing.

use std::collections::BTreeMap;

/// All samples of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// The samples, in order.
    pub all: Vec<Sample>,
    /// Type by family, as `# TYPE` lines say.
    pub types: BTreeMap<String, String>,
}

/// One line of a scrape.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Metric name with its suffix (`_total`, `_bucket`, …).
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Samples {
    /// Reads the text; a line that cannot be read fails the test.
    pub fn parse(text: &str) -> Self {
        let mut samples = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                if let Some((name, kind)) = rest.split_once(' ') {
                    samples.types.insert(name.to_owned(), kind.trim().to_owned());
                }
            } else if !line.starts_with('#') && !line.trim().is_empty() {
                samples.all.push(parse_line(line).unwrap_or_else(|| panic!("metric line cannot be read: {line}")));
            }
        }
        samples
    }

    /// Samples named `name` that carry all of `labels`.
    pub fn matching(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        self.all.iter().filter(fits).collect()
    }

    /// Sum of the samples named `name` that carry all of `labels`; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.matching(name, labels).iter().map(|sample| sample.value as u64).sum()
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) =
        if let Some(inner) = rest.strip_prefix('{') { parse_labels(inner)? } else { (BTreeMap::new(), rest) };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

fn parse_labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches(',');
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        text = loop {
            match chars.next()? {
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (at, '"') => break &rest[at + 1..],
                (_, other) => value.push(other),
            }
        };
        labels.insert(key.to_owned(), value);
    }
}
