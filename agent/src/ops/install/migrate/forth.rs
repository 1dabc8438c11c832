//! Changing over: our configuration beside Multus's, the CNI plugin in its place, our conf behind Multus's own, and a copy
//! of all that goes.
//!
//! Multus may be at work all the while: the plugin speaks with its daemon, too, and the runtime takes its conf before ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::{InstallError, Kind, Report, Site, is_our_shim, put, shown, take};
use super::{Migrated, Migration, networks, said, seen};
use crate::cni::NetworkConfig;
use crate::ops::cluster_network;
use crate::plan::master::{self, Candidate, Rules};
use crate::plan::migrate::{Form, Seen, Step, forth as decide};
use crate::plan::runtime_conf;
use crate::sys::files;
use crate::sys::revert::{Left, RevertLog, there};

/// Changes the node over as far as that goes beside a Multus that runs. `shim` is our CNI plugin.
///
/// # Errors
/// What could not be done; nothing but what the revert log knows was touched, and it can be run again.
pub fn forth(migration: &Migration, shim: &Path) -> Result<Migrated, InstallError> {
    let (site, places) = (&migration.site, &migration.places);
    let mut migrated = migration.told();
    let report = &mut migrated.report;
    for doubt in &places.doubts {
        report.note(Kind::Warning, doubt.clone());
    }
    if let Some(folder) = &places.elsewhere {
        let (named, folder) = (shown(Path::new(&places.conf_dir.path)), shown(Path::new(&folder.path)));
        let text = format!(
            "nothing is done: Multus's pod sees this folder under another name ({named}); say --cni-conf-dir {folder}"
        );
        report.note(Kind::Warning, text);
        return Ok(migrated);
    }
    said::where_delegates_are(report, site, &places.bin_dir.path);
    let plugin = our_plugin(shim, site)?;
    let cni_dir = site.cni_dir()?;
    let conf_dir = site.ours("find the folder for the conf", &places.conf_dir.path)?;
    let bin_dir = site.ours("find the folder for the plugin", &places.bin_dir.path)?;
    let failed = |error| InstallError::of("note what is there in", &cni_dir, error);
    if !site.dry_run {
        there::note(site.host_root(), &cni_dir, &take::shared(site, &cni_dir)).map_err(failed)?;
    }
    let mut doing = Doing {
        log: site.log(&cni_dir)?,
        configuration: &migration.configuration,
        written: &migration.written,
        target: bin_dir.join(site.settings.generator.plugin.as_str()),
        plugin,
        conf_dir,
        report,
    };
    for folder in [doing.conf_dir.clone(), bin_dir] {
        put::make(&folder, doing.log.as_mut(), doing.report)?;
    }
    let confs = cluster_network::candidates(&doing.conf_dir).unwrap_or_default();
    let networks = networks_of_all(site, &confs);
    let standing = fs::read(&migration.written).ok();
    let seen = Seen {
        settings: &site.settings,
        configuration: &migration.configuration,
        standing: standing.as_deref(),
        confs: &confs,
        networks: &networks,
        has_config_file: has_config_file(site),
    };
    for step in decide(&seen) {
        doing.perform(&step, site.settings.generator.plugin.as_str())?;
    }
    migrated.containers = seen::containers(site, &cni_dir);
    if migration.translation.form == Form::Generated {
        let text =
            "Multus's daemon-config.json may say more than what it wrote for the runtime: name that, if there is one";
        migrated.report.note(Kind::Left, text);
    }
    say_who_is_attached(&mut migrated);
    migrated.networks = networks::look(site, &cni_dir, &mut migrated.report);
    say_what_is_next(&mut migrated.report, &migration.written);
    Ok(migrated)
}

/// Our CNI plugin. Whoever only wants to know what would be done has to have none.
fn our_plugin(shim: &Path, site: &Site) -> Result<Vec<u8>, InstallError> {
    let plugin = match fs::read(shim) {
        Err(error) if site.dry_run && error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(|error| InstallError::of("read the CNI plugin", shim, error))?,
    };
    if is_our_shim(&plugin) || site.dry_run { Ok(plugin) } else { Err(InstallError::NoShim(shown(shim))) }
}

/// Is the file that is to be copied for the runtime on this host?
fn has_config_file(site: &Site) -> bool {
    let source = site.settings.generator.config_file.as_deref();
    source.and_then(|source| site.ours("find multusConfigFile", source).ok()).is_some_and(|source| source.is_file())
}

/// The networks that every pod gets, where that can be known from here; the runtime's conf declares what they can.
fn networks_of_all(site: &Site, confs: &[Candidate]) -> Vec<NetworkConfig> {
    let (delegation, generator) = (&site.settings.delegation, &site.settings.generator);
    let own = generator.plugin.as_str();
    if let Some(network) = delegation.cluster_network.as_deref() {
        let path = network.starts_with('/').then(|| site.ours("find clusterNetwork", network).ok()).flatten();
        let known = path.and_then(|path| cluster_network::at_path(own, "clusterNetwork", path.to_str()?).ok());
        return known.into_iter().map(|network| network.config).collect();
    }
    if let Some(delegates) = &delegation.delegates {
        return delegates.to_vec();
    }
    let folder = site.ours("find multusAutoconfigDir", &generator.autoconfig_dir).ok();
    let is_same = generator.autoconfig_dir == generator.cni_config_dir;
    let found = folder.filter(|_| !is_same).and_then(|folder| cluster_network::candidates(&folder).ok());
    let forced = generator.force_cni_version.then_some(generator.cni_version);
    let rules = Rules { own, named: generator.master_cni.as_deref(), forced };
    let chosen = master::choose(found.unwrap_or_else(|| confs.to_vec()), rules).master;
    chosen.and_then(|master| master::network(&master.bytes, forced).ok()).into_iter().collect()
}

/// What the steps are done with.
struct Doing<'a> {
    log: Option<RevertLog>,
    configuration: &'a str,
    written: &'a Path,
    target: PathBuf,
    plugin: Vec<u8>,
    conf_dir: PathBuf,
    report: &'a mut Report,
}

impl Doing<'_> {
    fn perform(&mut self, step: &Step, own: &str) -> Result<(), InstallError> {
        match step {
            Step::WriteConfiguration => self.configure(),
            Step::Keep(file) => self.keep(&self.conf_dir.join(file), own),
            Step::PlacePlugin => put::place(&self.target, &self.plugin, self.log.as_mut(), self.report),
            Step::WriteConf(text) => self.write_conf(&self.conf_dir.join(runtime_conf::FILE), text.as_bytes(), own),
            step => {
                if let Some((kind, text)) = said::of(step, &self.conf_dir, self.written) {
                    self.say(kind, text);
                }
                Ok(())
            }
        }
    }

    fn say(&mut self, kind: Kind, text: String) {
        self.report.note(kind, text);
    }

    fn configure(&mut self) -> Result<(), InstallError> {
        let failed = |error| InstallError::of("write our configuration to", self.written, error);
        let bytes = self.configuration.as_bytes();
        if let Some(log) = self.log.as_mut() {
            let folder =
                self.written.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() {
                log.make_folder(folder).map_err(failed)?;
            }
            let path = real(self.written).map_err(failed)?;
            log.about_to(&path, Left::file(bytes), |_| false).map_err(failed)?;
            files::place(&path, bytes, 0o600, None).map_err(failed)?;
        }
        self.say(Kind::Done, format!("our configuration is written to {}", shown(self.written)));
        Ok(())
    }

    fn keep(&mut self, path: &Path, own: &str) -> Result<(), InstallError> {
        let failed = |error| InstallError::of("keep a copy of", path, error);
        if let Some(log) = self.log.as_mut() {
            let is_ours = |bytes: &[u8]| runtime_conf::is_generated(bytes, own);
            log.about_to(&real(path).map_err(failed)?, Left::Nothing, is_ours).map_err(failed)?;
        }
        let path = shown(path);
        let text =
            format!("{path} is kept, to come back; Multus takes it away when it ends, else the agent when it serves");
        self.say(Kind::Done, text);
        Ok(())
    }

    fn write_conf(&mut self, path: &Path, bytes: &[u8], own: &str) -> Result<(), InstallError> {
        let failed = |error| InstallError::of("write", path, error);
        if let Some(log) = self.log.as_mut() {
            let path = real(path).map_err(failed)?;
            let is_ours = |bytes: &[u8]| runtime_conf::is_generated(bytes, own);
            log.about_to(&path, Left::file(bytes), is_ours).map_err(failed)?;
            files::replace_for_good(&path, bytes).map_err(failed)?;
        }
        let path = shown(path);
        let text =
            format!("{path} is written: the runtime takes it when Multus's is gone, and pods wait for the agent then");
        self.say(Kind::Done, text);
        Ok(())
    }
}

/// The path with its folder's links followed, as the revert log has it.
fn real(path: &Path) -> io::Result<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(fs::canonicalize(folder)?.join(path.file_name().unwrap_or_default()))
}

fn say_who_is_attached(migrated: &mut Migrated) {
    let alive = migrated.containers.iter().filter(|container| container.alive);
    let interfaces: usize = alive.clone().map(|container| container.interfaces.len()).sum();
    let (alive, all) = (alive.count(), migrated.containers.len());
    if alive > 0 {
        let text = format!(
            "running containers: {alive} with {interfaces} interfaces, which they keep; the agent takes them over"
        );
        migrated.report.note(Kind::Left, text);
    }
    if all > alive {
        let gone = all - alive;
        let text = format!(
            "containers that are gone and were never detached: {gone}; the agent shows them, GC frees what they hold"
        );
        migrated.report.note(Kind::Left, text);
    }
}

fn say_what_is_next(report: &mut Report, written: &Path) {
    let written = shown(written);
    report.note(Kind::Left, format!("next: end Multus, then start the agent with --config {written}"));
    report.note(Kind::Left, format!("and back: end the agent, then multus-agent migrate --back --config {written}"));
}
