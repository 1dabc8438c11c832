//! One question to the agent over its socket.

use std::fmt::Write as _;
use std::io::{self, BufReader, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::Ending;
use crate::cli::output::safe;
use crate::fault::quote;
use crate::sys::unix_socket::connect;
use crate::wire::http;

/// How long the agent may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for the document at `path`.
///
/// # Errors
/// The ending that says why there is none.
pub fn document(socket: &Path, path: &str) -> Result<Value, Ending> {
    ask(socket, "GET", path, PATIENCE)
}

/// Has the agent do what `body` says at `path`; the answer is a document too.
///
/// # Errors
/// The ending that says why not.
pub fn order(socket: &Path, path: &str, body: &Value) -> Result<Value, Ending> {
    talk(socket, ("POST", path, body.to_string().as_bytes()), PATIENCE)
}

/// The same with another method, or for what takes longer than usual.
///
/// # Errors
/// As [`document`].
pub fn ask(socket: &Path, method: &str, path: &str, patience: Duration) -> Result<Value, Ending> {
    talk(socket, (method, path, b""), patience)
}

fn talk(socket: &Path, request: (&str, &str, &[u8]), patience: Duration) -> Result<Value, Ending> {
    let (path, answer) = (request.1, exchange(socket, request, patience)?);
    if answer.status != 200 {
        return Err(refused(path, answer.status, &answer.body));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| Ending::Failed(format!("the agent's answer to {path} is not JSON: {error}")))
}

/// Method, path and body to whoever serves there, and his answer, whatever its status.
///
/// # Errors
/// The ending that says why there is none.
pub fn exchange(
    socket: &Path,
    (method, path, body): (&str, &str, &[u8]),
    patience: Duration,
) -> Result<http::Response, Ending> {
    let shown = quote(&socket.to_string_lossy());
    let broken = |error: io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Ending::TimedOut(format!(
            "the agent at {shown} did not answer within {:.0} s",
            patience.as_secs_f64().ceil()
        )),
        _ => unreachable(socket, &error),
    };
    let mut stream = connect(socket, Instant::now() + patience).map_err(broken)?;
    stream.set_read_timeout(Some(patience)).and_then(|()| stream.set_write_timeout(Some(patience))).map_err(broken)?;
    http::write_request(&mut stream, method, path, body).map_err(broken)?;
    http::read_response(&mut BufReader::new(stream), 64 << 20).map_err(broken)
}

/// Nobody answers there.
pub fn unreachable(socket: &Path, error: &io::Error) -> Ending {
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => "only root may ask it, on the node or in the agent's pod",
        _ => "is it running, and is --socket (MULTUS_SOCKET) its socket?",
    };
    let shown = quote(&socket.to_string_lossy());
    Ending::NotReachable(format!("the agent cannot be reached at {shown}: {error}; {remedy}"))
}

/// What the agent says instead of a document: its sentence first, for that is what one came for.
pub fn refused(path: &str, status: u16, body: &[u8]) -> Ending {
    let (path, text) = (path.split('?').next().unwrap_or_default(), String::from_utf8_lossy(body));
    let text = if text.trim().is_empty() { "the agent does not say why".into() } else { text };
    let said = format!("{} ({path}: status {status})", safe(text.trim()));
    // What the question itself has wrong; all else, also what is not there (404), is how things are.
    if status == 400 { Ending::Usage(said) } else { Ending::Failed(said) }
}

/// A path with names and values behind it; what has no value is left out.
pub fn with(path: &str, values: &[(&str, Option<String>)]) -> String {
    let mut target = path.to_owned();
    for (name, value) in values {
        let Some(value) = value else { continue };
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str(name);
        target.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                target.push(char::from(byte));
            } else {
                let _infallible = write!(target, "%{byte:02x}");
            }
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_agents_sentence() {
        let said = |body: &str| match refused("/v1/x?name=a", 400, body.as_bytes()) {
            Ending::Usage(text) => text,
            other => panic!("{other:?}"),
        };
        for status in [404, 429, 500] {
            assert!(matches!(refused("/v1/x", status, b"no such pod"), Ending::Failed(_)), "{status}");
        }
        assert_eq!(said("\"lo\" is no parent\u{1b}"), "\"lo\" is no parent\\u{1b} (/v1/x: status 400)");
        assert_eq!(said(""), "the agent does not say why (/v1/x: status 400)");
    }

    #[test]
    fn values_are_written_so_that_nothing_in_them_counts() {
        let values = [("name", Some("a b&c=ü".to_owned())), ("pod", None), ("parent", Some("eth0".to_owned()))];
        assert_eq!(with("/v1/x", &values), "/v1/x?name=a%20b%26c%3d%c3%bc&parent=eth0");
    }
}
