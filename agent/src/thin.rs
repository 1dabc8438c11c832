//! Thin mode: the whole of Multus as a one-shot CNI plugin, for nodes where no daemon is wanted.
//!
//! The program does this when it is started with `CNI_COMMAND` and without arguments, under whatever name. The same
//! operations on the same records as the daemon's; no eBPF, for nobody would serve it. Leaves a node alone that has a
//! running daemon; a DEL is noted down there for the daemon, which does it.

use std::future::Future;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::cni::{Command, Environment, RawObject, Request, Version};
use crate::config::{LogLevel, Settings};
use crate::daemon;
use crate::fault::{CniError, code, quote};
use crate::kube::{Cluster, ClusterSettings, Source};
use crate::names::ContainerId;
use crate::ops;
use crate::ops::ledger::Ledger;
use crate::ops::runner::HostRunner;
use crate::records::Records;
use crate::spool::{Note, Spool};
use crate::sys::files::{Held, netns_id, private_folder};
use crate::wire::{Call, MOST_STDIN, PROTOCOL, Step};

/// How long the pod's network-status may still take after the answer is printed; nobody comes after us to write it.
const STATUS_TIME: Duration = Duration::from_secs(10);
/// How long its events may take after that.
const EVENTS_TIME: Duration = Duration::from_secs(3);
/// How often a container that somebody else works for is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long a record may take to reach stable storage after the answer.
const FLUSH: Duration = Duration::from_secs(1);

/// Was the program started as a CNI plugin?
pub fn is_asked() -> bool {
    std::env::args_os().len() <= 1 && std::env::var_os("CNI_COMMAND").is_some()
}

/// Answers the one request of the environment and standard input on standard output.
pub fn run() -> ExitCode {
    let environment: Environment = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    if environment.get("CNI_COMMAND") == Some("VERSION") {
        return show(&Version::reply(), ExitCode::SUCCESS);
    }
    let mut version = Version::NEWEST;
    match answer(environment, &mut version) {
        Ok(code) => code,
        Err(error) => show(&error.print(version.as_str()), ExitCode::FAILURE),
    }
}

fn show(text: &str, code: ExitCode) -> ExitCode {
    let mut out = io::stdout();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok() { code } else { ExitCode::FAILURE }
}

/// Everything between input and output. `version` is set as soon as it is known, for the error object.
fn answer(environment: Environment, version: &mut Version) -> Result<ExitCode, CniError> {
    let is_del = environment.get("CNI_COMMAND") == Some("DEL");
    let config = read_stdin().or_else(|error| if is_del { Ok(String::new()) } else { Err(error) })?;
    let settings = understood(&config, version).or_else(|error| {
        // What a DEL undoes is on record; all that it needs to know is where that is.
        if is_del { settings(&whereabouts(&config)).or_else(|_| settings("{}")) } else { Err(error) }
    })?;
    let request = Request::parse(&environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build();
    let runtime = runtime.map_err(|error| CniError::new(code::IO, format!("start the runtime: {error}")))?;
    let (ending, ended) = watch::channel(false);
    let (step, cluster) = runtime.block_on(perform(settings, environment, (config, &request), ended))?;
    let code = match step {
        Step::Done { output } => show(&output.unwrap_or_default(), ExitCode::SUCCESS),
        Step::Fail { error } => show(&error.print(version.as_str()), ExitCode::FAILURE),
        Step::Run(_) => return Err(CniError::new(code::INTERNAL, "the operation did not end")),
    };
    if let Some(cluster) = cluster {
        runtime.block_on(last_words(&cluster));
    }
    let _ = ending.send(true);
    runtime.shutdown_timeout(FLUSH);
    Ok(code)
}

/// What the pod is told: a slow API server delays the end, and does not change the answer.
async fn last_words(cluster: &Cluster) {
    if !cluster.reports_are_written(STATUS_TIME).await {
        tracing::error!("the pod's network-status could not be written: {}", fault(cluster));
    }
    if !cluster.events_are_posted(EVENTS_TIME).await {
        tracing::error!("events could not be posted: {}", fault(cluster));
    }
}

fn fault(cluster: &Cluster) -> String {
    cluster.health().last_error.unwrap_or_else(|| "no answer from the API server".to_owned())
}

fn read_stdin() -> Result<String, CniError> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MOST_STDIN).unwrap_or(u64::MAX);
    let read = io::stdin().lock().take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| CniError::new(code::IO, format!("read the configuration on stdin: {error}")))?;
    if bytes.len() > MOST_STDIN {
        return Err(CniError::new(code::IO, format!("the configuration on stdin is larger than {MOST_STDIN} bytes")));
    }
    String::from_utf8(bytes)
        .map_err(|_error| CniError::new(code::DECODE, "decode the configuration on stdin: it is not UTF-8"))
}

fn understood(config: &str, version: &mut Version) -> Result<Settings, CniError> {
    let object = RawObject::parse(config.as_bytes()).map_err(|error| error.within("configuration on stdin"))?;
    *version = Version::parse(&object.text("cniVersion")?.unwrap_or_default())?;
    settings(config)
}

/// Of a configuration that cannot be used as a whole: where the records and the plugins are.
fn whereabouts(config: &str) -> String {
    let object = RawObject::parse(config.as_bytes()).unwrap_or_default().settled(&["cniDir", "binDir"]);
    let mut known = RawObject::default();
    for key in ["cniDir", "binDir"] {
        if let Ok(Some(folder)) = object.text(key) {
            known.set_json(key, &folder);
        }
    }
    known.print()
}

/// The configuration on stdin is all there is; it has the daemon's keys. Without `logLevel` nothing but the worst is
/// said, as upstream does it.
fn settings(config: &str) -> Result<Settings, CniError> {
    let (mut settings, warnings) = Settings::parse(config).map_err(CniError::from)?;
    settings.log.level.get_or_insert(LogLevel::Panic);
    let _dial = daemon::start_log(&settings).map_err(|error| CniError::new(code::IO, error.to_string()))?;
    for warning in warnings {
        tracing::debug!("configuration: {warning}");
    }
    Ok(settings)
}

async fn perform(
    settings: Settings,
    environment: Environment,
    (config, request): (String, &Request),
    stop: watch::Receiver<bool>,
) -> Result<(Step, Option<Cluster>), CniError> {
    let until = Instant::now() + settings.request_timeout;
    let cni_dir = PathBuf::from(settings.delegation.cni_dir.as_deref().unwrap_or("/var/lib/cni/multus"));
    let unusable = |error: io::Error| {
        CniError::new(code::IO, format!("open the records below cniDir {}: {error}", quote(&cni_dir.to_string_lossy())))
            .remedy("make it a folder that root can write, or configure another one")
    };
    private_folder(&cni_dir).map_err(unusable)?;
    let records = Records::open(&cni_dir).map_err(unusable)?;
    let Some(visit) = records.visit().map_err(unusable)? else {
        return leave_to_daemon(&cni_dir, request).map(|step| (step, None));
    };
    let _held = turn(&records, request, until).await?;
    let ledger = Ledger::visit(records, visit, request).map_err(unusable)?;
    let cluster = Cluster::connect(cluster_settings(&settings, request.command, &cni_dir), stop).await?;
    let mut folders = settings.plugin_folders();
    for folder in request.path.iter().map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    let timeout_ms = u64::try_from(settings.request_timeout.as_millis()).unwrap_or(u64::MAX);
    let context = Arc::new(daemon::context(settings, &cni_dir, ledger, cluster.clone(), (None, None)));
    let env = environment.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let call = Call {
        protocol: PROTOCOL,
        oldest: None,
        shim: "thin".into(),
        env,
        config,
        timeout_ms,
        again: false,
        netns_id: request.netns.as_ref().and_then(|netns| netns_id(netns.as_path())),
    };
    Ok((ops::answer(&context, call, &mut HostRunner::here(folders)).await, Some(cluster)))
}

/// The node is the daemon's. A DEL never fails, and nobody may have to come again with it: the daemon finds the note
/// that is left, and undoes what is on record. Everything else is refused.
fn leave_to_daemon(cni_dir: &Path, request: &Request) -> Result<Step, CniError> {
    let refusal = has_daemon(cni_dir);
    match &request.container_id {
        Some(container) if request.command == Command::Del => {
            let note =
                Note::put_off(container.clone(), "a thin plugin was asked for it, beside this daemon".to_owned());
            let left = Spool::at(cni_dir).leave(&note);
            left.map(|()| Step::Done { output: None })
                .map_err(|error| refusal.within(format_args!("note a DEL down: {error}")))
        }
        _ => Err(refusal),
    }
}

fn has_daemon(cni_dir: &Path) -> CniError {
    let text = format!("the multus-agent daemon of this node works with cniDir {}", quote(&cni_dir.to_string_lossy()));
    CniError::new(code::TRY_LATER, text)
        .remedy("let the runtime call multus-shim, or stop the daemon, or give this configuration its own cniDir")
}

/// Our turn for the container: one plugin at a time, as CNI demands; other containers are not waited for.
async fn turn(records: &Records, request: &Request, until: Instant) -> Result<Option<Held>, CniError> {
    let Some(container) = &request.container_id else { return Ok(None) };
    let waits = async {
        loop {
            match records.hold(container) {
                Ok(None) => tokio::time::sleep(LOOK).await,
                Ok(held) => return Ok(held),
                Err(error) => return Err(CniError::new(code::IO, format!("lock the record: {error}"))),
            }
        }
    };
    before(until, container, waits).await
}

async fn before<T>(
    until: Instant,
    container: &ContainerId,
    work: impl Future<Output = Result<T, CniError>>,
) -> Result<T, CniError> {
    tokio::time::timeout_at(until.into(), work).await.unwrap_or_else(|_elapsed| {
        let text = format!("container {}: another plugin is still at work for it", quote(container.as_str()));
        Err(CniError::new(code::TRY_LATER, text).remedy("try again later"))
    })
}

/// Objects are read one by one, by those verbs that may need any. DEL, CHECK and GC go by the records alone.
fn cluster_settings(settings: &Settings, command: Command, cni_dir: &Path) -> ClusterSettings {
    let all = daemon::cluster_settings(settings, cni_dir);
    let source = match command {
        Command::Add | Command::Status => all.source.clone(),
        _ => Source::None,
    };
    ClusterSettings { source, node_name: None, once: true, ..all }
}
