//! What does an ADD, a DEL, a packet cost? Ours against the same delegates run directly, and against another daemon.
//!
//! Contenders take turns pod by pod, so that ratios hold on a noisy machine. It measures and prints; it judges nothing.

#![allow(clippy::expect_used, clippy::cast_precision_loss, reason = "a measurement that cannot be made stops")]

use std::fmt::{Display, Write as _};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use lab::bench::contender::{Contender, Peer};
use lab::bench::{figures::Figures, packets, relay};
use lab::{agent, place};

const USAGE: &str =
    "usage: bench relay [--seconds N] [--rounds N] [--rates LIST] [--receivers LIST] [--contenders LIST] [--write FILE]
       bench [--pods N] [--burst N] [--skip-packets] [--peer-daemon FILE --peer-shim FILE]
             [--peer-args TEXT] [--write FILE]
  relay             the relay beside bare clones, tc-mirred and avahi-daemon
  --seconds N       how long each load lasts (1)
  --rounds N        how often each is repeated; the median counts (3)
  --rates LIST      packets a second (1000,5000,20000,50000,100000)
  --receivers LIST  receivers (1,8,32)
  --contenders LIST only these, by name
  --pods N          pods added and deleted one after the other by each contender (60)
  --burst N         pods added at once (50)
  --skip-packets    leave out the cost of the eBPF programs
  --peer-daemon     another daemon of the same kind, measured in turn with ours; wants --peer-shim
  --peer-args TEXT  its arguments; {config} stands for its configuration file (\"-config {config}\")
  --write FILE      write the figures there as Markdown";

struct Options {
    pods: usize,
    burst: usize,
    packets: bool,
    relay: Option<relay::Options>,
    peer: Option<Peer>,
    write: Option<String>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("bench: {reason}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(reason) = agent::missing_programs() {
        eprintln!("bench: {reason}");
        return ExitCode::FAILURE;
    }
    place::sweep();
    let report = options.relay.as_ref().map_or_else(|| measure(&options), relay::report);
    println!("{report}");
    if let Some(file) = &options.write
        && let Err(e) = std::fs::write(file, document(&report))
    {
        eprintln!("bench: write {file:?}: {e}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut arguments = arguments.peekable();
    let mut options = Options { pods: 60, burst: 50, packets: true, relay: None, peer: None, write: None };
    if arguments.next_if(|argument| argument == "relay").is_some() {
        return parse_relay(arguments, options);
    }
    let (mut daemon, mut shim, mut args) = (None, None, "-config {config}".to_owned());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--pods" => options.pods = number(&argument, &value()?)?,
            "--burst" => options.burst = number(&argument, &value()?)?,
            "--skip-packets" => options.packets = false,
            "--peer-daemon" => daemon = Some(value()?),
            "--peer-shim" => shim = Some(value()?),
            "--peer-args" => args = value()?,
            "--write" => options.write = Some(value()?),
            _ => return Err(format!("what is {argument:?}?")),
        }
    }
    options.peer = match (daemon, shim) {
        (None, None) => None,
        (Some(daemon), Some(shim)) => Some(Peer { daemon: daemon.into(), shim: shim.into(), args }),
        _ => return Err("--peer-daemon and --peer-shim go together".to_owned()),
    };
    Ok(options)
}

fn parse_relay(mut arguments: impl Iterator<Item = String>, options: Options) -> Result<Options, String> {
    let (mut relay, mut write) = (relay::Options::default(), None);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or(format!("{argument} wants a value"))?;
        match argument.as_str() {
            "--seconds" => relay.long = Duration::from_secs(number(&argument, &value)?),
            "--rounds" => relay.rounds = number(&argument, &value)?,
            "--rates" => relay.rates = list(&argument, &value)?,
            "--receivers" => relay.receivers = list(&argument, &value)?,
            "--contenders" => relay.contenders = list(&argument, &value)?,
            "--write" => write = Some(value),
            _ => return Err(format!("what is {argument:?} after relay?")),
        }
    }
    Ok(Options { relay: Some(relay), write, ..options })
}

fn number<T: FromStr<Err: Display>>(argument: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|e| format!("{argument}: {text:?}: {e}"))
}

fn list<T: FromStr<Err: Display>>(argument: &str, text: &str) -> Result<Vec<T>, String> {
    text.split(',').map(|item| number(argument, item)).collect()
}

fn measure(options: &Options) -> String {
    let mut contenders = vec![Contender::direct(), Contender::ours("off"), Contender::ours("full")];
    contenders.extend(options.peer.as_ref().map(Contender::peer));
    let mut report = String::new();

    eprintln!("bench: {} pods one after the other, {} contenders in turn", options.pods, contenders.len());
    let idle: Vec<_> = contenders.iter().map(Contender::resident_kib).collect();
    let first: Vec<_> = contenders.iter_mut().map(Contender::settle).collect();
    let (mut adds, mut dels) = (vec![Figures::default(); contenders.len()], vec![Figures::default(); contenders.len()]);
    for round in 0..=options.pods {
        for (n, contender) in contenders.iter_mut().enumerate() {
            let (add, del) = contender.one_pod();
            // The first round warms caches and makes bridges.
            if round > 0 {
                adds[n].push(add);
                dels[n].push(del);
            }
        }
    }
    table(
        &mut report,
        &format!("ADD of one pod (default network and one macvlan network), n = {}", options.pods),
        &contenders,
        &adds,
    );
    let _ =
        writeln!(report, "\nThe first pod of a node, which also makes the bridge and attaches to the parent (n = 1):");
    for (contender, took) in contenders.iter().zip(&first) {
        let _ = writeln!(report, "- {}: {:.0} ms", contender.name, millis(*took));
    }
    table(&mut report, &format!("DEL of one pod, n = {}", options.pods), &contenders, &dels);

    eprintln!("bench: {} pods at once", options.burst);
    let _ = writeln!(report, "\n### {} pods at once\n", options.burst);
    let _ = writeln!(report, "| contender | ADD total ms | ratio | ADD p50 / p99 ms | DEL total ms | ratio |");
    let _ = writeln!(report, "| --- | --- | --- | --- | --- | --- |");
    let bursts: Vec<_> = contenders.iter_mut().map(|contender| contender.burst(options.burst)).collect();
    for (contender, burst) in contenders.iter().zip(&bursts) {
        let _ = writeln!(
            report,
            "| {} | {:.0} | {:.2} | {:.0} / {:.0} | {:.0} | {:.2} |",
            contender.name,
            millis(burst.add_total),
            ratio(burst.add_total, bursts[0].add_total),
            millis(burst.adds.percentile(50)),
            millis(burst.adds.percentile(99)),
            millis(burst.del_total),
            ratio(burst.del_total, bursts[0].del_total),
        );
    }

    let _ = writeln!(report, "\n### Memory of the daemon (VmRSS, VmHWM)\n");
    let _ = writeln!(report, "| contender | idle MiB | after {} pods MiB | peak in the burst MiB |", options.pods);
    let _ = writeln!(report, "| --- | --- | --- | --- |");
    for ((contender, idle), burst) in contenders.iter().zip(&idle).zip(&bursts).skip(1) {
        let mib = |kib: u64| kib as f64 / 1024.0;
        let _ = writeln!(
            report,
            "| {} | {:.1} | {:.1} | {:.1} |",
            contender.name,
            mib(*idle),
            mib(burst.before_kib),
            mib(burst.peak_kib)
        );
    }

    let _ = writeln!(report, "\n### The shim alone: VERSION, from start to exit, n = 100\n");
    let _ = writeln!(report, "| shim | median ms | p99 ms | size KiB |\n| --- | --- | --- | --- |");
    for contender in contenders.iter().skip(2) {
        let (figures, size) = contender.version_times(100);
        let _ = writeln!(
            report,
            "| {} | {:.2} | {:.2} | {} |",
            contender.name,
            millis(figures.percentile(50)),
            millis(figures.percentile(99)),
            size / 1024
        );
    }

    if options.packets {
        eprintln!("bench: packets");
        drop(contenders);
        report.push_str(&packets::report());
    }
    report
}

fn table(report: &mut String, title: &str, contenders: &[Contender], figures: &[Figures]) {
    let _ = writeln!(report, "\n### {title}\n");
    let _ =
        writeln!(report, "| contender | median ms | p90 | p99 | ratio of medians | paired difference ms (median) |");
    let _ = writeln!(report, "| --- | --- | --- | --- | --- | --- |");
    let baseline = &figures[0];
    for (contender, figures) in contenders.iter().zip(figures) {
        let _ = writeln!(
            report,
            "| {} | {:.1} | {:.1} | {:.1} | {:.2} | {:+.1} |",
            contender.name,
            millis(figures.percentile(50)),
            millis(figures.percentile(90)),
            millis(figures.percentile(99)),
            ratio(figures.percentile(50), baseline.percentile(50)),
            figures.paired_difference_ms(baseline),
        );
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn ratio(time: Duration, baseline: Duration) -> f64 {
    time.as_secs_f64() / baseline.as_secs_f64()
}

fn document(report: &str) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "# Benchmarks\n\nMade by `cargo xtask bench --write FILE` on Linux {} with {cores} CPUs. Contenders took turns pod by pod: \
         compare the ratios inside one run, not the milliseconds of two.\n\n\
         `direct` runs the same delegate plugins with the same configurations, without any daemon.\n{report}",
        kernel.trim()
    )
}
