//! The log: where lines go and which ones, from the settings. Set up once per process.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Libraries that would flood a debug log with what is theirs alone; their warnings are ours.
const LIBRARIES: [&str; 9] =
    ["aya", "aya_obj", "hyper", "hyper_util", "kube_client", "kube_runtime", "netlink_proto", "rustls", "tower"];

/// Starts the log. Levels are upstream's: `panic`, `error`, `verbose`, `debug`.
pub fn start(level: &str, to_stderr: bool, file: Option<&Path>) -> io::Result<()> {
    let level = match level.to_ascii_lowercase().as_str() {
        "debug" => LevelFilter::DEBUG,
        "verbose" | "" => LevelFilter::INFO,
        _ => LevelFilter::WARN,
    };
    let quiet = LIBRARIES.map(|library| (library, level.min(LevelFilter::WARN)));
    let lines = Targets::new().with_default(level).with_targets(quiet);
    let stderr = to_stderr.then(|| fmt::layer().with_writer(io::stderr).with_ansi(false).with_target(false).boxed());
    let file = match file {
        None => None,
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            Some(fmt::layer().with_writer(Mutex::new(file)).with_ansi(false).with_target(false).boxed())
        }
    };
    let started =
        tracing_subscriber::registry().with(stderr.with_filter(lines.clone())).with(file.with_filter(lines)).try_init();
    started.map_err(io::Error::other)
}
