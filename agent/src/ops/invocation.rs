//! A call, made sense of: bytes of the shim → a typed request with its configuration, version and deadline.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cni::{CniResult, Command, Environment, Request, Version};
use crate::config::{NetConf, Settings};
use crate::fault::{CniError, code, quote};
use crate::names::{ContainerId, IfName, NetnsId, NetnsPath};
use crate::ops::steps::Steps;
use crate::wire::{Call, PROTOCOL};

/// The capability under which containerd hands over the pod's annotations.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// A request that is understood.
#[derive(Debug)]
pub struct Invocation {
    /// The environment, validated.
    pub request: Request,
    /// The configuration: stdin with the daemon's keys over it.
    pub conf: NetConf,
    /// Stdin, as it came.
    pub config: String,
    /// The version of the answer: stdin's.
    pub version: Version,
    /// The pod's annotations, where the runtime gave them.
    pub annotations: Option<BTreeMap<String, String>>,
    /// The same call was made before, and its answer was lost.
    pub again: bool,
    /// Which namespace `CNI_NETNS` is where the runtime is, as far as that is known.
    pub netns_id: Option<NetnsId>,
    /// When the work has to be done, so that there is time left to undo it.
    pub work_until: Instant,
    /// When everything has to be over.
    pub deadline: Instant,
    /// The steps that are taken for it.
    pub steps: Steps,
}

/// Which container an ADD attaches, and where.
#[derive(Debug, Clone, Copy)]
pub struct Sandbox<'a> {
    /// The container.
    pub container: &'a ContainerId,
    /// Its network namespace.
    pub netns: &'a NetnsPath,
    /// The interface that the runtime asks for.
    pub ifname: &'a IfName,
}

/// What stands in for the configuration of a DEL that cannot be read: it is not needed.
const NOTHING_CONFIGURED: &[u8] = br#"{"name":"multus-cni-network"}"#;
/// Most of a request's time that is kept for undoing; of a short one, a quarter.
const RESERVE: Duration = Duration::from_secs(10);

impl Invocation {
    /// Reads a call.
    ///
    /// # Errors
    /// Code 4 for the environment, 6 and 7 for the configuration, 1 for its version or a verb it does not have.
    pub fn read(call: Call, settings: &Settings) -> Result<Self, CniError> {
        if call.agreed().is_none() {
            let text = format!("the CNI plugin speaks protocol {}, the agent {PROTOCOL}", call.protocol);
            return Err(CniError::new(code::TRY_LATER, text).remedy("install plugin and agent of the same version"));
        }
        let timeout = Duration::from_millis(call.timeout_ms).min(settings.request_timeout);
        let environment: Environment = call.env.into_iter().collect();
        let request = Request::parse(&environment)?;
        let is_del = request.command == Command::Del;
        let conf = match NetConf::parse(call.config.as_bytes(), settings) {
            Err(error) if is_del => {
                tracing::warn!("a DEL goes on without its configuration: {error}");
                NetConf::parse(NOTHING_CONFIGURED, settings)?
            }
            given => given?,
        };
        let version = conf.cni_version;
        refuse_unknown_verb(request.command, version)?;
        refuse_unreadable_result(request.command, &conf)?;
        let annotations = match annotations(&conf) {
            // What a DEL undoes is on record.
            Err(_) if is_del => None,
            given => given?,
        };
        let deadline = Instant::now() + timeout;
        let work_until = deadline.checked_sub(RESERVE.min(timeout / 4)).unwrap_or(deadline);
        Ok(Self {
            request,
            conf,
            config: call.config,
            version,
            annotations,
            again: call.again,
            netns_id: call.netns_id,
            work_until,
            deadline,
            steps: Steps::default(),
        })
    }

    /// What an ADD must name.
    ///
    /// # Errors
    /// Code 4 when part of it is missing.
    pub fn sandbox(&self) -> Result<Sandbox<'_>, CniError> {
        match (&self.request.container_id, &self.request.netns, &self.request.ifname) {
            (Some(container), Some(netns), Some(ifname)) => Ok(Sandbox { container, netns, ifname }),
            _ => Err(CniError::new(code::INVALID_ENVIRONMENT, "ADD needs CNI_CONTAINERID, CNI_NETNS and CNI_IFNAME")),
        }
    }
}

/// A `prevResult` that is none. DEL makes do without.
fn refuse_unreadable_result(command: Command, conf: &NetConf) -> Result<(), CniError> {
    match &conf.prev_result {
        Some(result) if command != Command::Del => {
            CniResult::parse(result.get().as_bytes()).map(drop).map_err(|error| error.within("prevResult"))
        }
        _ => Ok(()),
    }
}

fn refuse_unknown_verb(command: Command, version: Version) -> Result<(), CniError> {
    let has = match command {
        Command::Check => version.has_check(),
        Command::Status => version.has_status(),
        Command::Gc => version.has_gc(),
        _ => true,
    };
    if has {
        return Ok(());
    }
    Err(CniError::new(code::INCOMPATIBLE_VERSION, format!("cniVersion {version} does not allow {command}"))
        .remedy("configure a newer cniVersion: CHECK came with 0.4.0, STATUS and GC with 1.1.0"))
}

fn annotations(conf: &NetConf) -> Result<Option<BTreeMap<String, String>>, CniError> {
    let Some(raw) = conf.runtime_config.get(ANNOTATIONS) else { return Ok(None) };
    serde_json::from_str(raw.get()).map(Some).map_err(|error| {
        let text = format!("read runtimeConfig[{}]: {error}", quote(ANNOTATIONS));
        CniError::new(code::INVALID_CONFIG, text).remedy("the runtime must give an object of texts")
    })
}
