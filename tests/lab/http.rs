//! How a test asks an HTTP question over the agent's socket or a port of the node.
//!
//! One request per connection, everything under a deadline; it follows nothing and keeps nothing.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::Netns;

const PATIENCE: Duration = Duration::from_secs(10);

/// A reply.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Body, as text.
    pub body: String,
}

/// GET over a Unix socket.
pub fn get_unix(socket: &Path, target: &str) -> io::Result<Reply> {
    parse(&raw_unix(socket, request("GET", target, b"").as_slice())?)
}

/// POST over a Unix socket.
pub fn post_unix(socket: &Path, target: &str, body: &[u8]) -> io::Result<Reply> {
    parse(&raw_unix(socket, &request("POST", target, body))?)
}

/// Sends raw bytes over a Unix socket, says no more, and reads until the other side closes.
pub fn raw_unix(socket: &Path, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(bytes)?;
    drain(&mut stream)
}

/// GET over TCP inside `netns`.
pub fn get_tcp(netns: &Netns, address: &str, target: &str) -> io::Result<Reply> {
    let mut stream = netns.enter(|| TcpStream::connect(address))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&request("GET", target, b""))?;
    parse(&drain(&mut stream)?)
}

fn request(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {target} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn drain(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        // A peer that closes hard after its answer still answered.
        Err(e) if !bytes.is_empty() && e.kind() == io::ErrorKind::ConnectionReset => Ok(bytes),
        Err(e) => Err(e),
    }
}

fn parse(bytes: &[u8]) -> io::Result<Reply> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP reply");
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok(Reply { status, body: if chunked { unchunk(body) } else { body.to_owned() } })
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < size {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}
