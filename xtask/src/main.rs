//! Which tasks there are, what each takes, and how a task ends. Does no work itself.

mod dashboards;
#[allow(unreachable_pub, reason = "the agent's build script includes this file too")]
mod ebpf;
mod elf;
mod image;
mod lab;
mod lint;
mod manifests;
mod programs;
mod project;
mod setup;
mod suite;
mod tidy;
mod vm;

use std::process::ExitCode;

/// How a task ends: fine, or one line for the person who started it.
type Outcome<T = ()> = Result<T, String>;

struct Task {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Outcome,
}

const TASKS: [Task; 14] = [
    Task {
        name: "setup",
        arguments: "[--check]",
        about: "install what building and testing need; --check only looks",
        run: setup::run,
    },
    Task {
        name: "demo",
        arguments: "[--keep|--clean [NAME]]",
        about: "show the product on a node made of namespaces",
        run: lab::demo,
    },
    Task {
        name: "test",
        arguments: "[--fast]",
        about: "everything CI runs; --fast: unit tests only, no root",
        run: suite::run,
    },
    Task {
        name: "conformance",
        arguments: "[…]",
        about: "judge shim and daemon, clause by clause: [--shim P --agent P] [--flavour ours|multus] [--only F] [--list]",
        run: lab::conformance,
    },
    Task {
        name: "build",
        arguments: "",
        about: "release, static multus-agent and multus-shim in target/release",
        run: programs::build,
    },
    Task {
        name: "ebpf",
        arguments: "[--stats]",
        about: "the eBPF objects alone, in target/ebpf; --stats: what the verifier walks, against multus-ebpf/budget.txt",
        run: ebpf_objects,
    },
    Task { name: "lint", arguments: "", about: "formatting, clippy without warnings, tidy", run: lint::run_task },
    Task { name: "fmt", arguments: "", about: "format every crate", run: lint::format },
    Task {
        name: "tidy",
        arguments: "[--layers]",
        about: "house rules; --layers prints the layer table",
        run: tidy::run,
    },
    Task {
        name: "dashboards",
        arguments: "",
        about: "write deploy/dashboards from xtask/src/dashboards",
        run: dashboards::run,
    },
    Task {
        name: "manifests",
        arguments: "",
        about: "deploy/manifests and each overlay's difference from the base, anew from deploy/kustomize",
        run: manifests::run,
    },
    Task {
        name: "image",
        arguments: "[--programs FOLDER] [--into FOLDER]",
        about: "the programs as an OCI archive in target/image, with digest and bill of materials; needs no engine",
        run: image::run,
    },
    Task {
        name: "vm",
        arguments: "[--kernel V] […]",
        about: "the kernel tests on other kernels; further arguments go to them",
        run: vm::run,
    },
    Task { name: "bench", arguments: "[…]", about: "measure; arguments go to the bench program", run: lab::bench },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        list();
        return ExitCode::SUCCESS;
    };
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        list();
        eprintln!("\nxtask: no task {name:?}");
        return ExitCode::from(2);
    };
    match (task.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("xtask {name}: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn list() {
    println!("cargo xtask TASK [ARGUMENTS]\n");
    for task in &TASKS {
        println!("  {:<23} {}", format!("{} {}", task.name, task.arguments), task.about);
    }
}

/// Refuses arguments a task does not know.
fn only(arguments: &[String], known: &[&str]) -> Outcome {
    match arguments.iter().find(|argument| !known.contains(&argument.as_str())) {
        Some(argument) if known.is_empty() => Err(format!("takes no arguments, got {argument:?}")),
        Some(argument) => Err(format!("unknown argument {argument:?}; known: {}", known.join(", "))),
        None => Ok(()),
    }
}

/// The kernel test that prints and judges instruction counts, alone. In a machine it is `cargo xtask vm budget`.
fn verified() -> Outcome {
    let test = ["test", "--locked", "--quiet", "--package=multus-agent", "--test=datapath", "budget::"];
    project::run(project::cargo().args(test))
}

fn ebpf_objects(arguments: &[String]) -> Outcome {
    only(arguments, &["--stats"])?;
    if arguments.is_empty() { ebpf::run(&project::root()) } else { verified() }
}
