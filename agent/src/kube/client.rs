//! How an API server is reached, with which credentials, and how that is going.
//!
//! Every call has a deadline; refused credentials are read again. Nothing here keeps objects.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ::kube::config::{KubeConfigOptions, Kubeconfig};
use ::kube::{Client, Config};
use tokio::sync::watch;

use super::ClusterError;
use crate::fault::{escape, quote};
use crate::metrics::Api as Calls;

/// Longest wait for a TCP connection and TLS.
const CONNECT: Duration = Duration::from_secs(5);
/// Refused credentials are read again at most this often.
const RENEWAL: Duration = Duration::from_secs(5);

/// When the API server last answered, and what went wrong last.
#[derive(Debug, Default)]
pub(super) struct Contact {
    connected: AtomicBool,
    last: Mutex<Option<Instant>>,
    error: Mutex<Option<String>>,
    losses: watch::Sender<u64>,
    watches: Mutex<BTreeMap<&'static str, Sight>>,
}

/// How current is what a watch has told.
#[derive(Debug, Clone, Copy)]
struct Sight {
    /// It goes on telling: as current as the server's last sign of life.
    open: bool,
    /// When it told something, or the moment it broke.
    last: Instant,
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

    /// A sign of life was asked for and did not come: whoever waits for the server in silence waits in vain.
    pub(super) fn lost(&self) {
        self.losses.send_modify(|losses| *losses = losses.wrapping_add(1));
    }

    /// Tells of every [`Self::lost`] from now on.
    pub(super) fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    /// All that the server has of `resource` is known, and its changes will be.
    pub(super) fn is_current(&self, resource: &'static str) {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.insert(resource, Sight { open: true, last: Instant::now() });
    }

    /// Changes of `resource` are not heard any more: what is known was current for the last time when the server last
    /// answered.
    pub(super) fn is_outdated(&self, resource: &'static str) {
        let answered = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let sight = watches.entry(resource).or_insert_with(|| Sight { open: true, last: Instant::now() });
        if sight.open {
            *sight = Sight { open: false, last: answered.map_or(sight.last, |answered| sight.last.max(answered)) };
        }
    }

    /// Resources that are watched, and for how long what is known of them may be outdated.
    pub(super) fn watch_ages(&self) -> Vec<(&'static str, Duration)> {
        let answered = self.age();
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |sight: &Sight| {
            let age = sight.last.elapsed();
            answered.filter(|_| sight.open).map_or(age, |answered| age.min(answered))
        };
        watches.iter().map(|(resource, sight)| (*resource, age(sight))).collect()
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
            Self::Refused(code, text) => format!("API server answered {code}: {}{}", escape(text), advice(*code)),
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

/// What the operator can do about a refusal that is about us.
pub(super) fn advice(code: u16) -> &'static str {
    match code {
        401 => "; it does not accept our credentials: renew the token or certificate, the files are read again",
        403 => "; allow it in the ClusterRole of the agent's service account",
        _ => "",
    }
}

/// What a call asks, as it is counted: verb and resource.
pub(super) type Ask = (&'static str, &'static str);

/// An API server, and how it is doing.
#[derive(Clone)]
pub(super) struct Server {
    client: Arc<RwLock<Client>>,
    kubeconfig: Option<Arc<Path>>,
    renewed: Arc<Mutex<Option<Instant>>>,
    pub(super) contact: Arc<Contact>,
    /// What was asked of it.
    pub(super) calls: Calls,
}

impl Debug for Server {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Server")
    }
}

impl Server {
    /// Reads the configuration; contacts nobody.
    pub(super) async fn new(kubeconfig: Option<&Path>, contact: Arc<Contact>) -> Result<Self, ClusterError> {
        let client = Arc::new(RwLock::new(build(kubeconfig).await?));
        Ok(Self {
            client,
            kubeconfig: kubeconfig.map(Arc::from),
            renewed: Arc::default(),
            contact,
            calls: Calls::default(),
        })
    }

    /// The client with the credentials as last read; ask for it again with every call.
    pub(super) fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Our credentials were refused: reads kubeconfig, token and certificates again, unless that was done just now.
    pub(super) async fn renew(&self) {
        {
            let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
            if renewed.is_some_and(|at| at.elapsed() < RENEWAL) {
                return;
            }
            *renewed = Some(Instant::now());
        }
        match build(self.kubeconfig.as_deref()).await {
            Ok(client) => *self.client.write().unwrap_or_else(PoisonError::into_inner) = client,
            Err(error) => self.contact.noted(&error.to_string()),
        }
    }

    /// One call, ended at `limit`; counted, and [`Contact`] is told how it went.
    pub(super) async fn call<T>(
        &self,
        ask: Ask,
        limit: Duration,
        call: impl Future<Output = ::kube::Result<T>>,
    ) -> Result<T, CallError> {
        let began = Instant::now();
        let called = tokio::time::timeout(limit, call).await;
        self.count(ask, status_of(&called), began.elapsed());
        let error = match called {
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
        if matches!(error, CallError::Refused(401, _)) {
            self.renew().await;
        }
        Err(error)
    }

    /// Counts a request that took so long; status 0: no answer came.
    pub(super) fn count(&self, (verb, resource): Ask, status: u16, took: Duration) {
        self.calls.count(verb, resource, status, took.as_secs_f64());
    }
}

fn status_of<T>(called: &Result<::kube::Result<T>, tokio::time::error::Elapsed>) -> u16 {
    match called {
        Ok(Ok(_)) => 200,
        Ok(Err(::kube::Error::Api(status))) => status.code,
        Ok(Err(_)) | Err(_) => 0,
    }
}

async fn build(kubeconfig: Option<&Path>) -> Result<Client, ClusterError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => Config::incluster().map_err(|error| {
            ClusterError::Settings(format!("read the in-cluster service account: {error}; set kubeconfig or objects"))
        })?,
    };
    config.connect_timeout = Some(CONNECT);
    // Who asks decides about asking again: a request has a deadline, a report has its queue.
    config.default_retry = false;
    let mut remedy = "";
    if config.root_cert.is_none() {
        // Otherwise the system's certificates are read, and an image of two programs has none.
        if config.cluster_url.scheme_str() == Some("http") {
            config.root_cert = Some(Vec::new());
        }
        remedy = "; name the server's certificate-authority in the kubeconfig";
    }
    let from = kubeconfig.map_or_else(|| "the service account".to_owned(), quoted);
    let fail = |error| ClusterError::Settings(format!("build the API client from {from}: {}{remedy}", chain(&error)));
    Client::try_from(config).map_err(fail)
}

fn quoted(path: &Path) -> String {
    format!("kubeconfig {}", quote(&path.to_string_lossy()))
}

async fn from_file(path: &Path) -> Result<Config, ClusterError> {
    let fail =
        |error: &dyn std::error::Error| ClusterError::Settings(format!("read {}: {}", quoted(path), chain(error)));
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
pub(super) fn chain(error: &dyn std::error::Error) -> String {
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

/// The server works and knows us: what it says is about the request.
pub(super) fn is_answer(code: u16) -> bool {
    code < 500 && code != 401
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_as_current_as_the_servers_last_sign_of_life() {
        let contact = Contact::default();
        assert_eq!(contact.watch_ages(), []);
        let pause = Duration::from_millis(30);
        let age = || contact.watch_ages()[0].1;
        contact.worked();
        contact.is_current("pods");
        std::thread::sleep(pause);
        assert!(age() >= pause, "nobody has heard of the server since");
        contact.worked();
        assert!(age() < pause, "it lives, and has said nothing new");
        contact.is_outdated("pods");
        std::thread::sleep(pause);
        contact.worked();
        contact.is_outdated("pods");
        assert!(age() >= pause, "it lives, and we do not hear its changes");
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
