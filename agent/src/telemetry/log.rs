//! The log: where lines go and which ones, from the settings. Set up once per process.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Starts the log. Levels are upstream's: `panic`, `error`, `verbose`, `debug`.
pub fn start(level: &str, to_stderr: bool, file: Option<&Path>) -> io::Result<()> {
    let level = match level.to_ascii_lowercase().as_str() {
        "debug" => LevelFilter::DEBUG,
        "verbose" | "" => LevelFilter::INFO,
        _ => LevelFilter::WARN,
    };
    let stderr = to_stderr.then(|| fmt::layer().with_writer(io::stderr).with_ansi(false).with_target(false).boxed());
    let file = match file {
        None => None,
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            Some(fmt::layer().with_writer(Mutex::new(file)).with_ansi(false).with_target(false).boxed())
        }
    };
    let started =
        tracing_subscriber::registry().with(stderr.with_filter(level)).with(file.with_filter(level)).try_init();
    started.map_err(io::Error::other)
}
