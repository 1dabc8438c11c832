//! How HTTP/1.1 looks on the wire: requests in, answers and chunks out.
//!
//! Knows nothing of Kubernetes but its protobuf envelope.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::protobuf;

/// Most bytes of a request's body.
const MOST_BODY: usize = 4 << 20;

/// One request.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) accept: String,
    pub(super) token: Option<String>,
    /// `Null` when there is none or it is neither JSON nor protobuf.
    pub(super) body: Value,
}

impl Request {
    /// The value of a query parameter, decoded.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| decode(value))
        })
    }

    /// True when the parameter is `true` or `1`.
    pub(super) fn is_set(&self, name: &str) -> bool {
        matches!(self.parameter(name).as_deref(), Some("true" | "1"))
    }
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let pair = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                std::str::from_utf8(&pair).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// One connection, requests one after the other.
pub(super) struct Connection {
    input: BufReader<TcpStream>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { input: BufReader::new(stream) }
    }

    /// The next request; `None` when the client is done.
    pub(super) fn read(&mut self) -> io::Result<Option<Request>> {
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request =
            Request { method: method.to_owned(), path: path.to_owned(), query: query.to_owned(), ..Request::default() };
        let length = self.read_head(&mut request)?;
        let mut body = vec![0; length];
        self.input.read_exact(&mut body)?;
        request.body = serde_json::from_slice(&body).ok().or_else(|| protobuf::read(&body)).unwrap_or_default();
        Ok(Some(request))
    }

    fn read_head(&mut self, request: &mut Request) -> io::Result<usize> {
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.input.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(length) };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    length =
                        value.parse().ok().filter(|length| *length <= MOST_BODY).ok_or(io::ErrorKind::InvalidData)?;
                }
                "transfer-encoding" => return Err(io::ErrorKind::Unsupported.into()),
                "accept" => value.clone_into(&mut request.accept),
                "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_owned),
                _ => {}
            }
        }
    }

    /// A whole answer.
    pub(super) fn answer(&mut self, status: u16, body: &Value) -> io::Result<()> {
        let body = body.to_string();
        let wait = if status == 429 { "Retry-After: 1\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status} Lab\r\nContent-Type: application/json\r\n{wait}Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.input.get_mut().write_all((head + &body).as_bytes())
    }

    /// The head of an answer that comes in chunks.
    pub(super) fn begin_chunks(&mut self) -> io::Result<()> {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.input.get_mut().write_all(head.as_bytes())
    }

    /// One line as one chunk.
    pub(super) fn chunk(&mut self, line: &Value) -> io::Result<()> {
        let line = format!("{line}\n");
        self.input.get_mut().write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())
    }

    /// The proper end of the chunks.
    pub(super) fn end_chunks(&mut self) -> io::Result<()> {
        self.input.get_mut().write_all(b"0\r\n\r\n")
    }

    /// True when the client has gone.
    pub(super) fn is_closed(&self) -> bool {
        let stream = self.input.get_ref();
        let mut byte = [0];
        let closed = stream.set_nonblocking(true).is_err() || matches!(stream.peek(&mut byte), Ok(0));
        closed || stream.set_nonblocking(false).is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let request = Request { query: "watch=true&fieldSelector=spec.nodeName%3Dn1".into(), ..Request::default() };
        assert!(request.is_set("watch"));
        assert_eq!(request.parameter("fieldSelector").as_deref(), Some("spec.nodeName=n1"));
        assert_eq!(request.parameter("limit"), None);
    }
}
