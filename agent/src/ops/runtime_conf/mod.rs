//! The conf for the container runtime, kept: chosen and composed anew when something changes, written when it differs,
//! written again when somebody takes it away. Never half written, and never removed when the agent ends.
//!
//! What is chosen and composed is decided in `plan`; who needs to know it reads `default_network`.

mod standing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::cni::{NetworkConfig, RawObject, Version};
use crate::config::NetConf;
use crate::fault::quote;
use crate::ops::cluster_network;
use crate::ops::context::Context;
use crate::ops::default_network::{self, Known, Master};
use crate::plan::master::{self, Rules, Search, Why, leads_to_multus};
use crate::plan::runtime_conf as plan;
use crate::sys::watch::Watch;
use crate::sys::{conf_files, files};
use standing::{Standing, Target, Told};

/// How often everything is looked at, whatever inotify says or not.
const TICK: Duration = Duration::from_secs(2);
/// Changes come in groups: a file is made, written and closed. What belongs together is looked at once.
const GROUP: Duration = Duration::from_millis(50);
/// How long a master that is just being written keeps its place.
const BEING_WRITTEN: Duration = Duration::from_secs(10);
/// How long the network of an explicit `clusterNetwork` may take to be found.
const FIND: Duration = Duration::from_secs(1);

/// Keeps the conf; one for each agent.
#[derive(Debug)]
pub struct Keeper {
    context: Arc<Context>,
    standing: Standing,
    /// Since when the master cannot be read.
    being_written: Option<Instant>,
    told: Told,
}

/// What one look at the node came to.
#[derive(Debug, Default)]
struct Look {
    target: Option<Target>,
    master: Option<Arc<Master>>,
    problem: Option<String>,
    warnings: Vec<String>,
}

impl Look {
    fn without(problem: String) -> Self {
        Self { problem: Some(problem), ..Self::default() }
    }
}

impl Keeper {
    /// One that has looked once, so that the master is known before the first request; `None` where the configuration
    /// asks for no conf.
    pub async fn begin(context: &Arc<Context>) -> Option<Self> {
        let generator = &context.settings.generator;
        if !generator.on {
            return None;
        }
        for doubt in plan::doubts(&context.settings) {
            tracing::warn!("{doubt}");
        }
        let folder = PathBuf::from(&generator.cni_config_dir);
        files::sweep_beside(&folder.join(plan::FILE));
        let root = context.settings.host_root().to_owned();
        let standing = Standing::in_folder(folder, (root, context.ledger.cni_dir()));
        let mut keeper = Self { context: Arc::clone(context), standing, being_written: None, told: Told::default() };
        keeper.round().await;
        Some(keeper)
    }

    /// Keeps it until `stop`. What stands then goes on standing.
    pub async fn keep(mut self, mut stop: watch::Receiver<bool>) {
        let mut watch = Watch::new();
        loop {
            match &watch {
                // A folder that is not there is looked at when it is time, as everything is.
                Ok(watch) => self.folders().iter().for_each(|folder| drop(watch.cover(folder))),
                Err(error) => self.told.warn(&format!("watch folders: {error}; they are looked at now and then")),
            }
            let changed = tokio::select! {
                changed = next_change(watch.as_ref().ok()) => changed,
                () = tokio::time::sleep(self.standing.due().map_or(TICK, |due| due.min(TICK))) => Ok(()),
                // On its way out an agent writes nothing more: the file may be its successor's by now.
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if let Err(error) = changed {
                watch = Err(error);
            }
            self.round().await;
        }
    }

    fn folders(&self) -> Vec<PathBuf> {
        let settings = &self.context.settings;
        let above = |file: &Option<String>| file.as_ref().and_then(|file| Path::new(file).parent().map(PathBuf::from));
        let mut folders = vec![self.standing.folder.clone(), PathBuf::from(&settings.generator.autoconfig_dir)];
        folders.extend(above(&settings.readiness_file));
        folders.extend(above(&settings.generator.config_file));
        folders
    }

    /// Looks at everything once, and makes good what differs.
    async fn round(&mut self) {
        let look = match &self.context.settings.generator.config_file {
            Some(source) => self.copy(Path::new(source)),
            None if self.context.settings.searches_master() => tokio::task::block_in_place(|| self.search()),
            None => self.configured().await,
        };
        tokio::task::block_in_place(|| self.conclude(look));
    }

    /// The user's own file, byte for byte under its own name.
    fn copy(&self, source: &Path) -> Look {
        let shown = quote(&source.to_string_lossy());
        let Some(file) = source.file_name().and_then(|name| name.to_str()).map(ToOwned::to_owned) else {
            return Look::without(format!("multusConfigFile {shown} names no file"));
        };
        let bytes = match conf_files::at(source) {
            Ok(found) => found.bytes,
            Err(error) => return Look::without(format!("multusConfigFile {shown}: {error}")),
        };
        if let Err(error) = RawObject::parse(&bytes) {
            return Look::without(format!("multusConfigFile {shown}: {}", error.msg));
        }
        let mut look = Look::default();
        if !leads_to_multus(&bytes, &self.context.settings.generator.plugin) {
            look.warnings.push(format!("multusConfigFile {shown} does not name the plugin multus-shim"));
        }
        if !plan::ENDINGS.iter().any(|ending| source.extension().is_some_and(|is| is == *ending)) {
            look.warnings.push(format!("multusConfigFile {shown}: runtimes take .conf, .conflist and .json alone"));
        }
        // In the runtime's own folder it stands already, and whether it goes on standing is the user's business.
        if source.parent() != Some(self.standing.folder.as_path()) {
            look.target = Some(Target { file, bytes });
        }
        look
    }

    /// A conf for what is configured by name: `clusterNetwork`, else `delegates`.
    async fn configured(&self) -> Look {
        let settings = &self.context.settings;
        let nobody = br#"{"name":"multus-cni-network"}"#;
        let found = match NetConf::parse(nobody, settings) {
            Ok(conf) => cluster_network::all(&self.context, &conf, Instant::now() + FIND).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(networks) => {
                let networks: Vec<NetworkConfig> = networks.into_iter().map(|network| network.config).collect();
                Look { target: Some(Target::generated(plan::compose(settings, &networks))), ..Look::default() }
            }
            Err(error) => Look::without(error.to_string()),
        }
    }

    /// A conf for the master among the files of `multusAutoconfigDir`.
    fn search(&mut self) -> Look {
        let settings = &self.context.settings;
        let generator = &settings.generator;
        let forced = generator.force_cni_version.then_some(generator.cni_version);
        let rules = Rules { own: &generator.plugin, named: generator.master_cni.as_deref(), forced };
        let folder = Path::new(&generator.autoconfig_dir);
        let search = match cluster_network::search(folder, rules) {
            Ok(search) => search,
            Err(error) => {
                return Look::without(format!(
                    "read multusAutoconfigDir {}: {error}",
                    quote(&generator.autoconfig_dir)
                ));
            }
        };
        let mut look = Look { problem: search.why_none(&generator.autoconfig_dir, rules), ..Look::default() };
        let unusable = search.skipped.iter().filter(|skipped| matches!(skipped.why, Why::Unusable(_)));
        look.warnings.extend(unusable.map(|skipped| format!("{}: {skipped}", quote(&generator.autoconfig_dir))));
        let current = self.context.default_network.now().master.clone();
        let chosen = match current.filter(|current| is_being_written(&mut self.being_written, current, &search)) {
            Some(current) => current,
            None => match search.master {
                Some(master) => Arc::new(Master { path: folder.join(master.file), bytes: master.bytes }),
                None => return look,
            },
        };
        look.problem = None;
        if let Some(version) = master::too_new(&chosen.bytes).filter(|_| forced.is_none()) {
            look.warnings.push(format!(
                "{}: cniVersion {} is newer than any there is; {} is used",
                quote(&chosen.path.to_string_lossy()),
                quote(&version),
                Version::NEWEST
            ));
        }
        match cluster_network::of_master(&self.context, &chosen) {
            Ok(network) => {
                if let Some(note) = plan::older_master(settings, &network) {
                    self.told.note(&note);
                }
                look.target = Some(Target::generated(plan::compose(settings, &[network])));
            }
            Err(error) => look.problem = Some(error.to_string()),
        }
        look.master = Some(chosen);
        look
    }

    /// Why the runtime would not find our plugin, and so attach no pod at all: a folder without any other plugin is not
    /// where it looks. Asked before the first conf alone, for later somebody may be exchanging the plugins.
    fn misplaced(&self, target: &Target) -> Option<String> {
        let settings = &self.context.settings;
        let own = settings.generator.plugin.as_str();
        let stands = self.standing.is_there() || self.standing.folder.join(&target.file).exists();
        // As the agent sees it: below chrootDir the same folder has another name on the host.
        let folder = settings.delegation.bin_dir.as_deref().unwrap_or("/opt/cni/bin");
        if stands || has_other_plugins(Path::new(folder), own) {
            return None;
        }
        Some(format!(
            "binDir {} holds no plugin but ours, so the runtime looks elsewhere: no conf is written yet; \
             set binDir to the folder that has the runtime's plugins",
            quote(folder)
        ))
    }

    /// Writes what is to be written, and what is known.
    fn conclude(&mut self, mut look: Look) {
        let generator = &self.context.settings.generator;
        let waits = default_network::missing_readiness(&self.context).filter(|_| !self.standing.is_there());
        if let Some(file) = waits {
            // Whoever sees the conf takes the node for ready.
            let why = format!("readinessindicatorfile {} is not there: no conf is written yet", quote(file));
            look.problem.get_or_insert(why);
            look.target = None;
        }
        if let Some(why) = look.target.as_ref().and_then(|target| self.misplaced(target)) {
            look.problem.get_or_insert(why);
            look.target = None;
        }
        let settled = self.standing.settle(look.target, &generator.plugin, &mut look.warnings);
        let file = match settled {
            Ok(file) => file,
            Err(error) => {
                look.problem.get_or_insert(error);
                None
            }
        };
        let before = self.context.default_network.now();
        let path = |master: &Option<Arc<Master>>| master.as_ref().map(|master| master.path.clone());
        let is_same = path(&before.master) == path(&look.master) && before.file == file;
        if path(&before.master) != path(&look.master) {
            let shown = path(&look.master).map_or_else(|| "not there".into(), |path| quote(&path.to_string_lossy()));
            tracing::info!("the cluster's own network is {shown}");
        }
        for text in look.problem.iter().chain(&look.warnings) {
            self.told.warn(text);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.context.default_network.is(Known {
            master: look.master,
            problem: look.problem,
            file,
            since: if is_same { before.since } else { now },
            bypassed: self.standing.is_bypassed(),
            warnings: look.warnings,
        });
    }
}

/// Are there plugins in `folder`, besides ours and what is on its way there? What cannot be looked at says nothing, and
/// passes for a folder that has some.
fn has_other_plugins(folder: &Path, own: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return true };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.into_iter().any(|name| !name.starts_with('.') && !name.starts_with(own))
}

/// Is `current` there but cannot be read, for a moment? Most programs write their file bit by bit.
fn is_being_written(since: &mut Option<Instant>, current: &Master, search: &Search) -> bool {
    let name = current.path.file_name().and_then(|name| name.to_str());
    let is_torn = search
        .skipped
        .iter()
        .any(|skipped| name == Some(skipped.file.as_str()) && matches!(skipped.why, Why::Unusable(_)));
    if !is_torn {
        *since = None;
        return false;
    }
    since.get_or_insert_with(Instant::now).elapsed() < BEING_WRITTEN
}

/// The next group of changes; never, where nothing can be watched.
async fn next_change(watch: Option<&Watch>) -> std::io::Result<()> {
    let Some(watch) = watch else { return std::future::pending().await };
    watch.changed().await?;
    tokio::time::sleep(GROUP).await;
    Ok(())
}
