//! What is attached to which container, on disk: one versioned, checksummed file per container, replaced atomically.
//!
//! Agent and shim read and write the same files; a record holds all that a DEL needs, so that it needs no planning and
//! no agent. Decides nothing. A process crash needs no fsync; after power loss a torn file is found by its checksum
//! and set aside. What others keep about containers beside it, libcni and Multus, has modules of its own.
//!
//! Releases that are neighbours work with each other's records, so that a node can be updated and put back. What a
//! release adds is a field that may be missing; the release before keeps it and writes it back. A release that has to
//! say something in another way writes the next number, but not before the release before it reads that number.

mod rest;
pub mod results;
#[cfg(feature = "daemon")]
pub mod scratch;

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::quote;
use crate::names::{ContainerId, IfName, NadRef, NetnsPath, PluginName, PodRef};
use crate::sys::files::{Held, hold, hold_together, private_folder, replace, replace_through, thin_out};
pub use rest::Rest;
use results::Results;

/// A number and a checksum follow.
const HEAD: &str = "multus-ebpf record ";
/// The number that is written.
const NUMBER: u32 = 1;
/// The numbers that are read: the next one, too, for the next release may write it before it is put back.
const READ: RangeInclusive<u32> = NUMBER..=NUMBER + 1;
const MOST_BYTES: u64 = 16 << 20;
/// Most records that were set aside and are kept for a look.
const MOST_TORN: usize = 100;

/// Everything attached to one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The sandbox.
    pub container: ContainerId,
    /// Its namespace as the runtime gave it at ADD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsPath>,
    /// Its pod, where the runtime named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// `CNI_IFNAME` of the request: the master attachment's interface.
    pub ifname: IfName,
    /// How far it is.
    pub state: State,
    /// Seconds since 1970 when the ADD began.
    #[serde(default)]
    pub since: u64,
    /// In attachment order, the master first.
    pub attachments: Vec<Attachment>,
    /// The network-status text, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// What is reflected between LANs and the master's interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reflect: Option<Reflect>,
    /// Who attached it.
    #[serde(default, skip_serializing_if = "Origin::is_own")]
    pub origin: Origin,
    /// What a later release wrote besides.
    #[serde(skip)]
    pub rest: Rest,
}

/// What is reflected between LANs and a pod's own interface, and where the host meets the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reflect {
    /// The protocols' names.
    pub protocols: Vec<String>,
    /// Hardware address of the pod's interface.
    pub mac: [u8; 6],
    /// Its index in the pod's namespace.
    pub pod_ifindex: u32,
    /// The index of its other end in ours.
    pub host_ifindex: u32,
}

/// Who attached a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// This agent, or one before it.
    #[default]
    Agent,
    /// Multus, before the node was taken over from it.
    Multus,
    /// Unknown: the record was lost and made anew from libcni's result cache.
    Cache,
}

impl Origin {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes references")]
    fn is_own(&self) -> bool {
        *self == Self::Agent
    }
}

/// How far a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// An ADD is on its way.
    Adding,
    /// The ADD is done.
    Added,
    /// Something has to be undone and nobody is at it: a failed ADD, or a DEL that could not finish.
    Undo,
}

/// One network of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The name in network-status: `<namespace>/<name>` of a NetworkAttachmentDefinition, else the CNI name.
    pub network: String,
    /// The CNI name of the configuration.
    pub conf_name: String,
    /// The object it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nad: Option<NadRef>,
    /// The interface in the pod.
    pub ifname: IfName,
    /// Is it the one whose result the runtime sees?
    #[serde(default)]
    pub master: bool,
    /// Was it attached while the pod ran? Then whoever asked for it tells the pod. Without a result it is only half there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hotplug: bool,
    /// The chain, in ADD order.
    pub delegates: Vec<Delegate>,
    /// The chain's result in CNI 1.1 form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// What the datapath does for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// Its device-info file, to be removed when it is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_info: Option<PathBuf>,
    /// What a later release wrote besides.
    #[serde(skip)]
    pub rest: Rest,
}

/// One plugin of a chain, with all that its DEL and CHECK need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegate {
    /// The plugin's file name.
    pub plugin: PluginName,
    /// The configuration's CNI version.
    pub cni_version: String,
    /// How far it is.
    pub stage: Stage,
    /// The exact standard input of a DEL or CHECK.
    pub stdin: String,
    /// `CNI_ARGS`.
    #[serde(default)]
    pub args: String,
    /// The configuration says `disableCheck`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skips_check: bool,
    /// What a later release wrote besides.
    #[serde(skip)]
    pub rest: Rest,
}

/// How far one delegate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Not yet called.
    Planned,
    /// Called with ADD; whether it finished or not, it wants a DEL.
    Called,
    /// Its DEL succeeded.
    Deleted,
}

/// The kernel's side of an attachment, as it was found after ADD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Index in the pod's namespace.
    pub ifindex: u32,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Kind, as `ip -d link` names it: `macvlan`, `veth`, …
    pub kind: String,
    /// The macvlan parent in the agent's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The datapath's number for it; none when the datapath is not on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<u32>,
    /// The counter slot; none when uncounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The protocols relayed for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relay: Vec<String>,
    /// Whether the host and the pod may talk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_access: bool,
    /// The host's ports that the pod may open; none given: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ports: Option<Vec<String>>,
    /// Whether the pod receives relayed frames as they were sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain_copy: bool,
    /// Why it is not counted or relayed although it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What a later release wrote besides.
    #[serde(skip)]
    pub rest: Rest,
}

/// A macvlan parent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Parent {
    /// Index in the agent's namespace.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Hardware address.
    pub mac: [u8; 6],
}

impl Record {
    /// The DELs that are due, newest first: positions of attachment and delegate.
    pub fn due(&self) -> Vec<(usize, usize)> {
        let mut due = Vec::new();
        for (a, attachment) in self.attachments.iter().enumerate().rev() {
            for (d, delegate) in attachment.delegates.iter().enumerate().rev() {
                if delegate.stage == Stage::Called {
                    due.push((a, d));
                }
            }
        }
        due
    }

    /// The first attachment that was begun while the pod ran, and not finished.
    pub fn half_plugged(&self) -> Option<usize> {
        self.attachments.iter().position(|attachment| attachment.hotplug && attachment.result.is_none())
    }

    /// Marks a delegate's stage.
    pub fn mark(&mut self, (a, d): (usize, usize), stage: Stage) {
        if let Some(delegate) = self.attachments.get_mut(a).and_then(|a| a.delegates.get_mut(d)) {
            delegate.stage = stage;
        }
    }
}

/// The folder of records.
#[derive(Debug, Clone)]
pub struct Records {
    folder: PathBuf,
    /// The end of the name of a record that is being written.
    beside: &'static str,
}

/// While a record is written by the agent, which is alone; and by a shim, which holds the container.
const BESIDE: [&str; 2] = [".agent.tmp", ".shim.tmp"];

impl Records {
    /// The records below `cni_dir`; makes the folder (0700).
    pub fn open(cni_dir: &Path) -> io::Result<Self> {
        let folder = cni_dir.join("records");
        private_folder(&folder)?;
        Ok(Self { folder, beside: BESIDE[0] })
    }

    /// The same without making anything: for a reader that may find nothing.
    pub fn at(cni_dir: &Path) -> Self {
        Self { folder: cni_dir.join("records"), beside: BESIDE[1] }
    }

    /// Those below `cni_dir`, if there are any; nothing is made.
    ///
    /// # Errors
    /// The folder cannot be seen.
    pub fn open_if_any(cni_dir: &Path) -> io::Result<Option<Self>> {
        let folder = cni_dir.join("records");
        Ok(folder.try_exists()?.then_some(Self { folder, beside: BESIDE[0] }))
    }

    fn path(&self, container: &ContainerId) -> PathBuf {
        self.folder.join(format!("{container}.record"))
    }

    /// The record of `container`. `InvalidData`: the file is torn or from another version.
    pub fn load(&self, container: &ContainerId) -> io::Result<Option<Record>> {
        match File::open(self.path(container)) {
            Ok(file) => read(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the record on disk: a temporary file beside it, then a rename.
    pub fn save(&self, record: &Record) -> io::Result<()> {
        let body = rest::print(record)?;
        let mut text = format!("{HEAD}{NUMBER} {:016x}\n", checksum(&body)).into_bytes();
        text.extend_from_slice(&body);
        replace_through(&self.path(&record.container), &text, self.beside)
    }

    /// Flushes the record and its folder to stable storage.
    pub fn persist(&self, container: &ContainerId) -> io::Result<()> {
        File::open(self.path(container))?.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }

    /// Removes what killed processes left half written: what agents wrote, for their owner is alone now, and what others
    /// did more than an hour ago; and the oldest of those set aside, where they are too many.
    pub fn sweep(&self) -> io::Result<()> {
        thin_out(&self.folder, "torn", MOST_TORN)?;
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let is_temporary = entry.path().extension().is_some_and(|ending| ending == "tmp");
            let age = entry.metadata().and_then(|about| about.modified()).ok().and_then(|when| when.elapsed().ok());
            let is_an_agents = entry.file_name().to_string_lossy().ends_with(BESIDE[0]);
            if is_temporary && (is_an_agents || age.is_some_and(|age| age > Duration::from_hours(1))) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the record; one that is not there is fine.
    pub fn remove(&self, container: &ContainerId) -> io::Result<()> {
        remove_file(&self.path(container))
    }

    /// Removes all that is kept about a record's container: libcni's results, Multus's scratch file, what was set aside,
    /// and the record itself.
    ///
    /// # Errors
    /// The first one, after everything was tried.
    pub fn forget(&self, record: &Record) -> io::Result<()> {
        let results = Results::at(&self.cni_dir());
        let removed = record.attachments.iter().map(|a| results.remove(&a.conf_name, &record.container, &a.ifname));
        let removed: Vec<_> = removed.collect();
        let beside =
            BESIDE.map(|ending| remove_file(&self.folder.join(format!("{}.record{ending}", record.container))));
        removed
            .into_iter()
            .chain(beside)
            .chain([
                remove_file(&self.scratch(&record.container)),
                remove_file(&self.path(&record.container).with_extension("torn")),
                self.remove(&record.container),
            ])
            .collect()
    }

    /// Multus's scratch file of `container`; a path that is no file stands for none.
    fn scratch(&self, container: &ContainerId) -> PathBuf {
        self.cni_dir().join(container.as_str())
    }

    /// Does anybody but its record, which is not there or not readable, know of `container`: Multus's scratch file, a
    /// result of libcni, a record that was set aside?
    pub fn has_traces(&self, container: &ContainerId) -> bool {
        self.scratch(container).is_file() || self.is_torn(container) || Results::at(&self.cni_dir()).has(container)
    }

    /// Was the record of `container` set aside?
    pub fn is_torn(&self, container: &ContainerId) -> bool {
        self.path(container).with_extension("torn").exists()
    }

    /// The containers whose records were set aside.
    pub fn torn(&self) -> io::Result<Vec<ContainerId>> {
        let paths = fs::read_dir(&self.folder)?.flatten().map(|entry| entry.path());
        let torn = paths.filter(|path| path.extension().is_some_and(|ending| ending == "torn"));
        Ok(torn.filter_map(|path| ContainerId::new(path.file_stem()?.to_str()?).ok()).collect())
    }

    /// The folder that the folder of records is in.
    pub fn cni_dir(&self) -> PathBuf {
        self.folder.parent().unwrap_or(&self.folder).to_owned()
    }

    /// All records. Torn ones are set aside as `<name>.torn` and named in the second list.
    pub fn all(&self) -> io::Result<(Vec<Record>, Vec<String>)> {
        let (mut records, mut torn) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|ending| ending != "record") {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            match read(file) {
                Ok(record) => records.push(record),
                Err(error) => {
                    torn.push(format!("{}: {error}", quote(&path.to_string_lossy())));
                    fs::rename(&path, path.with_extension("torn"))?;
                }
            }
        }
        records.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.container.cmp(&b.container)));
        Ok((records, torn))
    }

    /// Says that somebody is at work for `container`: a shim with an ADD, or whoever undoes one. Uninvited clean-up keeps
    /// away meanwhile. `None`: somebody else is.
    ///
    /// # Errors
    /// The folder is not there.
    pub fn hold(&self, container: &ContainerId) -> io::Result<Option<Held>> {
        hold(&self.folder.join(".locks"), checksum(container.as_str().as_bytes()))
    }

    /// Says that this process is the node's agent. `None`: another one is.
    ///
    /// # Errors
    /// The folder is not there.
    pub fn own(&self) -> io::Result<Option<Held>> {
        hold(&self.folder.join(".agent"), 0)
    }

    /// Says that a process works with the records that is not the node's agent. `None`: the agent is there.
    ///
    /// # Errors
    /// The folder is not there.
    pub fn visit(&self) -> io::Result<Option<Held>> {
        hold_together(&self.folder.join(".agent"), 0)
    }

    /// Can a record be written here? Writes and removes a probe file of its own.
    pub fn writable(&self) -> io::Result<()> {
        static PROBES: AtomicU64 = AtomicU64::new(0);
        let probe = self.folder.join(format!(".probe-{}", PROBES.fetch_add(1, Ordering::Relaxed)));
        replace(&probe, b"")?;
        fs::remove_file(probe)
    }
}

/// Removes a file; one that is not there, or is a folder, is fine.
fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound && !path.is_dir() => Err(error),
        _ => Ok(()),
    }
}

fn read(file: File) -> io::Result<Record> {
    let mut text = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut text)?;
    let torn = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let line_end = text.iter().position(|&byte| byte == b'\n').ok_or_else(|| torn("the record has no first line"))?;
    let (head, body) = text.split_at(line_end);
    let body = body.get(1..).unwrap_or_default();
    let sum = std::str::from_utf8(head)
        .ok()
        .and_then(|head| head.strip_prefix(HEAD)?.split_once(' '))
        .filter(|(number, _)| number.parse().is_ok_and(|number| READ.contains(&number)))
        .and_then(|(_, sum)| u64::from_str_radix(sum, 16).ok())
        .ok_or_else(|| torn("the record is of another version"))?;
    if sum != checksum(body) {
        return Err(torn("the record is torn: its checksum differs"));
    }
    rest::parse(body).map_err(|error| torn(&format!("decode the record: {error}")))
}

/// FNV-1a, 64 bits: enough to tell a torn write from a whole one.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(container: &str) -> Record {
        let delegate = |stage| Delegate {
            plugin: PluginName::new("macvlan").unwrap(),
            cni_version: "1.0.0".into(),
            stage,
            stdin: "{}".into(),
            args: String::new(),
            skips_check: false,
            rest: Rest::new(),
        };
        let attachment = |ifname: &str, stages: &[Stage]| Attachment {
            network: "default/lan".into(),
            conf_name: "lan".into(),
            nad: None,
            ifname: IfName::new(ifname).unwrap(),
            master: ifname == "eth0",
            hotplug: false,
            delegates: stages.iter().copied().map(delegate).collect(),
            result: None,
            link: None,
            device_info: None,
            rest: Rest::new(),
        };
        Record {
            container: ContainerId::new(container).unwrap(),
            netns: None,
            pod: None,
            ifname: IfName::new("eth0").unwrap(),
            state: State::Adding,
            since: 7,
            attachments: vec![
                attachment("eth0", &[Stage::Called, Stage::Called]),
                attachment("net1", &[Stage::Called, Stage::Planned]),
            ],
            status: None,
            reflect: None,
            origin: Origin::Agent,
            rest: Rest::new(),
        }
    }

    fn records(name: &str) -> (PathBuf, Records) {
        let folder = std::env::temp_dir().join(format!("multus-records-{}-{name}", std::process::id()));
        let records = Records::open(&folder).unwrap();
        (folder, records)
    }

    #[test]
    fn what_was_called_is_due_newest_first() {
        let mut record = record("a");
        assert_eq!(record.due(), [(1, 0), (0, 1), (0, 0)]);
        record.mark((0, 1), Stage::Deleted);
        assert_eq!(record.due(), [(1, 0), (0, 0)]);
        record.mark((9, 9), Stage::Called);
        assert_eq!(record.due(), [(1, 0), (0, 0)]);
    }

    #[test]
    fn a_record_comes_back_as_it_was_saved() {
        let (folder, records) = records("whole");
        let saved = record("a");
        records.save(&saved).unwrap();
        assert_eq!(records.load(&saved.container).unwrap(), Some(saved.clone()));
        assert_eq!(records.all().unwrap(), (vec![saved.clone()], Vec::new()));
        records.persist(&saved.container).unwrap();
        records.remove(&saved.container).unwrap();
        records.remove(&saved.container).unwrap();
        assert_eq!(records.load(&saved.container).unwrap(), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_torn_record_is_told_from_a_whole_one_and_set_aside() {
        let (folder, records) = records("torn");
        let whole = record("a");
        records.save(&whole).unwrap();
        let path = records.path(&whole.container);
        let bytes = fs::read(&path).unwrap();
        for cut in [0, 5, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(records.load(&whole.container).unwrap_err().kind(), io::ErrorKind::InvalidData, "{cut}");
        }
        let (whole, torn) = records.all().unwrap();
        assert_eq!((whole.len(), torn.len()), (0, 1));
        assert!(path.with_extension("torn").exists() && !path.exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_neighbours_number_is_read_and_any_other_set_aside() {
        let (folder, records) = records("number");
        let saved = record("a");
        for (number, is_read) in [(NUMBER - 1, false), (NUMBER, true), (NUMBER + 1, true), (NUMBER + 2, false)] {
            records.save(&saved).unwrap();
            let path = records.path(&saved.container);
            let text = fs::read_to_string(&path).unwrap();
            let (ours, theirs) = (format!("{HEAD}{NUMBER} "), format!("{HEAD}{number} "));
            fs::write(&path, text.replacen(&ours, &theirs, 1)).unwrap();
            let (whole, torn) = records.all().unwrap();
            assert_eq!((whole.len(), torn.len()), if is_read { (1, 0) } else { (0, 1) }, "number {number}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn one_is_at_work_for_a_container_and_one_is_the_agent() {
        let (folder, records) = records("hold");
        let [a, b] = ["a", "b"].map(|name| ContainerId::new(name).unwrap());
        let held = records.hold(&a).unwrap().unwrap();
        assert!(records.hold(&a).unwrap().is_none());
        assert!(records.hold(&b).unwrap().is_some());
        drop(held);
        assert!(records.hold(&a).unwrap().is_some());
        let agent = records.own().unwrap().unwrap();
        assert!(records.own().unwrap().is_none() && records.visit().unwrap().is_none());
        drop(agent);
        let visits = [records.visit().unwrap().unwrap(), records.visit().unwrap().unwrap()];
        assert!(records.own().unwrap().is_none(), "no agent begins beside them");
        drop(visits);
        assert!(records.own().unwrap().is_some());
        fs::remove_dir_all(folder).unwrap();
        assert!(records.hold(&a).is_err());
    }
}
