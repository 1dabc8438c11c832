//! How an API server is reached and followed, and how that is going.
//!
//! Every call has a deadline; every watch comes back by itself after whatever ended it. Nothing here keeps objects.

use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::kube::config::{KubeConfigOptions, Kubeconfig};
use ::kube::runtime::watcher::{self, Event};
use ::kube::{Api, Client, Config, Resource};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{ClusterError, stopped};
use crate::fault::{escape, quote};

/// Longest wait for a TCP connection and TLS.
const CONNECT: Duration = Duration::from_secs(5);
/// A watch that is silent longer than the server was asked to keep it open (290 s) is given up after this.
const SILENCE: Duration = Duration::from_secs(330);
/// Longest wait for one page of a list.
const LIST: Duration = Duration::from_mins(1);
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// When the API server last answered, and what went wrong last.
#[derive(Debug, Default)]
pub(super) struct Contact {
    connected: AtomicBool,
    last: Mutex<Option<Instant>>,
    error: Mutex<Option<String>>,
}

impl Contact {
    pub(super) fn worked(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if !self.connected.swap(true, Ordering::Relaxed) {
            tracing::info!("API server answers");
        }
    }

    /// The server could not be used; `reason` is escaped here.
    pub(super) fn failed(&self, reason: &str) {
        let reason = escape(reason);
        if self.connected.swap(false, Ordering::Relaxed) {
            tracing::warn!("API server does not answer: {reason}");
        }
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// Something is wrong that does not say the server is away.
    pub(super) fn noted(&self, reason: &str) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(escape(reason));
    }

    /// What is wrong with the folder of manifests, if anything.
    pub(super) fn folder(&self, unreadable: Option<&str>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = unreadable.map(str::to_owned);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub(super) fn age(&self) -> Option<Duration> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
    }

    pub(super) fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why there is no complete view yet.
    pub(super) fn reason(&self) -> String {
        self.error().unwrap_or_else(|| "no answer from the API server yet".to_owned())
    }
}

/// Why one call failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// The server answered with this status code.
    Refused(u16, String),
    /// No usable answer: connection, deadline, nonsense.
    Unreached(String),
}

impl CallError {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Refused(code, text) => format!("API server answered {code}: {}", escape(text)),
            Self::Unreached(text) => escape(text),
        }
    }

    /// Asking again may help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Refused(code, _) => matches!(code, 401 | 403 | 408 | 409 | 429) || *code >= 500,
            Self::Unreached(_) => true,
        }
    }
}

/// An API server, and how it is doing.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) client: Client,
    pub(super) contact: Arc<Contact>,
}

impl Debug for Server {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Server")
    }
}

impl Server {
    /// Reads the configuration; contacts nobody.
    pub(super) async fn new(kubeconfig: Option<&Path>, contact: Arc<Contact>) -> Result<Self, ClusterError> {
        let mut config = match kubeconfig {
            Some(path) => from_file(path).await?,
            None => Config::incluster().map_err(|error| {
                ClusterError::Settings(format!(
                    "read the in-cluster service account: {error}; set kubeconfig or objects"
                ))
            })?,
        };
        config.connect_timeout = Some(CONNECT);
        // Who asks decides about asking again: a request has a deadline, a report has its queue.
        config.default_retry = false;
        let client = Client::try_from(config)
            .map_err(|error| ClusterError::Settings(format!("build the API client: {}", chain(&error))))?;
        Ok(Self { client, contact })
    }

    /// One call, ended at `limit`; tells [`Contact`] how it went.
    pub(super) async fn call<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = ::kube::Result<T>>,
    ) -> Result<T, CallError> {
        let error = match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => {
                self.contact.worked();
                return Ok(answer);
            }
            Ok(Err(::kube::Error::Api(status))) => CallError::Refused(status.code, status.message.clone()),
            Ok(Err(error)) => CallError::Unreached(chain(&error)),
            Err(_) => CallError::Unreached(format!("no answer within {} ms", limit.as_millis())),
        };
        match &error {
            CallError::Refused(code, _) if is_answer(*code) => self.contact.worked(),
            _ => self.contact.failed(&error.text()),
        }
        Err(error)
    }
}

async fn from_file(path: &Path) -> Result<Config, ClusterError> {
    let fail = |error: &dyn std::error::Error| {
        ClusterError::Settings(format!("read kubeconfig {}: {}", quote(&path.to_string_lossy()), chain(error)))
    };
    std::fs::metadata(path).and_then(|_| std::fs::File::open(path)).map_err(|error| fail(&error))?;
    // The parser's own words quote the file, and there may be a token on that line.
    let unreadable = std::io::Error::other("it is not the YAML of a kubeconfig; check it with kubectl config view");
    let file = Kubeconfig::read_from(path).map_err(|_quotes_the_file| fail(&unreadable))?;
    let mut options = KubeConfigOptions::default();
    if file.current_context.as_ref().is_none_or(String::is_empty) {
        options.context = file.contexts.first().map(|context| context.name.clone());
    }
    Config::from_custom_kubeconfig(file, &options).await.map_err(|error| fail(&error))
}

/// An error with its causes, each said once, escaped.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    escape(&text)
}

/// Follows `api` until `stop`: `see` gets every event, after a restart from `Init` on again.
pub(super) async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    contact: &Contact,
    mut stop: watch::Receiver<bool>,
    mut see: impl FnMut(Event<K>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut pause = PAUSE.0;
    while !*stop.borrow() {
        let mut events = pin!(watcher::watcher(api.clone(), config.clone()));
        let mut patience = LIST;
        loop {
            let next = tokio::select! {
                () = stopped(&mut stop) => return,
                next = tokio::time::timeout(patience, events.next()) => next,
            };
            let error = match next {
                Ok(Some(Ok(event))) => {
                    // `Init` only announces the list request.
                    if !matches!(event, Event::Init) {
                        contact.worked();
                        pause = PAUSE.0;
                    }
                    patience = if matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
                        SILENCE
                    } else {
                        LIST
                    };
                    see(event);
                    continue;
                }
                Ok(Some(Err(error))) => error,
                Ok(None) => break,
                Err(_) => {
                    contact.failed("the watch gave no sign of life");
                    break;
                }
            };
            match status_of(&error) {
                Some(code) if is_answer(code) => contact.noted(&chain(&error)),
                _ => contact.failed(&chain(&error)),
            }
            let gone = is_gone(&error);
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = tokio::time::sleep(jittered(pause)) => {}
            }
            pause = (pause * 2).min(PAUSE.1);
            if gone {
                break;
            }
        }
    }
}

/// The version we are at is no longer served and only a new list helps. The watcher knows that of an `ERROR` event, but
/// would repeat a watch that is answered 410 as a whole.
fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(::kube::Error::Api(status)) if status.code == 410)
}

fn status_of(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        WatchError(status) => Some(status.code),
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => match error {
            ::kube::Error::Api(status) => Some(status.code),
            _ => None,
        },
        NoResourceVersion => None,
    }
}

/// The server works and knows us: what it says is about the request.
fn is_answer(code: u16) -> bool {
    code < 500 && code != 401
}

/// Between half of `pause` and all of it, so that a cluster's agents do not come back in step.
pub(super) fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let share = u32::try_from(RandomState::new().hash_one(0) % 512).unwrap_or(0);
    pause / 2 + pause * share / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_half_and_all() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(1));
            assert!(pause >= Duration::from_millis(500) && pause <= Duration::from_secs(1), "{pause:?}");
        }
    }

    #[test]
    fn a_410_is_an_answer() {
        let status = |code| {
            let status = ::kube::core::Status { code, ..::kube::core::Status::success() };
            watcher::Error::WatchStartFailed(::kube::Error::Api(status.boxed()))
        };
        for (code, gone, answer) in [(410, true, true), (403, false, true), (401, false, false), (500, false, false)] {
            let error = status(code);
            assert_eq!((is_gone(&error), status_of(&error).is_some_and(is_answer)), (gone, answer), "{code}");
        }
    }

    #[test]
    fn what_may_pass() {
        for (code, expected) in
            [(400, false), (403, true), (404, false), (409, true), (413, false), (429, true), (503, true)]
        {
            assert_eq!(CallError::Refused(code, String::new()).may_pass(), expected, "{code}");
        }
        assert!(CallError::Unreached(String::new()).may_pass());
    }
}
