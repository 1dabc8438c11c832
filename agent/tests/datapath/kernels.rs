//! What does the running kernel offer? Found by trying, never by its version, and shown to the operator.

use std::io::{Write as _, stderr};

use multus_agent::datapath::{AttachMode, Datapath, Method, Settings};

use crate::bench::{Bench, Family};

/// One line for the table in docs/reference/kernels.md, printed even where the test passes.
fn print(datapath: &Datapath, method: Method) {
    let counts = datapath.facts().programs.into_iter().map(|program| {
        let walked = program.verified_instructions.map_or("?".to_owned(), |count| count.to_string());
        format!("{} {walked}", program.name)
    });
    let counts: Vec<_> = counts.collect();
    let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let line = format!("kernel {}: {}, {}\n", version.trim(), method.as_str(), counts.join(", "));
    let _ = stderr().write_all(line.as_bytes());
}

#[test]
fn the_way_onto_a_parent_is_found_by_trying_and_shown() {
    let mut bench = Bench::new();
    let pod = bench.pod("private");
    let datapath = bench.open();
    let attached = bench.attach(&datapath, &pod);
    let method = datapath.facts().parents[0].method.unwrap();
    print(&datapath, method);
    bench.on_host(|| datapath.detach(&attached)).unwrap();
    drop(datapath);
    for (attach, wanted) in [(AttachMode::Tcx, Method::Tcx), (AttachMode::Clsact, Method::Clsact)] {
        let settings = Settings { attach, ..bench.settings() };
        let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let attachment = bench.attachment(&pod);
        match bench.on_host(|| datapath.attach(&attachment)) {
            Ok(attached) => {
                assert_eq!(datapath.facts().parents[0].method, Some(wanted));
                let (host, inside) = (bench.host_peer(), pod.peer());
                host.query(Family::V4, "however it got there");
                assert_eq!(inside.heard(Family::V4, "however it got there"), 1);
                bench.on_host(|| datapath.detach(&attached)).unwrap();
            }
            Err(error) => {
                // What a kernel lacks and was asked for by name is refused by name, and nothing stays behind.
                assert_eq!((wanted, method), (Method::Tcx, Method::Clsact), "{error}");
                assert!(error.to_string().contains("tcx") && error.to_string().contains("eth0"), "{error}");
            }
        }
        assert_eq!(bench.leftovers(), Vec::<String>::new());
    }
}
