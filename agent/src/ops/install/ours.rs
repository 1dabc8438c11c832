//! Which files of ours stand on the host, told by what is in them and by no log?
//!
//! Changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use super::{InstallError, Site, is_our_shim, look, shown};
use crate::plan::runtime_conf;
use crate::sys::conf_files;

/// What stands.
#[derive(Debug)]
pub(super) struct Standing {
    /// The runtime's confs that lead to our plugin.
    pub(super) confs: Vec<PathBuf>,
    /// The plugin.
    pub(super) plugin: Option<PathBuf>,
}

/// Looks in the host's folders.
pub(super) fn standing(site: &Site) -> Result<Standing, InstallError> {
    let places = look::found(&site.root, &site.wishes);
    let plugin = site.settings.generator.plugin.as_str();
    let conf_dir = site.ours("find the conf's folder", &places.conf_dir.path)?;
    let shim = site.ours("find the plugin's folder", &places.bin_dir.path)?.join(plugin);
    let is_generated =
        |path: &PathBuf| conf_files::at(path).is_ok_and(|found| runtime_conf::is_generated(&found.bytes, plugin));
    let confs = runtime_conf::names().into_iter().map(|name| conf_dir.join(name)).filter(is_generated).collect();
    let is_ours = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| is_our_shim(&bytes));
    Ok(Standing { confs, plugin: Some(shim).filter(is_ours) })
}

/// Refuses where something of ours stands, and the folder that knows what was there before us is not to be seen: taking
/// ours away without it would lose that.
///
/// # Errors
/// Which file stands, and which folder is not there.
pub fn is_all_seen(site: &Site) -> Result<(), InstallError> {
    let cni_dir = site.cni_dir()?;
    if cni_dir.is_dir() {
        return Ok(());
    }
    let Standing { confs, plugin } = standing(site)?;
    let refused = |ours: &Path| InstallError::Unseen { ours: shown(ours), cni_dir: shown(&cni_dir) };
    confs.first().or(plugin.as_ref()).map_or(Ok(()), |ours| Err(refused(ours)))
}
