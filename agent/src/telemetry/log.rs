//! The log: which lines there are and where they go, from the settings. Set up once per process, never per request; an
//! operator can turn its level for a while.

use std::io;
use std::panic::PanicHookInfo;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::line::{Lines, PANIC};
use super::rotation::{Limits, LogFile};
use crate::config::{LogLevel, LogSettings};
use crate::fault::quote;

/// It repeats every failed attempt, without saying what for; the health of the cluster is told by us.
const SILENT: &str = "kube_client";

/// Libraries that would flood a debug log with what is theirs alone; their warnings are ours.
const LIBRARIES: [&str; 8] =
    ["aya", "aya_obj", "hyper", "hyper_util", "kube_runtime", "netlink_proto", "rustls", "tower"];

/// Turns the level of the running log.
#[derive(Debug, Clone)]
pub struct Dial {
    lines: reload::Handle<Targets, Registry>,
    configured: LogLevel,
    turned: Arc<Mutex<Turned>>,
}

/// What an operator turned it to.
#[derive(Debug, Default)]
struct Turned {
    /// Counts up, so that an end of an earlier turn changes nothing.
    number: u64,
    now: Option<(LogLevel, SystemTime)>,
}

impl Dial {
    /// The level now, the configured one, and when that comes back by itself.
    pub fn level(&self) -> (LogLevel, LogLevel, Option<SystemTime>) {
        match self.turned.lock().unwrap_or_else(PoisonError::into_inner).now {
            Some((level, until)) => (level, self.configured, Some(until)),
            None => (self.configured, self.configured, None),
        }
    }

    /// Turns it to `level` for `time`; must be called within the runtime, which turns it back.
    ///
    /// # Errors
    /// The log is gone.
    pub fn turn(&self, level: LogLevel, time: Duration) -> io::Result<()> {
        self.lines.reload(targets(level)).map_err(io::Error::other)?;
        let number = {
            let mut turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
            turned.number += 1;
            turned.now = Some((level, SystemTime::now() + time));
            turned.number
        };
        let dial = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            dial.turn_back(number);
        });
        Ok(())
    }

    fn turn_back(&self, number: u64) {
        let mut turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        if turned.number == number {
            turned.now = None;
            if let Err(error) = self.lines.reload(targets(self.configured)) {
                tracing::warn!("turn the log level back: {error}");
            }
        }
    }
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Verbose => LevelFilter::INFO,
        LogLevel::Error => LevelFilter::WARN,
        LogLevel::Panic => LevelFilter::OFF,
    };
    let quiet = LIBRARIES.map(|library| (library, level.min(LevelFilter::WARN)));
    Targets::new()
        .with_default(level)
        .with_targets(quiet)
        .with_target(SILENT, LevelFilter::OFF)
        .with_target(PANIC, LevelFilter::ERROR)
}

/// Starts the log. Without a `logLevel` it is `verbose`.
///
/// # Errors
/// `logFile` cannot be opened, by name; or a log was started already.
pub fn start(settings: &LogSettings) -> io::Result<Dial> {
    let configured = settings.level.unwrap_or(LogLevel::Verbose);
    let (filter, lines) = reload::Layer::new(targets(configured));
    let stderr = settings.to_stderr.then(|| fmt::layer().event_format(Lines).with_writer(io::stderr).boxed());
    let file = match &settings.file {
        None => None,
        Some(path) => {
            let file = LogFile::open(Path::new(path), limits(settings))
                .map_err(|error| io::Error::new(error.kind(), format!("logFile {}: {error}", quote(path))))?;
            Some(fmt::layer().event_format(Lines).with_writer(Mutex::new(file)).boxed())
        }
    };
    // One filter for both: what it refuses is not even made.
    let started = tracing_subscriber::registry().with(filter).with(stderr).with(file).try_init();
    started.map_err(io::Error::other)?;
    let before = std::panic::take_hook();
    let is_heard = settings.to_stderr;
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        if !is_heard {
            before(panic);
        }
    }));
    Ok(Dial { lines, configured, turned: Arc::default() })
}

fn limits(settings: &LogSettings) -> Limits {
    // Upstream's rotation takes a size of 0 for its default.
    let megabytes = if settings.max_size == 0 { 100 } else { settings.max_size };
    Limits {
        bytes: u64::from(megabytes) << 20,
        days: settings.max_age,
        backups: usize::try_from(settings.max_backups).unwrap_or(usize::MAX),
        compress: settings.compress,
    }
}

/// A defect of ours is in the log at every level.
fn tell(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(target: PANIC, "{} at {place}", panic.payload_as_str().unwrap_or("a panic without words"));
}
