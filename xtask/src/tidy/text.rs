//! Rules about every text file: what may not be left in it, and links that lead somewhere.

use super::Finding;
use super::tree::{File, Tree};

/// A note for later names the issue that remembers it. Written in two parts, so that this file passes its own rule.
const NOTES: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// Folders of somebody's machine.
const MACHINE_FOLDERS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Use", "rs/")];

/// Every rule on every text file.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.files.iter().flat_map(|file| lines(file).into_iter().chain(links(tree, file))).collect()
}

fn lines(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        if NOTES.iter().any(|note| is_loose_note(line, note)) {
            findings.push(Finding::new(&file.path, number + 1, format!("write {}(issue number)", NOTES[0])));
        }
        for folder in MACHINE_FOLDERS.iter().filter(|folder| names_folder(line, folder)) {
            findings.push(Finding::new(&file.path, number + 1, format!("{folder} is a folder of one machine")));
        }
    }
    findings
}

fn is_loose_note(line: &str, note: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(note).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + note.len()..]);
        let number = after.strip_prefix('(').and_then(|after| after.split_once(')')).map(|(number, _)| number);
        let has_issue = note == NOTES[0] && number.is_some_and(|number| number.parse::<u32>().is_ok());
        !before.ends_with(in_name) && !after.starts_with(in_name) && !has_issue
    })
}

/// Folders that begin as those of a person's machine do, and are on every node of a product.
const PRODUCTS: [&str; 1] = [concat!("/ho", "me/kubernetes/bin")];

/// An absolute path: the same letters further inside a path are a folder of ours.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let of_a_product = PRODUCTS.iter().any(|product| line[at..].starts_with(product));
        !of_a_product
            && !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '*' | '}'))
    })
}

/// Every relative link of a Markdown file leads to a file.
fn links(tree: &Tree, file: &File) -> Vec<Finding> {
    if file.extension() != Some("md") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for (at, _) in line.match_indices("](") {
            let link = line[at + 2..].split([')', '#', ' ']).next().unwrap_or_default();
            if !link.is_empty() && !link.contains("://") && !leads_somewhere(tree, &file.path, link) {
                findings.push(Finding::new(&file.path, number + 1, format!("no file at {link}")));
            }
        }
    }
    findings
}

fn leads_somewhere(tree: &Tree, from: &str, link: &str) -> bool {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let path = parts.join("/");
    tree.files.iter().any(|file| file.path == path || file.path.starts_with(&format!("{path}/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Tree { files: vec![File::new(path, text), File::new("docs/there.md", "")] }).len()
    }

    #[test]
    fn notes_name_their_issue() {
        let note = NOTES[0];
        assert_eq!(count("a.rs", &format!("// {note}(12): later")), 0);
        assert_eq!(count("a.rs", &format!("// {note}: later")), 1);
        assert_eq!(count("a.rs", &format!("// {note}(someone): later")), 1);
        assert_eq!(count("a.rs", &format!("// {}: later", NOTES[1])), 1);
        assert_eq!(count("a.rs", &format!("let {note}S = 1;")), 0);
    }

    #[test]
    fn machine_folders_are_found() {
        for folder in MACHINE_FOLDERS {
            assert_eq!(count("a.sh", &format!("cd {folder}x")), 1, "{folder}");
            assert_eq!(count("a.sh", &format!("cd ours{folder}x")), 0, "{folder}");
        }
        assert_eq!(count("a.yaml", &format!("path: {}", PRODUCTS[0])), 0);
    }

    #[test]
    fn links_lead_somewhere() {
        for (path, link, findings) in [
            ("README.md", "docs/there.md#part", 0),
            ("README.md", "docs/", 0),
            ("docs/x.md", "../docs/there.md", 0),
            ("docs/x.md", "https://example.org/a", 0),
            ("docs/x.md", "#part", 0),
            ("docs/x.md", "docs/there.md", 1),
        ] {
            assert_eq!(count(path, &format!("see [it]({link}).")), findings, "{path} {link}");
        }
    }
}
