//! Which crates are in the programs? A CycloneDX document, from what cargo resolved. Says nothing of what it cannot know.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::Outcome;
use crate::project::{capture, cargo};

/// The bill of materials of agent and shim, with the eBPF programs in the agent.
pub(super) fn bill() -> Outcome<String> {
    let agent = tree(&["--package=multus-agent"])?;
    let programs = tree(&["--manifest-path=multus-ebpf/Cargo.toml", "--target=all"])?;
    let crates: BTreeSet<Crate> = agent.lines().chain(programs.lines()).filter_map(Crate::read).collect();
    Ok(document(&crates))
}

fn tree(which: &[&str]) -> Outcome<String> {
    let common = ["tree", "--locked", "--edges=normal", "--prefix=none", "--format={p}|{l}"];
    capture(cargo().args(common).args(which))
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    license: String,
}

impl Crate {
    /// Reads `name v1.2.3 (where)|license`, with or without the place, and with ` (*)` where it was there before.
    fn read(line: &str) -> Option<Self> {
        let (package, license) = line.split_once('|')?;
        let mut words = package.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        let license = license.trim_end_matches("(*)").trim();
        Some(Self { name: name.to_owned(), version: version.to_owned(), license: license.to_owned() })
    }

    fn component(&self) -> String {
        let Self { name, version, license } = self;
        let mut text = format!(
            "{{\"type\":\"library\",\"name\":{name:?},\"version\":{version:?},\"purl\":\"pkg:cargo/{name}@{version}\""
        );
        if !license.is_empty() {
            let _ = write!(text, ",\"licenses\":[{{\"expression\":{:?}}}]", license.replace('/', " OR "));
        }
        text + "}"
    }
}

fn document(crates: &BTreeSet<Crate>) -> String {
    let components: Vec<String> = crates.iter().map(Crate::component).collect();
    format!(
        "{{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.6\",\"version\":1,\"metadata\":{{\"component\":\
         {{\"type\":\"container\",\"name\":\"multus-ebpf\",\"version\":{:?}}}}},\"components\":[\n{}\n]}}\n",
        env!("CARGO_PKG_VERSION"),
        components.join(",\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_cargo_tree_is_a_component() {
        let line = "itoa v1.0.1|MIT/Apache-2.0 (*)";
        let read = Crate::read(line).unwrap();
        assert_eq!(
            read.component(),
            "{\"type\":\"library\",\"name\":\"itoa\",\"version\":\"1.0.1\",\"purl\":\"pkg:cargo/itoa@1.0.1\",\
             \"licenses\":[{\"expression\":\"MIT OR Apache-2.0\"}]}"
        );
        assert_eq!(Crate::read("multus-agent v0.1.0 (somewhere)|Apache-2.0").unwrap().license, "Apache-2.0");
        assert_eq!(Crate::read("[build-dependencies]"), None);
    }
}
