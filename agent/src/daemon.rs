//! The agent as a process: builds the parts, starts them in order, stops them in reverse.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{ConfigError, Origin, Settings};
use crate::kube::{Cluster, ClusterError, ClusterSettings, Source};
use crate::kubelet::Kubelet;
use crate::metrics::Metrics;
use crate::ops::capture::Captures;
use crate::ops::checks;
use crate::ops::context::{Context, Turns};
use crate::ops::default_network::DefaultNetwork;
use crate::ops::delegate_tally::DelegateTally;
use crate::ops::discovery::{self, Discovery};
use crate::ops::gate::Gate;
use crate::ops::host_access;
use crate::ops::ledger::Ledger;
use crate::ops::opening::{self, Standing};
use crate::ops::owed_status;
use crate::ops::probe::Probes;
use crate::ops::reconcile;
use crate::ops::reflect::{self, Reflection};
use crate::ops::refusals::Refusals;
use crate::ops::repair::{self, Troubles};
use crate::ops::runner::HostRunner;
use crate::ops::runtime_conf::Keeper;
use crate::ops::traces::Traces;
use crate::ops::witness::Witness;
use crate::records::Records;
use crate::server;
use crate::server::routes::Routes;
use crate::server::socket::Socket;
use crate::spool::Spool;
use crate::sys::files::private_folder;
use crate::telemetry::log;

/// How often leftovers are looked at.
const NOW_AND_THEN: Duration = Duration::from_secs(10);
/// The first of its pauses.
const AT_FIRST: Duration = Duration::from_secs(1);
/// How long a thread for blocking work waits for more. With a long wait every small job would wake another of a burst's
/// threads, in turns, and keep them and their stacks for good.
const IDLE_THREAD: Duration = Duration::from_millis(250);
/// How long operations may still take after a signal; the shim waits for the next agent meanwhile.
const LAST_WORK: Duration = Duration::from_secs(10);

/// How long another agent may take to end: longer than it takes for its last work and words.
const OTHER_AGENT: Duration = Duration::from_secs(20);
/// How long answers may still be on their way.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why the agent does not run.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration cannot be read.
    #[error("read {0}: {1}")]
    Unreadable(String, #[source] io::Error),
    /// The configuration is not valid.
    #[error("configuration {0}: {1}")]
    Config(String, #[source] ConfigError),
    /// Something it needs is not there.
    #[error("{0}: {1}")]
    Needs(&'static str, #[source] io::Error),
    /// The cluster settings cannot work.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Runs the agent with the configuration in `file` until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting; later faults are logged and shown in the status.
pub fn run(file: &Path) -> Result<(), StartError> {
    crate::sys::memory::start_frugal();
    let shown = || file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| StartError::Unreadable(shown(), error))?;
    let (mut settings, warnings) = Settings::parse(&text).map_err(|error| StartError::Config(shown(), error))?;
    let dial = start_log(&settings)?;
    for warning in &warnings {
        tracing::warn!("configuration: {warning}");
    }
    for missing in checks::missing_rights(&settings) {
        tracing::error!("{}; {}", missing.cause, missing.remedy);
    }
    settings.origin = Origin { file: Some(shown()), warnings, ..settings.origin };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .thread_keep_alive(IDLE_THREAD)
        .enable_all()
        .build()
        .map_err(|error| StartError::Needs("start threads", error))?;
    let done = runtime.block_on(serve(settings, dial));
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Starts the log as configured.
///
/// # Errors
/// The file cannot be opened.
pub(crate) fn start_log(settings: &Settings) -> Result<log::Dial, StartError> {
    log::start(&settings.log).map_err(|error| StartError::Needs("start the log", error))
}

async fn serve(settings: Settings, dial: log::Dial) -> Result<(), StartError> {
    let (stopper, stop) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| StartError::Needs("hear SIGTERM", error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| StartError::Needs("hear SIGINT", error))?;
    let context = Arc::new(build(settings, stop.clone()).await?);
    reconcile::at_start(&context).await;
    let host = HostRunner::new(context.settings.plugin_folders(), &context.settings.host_exec);
    let work = tokio::spawn(now_and_then(Arc::clone(&context), host.clone(), stop.clone()));
    let openings = tokio::spawn(opening::follow(Arc::clone(&context), stop.clone()));
    let access = tokio::spawn(host_access::follow(Arc::clone(&context), stop.clone()));
    let ears = tokio::spawn(discovery::follow(Arc::clone(&context), stop.clone()));
    let reflection = tokio::spawn(reflect::follow(Arc::clone(&context), stop.clone()));
    let repairs = tokio::spawn(repair::follow(Arc::clone(&context), stop.clone()));
    let scrapes = tokio::spawn(server::metrics_page::follow(Arc::clone(&context), stop.clone()));
    let page = tokio::spawn(server::page::follow(Arc::clone(&context), stop.clone()));
    let statuses = tokio::spawn(owed_status::report(Arc::clone(&context)));
    let settings = &context.settings;
    let limit = settings.connection_limit.and_then(|limit| usize::try_from(limit).ok());
    let socket = Socket::bind(Path::new(&settings.socket_dir), limit)
        .map_err(|error| StartError::Needs("bind the socket", error))?;
    let conf = match Keeper::begin(&context).await {
        Some(keeper) => tokio::spawn(keeper.keep(stop.clone())),
        None => tokio::spawn(async {}),
    };
    let routes = Arc::new(Routes { context: Arc::clone(&context), host, dial, stopping: AtomicBool::new(false) });
    tracing::info!(version = env!("CARGO_PKG_VERSION"), socket_dir = settings.socket_dir, "serving");
    let serving = tokio::spawn(server::serve(socket, Arc::clone(&routes), stop));
    // Until now plugins have deleted pods without us; what they noted is replayed at once.
    context.left_over.notify_one();
    tokio::select! {
        _ = terminate.recv() => {},
        _ = interrupt.recv() => {},
        () = context.gate.end() => {},
    }
    tracing::info!("stopping: no new connections; what runs may finish");
    let _ = stopper.send(true);
    let socket = serving.await;
    context.turns.quiet(LAST_WORK).await;
    if let Ok(socket) = socket {
        socket.close(LAST_WORDS).await;
    }
    work.abort();
    openings.abort();
    access.abort();
    ears.abort();
    let _ = tokio::time::timeout(LAST_WORDS, reflection).await;
    repairs.abort();
    scrapes.abort();
    page.abort();
    conf.abort();
    statuses.abort();
    Ok(())
}

/// Everything an operation uses, opened in the order of need.
async fn build(settings: Settings, stop: watch::Receiver<bool>) -> Result<Context, StartError> {
    let cni_dir = PathBuf::from(settings.delegation.cni_dir.as_deref().unwrap_or("/var/lib/cni/multus"));
    private_folder(&cni_dir).map_err(|error| StartError::Needs("make cniDir", error))?;
    let records = Records::open(&cni_dir).map_err(|error| StartError::Needs("open the records below cniDir", error))?;
    let (ledger, torn) =
        Ledger::open(records, OTHER_AGENT).map_err(|error| StartError::Needs("read the records", error))?;
    for record in torn {
        tracing::error!("a record was set aside: {record}");
    }
    let datapath = Standing::begin(&settings.datapath);
    let cluster = Cluster::connect(cluster_settings(&settings, &cni_dir), stop).await?;
    Ok(context(settings, &cni_dir, ledger, cluster, datapath))
}

/// Everything an operation may use, put together.
pub(crate) fn context(
    settings: Settings,
    cni_dir: &Path,
    ledger: Ledger,
    cluster: Cluster,
    datapath: Standing,
) -> Context {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let metrics = Arc::new(Metrics::default());
    Context {
        cluster,
        kubelet: Kubelet::at(Path::new(&settings.kubelet_dir)),
        datapath,
        discovery: Discovery::default(),
        gate: Arc::new(Gate::default()),
        ledger,
        reflection: Reflection::new(&settings.datapath.reflect),
        spool: Spool::at(cni_dir),
        traces: Traces::at(cni_dir),
        turns: Turns::new((cores * 4).max(8), metrics.admission.clone()),
        metrics,
        delegates: DelegateTally::default(),
        refusals: Refusals::default(),
        metrics_fault: std::sync::Mutex::default(),
        page_fault: std::sync::Mutex::default(),
        default_network: DefaultNetwork::default(),
        troubles: Troubles::default(),
        left_over: tokio::sync::Notify::new(),
        captures: Captures::default(),
        probes: Probes::default(),
        witness: Witness::default(),
        settings,
    }
}

/// Where pods and networks come from.
pub(crate) fn cluster_settings(settings: &Settings, cni_dir: &Path) -> ClusterSettings {
    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let source = match (&settings.objects, &settings.kubeconfig) {
        (Some(folder), _) => Source::Folder(PathBuf::from(folder)),
        (None, Some(file)) => Source::Api { kubeconfig: Some(PathBuf::from(file)) },
        (None, None) if in_cluster => Source::Api { kubeconfig: None },
        (None, None) => Source::None,
    };
    ClusterSettings {
        source,
        node_name: settings.node_name.clone().or_else(|| std::env::var("MULTUS_NODE_NAME").ok()),
        networks_dir: cni_dir.join("networks"),
        annotations_from_runtime: true,
        quiet: crate::kube::QUIET,
        once: false,
    }
}

async fn now_and_then(context: Arc<Context>, mut host: Option<HostRunner>, mut stop: watch::Receiver<bool>) {
    // Soon and often at first: a shim that found no agent may leave its note when there is one again.
    let mut pause = AT_FIRST;
    loop {
        reconcile::now_and_then(&context, host.as_mut()).await;
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(NOW_AND_THEN),
            () = context.left_over.notified() => {},
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
