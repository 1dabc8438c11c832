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
/// What turns a manifest that installs into one that uninstalls.
const UNINSTALL: &str = "uninstall";

/// The task `manifests`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    only(arguments, &[])?;
    let root = project::root();
    let place = Place { kustomize: root.join(KUSTOMIZE), made: root.join("deploy/manifests"), root };
    let base = place.render(&place.kustomize.join("base"))?;
    let mut wanted = vec![];
    for overlay in overlays(&place.kustomize)? {
        let installed = place.render(&place.kustomize.join("overlays").join(&overlay))?;
        place.write(&format!("install-{overlay}.yaml"), &overlay, &installed)?;
        let uninstalled = place.render_uninstall(&overlay)?;
        place.write(&format!("uninstall-{overlay}.yaml"), &overlay, &of_kind(&uninstalled, "DaemonSet"))?;
        let difference = place.difference(&base, &installed)?;
        place.put(&place.kustomize.join("overlays").join(&overlay).join("difference.txt"), &difference)?;
        wanted.extend([format!("install-{overlay}.yaml"), format!("uninstall-{overlay}.yaml")]);
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

/// The documents of one kind.
fn of_kind(text: &str, kind: &str) -> String {
    let line = format!("kind: {kind}");
    let documents: Vec<&str> =
        text.split("\n---\n").filter(|document| document.lines().any(|found| found == line)).collect();
    documents.join("\n---\n").trim_end().to_owned() + "\n"
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

    /// The overlay with the component that turns it around. Only a kustomization can say that, so one is written where
    /// cargo builds.
    fn render_uninstall(&self, overlay: &str) -> Outcome<String> {
        let folder = project::target()?.join("manifests").join(overlay);
        fs::create_dir_all(&folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
        // Kustomize takes no absolute paths.
        let up = "../".repeat(folder.components().count().saturating_sub(1));
        let shown = self.kustomize.display();
        let text =
            format!("resources: [{up}{shown}/overlays/{overlay}]\ncomponents: [{up}{shown}/components/{UNINSTALL}]\n");
        self.put(&folder.join("kustomization.yaml"), &text.replace("//", "/"))?;
        self.render(&folder)
    }

    fn write(&self, name: &str, overlay: &str, text: &str) -> Outcome {
        let head = format!("# Made by `cargo xtask manifests` from {KUSTOMIZE}/overlays/{overlay}: change it there.\n");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_one_kind() {
        let text = "kind: A\nx: 1\n---\nkind: B\nx: 2\n---\nkind: C\nof:\n  kind: B\n";
        assert_eq!(of_kind(text, "B"), "kind: B\nx: 2\n");
        assert_eq!(of_kind(text, "C"), "kind: C\nof:\n  kind: B\n");
    }
}
