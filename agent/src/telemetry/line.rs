//! What one line of the log looks like: Multus's `<RFC 3339 time> [<level>] <message>`, then fields as `key=value`.
//!
//! Times are in UTC, as Multus's are in its container. Whatever a message carries, a line stays one line.

use std::fmt::{self, Write};

use k8s_openapi::jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The target of events that are in the log at every level.
pub(super) const PANIC: &str = "panic";

/// Most bytes of a message with its fields; the rest is cut.
const MOST: usize = 16 << 10;

/// The form of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut words = Words::default();
        event.record(&mut words);
        let (level, prefix) = level(event);
        writeln!(out, "{} [{level}] {prefix}{}{}", time(Timestamp::now()), words.message.0, words.fields.0)
    }
}

/// Upstream's levels, and upstream's prefix for what it has no level for.
fn level(event: &Event<'_>) -> (&'static str, &'static str) {
    match *event.metadata().level() {
        _ if event.metadata().target() == PANIC => ("panic", ""),
        Level::ERROR => ("error", ""),
        Level::WARN => ("error", "warning: "),
        Level::INFO => ("verbose", ""),
        Level::DEBUG | Level::TRACE => ("debug", ""),
    }
}

/// To the second.
fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[derive(Default)]
struct Words {
    message: Text,
    fields: Text,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// Text without control characters, bounded.
#[derive(Default)]
struct Text(String);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.len() >= MOST {
                return Ok(());
            }
            if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
                self.0.extend(c.escape_default());
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        assert_eq!(time(at), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn a_line_stays_one_line_and_ends() {
        let mut text = Text::default();
        write!(text, "a\nb\u{1b}[31mc\td\u{2028}ä").unwrap();
        assert_eq!(text.0, "a\\nb\\u{1b}[31mc\\td\\u{2028}ä");
        write!(text, "{}", "ä".repeat(MOST)).unwrap();
        assert!(text.0.len() <= MOST + 2, "{}", text.0.len());
    }
}
