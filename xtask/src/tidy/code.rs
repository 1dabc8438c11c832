//! Rules about Rust files: how they open, how long they are, and what they may not contain.

use super::Finding;
use super::tree::{File, Tree};

/// Lines at which a file should be looked at, and at which it must be split.
const LONG: usize = 400;
const TOO_LONG: usize = 600;
/// A file that is long for a reason (a table, a fixture) says so in a comment.
const LONG_BECAUSE: &str = "// tidy: long because ";

/// Where `unsafe` may be written; everywhere else the compiler denies it, unless somebody allows it.
const UNSAFE_PLACES: [&str; 7] = [
    "agent/src/sys/",
    "agent/src/sys.rs",
    "agent/src/datapath/maps.rs",
    "agent/src/bin/multus-shim",
    "agent/tests/",
    "multus-ebpf/",
    "tests/",
];

/// What ends the process instead of giving an answer.
const PANICS: [&str; 6] = [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "unreachable!("];

/// Lints that somebody expects to fire, with a reason that clippy demands.
const REASONED: [&str; 3] = ["clippy::unwrap_used", "clippy::expect_used", "clippy::panic"];

/// Every rule on every Rust file.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust("").flat_map(|file| [head(file), length(file)].into_iter().flatten().chain(contents(file))).collect()
}

/// Every file says first which question it answers.
fn head(file: &File) -> Option<Finding> {
    let opens = file.text.lines().find(|line| !line.starts_with("#![")).is_some_and(|line| line.starts_with("//! "));
    (!opens)
        .then(|| Finding::new(&file.path, 1, "open with `//!`: which question the file answers, what it never does"))
}

fn length(file: &File) -> Option<Finding> {
    let lines = file.text.lines().count();
    if lines <= LONG || file.text.contains(LONG_BECAUSE) {
        None
    } else if lines <= TOO_LONG {
        Some(Finding::advice(&file.path, lines, format!("{lines} lines: look twice at {LONG}")))
    } else {
        Some(Finding::new(&file.path, lines, format!("{lines} lines: split it, or say `{LONG_BECAUSE}…`")))
    }
}

fn contents(file: &File) -> Vec<Finding> {
    let is_product = file.path.starts_with("agent/src/") || file.path.starts_with("multus-ebpf");
    let may_be_unsafe = UNSAFE_PLACES.iter().any(|place| file.path.starts_with(place));
    let mut findings = Vec::new();
    let mut reasoned_at = None;
    for (number, line) in file.code.lines().enumerate() {
        if REASONED.iter().any(|lint| line.contains(lint)) {
            reasoned_at = Some(number);
        }
        // A reason stands right above what it is for.
        let is_reasoned = reasoned_at.is_some_and(|at| number - at <= 3);
        if is_product && !is_reasoned {
            for panic in PANICS.iter().filter(|panic| line.contains(**panic)) {
                findings.push(Finding::new(&file.path, number + 1, format!("{panic} outside a test")));
            }
        }
        if !may_be_unsafe && has_unsafe(line) {
            findings.push(Finding::new(&file.path, number + 1, "unsafe has no place here"));
        }
    }
    findings
}

/// The keyword, not the lint of a similar name.
fn has_unsafe(line: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &str, text: &str) -> Vec<String> {
        check(&Tree { files: vec![File::new(path, text)] }).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn files_open_with_their_question() {
        assert_eq!(all("xtask/src/a.rs", "//! What.\n"), Vec::<String>::new());
        assert_eq!(all("multus-ebpf/src/a.rs", "#![no_std]\n//! What.\n"), Vec::<String>::new());
        assert_eq!(all("xtask/src/a.rs", "use std::fs;\n").len(), 1);
        assert_eq!(all("xtask/src/a.rs", "").len(), 1);
    }

    #[test]
    fn long_files_are_found() {
        let lines = |count: usize, head: &str| format!("//! What.\n{head}\n{}", "x\n".repeat(count));
        assert_eq!(all("tests/a.rs", &lines(390, "")), Vec::<String>::new());
        assert!(check(&Tree { files: vec![File::new("tests/a.rs", lines(450, ""))] })[0].advice);
        assert!(!check(&Tree { files: vec![File::new("tests/a.rs", lines(650, ""))] })[0].advice);
        assert_eq!(all("tests/a.rs", &lines(650, "// tidy: long because it is one table")), Vec::<String>::new());
    }

    #[test]
    fn panics_and_unsafe_have_their_places() {
        let panics = "//! What.\nfn f() { x.unwrap(); }\n#[cfg(test)]\nmod tests { fn g() { x.unwrap() } }\n";
        assert_eq!(all("agent/src/plan/a.rs", panics), [".unwrap() outside a test"]);
        assert_eq!(all("tests/lab/a.rs", panics), Vec::<String>::new());
        let reasoned = "//! What.\n#[expect(clippy::expect_used, reason = \"r\")]\nlet a = b.expect(\"c\");\n";
        assert_eq!(all("agent/src/plan/a.rs", reasoned), Vec::<String>::new());
        let block = "//! What.\n#![deny(unsafe_code)]\nfn f() { unsafe { g() } }\n";
        assert_eq!(all("agent/src/ops/a.rs", block), ["unsafe has no place here"]);
        assert_eq!(all("agent/src/sys/a.rs", block), Vec::<String>::new());
    }
}
