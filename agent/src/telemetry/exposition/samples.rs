//! One family of the catalogue and its samples, as the format wants them; a family without samples is not written.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::metrics::{Described, Kind};

/// Begins a family.
pub(super) fn begin<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    family: Described,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    encoder.encode_descriptor(family.name, family.help, None, kind)
}

/// A gauge without labels.
pub(super) fn gauge(encoder: &mut DescriptorEncoder<'_>, family: Described, value: f64) -> fmt::Result {
    begin(encoder, family)?.encode_gauge(&value)
}

/// A gauge by labels.
pub(super) fn gauges<V: EncodeLabelValue, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: Described,
    samples: impl IntoIterator<Item = ([(&'static str, V); N], f64)>,
) -> fmt::Result {
    each(encoder, family, samples, |metric, value| metric.encode_gauge(&value))
}

/// A counter of whole things by labels.
pub(super) fn counts<V: EncodeLabelValue, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: Described,
    samples: impl IntoIterator<Item = ([(&'static str, V); N], u64)>,
) -> fmt::Result {
    each(encoder, family, samples, |metric, value| metric.encode_counter::<NoLabelSet, _, u64>(&value, None))
}

/// A counter of seconds by labels.
pub(super) fn counters<V: EncodeLabelValue, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: Described,
    samples: impl IntoIterator<Item = ([(&'static str, V); N], f64)>,
) -> fmt::Result {
    each(encoder, family, samples, |metric, value| metric.encode_counter::<NoLabelSet, _, u64>(&value, None))
}

fn each<T, V: EncodeLabelValue, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: Described,
    samples: impl IntoIterator<Item = ([(&'static str, V); N], T)>,
    encode: impl Fn(&mut MetricEncoder<'_>, T) -> fmt::Result,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut family = begin(encoder, family)?;
    for (labels, value) in samples {
        if N == 0 {
            encode(&mut family, value)?;
        } else {
            encode(&mut family.encode_family(&labels.as_slice())?, value)?;
        }
    }
    Ok(())
}
