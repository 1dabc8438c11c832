//! `lint`: what is wrong with manifests, found without an agent and without a cluster.
//!
//! Reads the files; `ops::lint` judges them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use crate::cli::Ending;
use crate::cli::explanation::{self, Format, Show};
use crate::cli::output::{self, Level, cell, safe};
use crate::config::Settings;
use crate::fault::many;
use crate::ops::lint::{self, Given, Source};

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent lint manifests/
  multus-agent lint --config daemon-config.json --partial web.yaml
  kubectl get net-attach-def,pods -A -o yaml | multus-agent lint -

Every finding has a code, explained in docs/reference/lint.md. Exit code 1: an ADD would fail.";

/// Manifests, and what is known beside them.
#[derive(Debug, Args)]
pub struct Files {
    /// Files or folders of YAML or JSON; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The daemon's configuration, for isolation, the relay and the cluster's own network
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A folder in which every plugin must be; may be given more than once
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Vec<PathBuf>,
    /// Networks that are not in the files may be in the cluster: a warning instead of an error
    #[arg(long)]
    pub partial: bool,
    /// How to print it.
    #[command(flatten)]
    pub show: Show,
}

/// Most bytes of one file.
const MOST_BYTES: u64 = 4 << 20;
/// Most files of one run.
const MOST_FILES: usize = 4096;

/// Lints; an error is a problem found. With `plan` the plans are printed, too.
pub fn lint(files: &Files, plan: bool) -> Ending {
    let settings = match settings(files.config.as_deref()) {
        Ok(settings) => settings,
        Err(text) => return Ending::Failed(text),
    };
    let given = Given { settings, bin_dirs: files.bin_dir.clone(), partial: files.partial };
    let mut sources: Vec<Source> = files.files.iter().flat_map(|path| sources(path)).take(MOST_FILES + 1).collect();
    if sources.len() > MOST_FILES {
        sources.truncate(MOST_FILES);
        let text = Err(format!("there are more than {MOST_FILES} files, and the rest was not looked at"));
        sources.push(Source { name: "all files".to_owned(), text, json: false });
    }
    let view = match lint::lint(&sources, &given) {
        Ok(view) => view,
        Err(error) => return Ending::Failed(error.to_string()),
    };
    let has_errors = view.errors > 0;
    let document = match serde_json::to_value(&view) {
        Ok(document) => document,
        Err(error) => return Ending::Failed(format!("print what was found: {error}")),
    };
    let text = match files.show.output {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        Format::Table => table(&document, plan),
    };
    match output::print(&text) {
        Ending::Fine if has_errors => Ending::Problem,
        ending => ending,
    }
}

fn settings(file: Option<&Path>) -> Result<Settings, String> {
    let shown = |path: &Path| safe(&path.to_string_lossy());
    let text = match file {
        None => "{}".to_owned(),
        Some(path) => fs::read_to_string(path).map_err(|error| format!("read {}: {error}", shown(path)))?,
    };
    let parsed = Settings::parse(&text).map(|(settings, _)| settings);
    parsed.map_err(|error| format!("configuration {}: {error}", file.map_or_else(String::new, shown)))
}

/// A file, standard input, or the manifests of a folder in the order of their names.
fn sources(path: &Path) -> impl Iterator<Item = Source> {
    let (files, unread) = match path.is_dir().then(|| manifests(path)) {
        None => (vec![path.to_owned()], None),
        Some(Ok(files)) if !files.is_empty() => (files, None),
        // Nothing to look at is not the same as nothing wrong.
        Some(Ok(_)) => (Vec::new(), Some("no file in it ends with .yaml, .yml or .json".to_owned())),
        Some(Err(error)) => (Vec::new(), Some(format!("read: {error}"))),
    };
    let name = path.to_string_lossy().into_owned();
    let unread = unread.map(|why| Source { name, text: Err(why), json: false });
    files.into_iter().map(|file| source(&file)).chain(unread)
}

/// The plain files of a folder that may be manifests; folders in it are left alone.
fn manifests(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let is_named =
        |path: &Path| path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|ok| end == *ok));
    found.retain(|path| is_named(path) && path.is_file());
    found.sort();
    Ok(found)
}

fn source(path: &Path) -> Source {
    let name = path.to_string_lossy().into_owned();
    let text = if name == "-" { bounded(io::stdin().lock()) } else { fs::File::open(path).and_then(bounded) };
    let text = text.map_err(|error| format!("read: {error}"));
    let is_json =
        |text: &String| path.extension().is_some_and(|end| end == "json") || text.trim_start().starts_with('{');
    let json = text.as_ref().is_ok_and(is_json);
    Source { name: if name == "-" { "standard input".to_owned() } else { name }, text, json }
}

fn bounded(input: impl Read) -> io::Result<String> {
    let mut text = String::new();
    input.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        Err(io::Error::other(format!("longer than {MOST_BYTES} bytes")))
    } else {
        Ok(text)
    }
}

/// Findings in the order of the files, then what it comes to.
fn table(document: &Value, plan: bool) -> String {
    let list = |pointer: &str| document.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut text = String::new();
    for finding in list("/findings") {
        let mark = if finding["severity"] == "error" { Level::Bad } else { Level::Warning }.mark();
        let at = |pointer: &str| safe(&cell(&finding, pointer));
        let object =
            [at("/object"), at("/field")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        let _ = writeln!(text, "{mark} {} {}: {object}", at("/code"), at("/place"));
        let _ = writeln!(text, "    {}", safe(&cell(&finding, "/message")));
        let remedy = cell(&finding, "/remedy");
        if !remedy.is_empty() {
            let _ = writeln!(text, "    remedy: {}", safe(&remedy));
        }
        let _ = writeln!(text, "    see {}", at("/hint"));
    }
    let pods = list("/pods");
    let selections = pods.iter().flat_map(|pod| pod["selections"].as_array().cloned().unwrap_or_default());
    let guesses: BTreeSet<(String, String)> = selections
        .map(|each| (cell(&each, "/network"), cell(&each, "/meant")))
        .filter(|(_, meant)| !meant.is_empty())
        .collect();
    for (network, meant) in guesses {
        let _ = writeln!(text, "  {}: did you mean {}?", safe(&network), safe(&meant));
    }
    for pod in pods.iter().filter(|_| plan) {
        text = text + &explanation::table(pod) + "\n";
    }
    let count = |pointer: &str| document.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let _ = writeln!(
        text,
        "{}, {} looked at: {}, {}",
        many(pods.len() as u64, "pod"),
        many(count("/networks"), "network"),
        many(count("/errors"), "error"),
        many(count("/warnings"), "warning")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_manifests_is_no_clean_bill() {
        let folder = std::env::temp_dir().join(format!("lint-folder-{}", std::process::id()));
        fs::create_dir_all(folder.join("below.yaml")).unwrap();
        fs::write(folder.join("notes.txt"), "kind: Pod").unwrap();
        let found: Vec<Source> = sources(&folder).collect();
        assert!(matches!(&found[..], [Source { text: Err(why), .. }] if why.contains(".yaml")), "{found:?}");
        fs::write(folder.join("a.yml"), "kind: Pod").unwrap();
        let found: Vec<Source> = sources(&folder).collect();
        assert!(matches!(&found[..], [Source { text: Ok(_), .. }]), "{found:?}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
