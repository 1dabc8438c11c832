//! Off every node of a cluster: the DaemonSet is turned around, and each node takes everything off itself.

use std::path::Path;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::fault::{escape, quote};
use crate::kube::ClusterError;
use crate::kube::daemonset::{DaemonSet, Patched, Turned};
use crate::names::ObjectName;

/// How often the nodes are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Why not every node is done.
#[derive(Debug, Error)]
pub enum EverywhereError {
    /// A name that no object can have.
    #[error("{0} is not the name of a DaemonSet or its namespace")]
    Name(String),
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The patch is not for this DaemonSet.
    #[error("the patch does not fit DaemonSet {0}: {1}")]
    DoesNotFit(String, String),
    /// Some nodes took too long.
    #[error("{0}")]
    Late(String),
    /// The process cannot work.
    #[error("start: {0}")]
    Start(#[from] std::io::Error),
}

/// Patches the DaemonSet and waits until each of its nodes is done. `say` hears how far it is.
///
/// # Errors
/// Why not every node is done, and which number of them.
pub fn everywhere(
    (namespace, name): (&str, &str),
    patch: &str,
    (kubeconfig, patience): (Option<&Path>, Duration),
    say: impl Fn(&str),
) -> Result<(), EverywhereError> {
    let word = |text: &str| ObjectName::new(text).map_err(|_invalid| EverywhereError::Name(quote(text)));
    let (namespace, name) = (word(namespace)?, word(name)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let set = DaemonSet::of(namespace.clone(), name.clone(), kubeconfig).await?;
        let shown = quote(&format!("{namespace}/{name}"));
        match set.patch(patch).await? {
            Patched::Yes => say("every node is told to take everything off itself"),
            Patched::Gone => {
                say("there is no such DaemonSet, and so no node that could be told");
                return Ok(());
            }
            Patched::DoesNotFit(why) => match set.roll_out().await?.and_then(|now| now.turned) {
                // An earlier run has done it already.
                Some(turned) if Turned::wanted(patch).is_none_or(|wanted| wanted == turned) => {
                    say("every node was told before");
                }
                Some(turned) => {
                    let why = format!(
                        "it is turned around already, to {}: apply the manifest that installs, wait for its roll-out, and \
                         do this again",
                        turned.command()
                    );
                    return Err(EverywhereError::DoesNotFit(shown, why));
                }
                None => return Err(EverywhereError::DoesNotFit(shown, escape(&why))),
            },
        }
        wait(&set, patience, say).await
    })
}

async fn wait(set: &DaemonSet, patience: Duration, say: impl Fn(&str)) -> Result<(), EverywhereError> {
    let until = Instant::now() + patience;
    let mut last = None;
    loop {
        // An API server that is away for a moment is asked again.
        let seen = set.roll_out().await;
        match &seen {
            Ok(None) => return Ok(()),
            Ok(Some(now)) if now.is_complete() => {
                say(&format!("{} of {} nodes are done", now.ready, now.desired));
                return Ok(());
            }
            Ok(Some(now)) if last != Some(*now) => {
                say(&format!("{} of {} nodes are done", now.ready.min(now.updated), now.desired));
                last = Some(*now);
            }
            _ => {}
        }
        if Instant::now() >= until {
            seen?;
            let (done, all) = last.map_or((0, 0), |now| (now.ready.min(now.updated), now.desired));
            let text = format!(
                "{done} of {all} nodes are done after {} s; the log of container install says why on each node",
                patience.as_secs()
            );
            return Err(EverywhereError::Late(text));
        }
        tokio::time::sleep(LOOK).await;
    }
}
