//! Which devices the kubelet gave to a pod: from its podresources socket, else from its checkpoint file.
//!
//! Asked once for each look-up, within a deadline. Keeps nothing, and decides nothing about what it hears.

mod checkpoint;
mod grpc;
mod podresources;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::fault::{CniError, code, escape, quote};
use crate::names::{DeviceId, PodRef};
use crate::objects::Allocated;

/// The longest a look-up takes; the request's deadline may be shorter.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest name of a resource: a DNS name, a slash and 63 characters (Kubernetes, `IsQualifiedName`).
const MOST_RESOURCE_BYTES: usize = 253 + 1 + 63;

/// The kubelet of this node, as far as devices go.
#[derive(Debug, Clone)]
pub struct Kubelet {
    socket: PathBuf,
    checkpoint: PathBuf,
}

/// What the kubelet says of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The devices of its containers, all together.
    pub devices: Allocated,
    /// It was given resource claims as well (DRA); false also where the kubelet does not report them.
    pub has_claims: bool,
}

/// Why the kubelet said nothing of use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KubeletError {
    /// There is nothing to ask.
    #[error("ask the kubelet for the devices of pod {pod}: neither {socket} nor {checkpoint} is there")]
    Absent {
        /// Whose devices.
        pod: PodRef,
        /// The socket, quoted.
        socket: String,
        /// The file, quoted.
        checkpoint: String,
    },
    /// It does not answer, or what answers is no kubelet.
    #[error("ask the kubelet at {socket} for the devices of pod {pod}: {reason}")]
    Unreached {
        /// Whose devices.
        pod: PodRef,
        /// The socket, quoted.
        socket: String,
        /// What happened.
        reason: String,
    },
    /// Its checkpoint file cannot be used.
    #[error("read the devices of pod {pod} in the kubelet's checkpoint {path}: {reason}")]
    Checkpoint {
        /// Whose devices.
        pod: PodRef,
        /// The file, quoted.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<KubeletError> for CniError {
    fn from(error: KubeletError) -> Self {
        let remedy = match &error {
            KubeletError::Absent { .. } => {
                "mount pod-resources of the kubelet's folder into the agent, or set kubeletDir"
            }
            KubeletError::Unreached { .. } => "see whether the kubelet runs; the runtime retries",
            KubeletError::Checkpoint { .. } => {
                "give the agent the kubelet's podresources socket instead; see kubeletDir"
            }
        };
        CniError::new(code::TRY_LATER, error.to_string()).remedy(remedy)
    }
}

impl Kubelet {
    /// The kubelet whose state is below `folder`, `/var/lib/kubelet` as a rule.
    pub fn at(folder: &Path) -> Self {
        Self {
            socket: folder.join("pod-resources/kubelet.sock"),
            checkpoint: folder.join("device-plugins/kubelet_internal_checkpoint"),
        }
    }

    /// What it says of `pod`; a pod it does not know has no devices.
    ///
    /// # Errors
    /// The kubelet could not be asked before `deadline`, or within ten seconds.
    pub async fn devices(&self, pod: &PodRef, deadline: Instant) -> Result<Said, KubeletError> {
        if self.socket.exists() {
            let deadline = deadline.min(Instant::now() + PATIENCE);
            let said = podresources::ask(&self.socket, pod, deadline).await;
            let socket = shown(&self.socket);
            return said.map_err(|reason| KubeletError::Unreached { pod: pod.clone(), socket, reason });
        }
        let (socket, path) = (shown(&self.socket), shown(&self.checkpoint));
        let text = match checkpoint::read(&self.checkpoint) {
            Ok(Some(text)) => text,
            Ok(None) => return Err(KubeletError::Absent { pod: pod.clone(), socket, checkpoint: path }),
            Err(error) => return Err(KubeletError::Checkpoint { pod: pod.clone(), path, reason: error.to_string() }),
        };
        checkpoint::devices(&text, pod)
            .map_err(|reason| KubeletError::Checkpoint { pod: pod.clone(), path, reason })
            .map(|devices| Said { devices, has_claims: false })
    }
}

/// A path of the configuration, whole: the reader has to find it.
fn shown(path: &Path) -> String {
    format!("\"{}\"", escape(&path.to_string_lossy()))
}

/// Adds `id` to what is allocated. A name nobody can work with is said, and left out.
fn note(devices: &mut Allocated, resource: &str, id: &str) {
    if resource.is_empty() || resource.len() > MOST_RESOURCE_BYTES {
        return tracing::warn!("the kubelet names a device of resource {}: that is no resource name", quote(resource));
    }
    match DeviceId::new(id) {
        Ok(id) => drop(devices.entry(resource.to_owned()).or_default().insert(id)),
        Err(bad) => tracing::warn!("a device of resource {} is left out: {bad}", quote(resource)),
    }
}
