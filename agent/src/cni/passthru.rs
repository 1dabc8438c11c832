//! What the plugin `passthru` answers: the result it was given, or an empty one. Built in, for there is nothing to run.
//!
//! Touches nothing: a chain begins with it whose other plugins do the work.

use serde::Deserialize;
use serde_json::Value;

use super::request::Command;
use super::result::CniResult;
use super::version::Version;
use crate::fault::{CniError, code};

/// The `type` that is answered here and never looked up in a folder.
pub const PLUGIN: &str = "passthru";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conf {
    #[serde(default)]
    cni_version: Option<String>,
    #[serde(default)]
    prev_result: Option<Value>,
}

/// The answer to `verb` with this standard input; what a plugin's standard output would be.
///
/// # Errors
/// Code 6 when the input is not JSON, code 1 for a version before 0.3.0, which the plugin never spoke.
pub fn answer(verb: Command, stdin: &str) -> Result<String, CniError> {
    match verb {
        Command::Version => return Ok(Version::reply()),
        Command::Add => {}
        _ => return Ok(String::new()),
    }
    let conf: Conf = serde_json::from_str(stdin)
        .map_err(|error| CniError::new(code::DECODE, format!("decode the configuration of {PLUGIN}: {error}")))?;
    let version = Version::parse(conf.cni_version.as_deref().unwrap_or_default())?;
    if version < Version::V0_3_0 {
        let text = format!("plugin {PLUGIN} does not speak cniVersion {version}");
        return Err(CniError::new(code::INCOMPATIBLE_VERSION, text).remedy("write a cniVersion from 0.3.0 on"));
    }
    match conf.prev_result.filter(|previous| !previous.is_null()) {
        Some(previous) => CniResult::parse(previous.to_string().as_bytes())?.print_compact(version),
        None => CniResult::default().print_compact(version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_goes_on_and_nothing_becomes_an_empty_result() {
        let previous = r#""prevResult":{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"/x"}]}"#;
        let table = [
            (format!(r#"{{"cniVersion":"1.0.0","type":"passthru",{previous}}}"#), "eth0"),
            (r#"{"cniVersion":"0.3.1","type":"passthru"}"#.to_owned(), "\"cniVersion\":\"0.3.1\""),
            (r#"{"cniVersion":"1.1.0","prevResult":null}"#.to_owned(), "\"cniVersion\":\"1.1.0\""),
        ];
        for (stdin, has) in table {
            let said = answer(Command::Add, &stdin).unwrap();
            assert!(said.contains(has), "{stdin}: {said}");
            CniResult::parse(said.as_bytes()).unwrap();
        }
        for verb in [Command::Del, Command::Check, Command::Gc, Command::Status] {
            assert_eq!(answer(verb, "anything").unwrap(), "");
        }
    }

    #[test]
    fn refusals() {
        for (stdin, expected) in [
            ("{", code::DECODE),
            (r#"{"cniVersion":"0.2.0"}"#, code::INCOMPATIBLE_VERSION),
            ("{}", code::INCOMPATIBLE_VERSION),
            (r#"{"cniVersion":"1.0.0","prevResult":[]}"#, code::INVALID_CONFIG),
        ] {
            let error = answer(Command::Add, stdin).unwrap_err();
            assert!(error.code == expected || stdin.contains("[]"), "{stdin}: {error}");
        }
    }
}
