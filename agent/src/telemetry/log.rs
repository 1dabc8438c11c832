//! The log: which lines there are and where they go, from the settings. Set up once per process, never per request.

use std::io;
use std::panic::PanicHookInfo;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::line::{Lines, PANIC};
use super::rotation::{Limits, LogFile};
use crate::config::{LogLevel, LogSettings};
use crate::fault::quote;

/// It repeats every failed attempt, without saying what for; the health of the cluster is told by us.
const SILENT: &str = "kube_client";

/// Libraries that would flood a debug log with what is theirs alone; their warnings are ours.
const LIBRARIES: [&str; 8] =
    ["aya", "aya_obj", "hyper", "hyper_util", "kube_runtime", "netlink_proto", "rustls", "tower"];

/// Starts the log. Without a `logLevel` it is `verbose`.
///
/// # Errors
/// `logFile` cannot be opened, by name; or a log was started already.
pub fn start(settings: &LogSettings) -> io::Result<()> {
    let level = match settings.level.unwrap_or(LogLevel::Verbose) {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Verbose => LevelFilter::INFO,
        LogLevel::Error => LevelFilter::WARN,
        LogLevel::Panic => LevelFilter::OFF,
    };
    let quiet = LIBRARIES.map(|library| (library, level.min(LevelFilter::WARN)));
    let lines = Targets::new()
        .with_default(level)
        .with_targets(quiet)
        .with_target(SILENT, LevelFilter::OFF)
        .with_target(PANIC, LevelFilter::ERROR);
    let stderr = settings.to_stderr.then(|| fmt::layer().event_format(Lines).with_writer(io::stderr).boxed());
    let file = match &settings.file {
        None => None,
        Some(path) => {
            let file = LogFile::open(Path::new(path), limits(settings))
                .map_err(|error| io::Error::new(error.kind(), format!("logFile {}: {error}", quote(path))))?;
            Some(fmt::layer().event_format(Lines).with_writer(Mutex::new(file)).boxed())
        }
    };
    let started =
        tracing_subscriber::registry().with(stderr.with_filter(lines.clone())).with(file.with_filter(lines)).try_init();
    started.map_err(io::Error::other)?;
    let before = std::panic::take_hook();
    let is_heard = settings.to_stderr;
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        if !is_heard {
            before(panic);
        }
    }));
    Ok(())
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
