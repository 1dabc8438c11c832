//! Whether ARCHITECTURE.md names every room of the agent, and only rooms that are there.

use std::collections::BTreeSet;

use super::Finding;
use super::tree::{File, Tree};

const PATH: &str = "ARCHITECTURE.md";
/// Each table of rooms: the words above it, the folder whose rooms it lists, and what in there is no room.
const TABLES: [(&str, &str, &[&str]); 2] = [
    ("Inside `agent/src`", "agent/src/", &["bin/multus-shim", "lib", "main"]),
    ("Inside `ops`", "agent/src/ops/", &["mod"]),
];

/// Every room that no row names, and every row that names none.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(map) = tree.file(PATH) else { return vec![Finding::new(PATH, 1, "there is none")] };
    TABLES.iter().flat_map(|(above, folder, apart)| compare(tree, map, above, folder, apart)).collect()
}

fn compare(tree: &Tree, map: &File, above: &str, folder: &str, apart: &[&str]) -> Vec<Finding> {
    let rooms: BTreeSet<&str> = tree.rust(folder).filter_map(|file| room(&file.path, folder)).collect();
    let Some(from) = map.text.lines().position(|line| line.starts_with(above)) else {
        return vec![Finding::new(PATH, 1, format!("no table \"{above}\""))];
    };
    let rows = map.text.lines().enumerate().skip(from + 1).skip_while(|(_, line)| !line.starts_with('|'));
    let mut missing: BTreeSet<&str> = rooms.iter().copied().filter(|room| *room != "bin").collect();
    let mut findings = Vec::new();
    for (at, row) in rows.take_while(|(_, line)| line.starts_with('|')) {
        let first = row.split('|').nth(1).unwrap_or_default();
        for name in first.split('`').skip(1).step_by(2) {
            let is_there = missing.remove(name) || rooms.contains(name) || apart.contains(&name);
            if !is_there {
                findings.push(Finding::new(PATH, at + 1, format!("there is no {folder}{name}")));
            }
        }
    }
    let unnamed = missing.into_iter().filter(|room| !apart.contains(room));
    findings.extend(unnamed.map(|room| Finding::new(PATH, from + 1, format!("{folder}{room} is not in the table"))));
    findings
}

/// The file or folder right below `folder` that a path is in, without its ending.
fn room<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let below = path.strip_prefix(folder)?;
    let first = below.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_room_is_on_the_map_and_the_map_shows_no_other() {
        let map = "Inside `agent/src`:\n\n| module | it |\n| --- | --- |\n| `names` | `spool` |\n| `ops`, `gone` | x |\n\n\
                   Inside `ops`:\n\n| module | it |\n| `add` | x |\n";
        let paths = ["agent/src/lib.rs", "agent/src/names.rs", "agent/src/spool.rs", "agent/src/ops/mod.rs"];
        let more = ["agent/src/ops/add.rs", "agent/src/ops/view/mod.rs", "agent/src/bin/multus-shim.rs"];
        let mut files = vec![File::new(PATH, map)];
        files.extend(paths.into_iter().chain(more).map(|path| File::new(path, "")));
        let found: Vec<String> =
            check(&Tree { files }).into_iter().map(|finding| finding.at + " " + &finding.what).collect();
        assert_eq!(
            found,
            [
                "ARCHITECTURE.md:6 there is no agent/src/gone",
                "ARCHITECTURE.md:1 agent/src/spool is not in the table",
                "ARCHITECTURE.md:8 agent/src/ops/view is not in the table",
            ]
        );
    }
}
