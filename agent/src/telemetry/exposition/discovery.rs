//! What is announced, as metrics: services by type, records, and what became of announcements.
//!
//! Types are whatever somebody announces: only the most frequent ones of a parent have a series of their own.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::gauge::ConstGauge;

use super::samples::begin;
use crate::fault::escape;
use crate::metrics::catalogue::{DISCOVERY_DATAGRAMS, DISCOVERY_RECORDS, DISCOVERY_SERVICES};
use crate::ops::discovery::{Discovery, OUTCOMES};

/// The most types of a parent that have a series of their own.
const MOST_TYPES: usize = 20;
/// The longest that a sane type is: `_` and fifteen characters (RFC 6335 section 5.1), with its protocol.
const LONGEST_TYPE: usize = 24;
const OTHER: &str = "other";

pub(super) fn encode(discovery: &Discovery, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let figures = discovery.figures();
    if figures.is_empty() {
        return Ok(());
    }
    let number = |count: usize| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
    let mut records = begin(encoder, DISCOVERY_RECORDS)?;
    for each in &figures {
        number(each.records).encode(records.encode_family(&[("parent", each.parent.as_str())].as_slice())?)?;
    }
    let mut datagrams = begin(encoder, DISCOVERY_DATAGRAMS)?;
    for each in &figures {
        for (outcome, count) in OUTCOMES.iter().zip(each.datagrams) {
            let labels = [("parent", each.parent.as_str()), ("outcome", *outcome)];
            datagrams.encode_family(&labels.as_slice())?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    let mut services = begin(encoder, DISCOVERY_SERVICES)?;
    for (parent, all) in discovery.services() {
        for (kind, count) in by_type(all.into_iter().map(|service| service.kind)) {
            let labels = [("parent", parent.as_str()), ("type", kind.as_str())];
            number(count).encode(services.encode_family(&labels.as_slice())?)?;
        }
    }
    Ok(())
}

/// How many there are of each type; `other` are those of rarer or odd types, and is always there.
fn by_type(all: impl Iterator<Item = String>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut others = 0;
    for kind in all {
        if kind.len() <= LONGEST_TYPE && escape(&kind) == kind {
            *counts.entry(kind).or_default() += 1;
        } else {
            others += 1;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(one, few), (two, many)| (many, one).cmp(&(few, two)));
    others += counts.split_off(counts.len().min(MOST_TYPES)).into_iter().map(|(_, count)| count).sum::<usize>();
    counts.push((OTHER.to_owned(), others));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_bounded() {
        let many = (0..100).map(|n| format!("_t{n:02}._tcp"));
        let odd = ["_x\n._tcp".to_owned(), format!("_{}._tcp", "x".repeat(60))];
        let counts = by_type(many.chain(odd).chain(["_http._tcp".to_owned(), "_http._tcp".to_owned()]));
        assert_eq!(counts.len(), MOST_TYPES + 1);
        assert_eq!(counts[0], ("_http._tcp".to_owned(), 2));
        assert_eq!(counts[MOST_TYPES], ("other".to_owned(), 2 + 81));
        assert_eq!(by_type(std::iter::empty()), [("other".to_owned(), 0)]);
    }
}
