//! Where the log goes, and how loud it is: `logFile`, `logLevel`, `logToStderr` and `logOptions`.
//!
//! What is written there is up to the telemetry.

use super::section::{ConfigError, Section};
use crate::fault::quote;

/// `logLevel`, from quiet to loud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "Multus's own words")]
pub enum LogLevel {
    Panic,
    Error,
    Verbose,
    Debug,
}

impl LogLevel {
    /// Every level by its word, from quiet to loud.
    pub const ALL: [(&str, Self); 4] =
        [("panic", Self::Panic), ("error", Self::Error), ("verbose", Self::Verbose), ("debug", Self::Debug)];

    /// Reads a level's word, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, level)| level)
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, level)| *level == self).map_or("", |(name, _)| name)
    }
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// `logFile`.
    pub file: Option<String>,
    /// `logLevel`; `None` unless configured.
    pub level: Option<LogLevel>,
    /// `logToStderr`; true unless configured.
    pub to_stderr: bool,
    /// `logOptions.maxSize` in megabytes.
    pub max_size: u32,
    /// `logOptions.maxAge` in days.
    pub max_age: u32,
    /// `logOptions.maxBackups`.
    pub max_backups: u32,
    /// `logOptions.compress`.
    pub compress: bool,
}

impl LogSettings {
    /// Takes its keys out of the configuration.
    pub(super) fn read(top: &mut Section, warnings: &mut Vec<String>) -> Result<Self, ConfigError> {
        let level = top.text("logLevel")?.and_then(|text| {
            let level = LogLevel::parse(&text);
            if level.is_none() {
                warnings.push(format!(
                    "logLevel {} is not known and ignored; use panic, error, verbose or debug",
                    quote(&text)
                ));
            }
            level
        });
        let mut options = top.section("logOptions")?;
        let log = Self {
            file: top.folder("logFile")?,
            level,
            to_stderr: top.flag("logToStderr")?.unwrap_or(true),
            max_size: options.number("maxSize", 0, 1 << 20)?.unwrap_or(100),
            max_age: options.number("maxAge", 0, 1 << 20)?.unwrap_or(5),
            max_backups: options.number("maxBackups", 0, 1 << 20)?.unwrap_or(5),
            compress: options.flag("compress")?.unwrap_or(true),
        };
        options.finish(warnings);
        Ok(log)
    }
}
