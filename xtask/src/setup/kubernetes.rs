//! The libraries that render and judge the manifests: from PyPI, by hash, into `target/kubernetes`. Installs nothing on the
//! machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::project::{self, run as start};

/// Which ones, beside `xtask/Cargo.toml`.
const LIST: &str = "xtask/kubernetes.txt";
/// Holds the list they were installed from.
const MARK: &str = ".installed";

/// The folder they are in.
pub(crate) fn folder() -> Outcome<PathBuf> {
    Ok(project::target()?.join("kubernetes"))
}

/// Sees to it that they are there; without `change` only says so.
pub(super) fn libraries(change: bool) -> Outcome {
    let root = project::root();
    let (list, folder) = (root.join(LIST), folder()?);
    let wanted = fs::read_to_string(&list).map_err(|error| format!("read {LIST}: {error}"))?;
    if fs::read_to_string(folder.join(MARK)).is_ok_and(|installed| installed == wanted) {
        println!("have        kustomize, helm, CEL and the API's schemas in target/kubernetes");
        return Ok(());
    }
    if std::env::consts::ARCH != "x86_64" {
        println!("missing     kustomize and helm: {LIST} has them for x86-64 alone; their tests are skipped");
        return Ok(());
    }
    if !change {
        return Err("missing: kustomize, helm, CEL and the API's schemas; get them with: cargo xtask setup".into());
    }
    println!("installing  kustomize, helm, CEL and the API's schemas");
    // Nothing is compiled with them: without that registry everything else is still built and tested.
    if let Err(error) = install(&list, &folder) {
        println!("missing     kustomize, helm, CEL and the API's schemas: their tests are skipped ({error})");
        return Ok(());
    }
    fs::write(folder.join(MARK), wanted).map_err(|error| format!("write {MARK}: {error}"))?;
    println!("done        kustomize, helm, CEL and the API's schemas");
    Ok(())
}

fn install(list: &Path, folder: &Path) -> Outcome {
    // What an interrupted installation left would not be replaced.
    let _ = fs::remove_dir_all(folder);
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--disable-pip-version-check"]);
    pip.args(["--require-hashes", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]);
    pip.arg("--target").arg(folder).arg("--requirement").arg(list);
    start(&mut pip)
}
