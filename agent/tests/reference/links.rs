//! Every link into the documentation leads to a page and a title that are there: from pages, from the code, from what
//! is deployed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::block::root;

/// Where links are looked for; what is not there yet is passed over.
const PLACES: [&str; 9] = [
    "docs",
    "agent/src",
    "deploy",
    "tests",
    "README.md",
    "ARCHITECTURE.md",
    "SPECIFICATION.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
];
/// Files that people or programs read links from.
const ENDINGS: [&str; 7] = ["md", "rs", "yaml", "yml", "json", "tpl", "html"];

#[test]
fn every_link_leads_to_a_title_that_is_there() {
    let mut files = Vec::new();
    for place in PLACES {
        collect(&root().join(place), &mut files);
    }
    let pages: BTreeMap<PathBuf, BTreeSet<String>> = files
        .iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .map(|path| (path.canonicalize().unwrap(), anchors(&fs::read_to_string(path).unwrap())))
        .collect();
    assert!(pages.len() > 10, "the documentation is where it was: {}", pages.len());
    let (mut faults, mut links) = (Vec::new(), 0);
    for path in &files {
        let text = fs::read_to_string(path).unwrap();
        let is_page = path.extension().is_some_and(|ending| ending == "md");
        for (number, line) in text.lines().enumerate() {
            let mut found: Vec<(PathBuf, String)> =
                documents(line).into_iter().map(|link| (root().join("x"), link)).collect();
            if is_page {
                found.extend(relative(line).into_iter().map(|link| (path.clone(), link)));
            }
            for (from, link) in found {
                links += 1;
                if !leads_somewhere(&pages, &from, &link) {
                    faults.push(format!("{}:{}: {link}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(links > 50, "links are found at all: {links}");
    assert!(faults.is_empty(), "links that lead nowhere:\n{}", faults.join("\n"));
}

pub(crate) fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for entry in &entries {
            collect(entry, files);
        }
    } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)) {
        files.push(path.to_owned());
    }
}

/// The anchors that a forge makes of a page's titles, and those that the page sets itself.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut in_code = false;
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        let set = line.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
        anchors.extend(set.map(str::to_owned));
        let title = line.trim_start_matches('#');
        if in_code || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let slug = slug(title.trim());
        if !anchors.insert(slug.clone()) {
            let next = (1..100).find(|n| !anchors.contains(&format!("{slug}-{n}"))).unwrap_or(100);
            anchors.insert(format!("{slug}-{next}"));
        }
    }
    anchors
}

fn slug(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// `docs/….md#anchor` wherever it stands, also as the end of an address.
fn documents(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("docs/") {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '/' | '_' | '.' | '#' | '-');
        let address: String = line[at..].chars().take_while(|c| is_part(*c)).collect();
        let address = address.trim_end_matches('.');
        // What follows `../` is seen as a relative link; names with a hole in them are no links.
        let after = &line[at + address.len()..];
        if address.contains(".md") && !line[..at].ends_with("../") && !after.starts_with(['<', '{', '*']) {
            found.push(address.to_owned());
        }
    }
    found
}

/// What stands in `](…)`.
fn relative(line: &str) -> Vec<String> {
    let links = line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split([')', ' ']).next());
    links
        .filter(|link| !link.is_empty() && !link.contains("://") && !link.starts_with("mailto:"))
        .map(str::to_owned)
        .collect()
}

fn leads_somewhere(pages: &BTreeMap<PathBuf, BTreeSet<String>>, from: &Path, link: &str) -> bool {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = if path.is_empty() { from.to_owned() } else { from.parent().unwrap_or(from).join(path) };
    let Ok(target) = target.canonicalize() else { return false };
    anchor.is_none_or(|anchor| pages.get(&target).is_none_or(|anchors| anchors.contains(anchor)))
}

#[test]
fn titles_become_anchors_as_forges_make_them() {
    let page = "# The shim\n## `get` & co. (1)\n## The shim\n```\n# no title\n```\n<a id=\"code-7\"></a>\n#hash\n";
    let wanted = ["code-7", "get--co-1", "the-shim", "the-shim-1"];
    assert_eq!(anchors(page).into_iter().collect::<Vec<_>>(), wanted);
}

#[test]
fn a_missing_page_and_a_missing_title_are_found() {
    let page = root().join("docs/README.md").canonicalize().unwrap();
    let pages = BTreeMap::from([(page.clone(), BTreeSet::from(["there".to_owned()]))]);
    for (link, wanted) in [("#there", true), ("README.md#there", true), ("#not", false), ("none.md", false)] {
        assert_eq!(leads_somewhere(&pages, &page, link), wanted, "{link}");
    }
    let line = "see https://x.y/blob/v1/docs/a/b.md#c-d, `docs/e.md` and docs/f.md.";
    assert_eq!(documents(line), ["docs/a/b.md#c-d", "docs/e.md", "docs/f.md"]);
}
