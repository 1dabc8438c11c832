//! One question to the agent over its socket.

use std::io::{BufReader, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::cli::Ending;
use crate::fault::{escape, quote};
use crate::wire::http;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for the document at `path`.
///
/// # Errors
/// The ending that says why there is none.
pub fn document(socket: &Path, path: &str) -> Result<Value, Ending> {
    ask(socket, "GET", path, b"")
}

/// Has the agent do what `body` says at `path`; the answer is a document too.
///
/// # Errors
/// The ending that says why not.
pub fn order(socket: &Path, path: &str, body: &Value) -> Result<Value, Ending> {
    ask(socket, "POST", path, body.to_string().as_bytes())
}

fn ask(socket: &Path, method: &str, path: &str, body: &[u8]) -> Result<Value, Ending> {
    let shown = quote(&socket.to_string_lossy());
    let broken = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Ending::TimedOut(format!("the agent at {shown} did not answer within {} s", PATIENCE.as_secs()))
        }
        _ => Ending::NotReachable(format!(
            "the agent cannot be reached at {shown}: {error}; is it running, and is --socket (MULTUS_SOCKET) its socket?"
        )),
    };
    let mut stream = UnixStream::connect(socket).map_err(broken)?;
    stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE))).map_err(broken)?;
    http::write_request(&mut stream, method, path, body).map_err(broken)?;
    let answer = http::read_response(&mut BufReader::new(stream), 64 << 20).map_err(broken)?;
    if answer.status != 200 {
        let text = escape(&String::from_utf8_lossy(&answer.body));
        return Err(Ending::Failed(format!("the agent answers {path} with status {}: {text}", answer.status)));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| Ending::Failed(format!("the agent's answer to {path} is not JSON: {error}")))
}
