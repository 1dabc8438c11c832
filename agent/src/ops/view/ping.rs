//! Who answered a question to everybody, how quickly and by which way.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::API_VERSION;
use crate::names::mac_text;
use crate::ops::context::Context;
use crate::ops::probe::{self, ProbeError, Wanted};
use crate::relay::probe::{Answer, Question};

/// What came of a question.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct PingView {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub parent: String,
    pub protocol: String,
    pub from: String,
    pub sources: Vec<IpAddr>,
    pub waited_ms: u64,
    pub left_out: u64,
    pub items: Vec<AnswerView>,
}

/// One who answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct AnswerView {
    pub path: &'static str,
    pub who: String,
    pub mac: String,
    pub addresses: Vec<IpAddr>,
    pub milliseconds: f64,
    pub datagrams: u64,
    pub says: Vec<String>,
}

impl From<Answer> for AnswerView {
    fn from(answer: Answer) -> Self {
        Self {
            path: answer.path.name(),
            who: answer.who,
            mac: mac_text(answer.mac),
            addresses: answer.addresses,
            milliseconds: (answer.after.as_secs_f64() * 10_000.0).round() / 10.0,
            datagrams: answer.datagrams,
            says: answer.says,
        }
    }
}

/// The question about a protocol of this name.
pub fn probe_question(protocol: &str) -> Option<Question> {
    Question::about(protocol)
}

/// Asks, and says who answered.
///
/// # Errors
/// Nothing was asked: why.
pub async fn ping(context: &Arc<Context>, protocol: &str, wanted: &Wanted) -> Result<PingView, ProbeError> {
    let told = probe::probe(context, wanted).await?;
    Ok(PingView {
        api_version: API_VERSION,
        kind: "RelayPing",
        parent: told.parent,
        protocol: protocol.to_owned(),
        from: told.from,
        sources: told.sources,
        waited_ms: u64::try_from(wanted.long.as_millis()).unwrap_or(u64::MAX),
        left_out: told.left_out,
        items: told.answers.into_iter().map(AnswerView::from).collect(),
    })
}
