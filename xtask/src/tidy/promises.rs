//! Whether the tests that SPECIFICATION.md names exist. A promise without a test says `pending`.

use super::Finding;
use super::tree::Tree;

const PATH: &str = "SPECIFICATION.md";

/// Every `file.rs::function` in the document, and every promise that names neither test nor `pending`.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(document) = tree.file(PATH) else { return vec![Finding::new(PATH, 1, "there is none")] };
    let mut findings = Vec::new();
    for (number, line) in document.text.lines().enumerate() {
        let tests: Vec<(&str, &str)> =
            line.split('`').skip(1).step_by(2).filter_map(|word| word.split_once(".rs::")).collect();
        for (file, function) in &tests {
            let file = format!("{file}.rs");
            let called = format!("fn {function}(");
            if !tree.file(&file).is_some_and(|file| file.text.contains(&called)) {
                findings.push(Finding::new(PATH, number + 1, format!("no test {file}::{function}")));
            }
        }
        let is_promise = line.strip_prefix("| ").is_some_and(|cell| cell.starts_with(|c: char| c.is_ascii_digit()));
        if is_promise && tests.is_empty() && !line.contains("pending") {
            findings.push(Finding::new(PATH, number + 1, "name the test that enforces this, or say pending"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tree::File;
    use super::*;

    #[test]
    fn named_tests_exist() {
        let document = "| 1 | a | `tests/it/del.rs::twice` |\n| 2 | b | `tests/it/del.rs::gone` |\n\
            | 3 | c | pending |\n| 4 | d | soon |\n";
        let tree =
            Tree { files: vec![File::new(PATH, document), File::new("tests/it/del.rs", "#[test]\nfn twice() {}\n")] };
        let found: Vec<String> = check(&tree).into_iter().map(|finding| finding.what).collect();
        assert_eq!(found, ["no test tests/it/del.rs::gone", "name the test that enforces this, or say pending"]);
    }
}
