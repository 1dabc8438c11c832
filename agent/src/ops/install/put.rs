//! Installing: the folders, and the CNI plugin in its place. The runtime's conf is written by the agent, once it serves:
//! a runtime that saw it earlier would call for an agent that is not there.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{InstallError, Kind, Places, Preset, Report, Site, is_our_shim, look, shown};
use crate::plan::runtime_conf;
use crate::sys::files;
use crate::sys::revert::{Left, RevertLog};

/// The plugin's mode: everybody may run it, nobody but its owner write it, and nothing about it is special.
const MODE: u32 = 0o755;

/// Puts the CNI plugin `shim` on the host.
///
/// # Errors
/// What could not be done; nothing but what the revert log knows was touched.
pub fn install(site: &Site, shim: &Path) -> Result<Report, InstallError> {
    let places = look::found(&site.root, &site.wishes);
    let mut report = Report::default();
    for doubt in &places.doubts {
        report.note(Kind::Warning, doubt.clone());
    }
    let bytes = fs::read(shim).map_err(|error| InstallError::of("read the CNI plugin", shim, error))?;
    if !is_our_shim(&bytes) {
        return Err(InstallError::NoShim(shown(shim)));
    }
    let cni_dir = site.cni_dir()?;
    let conf_dir = site.ours("find the folder for the conf", &places.conf_dir.path)?;
    let bin_dir = site.ours("find the folder for the plugin", &places.bin_dir.path)?;
    let target = bin_dir.join(site.settings.generator.plugin.as_str());
    let open =
        || RevertLog::open(&cni_dir).map_err(|error| InstallError::of("open the revert log in", &cni_dir, error));
    let mut log = if site.dry_run { None } else { Some(open()?) };
    for folder in [&conf_dir, &bin_dir] {
        make(folder, log.as_mut(), &mut report)?;
    }
    place(&target, &bytes, log.as_mut(), &mut report)?;
    say_what_to_configure(site, &places, &mut report);
    let conf = shown(&conf_dir.join(runtime_conf::FILE));
    report.note(Kind::Left, format!("{conf} is written by the agent as soon as it serves"));
    report.places = Some(places);
    Ok(report)
}

/// The agent looks at its configuration alone, so what was found has to be in there.
fn say_what_to_configure(site: &Site, places: &Places, report: &mut Report) {
    if site.wishes.conf_dir.is_none() {
        let path = shown(Path::new(&places.conf_dir.path));
        report.note(
            Kind::Warning,
            format!("the agent writes no conf yet: set cniConfigDir to {path} in its configuration"),
        );
    }
    let usual = Preset::Kubeadm.bin_dir();
    if site.wishes.bin_dir.is_none() && places.bin_dir.path != usual {
        let path = shown(Path::new(&places.bin_dir.path));
        report.note(
            Kind::Warning,
            format!("the agent takes plugins to be in {usual}: set binDir to {path} in its configuration"),
        );
    }
}

/// Makes a folder, where it is missing.
pub(super) fn make(folder: &Path, log: Option<&mut RevertLog>, report: &mut Report) -> Result<(), InstallError> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(log) = log {
        log.make_folder(folder).map_err(|error| InstallError::of("make the folder", folder, error))?;
    }
    report.note(Kind::Done, format!("folder {} is made", shown(folder)));
    Ok(())
}

/// Puts the CNI plugin `bytes` at `target`.
pub(super) fn place(
    target: &Path,
    bytes: &[u8],
    log: Option<&mut RevertLog>,
    report: &mut Report,
) -> Result<(), InstallError> {
    let shown = shown(target);
    let failed = |error| InstallError::of("place the CNI plugin", target, error);
    let before = present(target).map_err(failed)?;
    let left = Left::file(bytes);
    if before.as_ref().is_some_and(|(there, mode)| there == bytes && *mode == MODE) {
        if let Some(log) = log {
            log.about_to(target, left, is_our_shim).map_err(failed)?;
            files::sweep_beside(target);
        }
        report.note(Kind::Already, format!("{shown} is this version's already"));
        return Ok(());
    }
    let how = match &before {
        None => "is installed",
        Some((there, _)) if is_our_shim(there) => "is replaced by this version's",
        Some(_) => "was somebody else's and is replaced; it comes back with uninstall",
    };
    if let Some(log) = log {
        log.about_to(target, left, is_our_shim).map_err(failed)?;
        // What a run that was killed left beside it.
        files::sweep_beside(target);
        files::place(target, bytes, MODE, None).map_err(failed)?;
    }
    report.note(Kind::Done, format!("{shown} {how}"));
    Ok(())
}

/// The file at `target` itself and its mode; `None`: there is none, or a link.
fn present(target: &Path) -> io::Result<Option<(Vec<u8>, u32)>> {
    match fs::symlink_metadata(target) {
        Ok(about) if about.is_file() => Ok(Some((fs::read(target)?, about.permissions().mode() & 0o7777))),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
