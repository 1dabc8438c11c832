//! The relay's decisions as frames: what it decided about each, and why.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep_until;

use super::pcapng::Frame;
use super::{CaptureError, Decisions, Film, Over, nanos};
use crate::datapath::Decision;
use crate::fault::escape;
use crate::ops::context::Context;
use crate::ops::view::{boot_time, whose};
use crate::ops::witness;
use crate::relay::head::Head;

/// The name of the file's interface of which losses are told, where nothing was seen of any.
const RELAY: &str = "relay";

/// Begins to follow them.
///
/// # Errors
/// Nothing is relayed here.
pub(super) fn begin(context: &Arc<Context>, which: Decisions, snap: usize, film: Film) -> Result<(), CaptureError> {
    if context.datapath.get().is_none() {
        let why = context.datapath.fault().unwrap_or_else(|| "datapath.mode is off".to_owned());
        return Err(CaptureError::Unknown(format!("nothing is relayed on this node: {why}")));
    }
    tokio::spawn(follow(Arc::clone(context), which, snap, film));
    Ok(())
}

async fn follow(context: Arc<Context>, which: Decisions, snap: usize, mut film: Film) {
    let (end, to) = (film.end, film.to.clone());
    let (mut since, mut lost, mut interface) = (None, 0, RELAY.to_owned());
    let over = 'over: loop {
        let page = tokio::select! {
            biased;
            () = to.closed() => break Over::NoReader,
            () = sleep_until(end) => break Over::Time,
            page = witness::decisions(&context, since) => page,
        };
        let Ok(page) = page else { break Over::Gone };
        lost += page.lost;
        since = Some(page.first + page.decisions.len() as u64);
        let (records, boot) = (context.ledger.all(), boot_time());
        for decision in &page.decisions {
            let head = Head::read(&decision.head);
            let from = whose(head.source_mac, decision.path, &records);
            if !which.has(decision, &from) {
                continue;
            }
            interface.clone_from(&decision.parent);
            if let Some(over) = film.take(&frame(decision, &from, boot, snap)).await {
                break 'over over;
            }
        }
        if !film.give().await {
            break Over::NoReader;
        }
    };
    let had = film.seen + lost;
    film.close(&interface, (had, lost), over).await;
}

impl Decisions {
    fn has(&self, decision: &Decision, from: &str) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        is(&self.parent, &decision.parent)
            && is(&self.protocol, &decision.protocol)
            && is(&self.verdict, decision.verdict)
            && is(&self.from, from)
    }
}

fn frame(decision: &Decision, from: &str, boot: SystemTime, snap: usize) -> Frame {
    let time = (boot + decision.time).duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let Decision { verdict, reason, protocol, path, .. } = decision;
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    Frame {
        interface: decision.parent.clone(),
        nanos: nanos(time),
        length: decision.length,
        head: decision.head.iter().take(snap).copied().collect(),
        way: None,
        comment: format!("{verdict}{why} ({protocol}, {path}, from {})", escape(from)),
    }
}
