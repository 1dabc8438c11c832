//! A daemon of upstream's Multus behind the socket: asked in its own protocol, so that a node survives the time between
//! two installations.
//!
//! The daemon runs the delegates itself; nothing is run here. One question, one answer.

use std::io::{self, BufReader, Error, ErrorKind, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use multus_agent::cni::result::CniResult;
use multus_agent::cni::version::Version;
use multus_agent::fault::{CniError, code, is_hidden};
use multus_agent::wire::{self, Call, Step, UpstreamRequest, http};
use serde::Deserialize;

use crate::agent;

/// How often a daemon that is not ready is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// Most characters of an answer in plain text that are passed on.
const MOST_SAID: usize = 400;

#[derive(Deserialize)]
struct Success {
    #[serde(rename = "Result")]
    result: serde_json::Value,
}

/// Waits until the daemon is ready and asks it once. Daemons of before 4.3.1 know no `/readyz`; that they answer at all
/// must do then.
pub(crate) fn ask(socket_dir: &Path, call: &Call, version: &str, deadline: Instant) -> io::Result<Step> {
    while !is_ready(socket_dir, deadline)? {
        if Instant::now() + AGAIN >= deadline {
            return Err(Error::new(ErrorKind::TimedOut, "the Multus daemon is not ready"));
        }
        std::thread::sleep(AGAIN);
    }
    let body = serde_json::to_vec(&UpstreamRequest {
        env: Some(call.env.clone()),
        config: Some(base64(call.config.as_bytes())),
        attributes: None,
    })?;
    let answer = post(socket_dir, "/cni", &body, deadline)?;
    Ok(match (answer.status, answer.body.is_empty()) {
        (200, true) => Step::Done { output: None },
        (200, false) => match convert(&answer.body, version) {
            Ok(output) => Step::Done { output: Some(output) },
            Err(error) => Step::Fail { error },
        },
        _ => Step::Fail { error: refusal(&answer) },
    })
}

fn is_ready(socket_dir: &Path, deadline: Instant) -> io::Result<bool> {
    let status = match post(socket_dir, "/readyz", b"null", deadline)?.status {
        404 => post(socket_dir, "/healthz", b"null", deadline)?.status,
        status => status,
    };
    Ok(status == 200)
}

/// One request of HTTP/1.0 on a connection of its own: to anything newer Go answers in chunks.
fn post(socket_dir: &Path, path: &str, body: &[u8], deadline: Instant) -> io::Result<http::Response> {
    let mut stream = agent::connect(socket_dir, deadline)?;
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))?;
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: dummy\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    http::read_last_response(&mut BufReader::new(stream), wire::MOST_BODY)
}

/// The daemon answers in the newest version, the runtime asked in its own.
fn convert(body: &[u8], version: &str) -> Result<String, CniError> {
    let success: Success = serde_json::from_slice(body)
        .map_err(|error| CniError::new(code::DECODE, format!("decode the daemon's answer: line {}", error.line())))?;
    // What is wrong with it may quote a value of it.
    let result = CniResult::parse(success.result.to_string().as_bytes()).map_err(crate::conceal)?;
    result.print(Version::parse(version)?)
}

/// A CNI error object where the daemon gave one, else its text: what follows the request it repeats.
fn refusal(answer: &http::Response) -> CniError {
    if let Ok(error) = serde_json::from_slice::<CniError>(&answer.body) {
        return error;
    }
    let text = String::from_utf8_lossy(&answer.body);
    let said = text.split_once("ERRORED: ").map_or(text.as_ref(), |(_, said)| said).trim();
    let said: String =
        said.chars().map(|c| if c.is_control() || is_hidden(c) { ' ' } else { c }).take(MOST_SAID).collect();
    CniError::new(code::INTERNAL, format!("the Multus daemon answers with status {}: {said}", answer.status))
}

/// Standard base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    let letter = |six: u32| match u8::try_from(six & 63).unwrap_or(0) {
        six @ 0..26 => b'A' + six,
        six @ 26..52 => b'a' + six - 26,
        six @ 52..62 => b'0' + six - 52,
        62 => b'+',
        _ => b'/',
    };
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let word = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for at in 0..4 {
            text.push(if at <= chunk.len() { char::from(letter(word >> (18 - 6 * at))) } else { '=' });
        }
    }
    text
}
