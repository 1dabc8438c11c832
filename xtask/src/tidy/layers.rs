//! Which module of the agent may know which. The table here is the one ARCHITECTURE.md shows.

use super::Finding;
use super::tree::{File, Tree};

struct Layer {
    name: &'static str,
    modules: &'static [&'static str],
    /// Names of layers, and of single modules.
    may_use: &'static [&'static str],
    /// Paths and names that may not appear in the code.
    never: &'static [&'static str],
    /// The same in words, for people.
    never_in_words: &'static str,
}

/// I/O, clocks and the environment: what a decision may not depend on.
const OUTSIDE_WORLD: [&str; 10] = [
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "UdpSocket",
    "TcpStream",
    "tokio",
    "libc",
];

const LAYERS: [Layer; 6] = [
    Layer {
        name: "words",
        modules: &["names", "fault", "objects", "cni", "wire", "config", "metrics"],
        may_use: &["words"],
        never: &["std::env", "std::fs", "std::process", "Instant::now", "SystemTime", "tokio"],
        never_in_words: "any other layer, I/O",
    },
    Layer {
        name: "decide",
        modules: &["plan", "relay", "diagnosis"],
        may_use: &["words"],
        never: &OUTSIDE_WORLD,
        never_in_words: "I/O, clocks, tokio, the environment",
    },
    Layer {
        name: "touch",
        modules: &["sys", "kube", "kubelet", "datapath", "records", "spool"],
        may_use: &["words", "sys"],
        never: &[],
        never_in_words: "each other (but sys), decisions",
    },
    Layer {
        name: "act",
        modules: &["ops"],
        may_use: &["words", "decide", "touch"],
        never: &["hyper", "clap", "rtnetlink", "aya"],
        never_in_words: "HTTP, the command line",
    },
    Layer {
        name: "serve",
        modules: &["server", "telemetry", "cli"],
        may_use: &["words", "act"],
        never: &["rtnetlink", "aya"],
        never_in_words: "netlink, bpf",
    },
    Layer {
        name: "root",
        modules: &["daemon", "thin", "main", "lib"],
        may_use: &["words", "decide", "touch", "act", "serve", "root"],
        never: &[],
        never_in_words: "logic: it builds the parts and starts them in order",
    },
];

/// Single edges that the table above would refuse, each with its reason.
const ALSO: [(&str, &str, &str); 3] = [
    ("spool", "records", "a note carries the record it is about"),
    ("server", "telemetry", "it serves the page that is rendered there"),
    ("cli", "sys", "the kernel knows how large a terminal is, and which keys are pressed"),
];

/// What the CNI plugin is made of. Of `sys` only what is compiled without the feature `daemon`.
const SHIM_MAY_USE: [&str; 7] = ["names", "fault", "cni", "wire", "records", "spool", "sys"];

/// Crates and calls that live in one place.
const ONE_PLACE: [(&str, &str); 3] =
    [("rtnetlink", "agent/src/sys/"), ("aya", "agent/src/datapath"), ("setns", "agent/src/sys/")];

/// The table as ARCHITECTURE.md shows it.
pub(super) fn table() -> String {
    let head = ["| layer | modules | may use | never |".to_owned(), "| --- | --- | --- | --- |".to_owned()];
    let row = |layer: &Layer| {
        let (modules, may_use) = (layer.modules.join(", "), layer.may_use.join(", "));
        format!("| {} | {modules} | {may_use} | {} |", layer.name, layer.never_in_words)
    };
    let shim = format!("| shim | bin/multus-shim | {} | everything else |", SHIM_MAY_USE.join(", "));
    let also = ALSO.iter().map(|(module, used, why)| format!("| also | {module} | {used} | because {why} |"));
    head.into_iter().chain(LAYERS.iter().map(row)).chain([shim]).chain(also).map(|row| row + "\n").collect()
}

/// Every edge between modules, every crate that has one place, and the table in ARCHITECTURE.md.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<Finding> = tree.rust("agent/src/").flat_map(check_file).collect();
    findings.extend(check_shown_table(tree));
    findings
}

fn check_shown_table(tree: &Tree) -> Option<Finding> {
    const PATH: &str = "ARCHITECTURE.md";
    let shown = tree.file(PATH).and_then(|file| file.text.split_once("<!-- layers -->\n")).map(|(_, after)| after);
    let shown = shown.and_then(|after| after.split_once("<!-- /layers -->")).map(|(table, _)| table.trim());
    if shown == Some(table().trim()) {
        return None;
    }
    Some(Finding::new(PATH, 1, "the layer table differs from the code's: cargo xtask tidy --layers prints it"))
}

fn check_file(file: &File) -> Vec<Finding> {
    let inside = file.path.trim_start_matches("agent/src/");
    let module = module_of(inside);
    let mut findings = Vec::new();
    if layer_of(module).is_none() && module != "shim" {
        let what = format!("module {module} is in no layer: give it one in xtask/src/tidy/layers.rs");
        return vec![Finding::new(&file.path, 1, what)];
    }
    for (line, used) in references(inside, &file.code) {
        if !may_use(module, &used) {
            findings.push(Finding::new(&file.path, line, format!("{module} may not use {used}")));
        }
    }
    for (number, line) in file.code.lines().enumerate() {
        let forbidden = layer_of(module).map(|layer| layer.never).unwrap_or_default();
        let elsewhere = ONE_PLACE.iter().filter(|(_, place)| !file.path.starts_with(place)).map(|(name, _)| name);
        for name in forbidden.iter().chain(elsewhere).filter(|name| mentions(line, name)) {
            let what = format!("{name} has no place in {module}");
            if !findings.iter().any(|finding| finding.at.ends_with(&format!(":{}", number + 1)) && finding.what == what)
            {
                findings.push(Finding::new(&file.path, number + 1, what));
            }
        }
    }
    findings
}

/// The module a file belongs to: the first part of its path; metric handles are words wherever they lie.
fn module_of(inside: &str) -> &str {
    if inside.starts_with("bin/multus-shim") {
        return "shim";
    }
    if inside.starts_with("telemetry/metrics") {
        return "metrics";
    }
    let first = inside.split('/').next().unwrap_or(inside);
    first.strip_suffix(".rs").unwrap_or(first)
}

fn layer_of(module: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.modules.contains(&module))
}

fn may_use(module: &str, used: &str) -> bool {
    if module == "shim" {
        return SHIM_MAY_USE.contains(&used);
    }
    let (Some(layer), Some(other)) = (layer_of(module), layer_of(used)) else { return true };
    let also = ALSO.iter().any(|(from, to, _)| (*from, *to) == (module, used));
    also || module == used || layer.may_use.contains(&used) || layer.may_use.contains(&other.name)
}

/// `word` as a whole path or name: not a part of a longer one, and not our own module of that name.
fn mentions(line: &str, word: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !before.ends_with(in_name) && !after.starts_with(in_name) && !before.ends_with("crate::")
    })
}

/// Top-level modules that a file names, with the line: `crate::x`, `crate::{x, y}`, `super::…` that leaves its module,
/// and `multus_agent::x` in a program.
fn references(inside: &str, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // In a program `crate` is the program itself.
    let roots: &[&str] = if inside.starts_with("bin/") { &["multus_agent::"] } else { &["crate::", "multus_agent::"] };
    for root in roots {
        for (at, _) in code.match_indices(root) {
            let word_before = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if !word_before {
                found.extend(named(code, at, &code[at + root.len()..]));
            }
        }
    }
    if inside.starts_with("bin/") {
        return found;
    }
    let depth = depth(inside);
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let path = &code[at..];
        let after = path.trim_start_matches("super::");
        if (path.len() - after.len()) / "super::".len() >= depth {
            found.extend(named(code, at, after));
        }
    }
    found
}

/// How many `super::` lead from a file to the crate's root.
fn depth(inside: &str) -> usize {
    let parts = inside.split('/').count();
    if inside.ends_with("/mod.rs") { parts - 1 } else { parts }
}

fn named(code: &str, at: usize, after: &str) -> Vec<(usize, String)> {
    let line = code[..at].matches('\n').count() + 1;
    names(after).into_iter().map(|name| (line, name)).collect()
}

/// The first names of what follows `crate::`: one, or those of a group.
fn names(after: &str) -> Vec<String> {
    let Some(group) = after.strip_prefix('{') else { return vec![first_name(after)] };
    let (mut depth, mut start, mut parts) = (0_u32, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    parts.into_iter().map(|part| first_name(part.trim())).filter(|name| !name.is_empty()).collect()
}

/// The module a path starts with; metric handles go by their own name.
fn first_name(path: &str) -> String {
    if path.starts_with("telemetry::metrics") {
        return "metrics".to_owned();
    }
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check_file(&File::new(path, text)).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn edges_of_the_table_hold() {
        for (path, text) in [
            ("agent/src/plan/stdin.rs", "use crate::cni::Version; use super::delegates::Plan;"),
            ("agent/src/kube/pods.rs", "use crate::sys::files; use kube::Client; use super::client;"),
            ("agent/src/ops/add.rs", "use crate::{plan, records::Record, telemetry::metrics::Requests};"),
            ("agent/src/server/routes.rs", "use crate::ops::add;"),
            ("agent/src/daemon.rs", "use crate::server; use crate::kube::Cluster;"),
            ("agent/src/bin/multus-shim.rs", "use multus_agent::{wire, cni::{request, config}}; use crate::agent;"),
            ("agent/src/spool.rs", "use crate::records::Record;"),
            ("agent/src/sys/netlink.rs", "use rtnetlink::new_connection;"),
            ("agent/src/plan/mod.rs", "// crate::kube\n#[cfg(test)]\nmod tests { use crate::kube::X; }"),
            ("agent/src/datapath/mod.rs", "use aya::Ebpf; use super::sys::netns;"),
        ] {
            assert_eq!(findings(path, text), Vec::<String>::new(), "{path}");
        }
    }

    #[test]
    fn edges_outside_the_table_are_found() {
        for (path, text, what) in [
            ("agent/src/plan/stdin.rs", "use crate::records::Record;", "plan may not use records"),
            ("agent/src/names.rs", "fn f() { crate::sys::files::read() }", "names may not use sys"),
            ("agent/src/kube/pods.rs", "use crate::{names, records};", "kube may not use records"),
            ("agent/src/kube/pods.rs", "use super::super::plan;", "kube may not use plan"),
            ("agent/src/records.rs", "use super::kube;", "records may not use kube"),
            ("agent/src/ops/add.rs", "use crate::server::x;", "ops may not use server"),
            ("agent/src/cli/status.rs", "use crate::datapath::Datapath;", "cli may not use datapath"),
            ("agent/src/bin/multus-shim.rs", "use multus_agent::{wire, plan};", "shim may not use plan"),
            ("agent/src/plan/mod.rs", "let now = std::time::Instant::now();", "Instant::now has no place in plan"),
            ("agent/src/ops/add.rs", "use rtnetlink::X;", "rtnetlink has no place in ops"),
            ("agent/src/helper.rs", "", "module helper is in no layer: give it one in xtask/src/tidy/layers.rs"),
        ] {
            assert_eq!(findings(path, text), [what], "{path}");
        }
    }
}
