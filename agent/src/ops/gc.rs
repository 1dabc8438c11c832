//! GC: what the runtime does not list any more is undone, in all networks we made.

use std::collections::HashSet;

use serde::Deserialize;

use crate::fault::{CniError, code};
use crate::ops::context::{Context, Pool};
use crate::ops::invocation::Invocation;
use crate::ops::runner::Runner;
use crate::ops::undo;
use crate::records::Record;

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<Valid>>,
}

#[derive(Deserialize)]
struct Valid {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

/// Undoes every attachment that is not listed (CNI SPEC 1.1, "GC").
///
/// # Errors
/// Code 7 without a list; else the first failure, after everything was tried.
pub async fn gc<R: Runner>(context: &Context, call: &Invocation, runner: &mut R) -> Result<(), CniError> {
    let listed: Listed = serde_json::from_str(&call.config)
        .map_err(|error| CniError::new(code::INVALID_CONFIG, format!("read cni.dev/valid-attachments: {error}")))?;
    let Some(valid) = listed.valid else {
        return Err(CniError::new(code::INVALID_CONFIG, "the configuration has no cni.dev/valid-attachments")
            .remedy("a runtime must list the attachments that are still in use"));
    };
    let valid: HashSet<(String, String)> = valid.into_iter().map(|v| (v.container, v.ifname)).collect();
    let mut failed = Vec::new();
    for record in context.ledger.all() {
        let id = (record.container.to_string(), record.ifname.to_string());
        if valid.contains(&id) || runner.is_gone() {
            continue;
        }
        let _turn = context.turns.take(Pool::Others, Some(&record.container), call.deadline).await?;
        let Some(_held) = context.ledger.hold(&record.container) else { continue };
        let Some(record) = context.ledger.get(&record.container) else { continue };
        let mut record = Record::clone(&record);
        let netns = record.netns.clone().filter(|path| path.as_path().exists());
        failed.extend(undo::undo(context, &mut record, netns.as_ref(), runner, call.deadline).await);
    }
    match failed.first() {
        None => Ok(()),
        Some(first) => {
            Err(CniError::new(code::DELEGATE, format!("{} attachments were not undone, first: {first}", failed.len()))
                .remedy("they stay recorded and are tried again"))
        }
    }
}
