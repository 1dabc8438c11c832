//! Is the datapath open, and when is it tried again where it could not be opened? What keeps it closed may go while the
//! agent runs: a bpffs is mounted, memory is free again.
//!
//! Pods never wait for any of this: without a datapath they are attached, and get their programs when it opens.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedMutexGuard, SetOnce, watch};
use tokio::time::sleep;

use crate::config::{DatapathMode, DatapathSettings};
use crate::datapath::{self, Datapath, DatapathError, ProtocolSet};
use crate::fault::many;
use crate::names::ContainerId;
use crate::ops::context::Context;
use crate::ops::links;
use crate::records::{Record, State};

/// First and longest pause between two tries. One that fails in the kernel costs some tens of milliseconds.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));
/// How long containers that somebody is at work for are waited for, and how often they are asked for.
const BUSY: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(50));

/// How the datapath stands: open, closed for a reason, or not wanted. Once open it stays so.
#[derive(Debug, Default)]
pub struct Standing {
    open: SetOnce<Arc<Datapath>>,
    /// Why it is closed; none where nobody wants it.
    fault: Mutex<Option<Fault>>,
}

/// Why the datapath is closed.
#[derive(Debug, Clone)]
struct Fault {
    text: String,
    /// Looking whether it is still so costs next to nothing.
    is_cheap: bool,
}

impl Fault {
    fn of(error: &DatapathError) -> Self {
        Self { text: error.to_string(), is_cheap: matches!(error, DatapathError::NoBpffs(_)) }
    }
}

impl Standing {
    /// Opens the datapath as configured, or says why not: without it the agent is still a complete Multus.
    pub fn begin(settings: &DatapathSettings) -> Self {
        crate::sys::memory::lock_as_needed();
        let standing = Self::default();
        match wanted(settings).and_then(|wanted| wanted.map(|settings| Datapath::open(&settings)).transpose()) {
            Ok(datapath) => datapath.into_iter().for_each(|datapath| standing.publish(Arc::new(datapath))),
            Err(error) => {
                tracing::error!("the datapath is off: {error}");
                *standing.fault_now() = Some(Fault::of(&error));
            }
        }
        standing
    }

    /// The datapath, where it is open.
    pub fn get(&self) -> Option<&Arc<Datapath>> {
        self.open.get()
    }

    /// Why there is no datapath although there should be.
    pub fn fault(&self) -> Option<String> {
        self.fault_now().as_ref().map(|fault| fault.text.clone())
    }

    /// Waits until it is open. False: `stop` came first, or nobody wants a datapath.
    pub async fn opens(&self, stop: &mut watch::Receiver<bool>) -> bool {
        // In this order: it is open before it is closed no more.
        if self.fault().is_none() && self.get().is_none() {
            return false;
        }
        tokio::select! {
            _ = self.open.wait() => true,
            _ = stop.wait_for(|stop| *stop) => false,
        }
    }

    fn publish(&self, datapath: Arc<Datapath>) {
        // One task does this, once.
        let _already_open = self.open.set(datapath);
        *self.fault_now() = None;
    }

    /// The datapath stays closed: for which reason, said when it is another one.
    fn stays_closed(&self, fault: Fault) {
        let mut now = self.fault_now();
        if now.as_ref().is_none_or(|before| before.text != fault.text) {
            tracing::error!("the datapath is off: {}", fault.text);
        }
        *now = Some(fault);
    }

    fn fault_now(&self) -> MutexGuard<'_, Option<Fault>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries again until the datapath is open, more and more slowly; for what is cheaply seen no more slowly than things are
/// looked at anyway.
pub async fn follow(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let mut pause = PAUSES.0;
    loop {
        let Some(fault) = context.datapath.fault_now().clone() else { return };
        let longest = if fault.is_cheap { context.settings.datapath.look_interval } else { PAUSES.1 };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(pause.min(longest)) => {}
        }
        if let Err(fault) = open(&context).await {
            context.datapath.stays_closed(fault);
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Opens the datapath of an agent that is at work: what had programs before is taken over under its container's turn,
/// so that no DEL goes on beside it, and only then anybody can use it.
async fn open(context: &Context) -> Result<(), Fault> {
    let broken = |text: String| Fault { text, is_cheap: false };
    let wanted = wanted(&context.settings.datapath).map_err(|error| Fault::of(&error))?;
    let Some(settings) = wanted else { return Ok(()) };
    let opened = tokio::task::spawn_blocking(move || Datapath::open(&settings)).await;
    let datapath = Arc::new(opened.map_err(|error| broken(error.to_string()))?.map_err(|error| Fault::of(&error))?);
    let (turns, busy) = hold(context).await;
    links::adopt(context, &datapath, &busy).await;
    context.datapath.publish(datapath);
    tracing::info!("the datapath is open now; {} had programs before", many(turns.len() + busy.len(), "container"));
    Ok(())
}

/// The turns of the containers whose attachments had programs of an earlier agent; and those that somebody is at work for
/// all the time. They are left out, and looked at like others when they are free.
async fn hold(context: &Context) -> (Vec<OwnedMutexGuard<()>>, Vec<ContainerId>) {
    let until = Instant::now() + BUSY.0;
    let had_programs = |record: &Record| {
        let mut links = record.attachments.iter().filter_map(|each| each.link.as_ref());
        record.state == State::Added && links.any(|link| link.instance.is_some())
    };
    let all = context.ledger.all();
    let mut waiting: Vec<ContainerId> =
        all.iter().filter(|record| had_programs(record)).map(|record| record.container.clone()).collect();
    let mut held = Vec::new();
    loop {
        waiting.retain(|container| match context.turns.try_container(container) {
            Some(turn) => {
                held.push(turn);
                false
            }
            None => true,
        });
        if waiting.is_empty() || Instant::now() >= until {
            return (held, waiting);
        }
        sleep(BUSY.1).await;
    }
}

/// What the configuration asks for; none where the datapath is not wanted.
fn wanted(settings: &DatapathSettings) -> Result<Option<datapath::Settings>, DatapathError> {
    let mode = match settings.mode {
        DatapathMode::Off => return Ok(None),
        DatapathMode::Account => datapath::Mode::Account,
        DatapathMode::Full => datapath::Mode::Full,
    };
    // What annotations may ask for at most; each attachment's own list narrows it.
    let allowed = settings.relay.allowed.as_ref().unwrap_or(&settings.relay.known);
    let built_in: Vec<&String> =
        allowed.iter().filter(|name| crate::config::PROTOCOLS.contains(&name.as_str())).collect();
    Ok(Some(datapath::Settings {
        mode,
        bpffs: PathBuf::from(&settings.bpffs),
        attach: settings.attach,
        slots: settings.slots,
        log: settings.log,
        mark: settings.mark,
        protocols: ProtocolSet::of(&built_in)?,
        custom: settings.custom.iter().filter(|custom| allowed.contains(&custom.name)).cloned().collect(),
        guard: settings.guard,
    }))
}
