//! Changing a node over from Multus, and back: what its files say is looked at, and what `plan::migrate` decides is done.
//!
//! Touches no interface and no namespace of a pod. Works beside a Multus that runs.

mod back;
mod forth;
mod handing_over;
mod networks;
mod said;
mod seen;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use super::{Places, Report, Site, Wishes, look};
use crate::cni::RawObject;
use crate::config::{ConfigError, Settings};
use crate::fault::CniError;
use crate::plan::migrate::{Translation, plugins_folder, translate};

pub use crate::plan::migrate::{Fate, Form, Key};
pub use back::back;
pub use forth::forth;
pub use networks::Judged;
pub use seen::{Container, Interface};

/// Our configuration's file, beside the one it was made of.
const FILE: &str = "multus-ebpf.json";
/// Where it goes if that is the runtime's own folder, whose every `.json` a runtime takes for a network.
const FOLDER: &str = "multus.d";

/// What the operator says.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The host's root, as we see it.
    pub root: PathBuf,
    /// A configuration: of Multus, or ours.
    pub file: PathBuf,
    /// Where ours is written, if not beside it.
    pub to: Option<PathBuf>,
    /// What is said about folders.
    pub wishes: Wishes,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// A node, and the configuration that it is to have.
#[derive(Debug)]
pub struct Migration {
    /// The file, key by key.
    pub translation: Translation,
    site: Site,
    places: Places,
    configuration: String,
    written: PathBuf,
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum UnusableError {
    /// It is none.
    #[error(transparent)]
    NoConfiguration(#[from] CniError),
    /// Keys of it do not go together.
    #[error(transparent)]
    Unfit(#[from] ConfigError),
}

impl Migration {
    /// Reads `text`, the content of `asked.file`, and looks at the host.
    ///
    /// # Errors
    /// The text is no configuration. Keys that are refused are told by [`Translation::is_refused`], and nothing is done then.
    pub fn of(asked: &Asked, text: &str) -> Result<Self, UnusableError> {
        let mut translation = translate(text)?;
        let usable = if translation.is_refused() { "{}".to_owned() } else { translation.text() };
        let (settings, _) = Settings::parse(&usable)?;
        let (wishes, places) = looked(asked, &settings);
        if !translation.is_refused() {
            translation.settle(&places, asked.wishes.bin_dir.is_some());
        }
        let configuration = translation.text();
        let settings = if translation.is_refused() { settings } else { Settings::parse(&configuration)?.0 };
        let mut site = Site {
            root: asked.root.clone(),
            settings,
            wishes,
            configuration: Some(asked.file.clone()),
            dry_run: asked.dry_run,
        };
        let written = asked.to.clone().unwrap_or_else(|| beside(&asked.file, &site, &places));
        let written = std::path::absolute(&written).unwrap_or(written);
        site.configuration = Some(written.clone());
        Ok(Self { translation, site, places, configuration, written })
    }

    /// The host.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Is the folder that the file names probably none of the host's?
    fn is_in_doubt(&self) -> bool {
        self.places.elsewhere.is_some()
    }

    /// What a file says, where none of it is done.
    pub fn told(&self) -> Migrated {
        let configuration = serde_json::from_str(&self.configuration).unwrap_or_default();
        Migrated {
            from: self.translation.form,
            keys: self.translation.keys.clone(),
            configuration: Some(configuration).filter(|_| !self.translation.is_refused() && !self.is_in_doubt()),
            containers: Vec::new(),
            networks: Vec::new(),
            report: Report { places: Some(self.places.clone()), ..Report::default() },
        }
    }
}

/// The host's folders. What the operator says of them goes before the file, which may have them as Multus's pod sees them.
fn looked(asked: &Asked, settings: &Settings) -> (Wishes, Places) {
    let said = |path: &Option<String>| path.as_deref().map(|path| of_host(&asked.root, path));
    let (generator, bin_dir) = (&settings.generator, settings.delegation.bin_dir.as_deref());
    let configured = settings.origin.has("cniConfigDir").then(|| generator.cni_config_dir.clone());
    let with_conf_dir = |conf_dir| {
        let wishes = Wishes { preset: asked.wishes.preset, conf_dir, bin_dir: said(&asked.wishes.bin_dir) };
        with_bin_dir(&asked.root, wishes, bin_dir)
    };
    let wishes = with_conf_dir(said(&asked.wishes.conf_dir).or(configured));
    let mut places = look::found(&asked.root, &wishes);
    // Who has a folder of its own for the master need have none in the runtime's.
    let has_other = generator.autoconfig_dir != generator.cni_config_dir;
    places.elsewhere =
        places.elsewhere.filter(|other| asked.wishes.conf_dir.is_none() && (other.is_said || !has_other));
    if asked.wishes.preset.is_some() && places.elsewhere.is_some() {
        let wishes = with_conf_dir(None);
        let places = look::found(&asked.root, &wishes);
        return (wishes, places);
    }
    (wishes, places)
}

/// A folder as the host has it, also where it was named by where we see it.
fn of_host(root: &Path, path: &str) -> String {
    match Path::new(path).strip_prefix(root) {
        Ok(below) if root != Path::new("/") => Path::new("/").join(below).to_string_lossy().into_owned(),
        _ => path.to_owned(),
    }
}

/// With Multus's `binDir` as the folder of plugins, unless Multus's own plugin is seen to be elsewhere.
fn with_bin_dir(root: &Path, wishes: Wishes, configured: Option<&str>) -> Wishes {
    if wishes.bin_dir.is_some() || configured.is_none() {
        return wishes;
    }
    let found = look::found(root, &wishes).bin_dir.path;
    let has = |folder: &str| look::has_multus(root, folder);
    let folder = plugins_folder(configured.map(|folder| (folder, has(folder))), (&found, has(&found)));
    let is_configured = configured == Some(folder);
    Wishes { bin_dir: is_configured.then(|| folder.to_owned()), ..wishes }
}

/// The place for ours: the file itself if it is ours, else beside it.
fn beside(file: &Path, site: &Site, places: &Places) -> PathBuf {
    if file.file_name().is_some_and(|name| name == FILE) {
        return file.to_owned();
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let runtimes = site.ours("find the folder for the conf", &places.conf_dir.path).ok();
    let is_runtimes = fs::canonicalize(folder).ok() == runtimes.and_then(|folder| fs::canonicalize(folder).ok());
    if is_runtimes { folder.join(FOLDER).join(FILE) } else { folder.join(FILE) }
}

/// What was done, or would be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Migrated {
    /// Which file of Multus it was made of.
    pub from: Form,
    /// Its keys.
    pub keys: Vec<Key>,
    /// Our configuration; none where keys are refused, or the runtime's folder is in doubt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<RawObject>,
    /// The containers that are attached on this node.
    pub containers: Vec<Container>,
    /// The networks that pods of this node may ask for.
    pub networks: Vec<Judged>,
    /// What was done, in order.
    #[serde(flatten)]
    pub report: Report,
}
