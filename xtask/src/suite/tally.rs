//! How many tests passed, read from the lines of libtest. Runs nothing.

use std::fmt;

/// What one run of `cargo test -- --show-output` said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Result lines seen: one per test program.
    pub(super) results: u32,
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) ignored: u32,
    /// Lines `skipped: …` that passing tests printed.
    pub(super) skipped: Vec<String>,
    in_successes: bool,
}

impl Tally {
    /// Takes one line; false when it is output of a passing test, which nobody needs to see.
    pub(super) fn read(&mut self, line: &str) -> bool {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.results += 1;
            self.passed += count(result, " passed");
            self.failed += count(result, " failed");
            self.ignored += count(result, " ignored");
        } else if line == "successes:" {
            self.in_successes = true;
        } else if line == "failures:" {
            self.in_successes = false;
        } else if self.in_successes && line.starts_with("skipped: ") {
            self.skipped.push(line.to_owned());
            return true;
        }
        !self.in_successes
    }
}

/// The number before `word` in `ok. 12 passed; 0 failed; …`.
fn count(result: &str, word: &str) -> u32 {
    let before = result.split_once(word).map(|(before, _)| before);
    before.and_then(|before| before.rsplit(' ').next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(out, ", {} ignored", self.ignored)?;
        }
        if !self.skipped.is_empty() {
            write!(out, ", {} of the passed skipped their work", self.skipped.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "\nrunning 3 tests\ntest a ... ok\ntest b ... FAILED\n\nsuccesses:\n\n---- a stdout ----\nnoise\n\
        skipped: no ipvlan here\n\nsuccesses:\n    a\n\nfailures:\n\n---- b stdout ----\nwhy\n\nfailures:\n    b\n\n\
        test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
        test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.10s";

    #[test]
    fn results_add_up_and_noise_is_dropped() {
        let mut tally = Tally::default();
        let shown: Vec<&str> = RUN.lines().filter(|line| tally.read(line)).collect();
        assert_eq!((tally.results, tally.passed, tally.failed, tally.ignored), (2, 41, 1, 1));
        assert_eq!(tally.skipped, ["skipped: no ipvlan here"]);
        assert!(shown.contains(&"why") && shown.contains(&"test a ... ok"), "{shown:?}");
        assert!(!shown.contains(&"noise"), "{shown:?}");
        assert_eq!(shown.iter().filter(|line| line.starts_with("test result:")).count(), 2);
    }
}
