//! The CNI plugin: takes what the runtime gives, holds one conversation with the agent, prints what the agent says.
//!
//! Plans nothing and quotes nothing it received. While the agent is away ADD and CHECK try again until the deadline,
//! STATUS and GC say so, and DEL runs from the record on disk.

#[path = "multus-shim/agent.rs"]
mod agent;
#[path = "multus-shim/offline.rs"]
mod offline;
#[path = "multus-shim/upstream.rs"]
mod upstream;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use multus_agent::cni::request::{Command, Environment, Request};
use multus_agent::cni::version::Version;
use multus_agent::fault::{CniError, code, escape};
use multus_agent::records::Records;
use multus_agent::sys::files::netns_id;
use multus_agent::wire::{self, Call, Step};
use serde::Deserialize;

use agent::Mine;

/// First and longest pause between two tries to reach the agent.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
/// STATUS is answered within two seconds, whoever is away.
const STATUS_TIME: Duration = Duration::from_millis(1_500);
/// The longest requestTimeout; the agent's own rule.
const MOST_TIME: Duration = Duration::from_hours(1);
/// What a DEL without the agent may take, whatever was waited before.
const OFFLINE_TIME: Duration = Duration::from_secs(30);

/// The keys of our configuration that the shim reads itself; everything else is the agent's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Conf {
    cni_version: String,
    daemon_socket_dir: PathBuf,
    request_timeout: String,
    cni_dir: PathBuf,
    bin_dir: Option<PathBuf>,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            cni_version: String::new(),
            daemon_socket_dir: "/run/multus/".into(),
            request_timeout: "120s".into(),
            cni_dir: "/var/lib/cni/multus".into(),
            bin_dir: None,
        }
    }
}

fn main() -> ExitCode {
    let environment: Environment = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match environment.get("CNI_COMMAND") {
        None => about(),
        Some("VERSION") => show(&Version::reply(), ExitCode::SUCCESS),
        Some(_) => answer(&environment),
    }
}

fn about() -> ExitCode {
    let text = format!(
        "multus-shim {}: hands CNI requests to the multus-ebpf agent of this node\nCNI protocol versions supported: {}\n",
        env!("CARGO_PKG_VERSION"),
        Version::list()
    );
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn show(text: &str, code: ExitCode) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(environment: &Environment) -> ExitCode {
    let mut version = String::new();
    match serve(environment, &mut version) {
        Ok(output) => show(&output.unwrap_or_default(), ExitCode::SUCCESS),
        Err(error) => {
            show(&error.print(if version.is_empty() { Version::NEWEST.as_str() } else { &version }), ExitCode::FAILURE)
        }
    }
}

/// Everything between input and output. `version` is set as soon as it is known, for the error object.
fn serve(environment: &Environment, version: &mut String) -> Result<Option<String>, CniError> {
    let began = Instant::now();
    let config = read_stdin()?;
    let conf = read_conf(&config)?;
    if Version::parse(&conf.cni_version).is_ok() {
        version.clone_from(&conf.cni_version);
    }
    let timeout = timeout_of(&conf, environment)?;
    let request = Request::parse(environment);
    let call = Call {
        protocol: wire::PROTOCOL,
        oldest: (wire::OLDEST_PROTOCOL < wire::PROTOCOL).then_some(wire::OLDEST_PROTOCOL),
        shim: env!("CARGO_PKG_VERSION").into(),
        env: environment.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>(),
        config,
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        again: false,
        netns_id: request.as_ref().ok().and_then(|request| netns_id(request.netns.as_ref()?.as_path())),
    };
    match request {
        Ok(request) => carry(&request, call, &conf, began + timeout),
        // The agent, where there is one, says what is wrong and may quote it; we may not.
        Err(error) => refuse(error, &call, &conf, began + STATUS_TIME),
    }
}

fn read_stdin() -> Result<String, CniError> {
    let mut bytes = Vec::new();
    let most = u64::try_from(wire::MOST_STDIN).unwrap_or(u64::MAX);
    io::stdin()
        .lock()
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CniError::new(code::IO, format!("read the configuration on stdin: {error}")))?;
    if bytes.len() > wire::MOST_STDIN {
        let text = format!("the configuration on stdin is larger than {} bytes", wire::MOST_STDIN);
        return Err(CniError::new(code::IO, text));
    }
    String::from_utf8(bytes)
        .map_err(|_error| CniError::new(code::DECODE, "decode the configuration on stdin: it is not UTF-8"))
}

/// `requestTimeout`. A DEL goes on with the default where that makes no sense.
fn timeout_of(conf: &Conf, environment: &Environment) -> Result<Duration, CniError> {
    let given = wire::duration(&conf.request_timeout).filter(|time| !time.is_zero() && *time <= MOST_TIME);
    let is_del = environment.get("CNI_COMMAND") == Some("DEL");
    given.or_else(|| is_del.then_some(OFFLINE_TIME)).ok_or_else(|| {
        CniError::new(code::INVALID_CONFIG, "requestTimeout is not a duration of more than nothing and at most 1h")
            .remedy("write it as \"120s\" or \"2m\"")
    })
}

fn read_conf(config: &str) -> Result<Conf, CniError> {
    let fault = |text: String| CniError::new(code::DECODE, format!("decode the configuration on stdin: {text}"));
    if !config.trim_start().starts_with('{') {
        return Err(fault("it is not a JSON object".into()));
    }
    serde_json::from_str(config).map_err(|error| {
        let what = if error.is_data() { "a key has a value of the wrong type" } else { "it is not JSON" };
        fault(format!("{what} at line {}, column {}", error.line(), error.column()))
    })
}

/// One valid request: the agent if it can be had, else what the verb demands.
fn carry(request: &Request, mut call: Call, conf: &Conf, deadline: Instant) -> Result<Option<String>, CniError> {
    let verb = request.command;
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in conf.bin_dir.iter().cloned().chain(request.path.iter().map(PathBuf::from)) {
        if folder.is_absolute() && !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    let mine = Mine { verb, container: request.container_id.clone(), netns: request.netns.clone(), folders };
    let patience = match verb {
        Command::Status => deadline.min(Instant::now() + STATUS_TIME),
        _ => deadline,
    };
    // For as long as this ADD lives, nobody undoes it but for ourselves.
    let _held = match (verb, &mine.container) {
        (Command::Add, Some(container)) => Records::at(&conf.cni_dir).hold(container).ok().flatten(),
        _ => None,
    };
    let mut pause = PAUSES.0;
    loop {
        call.timeout_ms =
            u64::try_from(patience.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX);
        // A DEL waits no longer to be let in than for a word.
        let patient = if verb == Command::Del { patience.min(Instant::now() + agent::DEL_ANSWER) } else { patience };
        let tried = agent::connect(&conf.daemon_socket_dir, patient)
            .and_then(|stream| agent::converse(stream, &call, &mine, patience));
        let error = match tried {
            Ok(Step::Done { output }) => return Ok(output),
            Ok(Step::Fail { error }) => return Err(error),
            Ok(Step::Run(_)) => io::Error::other("the agent left the conversation"),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return elsewhere(request, &call, conf, &mine, patience);
            }
            Err(error) => error,
        };
        call.again = true;
        // Who is there and speaks otherwise, or is not to be trusted, will not change by waiting.
        let is_final = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::PermissionDenied);
        let is_worth_waiting = !is_final && matches!(verb, Command::Add | Command::Check | Command::Status);
        if !is_worth_waiting || Instant::now() + pause >= patience {
            return away(request, conf, &mine, &error);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Somebody is there who does not know our conversation: upstream's daemon. What we recorded is ours to delete.
fn elsewhere(
    request: &Request,
    call: &Call,
    conf: &Conf,
    mine: &Mine,
    deadline: Instant,
) -> Result<Option<String>, CniError> {
    let is_del = request.command == Command::Del;
    let is_ours = |container| !matches!(Records::at(&conf.cni_dir).load(container), Ok(None));
    if is_del && request.container_id.as_ref().is_some_and(is_ours) {
        return away(request, conf, mine, &io::Error::other("another daemon has its socket"));
    }
    let failed = match upstream::ask(&conf.daemon_socket_dir, call, &conf.cni_version, deadline) {
        Ok(Step::Done { output }) => return Ok(output),
        Ok(Step::Fail { error }) => error,
        Ok(Step::Run(_)) => CniError::new(code::INTERNAL, "the daemon left its protocol"),
        Err(error) => return away(request, conf, mine, &error),
    };
    if is_del {
        // As upstream's own plugin does: a pod must not hang for ever on what its daemon cannot do.
        let _ = writeln!(io::stderr(), "multus-shim: DEL by the Multus daemon: {}", escape(&failed.msg));
        return Ok(None);
    }
    Err(failed)
}

/// What each verb answers when the agent cannot be had (CNI SPEC 1.1, "Error": 11 try again later, 50 not available).
fn away(request: &Request, conf: &Conf, mine: &Mine, error: &io::Error) -> Result<Option<String>, CniError> {
    let sentence = format!("the multus-ebpf agent cannot be reached: {error}");
    let remedy = "see whether its pod runs on this node and whether daemonSocketDir is the same on both sides";
    match (request.command, &request.container_id) {
        (Command::Del, Some(container)) => {
            let deadline = Instant::now() + OFFLINE_TIME;
            for line in offline::del(&conf.cni_dir, container, mine, deadline) {
                let _ = writeln!(io::stderr(), "multus-shim: DEL without the agent: {line}");
            }
            Ok(None)
        }
        (Command::Status, _) => Err(CniError::new(code::NOT_AVAILABLE, sentence).remedy(remedy)),
        _ => Err(CniError::new(code::TRY_LATER, sentence).remedy(remedy)),
    }
}

/// An invalid environment: the agent's sentence if there is one, else ours without the value.
fn refuse(error: CniError, call: &Call, conf: &Conf, deadline: Instant) -> Result<Option<String>, CniError> {
    let nobody = Mine { verb: Command::Version, container: None, netns: None, folders: Vec::new() };
    if call.env.get("CNI_COMMAND").is_some_and(|verb| verb == "DEL") && !call.env.contains_key("CNI_CONTAINERID") {
        return Err(conceal(error));
    }
    match ask(&conf.daemon_socket_dir, call, &nobody, deadline) {
        Ok(Step::Fail { error }) => Err(error),
        _ => Err(conceal(error)),
    }
}

fn ask(socket_dir: &Path, call: &Call, mine: &Mine, deadline: Instant) -> io::Result<Step> {
    agent::converse(agent::connect(socket_dir, deadline)?, call, mine, deadline)
}

/// Takes quoted values out of a sentence.
fn conceal(error: CniError) -> CniError {
    let mut msg = String::new();
    let mut inside = false;
    let mut escaped = false;
    for c in error.msg.chars() {
        if c == '"' && !escaped {
            inside = !inside;
            msg.push(c);
        } else if !inside {
            msg.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    CniError { msg, ..error }
}
