//! The shim's side of the conversation with the agent: connect, say what the runtime gave us, run what is asked.
//!
//! Believes nobody but a uid-0 peer behind a root-owned folder, and does nothing for other containers than its own,
//! save a DEL of what was left over.

use std::io::{self, BufReader, Error, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use multus_agent::cni::request::Command;
use multus_agent::names::{ContainerId, NetnsPath};
use multus_agent::sys::{exec, unix_socket};
use multus_agent::wire::{self, Call, Job, Outcome, Problem, Step, http};

/// Room for the agent's own answer when a deadline runs out while a delegate is at work; a STATUS has none to give.
const GRACE: Duration = Duration::from_secs(2);
/// The same for STATUS, which is answered within two seconds whatever happens.
const STATUS_GRACE: Duration = Duration::from_millis(200);

/// How long a DEL waits for one word of the agent before it goes on without it.
pub(crate) const DEL_ANSWER: Duration = Duration::from_secs(10);

/// What this shim may do, from its own environment and configuration, never from the agent.
pub(crate) struct Mine {
    pub(crate) verb: Command,
    pub(crate) container: Option<ContainerId>,
    pub(crate) netns: Option<NetnsPath>,
    pub(crate) folders: Vec<PathBuf>,
}

/// Connects to the agent below `socket_dir`, until `until` at the latest.
pub(crate) fn connect(socket_dir: &Path, until: Instant) -> io::Result<UnixStream> {
    let folder = std::fs::metadata(socket_dir)?;
    if folder.uid() != 0 || folder.mode() & 0o022 != 0 {
        return Err(Error::new(ErrorKind::PermissionDenied, "the socket's folder is not root's alone"));
    }
    let stream = unix_socket::connect(&socket_dir.join(wire::SOCKET), until)?;
    if peer_uid(&stream)? != 0 {
        return Err(Error::new(ErrorKind::PermissionDenied, "the agent does not run as root"));
    }
    Ok(stream)
}

/// Holds one conversation to its end. An error means the agent is gone or does not speak our protocol.
pub(crate) fn converse(stream: UnixStream, call: &Call, mine: &Mine, deadline: Instant) -> io::Result<Step> {
    let grace = if mine.verb == Command::Status { STATUS_GRACE } else { GRACE };
    let mut to = stream.try_clone()?;
    let mut from = BufReader::new(stream);
    let mut body = serde_json::to_vec(call)?;
    let mut path = wire::CALL_PATH;
    loop {
        let left = (deadline + grace).saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let left = if mine.verb == Command::Del { left.min(DEL_ANSWER) } else { left };
        to.set_read_timeout(Some(left))?;
        to.set_write_timeout(Some(left))?;
        http::write_request(&mut to, "POST", path, &body)?;
        let answer = http::read_response(&mut from, wire::MOST_BODY)?;
        if answer.status == 404 {
            return Err(Error::new(ErrorKind::Unsupported, "the agent does not know this conversation"));
        }
        if answer.status == 503 {
            return Err(Error::new(ErrorKind::ConnectionAborted, "the agent is being drained"));
        }
        if answer.status != 200 {
            return Err(Error::new(ErrorKind::InvalidData, format!("the agent answers with status {}", answer.status)));
        }
        match serde_json::from_slice(&answer.body)? {
            Step::Run(job) => body = serde_json::to_vec(&perform(&job, mine, deadline))?,
            last => return Ok(last),
        }
        path = wire::OUTCOME_PATH;
    }
}

/// Runs one job if it is one of ours.
pub(crate) fn perform(job: &Job, mine: &Mine, deadline: Instant) -> Outcome {
    if let Err(why) = allowed(job, mine) {
        return Outcome { id: job.id, problem: Some(Problem::Refused(why.to_owned())), ..Outcome::default() };
    }
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    let timeout_ms = job.timeout_ms.min(u64::try_from(left).unwrap_or(u64::MAX));
    exec::run(&Job { timeout_ms, ..job.clone() }, &mine.folders)
}

fn allowed(job: &Job, mine: &Mine) -> Result<(), &'static str> {
    let own = job.container.is_none() || (job.container == mine.container);
    let own_netns = job.netns.is_none() || job.netns == mine.netns;
    match job.verb {
        Command::Del if own => Ok(()),
        Command::Del if matches!(mine.verb, Command::Del | Command::Gc | Command::Status) => Ok(()),
        Command::Del => Err("another container's DEL is run in a DEL, GC or STATUS only"),
        _ if !own || !own_netns => Err("the job is for another container or namespace than the request's"),
        verb if verb == mine.verb => Ok(()),
        _ => Err("the job's verb is not the request's"),
    }
}

#[expect(unsafe_code, reason = "std's peer_cred is not stable")]
fn peer_uid(stream: &UnixStream) -> io::Result<libc::uid_t> {
    let mut peer = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the pointers describe `peer` and `length`, which outlive the call; the descriptor is open.
    let done = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(peer.uid) } else { Err(Error::last_os_error()) }
}
