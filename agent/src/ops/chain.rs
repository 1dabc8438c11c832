//! One delegate call and what came of it: run, measured, its answer read.

use std::time::Duration;

use crate::cni::{Command, passthru};
use crate::fault::{CniError, code, escape, is_hidden, quote};
use crate::metrics::DelegateLabels;
use crate::ops::context::Context;
use crate::ops::runner::{Gone, Runner};
use crate::wire::{Job, Outcome, Problem};

/// Most characters of a plugin's standard error that go into a sentence.
const MOST_SAID: usize = 400;

/// A delegate call that failed.
#[derive(Debug)]
pub struct Failed {
    /// The plugin's own error object, code kept; else code 103 with what is known. Code 11 when the runner is gone.
    pub error: CniError,
    /// Did anything run at all? What did not has nothing to undo.
    pub ran: bool,
}

/// Runs `job` and answers its standard output.
///
/// # Errors
/// As [`Failed::error`] says.
pub async fn run<R: Runner>(context: &Context, runner: &mut R, job: Job) -> Result<String, CniError> {
    attempt(context, runner, job).await.map_err(|failed| failed.error)
}

/// The same, and on failure whether there is anything to undo.
///
/// # Errors
/// What failed.
pub async fn attempt<R: Runner>(context: &Context, runner: &mut R, job: Job) -> Result<String, Failed> {
    let (plugin, verb, timeout_ms) = (job.plugin.clone(), job.verb, job.timeout_ms);
    if plugin.as_str() == passthru::PLUGIN {
        return passthru::answer(verb, &job.stdin).map_err(|error| Failed { error, ran: false });
    }
    let label = runner.label();
    let outcome = runner.run(job).await.map_err(|Gone| Failed { error: gone(), ran: true })?;
    let labels =
        DelegateLabels { r#type: context.metrics.type_label(plugin.as_str()), verb: verb.as_str(), runner: label };
    let took = Duration::from_millis(outcome.took_ms);
    context.metrics.delegate_duration.get_or_create(&labels).observe(took.as_secs_f64());
    let ran = !matches!(outcome.problem, Some(Problem::NotFound(_)));
    let answer = read(outcome, plugin.as_str(), verb, timeout_ms);
    context.metrics.delegate_failures.get_or_create(&labels).inc_by(u64::from(answer.is_err()));
    context.delegates.note(&labels, took, answer.as_ref().err());
    answer.map_err(|error| Failed { error, ran })
}

fn gone() -> CniError {
    CniError::new(code::TRY_LATER, "the CNI plugin that asked is gone").remedy("the runtime tries again")
}

fn read(outcome: Outcome, plugin: &str, verb: Command, timeout_ms: u64) -> Result<String, CniError> {
    let name = quote(plugin);
    let fault = |text: String| CniError::new(code::DELEGATE, text);
    match outcome.problem {
        None if outcome.exit == Some(0) => Ok(outcome.stdout),
        None => Err(said(&outcome, &name)),
        Some(Problem::NotFound(folders)) => Err(not_found(plugin, &folders)),
        Some(Problem::NotStarted(why)) => Err(fault(format!("plugin {name} could not be run: {}", escape(&why)))),
        Some(Problem::TimedOut) => {
            let text = format!("plugin {name} did not finish its {verb} within {timeout_ms} ms and was ended");
            Err(fault(text).remedy("see what it waits for, or raise requestTimeout"))
        }
        Some(Problem::Signal(signal)) => Err(fault(format!("plugin {name} was ended by signal {signal}"))),
        Some(Problem::TooMuchOutput) => Err(fault(format!("plugin {name} printed more than a result can be"))),
        Some(Problem::Refused(why)) => Err(fault(format!("the CNI plugin refused to run {name}: {}", escape(&why)))),
    }
}

/// A plugin that is in none of `folders`, which are joined by colons.
pub fn not_found(plugin: &str, folders: &str) -> CniError {
    let text = format!("find plugin {}: no such file in {}", quote(plugin), escape(folders));
    CniError::new(code::DELEGATE, text).remedy("install the plugin there, or set binDir to the folder that has it")
}

/// The failure of a plugin in its own words: the error object of CNI SPEC 1.1, else the end of its standard error.
fn said(outcome: &Outcome, name: &str) -> CniError {
    if let Ok(error) = serde_json::from_str::<CniError>(outcome.stdout.trim()) {
        return CniError { code: error.code, msg: clip(&error.msg), details: clip(&error.details) };
    }
    let exit = outcome.exit.unwrap_or(-1);
    let stderr = outcome.stderr.trim();
    let text = match (stderr.is_empty(), outcome.stdout.trim().is_empty()) {
        (false, _) => format!("plugin {name} failed with exit code {exit}: {}", clip(stderr)),
        (true, false) => format!("plugin {name} failed with exit code {exit}; its output is not a CNI error object"),
        (true, true) => format!("plugin {name} failed with exit code {exit} and said nothing"),
    };
    CniError::new(code::DELEGATE, text)
}

/// Foreign text for a sentence: escaped, quotes and backslashes left alone, its end kept when it is long.
fn clip(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|c| if c.is_control() || is_hidden(c) { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned();
    let skip = plain.chars().count().saturating_sub(MOST_SAID);
    if skip == 0 { plain } else { format!("…{}", plain.chars().skip(skip).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(stdout: &str, stderr: &str) -> CniError {
        let outcome = Outcome { exit: Some(1), stdout: stdout.into(), stderr: stderr.into(), ..Outcome::default() };
        read(outcome, "bridge", Command::Add, 1).unwrap_err()
    }

    #[test]
    fn a_plugins_error_object_keeps_its_code() {
        let error = fails(r#"{"cniVersion":"1.0.0","code":11,"msg":"busy","details":"later"}"#, "noise");
        assert_eq!(error, CniError::new(11, "busy").remedy("later"));
    }

    #[test]
    fn other_failures_are_described() {
        for (stdout, stderr, has) in [
            ("", "boom\u{1b}[31m", "exit code 1: boom [31m"),
            ("garbage", "", "not a CNI error object"),
            ("", "", "said nothing"),
        ] {
            let error = fails(stdout, stderr);
            assert!(error.code == code::DELEGATE && error.msg.contains(has), "{error}");
        }
        let long = fails("", &"x".repeat(5_000));
        assert!(long.msg.len() < 600, "{}", long.msg.len());
    }

    #[test]
    fn problems_around_a_plugin_name_it_and_the_remedy() {
        let outcome = Outcome { problem: Some(Problem::NotFound("/opt/cni/bin".into())), ..Outcome::default() };
        let error = read(outcome, "macvlan", Command::Add, 1).unwrap_err();
        assert!(error.msg.contains("\"macvlan\"") && error.msg.contains("/opt/cni/bin"), "{error}");
        assert!(error.details.contains("install"));
    }
}
