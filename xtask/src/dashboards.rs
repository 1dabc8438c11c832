//! The task `dashboards`: Grafana's files in deploy/dashboards, one question each, written from the tables beside this
//! file. Asks no Grafana and no Prometheus: the integration tests put every query to a real one.

mod agent;
mod attaching;
mod delegates;
mod grafana;
mod json;
mod relay;
mod traffic;

use std::fs;

use crate::{Outcome, only, project};

/// Where they are.
pub(crate) const FOLDER: &str = "deploy/dashboards";

/// Each file's path from the root, and what it must hold.
pub(crate) fn files() -> Vec<(String, String)> {
    let all = [attaching::DASHBOARD, delegates::DASHBOARD, traffic::DASHBOARD, relay::DASHBOARD, agent::DASHBOARD];
    all.iter()
        .map(|dashboard| (format!("{FOLDER}/{}.json", dashboard.name), grafana::document(dashboard).print()))
        .collect()
}

/// Writes every file; `tidy` says when one is not as it would be written.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    only(arguments, &[])?;
    for (path, text) in files() {
        let file = project::root().join(&path);
        let failed = |error| format!("write {path}: {error}");
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        fs::write(&file, text).map_err(failed)?;
        println!("written     {path}");
    }
    Ok(())
}
