//! What is known about a node when it is judged. Plain words and numbers; what could not be seen is `None`.

use std::collections::{BTreeMap, BTreeSet};

/// Everything at once.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// This program's version.
    pub version: String,
    /// Who looks.
    pub viewpoint: Viewpoint,
    /// The kernel.
    pub kernel: Kernel,
    /// Effective capabilities of the agent, as the bits of `capabilities(7)`.
    pub capabilities: Option<u64>,
    /// What the configuration asks for.
    pub wanted: Wanted,
    /// CNI's files on the host.
    pub install: Install,
    /// What only a running agent knows.
    pub agent: Option<Agent>,
}

/// Who looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Viewpoint {
    /// The running agent.
    Agent,
    /// The command line, before an installation.
    #[default]
    Before,
    /// The command line, because the agent does not answer: why.
    Outside(String),
}

/// The kernel.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Is there `/sys/kernel/btf/vmlinux`?
    pub btf: bool,
    /// The bpffs folder, and whether it is on a bpffs.
    pub bpffs: (String, Option<bool>),
}

/// What the configuration asks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Any eBPF?
    pub datapath: bool,
    /// The relay and what goes with it?
    pub relay: bool,
    /// A conf for the runtime, written by the agent?
    pub generated: bool,
    /// Plugins run by the agent in the host's mount namespace?
    pub host_exec: bool,
}

/// CNI's files on the host.
#[derive(Debug, Clone)]
pub struct Install {
    /// The folder of the runtime.
    pub conf_dir: String,
    /// Its configurations in the runtime's order, or why it cannot be read.
    pub confs: Confs,
    /// Files that some other program put aside there.
    pub put_aside: Vec<String>,
    /// The folder of plugins.
    pub bin_dir: String,
    /// What is in it; `None`: it cannot be seen from here.
    pub plugins: Option<BTreeSet<String>>,
    /// The plugin that the runtime is told to call.
    pub own: String,
    /// What that plugin says of its version.
    pub shim: Option<Result<String, String>>,
    /// Other things of Multus that were found: what, and what to do about it.
    pub leftovers: Vec<(String, String)>,
    /// Where the host's runtime looks; `None`: the host's own files cannot be seen from here.
    pub layout: Option<Layout>,
}

/// What the host's own files say of CNI's folders.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// The distribution and both folders, each with who says so.
    pub found: String,
    /// Where the configured folders do not fit, as sentences.
    pub doubts: Vec<String>,
}

impl Default for Install {
    fn default() -> Self {
        Self {
            conf_dir: String::new(),
            confs: Ok(Vec::new()),
            put_aside: Vec::new(),
            bin_dir: String::new(),
            plugins: None,
            own: String::new(),
            shim: None,
            leftovers: Vec::new(),
            layout: None,
        }
    }
}

/// The configurations of a folder, or why they cannot be read.
pub type Confs = Result<Vec<Conf>, String>;

/// One configuration.
#[derive(Debug, Clone, Default)]
pub struct Conf {
    /// Its file name.
    pub file: String,
    /// Does it call our plugin?
    pub ours: bool,
    /// Does it call Multus, under any name?
    pub multus: bool,
    /// The plugins it calls.
    pub plugins: Vec<String>,
    /// Why it cannot be read.
    pub problem: Option<String>,
}

/// What only a running agent knows.
#[derive(Debug, Clone, Default)]
pub struct Agent {
    /// The cluster's own network: its file or name; or cause and remedy.
    pub primary: Primary,
    /// Its plugins.
    pub primary_plugins: Vec<String>,
    /// Why the runtime's conf cannot be written.
    pub conf_problem: Option<String>,
    /// What else was noticed about it.
    pub conf_warnings: Vec<String>,
    /// The cluster.
    pub cluster: Cluster,
    /// Its networks.
    pub networks: Vec<Network>,
    /// Links of the node by name: whether up, whether with carrier.
    pub links: BTreeMap<String, (bool, bool)>,
    /// Address pools.
    pub pools: Vec<Pool>,
    /// Ranges that host-local will refuse: network, why.
    pub bad_ranges: Vec<(String, String)>,
    /// Networks that hand out the same addresses, in sentences.
    pub overlaps: Vec<String>,
    /// Containers on record, and those that have to be undone.
    pub records: (usize, usize),
    /// Attachments that are on record and not in the kernel: pod, interface, why.
    pub lost: Vec<(String, String, String)>,
    /// Pods whose network-status is not in the cluster.
    pub untold: Vec<String>,
    /// The eBPF side.
    pub datapath: Datapath,
    /// Bytes in use and the limit of the control group, where there is one.
    pub memory: Option<(u64, u64)>,
    /// Free places for ADD, and for the rest.
    pub places: (usize, usize),
    /// Why records cannot be written.
    pub unwritable: Option<String>,
}

/// The cluster's own network.
#[derive(Debug, Clone)]
pub enum Primary {
    /// What it is.
    Ready(String),
    /// Cause and remedy.
    Missing(String, String),
}

impl Default for Primary {
    fn default() -> Self {
        Self::Ready(String::new())
    }
}

/// The cluster.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// `api`, `folder` or `none`.
    pub source: &'static str,
    /// Did the last contact work?
    pub connected: bool,
    /// Seconds since the last one.
    pub last_contact: Option<u64>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// Was a full list of networks seen?
    pub synced: bool,
    /// Manifests that cannot be used.
    pub refusals: Vec<String>,
    /// Statuses not yet written.
    pub reports_pending: usize,
}

/// One NetworkAttachmentDefinition.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// `namespace/name`.
    pub name: String,
    /// Cause and remedy.
    pub problem: Option<(String, String)>,
    /// Its plugins, IPAM plugins too.
    pub plugins: Vec<String>,
    /// Kind and name of the link of the node it sits on.
    pub parent: Option<(String, String)>,
}

/// One set of ranges of a network.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// Whose.
    pub network: String,
    /// Which.
    pub ranges: String,
    /// Where they are kept.
    pub folder: String,
    /// Addresses it has.
    pub total: u128,
    /// Those in use.
    pub used: u128,
    /// Of them, those of containers that are not on record.
    pub strange: usize,
    /// Is that by host-local's own files? Else by the agent's records.
    pub is_seen: bool,
}

/// The eBPF side.
#[derive(Debug, Clone, Default)]
pub struct Datapath {
    /// Why there is none although there should be.
    pub fault: Option<String>,
    /// Is it open?
    pub open: bool,
    /// Slots used, slots there are, attachments without one.
    pub slots: (u32, u32, u32),
    /// Parents and how their programs are attached.
    pub parents: Vec<Parent>,
    /// What others took off and is not put back yet.
    pub troubles: Vec<String>,
    /// Macvlan interfaces: pod and interface, and whether anything is relayed for it.
    pub interfaces: Vec<(String, bool)>,
    /// Interfaces with a note: which, and the note.
    pub notes: Vec<(String, String)>,
}

/// One macvlan parent.
#[derive(Debug, Clone, Default)]
pub struct Parent {
    /// Its name.
    pub name: String,
    /// `tcx`, `clsact`, or nothing while its programs are not on it.
    pub attached_by: Option<&'static str>,
    /// Its pods, and those beyond the fan-out.
    pub members: (usize, usize),
}
