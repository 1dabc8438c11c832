//! The house rules that no compiler checks. Reads files and changes none.

mod catalogue;
mod code;
mod layers;
mod promises;
mod rooms;
mod text;
mod tree;

use crate::{Outcome, only, project};
use tree::Tree;

/// One thing that is not as the house wants it.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// Path from the root, and line where there is one.
    at: String,
    what: String,
    /// Advice is printed and fails nothing.
    advice: bool,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { at: format!("{path}:{line}"), what: what.into(), advice: false }
    }

    fn advice(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { advice: true, ..Self::new(path, line, what) }
    }
}

/// The task `tidy`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    only(arguments, &["--layers"])?;
    if !arguments.is_empty() {
        print!("{}", layers::table());
        return Ok(());
    }
    let tree = Tree::read(&project::root())?;
    let findings = check(&tree);
    for finding in &findings {
        println!("{}{}: {}", if finding.advice { "advice: " } else { "" }, finding.at, finding.what);
    }
    match findings.iter().filter(|finding| !finding.advice).count() {
        0 => {
            println!("tidy: {} files", tree.files.len());
            Ok(())
        }
        count => Err(format!("{count} findings")),
    }
}

fn check(tree: &Tree) -> Vec<Finding> {
    let checks = [layers::check, rooms::check, code::check, text::check, catalogue::check, promises::check];
    checks.iter().flat_map(|check| check(tree)).collect()
}
