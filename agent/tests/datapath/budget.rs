//! How many instructions does the verifier walk for each program on this kernel, and is that within
//! `multus-ebpf/budget.txt`? Prints what it finds.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

use aya::programs::loaded_programs;
use multus_agent::datapath::{Attachment, Guard, Settings};

use crate::bench::{Bench, netns_path, output};

const BUDGET: &str = include_str!("../../../multus-ebpf/budget.txt");

/// The limit for a program on a kernel: that of the longest version that fits, else that of all.
fn limit(budget: &str, program: &str, kernel: &str) -> Option<u32> {
    let lines = budget.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let rows = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let fits = |version: &str| {
        version == "*"
            || kernel.strip_prefix(version).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let fitting = rows.filter(|row| row.len() == 3 && row[0] == program && fits(row[1]));
    fitting.max_by_key(|row| if row[1] == "*" { 0 } else { row[1].len() }).map(|row| row[2].parse().unwrap())
}

/// Name and verified instructions of every program that one pod on one parent brings, each name with `suffix`.
fn verified(settings: impl FnOnce(&Bench) -> Settings, plain: bool, suffix: &str) -> Vec<(String, Option<u32>)> {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let settings = settings(&bench);
    let datapath = bench.on_host(|| multus_agent::datapath::Datapath::open(&settings)).unwrap();
    let attachment = Attachment { plain_copy: plain, ..bench.attachment(&pod) };
    let _attached = bench.on_host(|| datapath.attach(&attachment)).unwrap();
    let net = format!("--net={}", netns_path(&pod.netns).display());
    let shown: serde_json::Value =
        serde_json::from_str(&output("nsenter", &[&net, "bpftool", "-j", "net", "show"])).unwrap();
    let ids: Vec<u64> = shown[0]["tc"].as_array().unwrap().iter().map(|entry| entry["id"].as_u64().unwrap()).collect();
    let infos = loaded_programs().filter_map(Result::ok).filter(|info| ids.contains(&u64::from(info.id())));
    let of_pod: Vec<_> =
        infos.map(|info| (info.name_as_str().unwrap().to_owned(), info.verified_instruction_count())).collect();
    assert_eq!(of_pod.len(), 2, "{shown}");
    let of_node = datapath.facts().programs.into_iter().map(|fact| (fact.name, fact.verified_instructions));
    of_pod
        .into_iter()
        .chain(of_node)
        .map(|(name, count)| if name == "parent_guard" { (name, count) } else { (name + suffix, count) })
        .collect()
}

#[test]
fn every_program_stays_within_its_budget() {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let guarded = |guard| move |bench: &Bench| Settings { guard, ..bench.settings() };
    let all = [
        verified(guarded(Guard::Off), false, ""),
        verified(guarded(Guard::Off), true, "+plain"),
        verified(guarded(Guard::Tc), false, "+guard"),
        verified(guarded(Guard::Xdp), false, "+guard"),
        verified(|bench| Settings { log: true, ..bench.settings() }, false, "+log"),
    ];
    let (mut table, mut faults) = (String::new(), Vec::new());
    let mut programs: Vec<_> = all.into_iter().flatten().collect();
    programs.sort();
    programs.dedup();
    // What a variant leaves as it is has been seen.
    let is_same = |(name, count): &(String, Option<u32>)| {
        let plain = name.split('+').next().unwrap_or(name).to_owned();
        plain != *name && programs.contains(&(plain, *count))
    };
    for (program, count) in programs.iter().filter(|program| !is_same(program)) {
        let limit = limit(BUDGET, program, kernel.trim());
        let told = count.map_or("not told by this kernel".to_owned(), |count| count.to_string());
        let most = limit.map_or("?".to_owned(), |limit| limit.to_string());
        writeln!(table, "{:<12} {program:<20} {told:>6} of {most}", kernel.trim()).unwrap();
        match (count, limit) {
            (_, None) => faults.push(format!("{program} has no budget")),
            (Some(count), Some(limit)) if *count > limit => faults.push(format!("{program}: {count} of {limit}")),
            _ => {}
        }
    }
    // Past the harness, which would keep it for itself: a virtual machine prints nothing else.
    std::io::stderr().write_all(table.as_bytes()).unwrap();
    assert!(faults.is_empty(), "on kernel {}: {}", kernel.trim(), faults.join("; "));
}

#[test]
fn the_longest_version_that_fits_has_the_say() {
    let budget = "# program kernel limit\na * 10\na 6.1 20\na 6.12 30\nb 6.1 1\n";
    let of = |program, kernel| limit(budget, program, kernel);
    assert_eq!(
        [of("a", "5.10.0-1"), of("a", "6.1.0-9"), of("a", "6.12.3"), of("a", "6.18.5")],
        [Some(10), Some(20), Some(30), Some(10)]
    );
    assert_eq!([of("b", "6.18.5"), of("c", "6.1.0")], [None, None]);
}
