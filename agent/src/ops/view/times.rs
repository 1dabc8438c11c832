//! How a document writes a time: RFC 3339 in UTC, to the millisecond.

use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;

/// `time` as documents have it; empty where it is beyond any calendar.
pub(super) fn written(time: SystemTime) -> String {
    Timestamp::try_from(time).map(|time| format!("{time:.3}")).unwrap_or_default()
}
