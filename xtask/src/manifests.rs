//! The manifests that are applied without kustomize, what each overlay changes, and what the chart has copies of: written
//! anew from `deploy`.
//!
//! Judges nothing; that the files are up to date and right, the tests say.

mod chart;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::project::{self, capture};
use crate::setup::kubernetes;
use crate::{Outcome, only};

/// Where overlays and components are.
const KUSTOMIZE: &str = "deploy/kustomize";
/// The component that turns an overlay's DaemonSet around, and its copy for the Job that does so in a cluster.
const TURN_AROUND: [&str; 2] = ["components/uninstall/patch.yaml", "uninstall/patch.yaml"];

/// The task `manifests`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    only(arguments, &[])?;
    let root = project::root();
    let place = Place { kustomize: root.join(KUSTOMIZE), made: root.join("deploy/manifests"), root };
    let base = place.render(&place.kustomize.join("base"))?;
    let [patch, copy] = TURN_AROUND.map(|path| place.kustomize.join(path));
    fs::copy(&patch, &copy).map_err(|error| format!("copy {}: {error}", patch.display()))?;
    place.write("uninstall.yaml", "uninstall", &place.render(&place.kustomize.join("uninstall"))?)?;
    let mut wanted = vec!["uninstall.yaml".to_owned()];
    for overlay in overlays(&place.kustomize)? {
        let installed = place.render(&place.kustomize.join("overlays").join(&overlay))?;
        place.write(&format!("install-{overlay}.yaml"), &format!("overlays/{overlay}"), &installed)?;
        let difference = place.difference(&base, &installed)?;
        place.put(&place.kustomize.join("overlays").join(&overlay).join("difference.txt"), &difference)?;
        wanted.push(format!("install-{overlay}.yaml"));
    }
    place.remove_others(&wanted)?;
    chart::copy(&place.root)?;
    println!("manifests: {} files in deploy/manifests", wanted.len());
    Ok(())
}

fn overlays(kustomize: &Path) -> Outcome<Vec<String>> {
    let entries = fs::read_dir(kustomize.join("overlays")).map_err(|error| format!("list the overlays: {error}"))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

struct Place {
    root: PathBuf,
    kustomize: PathBuf,
    made: PathBuf,
}

impl Place {
    fn render(&self, folder: &Path) -> Outcome<String> {
        let mut python = Command::new("python3");
        python.arg(self.root.join("xtask/kubernetes.py")).arg("kustomize").arg(folder);
        capture(python.env("PYTHONPATH", kubernetes::folder()?))
    }

    fn write(&self, name: &str, folder: &str, text: &str) -> Outcome {
        let head = format!("# Made by `cargo xtask manifests` from {KUSTOMIZE}/{folder}: change it there.\n");
        self.put(&self.made.join(name), &(head + text))
    }

    fn put(&self, path: &Path, text: &str) -> Outcome {
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
        made.map_err(|error| format!("write {}: {error}", path.strip_prefix(&self.root).unwrap_or(path).display()))
    }

    /// What the overlay has otherwise, line by line.
    fn difference(&self, base: &str, overlay: &str) -> Outcome<String> {
        let folder = project::target()?.join("manifests");
        let (one, other) = (folder.join("base.yaml"), folder.join("overlay.yaml"));
        self.put(&one, base)?;
        self.put(&other, overlay)?;
        let output = Command::new("diff").arg("--unified=0").args([&one, &other]).output();
        let output = output.map_err(|error| format!("run diff: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // Two lines that name the files, and each place by line number, which every change of the base would move.
        let lines: Vec<&str> =
            text.lines().skip(2).map(|line| if line.starts_with("@@") { "" } else { line }).collect();
        Ok(if lines.is_empty() { "None.\n".to_owned() } else { lines.join("\n").trim_start().to_owned() + "\n" })
    }

    fn remove_others(&self, wanted: &[String]) -> Outcome {
        let entries = fs::read_dir(&self.made).map_err(|error| format!("list deploy/manifests: {error}"))?;
        for entry in entries.flatten() {
            if !wanted.iter().any(|name| entry.file_name() == name.as_str()) {
                fs::remove_file(entry.path()).map_err(|error| format!("remove a manifest: {error}"))?;
            }
        }
        Ok(())
    }
}
