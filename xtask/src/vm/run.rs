//! One machine, from power on to power off: what it prints is shown, how the tests ended is told.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::kernel::Kernel;
use crate::Outcome;

/// What the machine prints before the exit code of the tests.
pub(super) const MARK: &str = "the tests ended with ";

/// How long a machine may take. Software is some thirty times slower than a processor.
const PATIENCE: Duration = Duration::from_mins(45);

/// How it went.
pub(super) enum End {
    Passed,
    Failed(String),
    /// The machine went down, or was taken down, without a word about the tests.
    Silent,
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(out, "passed"),
            Self::Failed(code) => write!(out, "the tests failed (exit code {code})"),
            Self::Silent => write!(out, "the machine ended without a word about the tests"),
        }
    }
}

/// Boots `kernel` with `image` and waits for its end.
pub(super) fn boot(kernel: &Kernel, image: &Path) -> Outcome<End> {
    // QEMU 7.2 sometimes spoils the flags register in `cmpxchg16b`, which ends the kernel in its allocator. Kernels know
    // processors without that instruction.
    let mut machine = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg", "-cpu", "max,-cx16", "-smp", "2", "-m", "2048", "-nic", "none"])
        .args(["-nographic", "-no-reboot", "-append", "console=ttyS0 panic=-1 quiet"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("start a machine: {error}"))?;
    let (line_in, lines) = mpsc::channel();
    let output = machine.stdout.take();
    let reader = std::thread::spawn(move || {
        for line in output.into_iter().flat_map(|output| BufReader::new(output).split(b'\n')).map_while(Result::ok) {
            let _ = line_in.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
    let end = listen(&lines, Instant::now() + PATIENCE);
    stop(&mut machine);
    let _ = reader.join();
    Ok(end)
}

fn listen(lines: &mpsc::Receiver<String>, until: Instant) -> End {
    let mut end = End::Silent;
    while let Ok(line) = lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
        println!("{}", line.chars().filter(|c| !c.is_control()).collect::<String>());
        if let Some((_, code)) = line.split_once(MARK) {
            end = if code == "0" { End::Passed } else { End::Failed(code.to_owned()) };
        }
    }
    end
}

/// Most machines have powered off by now.
fn stop(machine: &mut Child) {
    let _ = machine.kill();
    let _ = machine.wait();
}
