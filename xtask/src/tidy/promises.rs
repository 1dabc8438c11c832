//! Whether the tests that documents name exist. A promise without a test says `pending`; an attack has one.

use super::Finding;
use super::tree::{File, Tree};

const PATH: &str = "SPECIFICATION.md";
const THREATS: &str = "SECURITY.md";
/// The first cell of a table of attacks.
const ATTACK: &str = "| attack |";

/// Every `file.rs::function` in every document, and every promise that names neither test nor `pending`.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        tree.files.iter().filter(|file| file.extension() == Some("md")).flat_map(|file| named(tree, file)).collect();
    match tree.file(PATH) {
        Some(document) => findings.extend(promises(document)),
        None => findings.push(Finding::new(PATH, 1, "there is none")),
    }
    match tree.file(THREATS) {
        Some(document) => findings.extend(attacks(document)),
        None => findings.push(Finding::new(THREATS, 1, "there is none")),
    }
    findings
}

fn named(tree: &Tree, document: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in document.text.lines().enumerate() {
        for (file, function) in tests(line) {
            let file = format!("{file}.rs");
            let called = format!("fn {function}(");
            if !tree.file(&file).is_some_and(|file| file.text.contains(&called)) {
                findings.push(Finding::new(&document.path, number + 1, format!("no test {file}::{function}")));
            }
        }
    }
    findings
}

fn promises(document: &File) -> Vec<Finding> {
    let is_promise =
        |line: &str| line.strip_prefix("| ").is_some_and(|cell| cell.starts_with(|c: char| c.is_ascii_digit()));
    let lines = document.text.lines().enumerate().filter(|(_, line)| is_promise(line));
    let empty = lines.filter(|(_, line)| tests(line).next().is_none() && !line.contains("pending"));
    empty
        .map(|(number, _)| Finding::new(PATH, number + 1, "name the test that enforces this, or say pending"))
        .collect()
}

/// Rows of tables of attacks that name no test; and a document that has no such table.
fn attacks(document: &File) -> Vec<Finding> {
    let (mut findings, mut is_inside, mut tables) = (Vec::new(), false, 0);
    for (number, line) in document.text.lines().enumerate() {
        let begins = line.starts_with(ATTACK);
        tables += usize::from(begins);
        is_inside = begins || is_inside && line.starts_with('|');
        if is_inside && !begins && !line.starts_with("| ---") && tests(line).next().is_none() {
            findings.push(Finding::new(THREATS, number + 1, "name the test that tries this"));
        }
    }
    if tables == 0 {
        findings.push(Finding::new(THREATS, 1, "there is no table of attacks"));
    }
    findings
}

/// File without `.rs`, and function.
fn tests(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split('`').skip(1).step_by(2).filter_map(|word| word.split_once(".rs::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_tests_exist() {
        let document = "| 1 | a | `tests/it/del.rs::twice` |\n| 2 | b | `tests/it/del.rs::gone` |\n\
            | 3 | c | pending |\n| 4 | d | soon |\n";
        let files = vec![
            File::new(PATH, document),
            File::new(
                THREATS,
                "it is stopped: `tests/it/del.rs::twice`, `tests/it/none.rs::x`\n\
                | attack | outcome | test |\n| --- | --- | --- |\n| a | b | `tests/it/del.rs::twice` |\n| c | d | |\n\n| e |\n",
            ),
            File::new("tests/it/del.rs", "#[test]\nfn twice() {}\n"),
        ];
        let found: Vec<String> = check(&Tree { files }).into_iter().map(|finding| finding.what).collect();
        let wanted = [
            "no test tests/it/del.rs::gone",
            "no test tests/it/none.rs::x",
            "name the test that enforces this, or say pending",
            "name the test that tries this",
        ];
        assert_eq!(found, wanted);
    }
}
