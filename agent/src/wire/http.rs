//! HTTP/1.1 as far as one side of a Unix socket needs it: write a request, read a response, over any reader and writer.
//!
//! Opens no socket itself. Bodies have a length; chunked answers are not asked for and not understood.

use std::io::{BufRead, Error, ErrorKind, Read, Result, Write};

const MOST_HEAD: u64 = 16 << 10;

/// A response: status and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, at most the limit given to [`read_response`].
    pub body: Vec<u8>,
}

/// Writes one request in one go, so that the peer wakes up once.
pub fn write_request(to: &mut impl Write, method: &str, path: &str, body: &[u8]) -> Result<()> {
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nHost: multus\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    text.extend_from_slice(body);
    to.write_all(&text)?;
    to.flush()
}

/// Reads one response. `UnexpectedEof`: the peer is gone; `InvalidData`: it does not speak HTTP or says too much.
pub fn read_response(from: &mut impl BufRead, limit: usize) -> Result<Response> {
    let (status, length) = read_head(from)?;
    let length = length.unwrap_or(0);
    if length > limit {
        return Err(too_large());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Response { status, body })
}

/// The same for the last response of a connection, whose body may end with it (HTTP/1.0).
pub fn read_last_response(from: &mut impl BufRead, limit: usize) -> Result<Response> {
    let (status, length) = read_head(from)?;
    let most = length.unwrap_or(limit.saturating_add(1));
    if length.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    from.take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(&mut body)?;
    match length {
        Some(length) if body.len() < length => Err(Error::new(ErrorKind::UnexpectedEof, "the answer is cut short")),
        None if body.len() > limit => Err(too_large()),
        _ => Ok(Response { status, body }),
    }
}

fn too_large() -> Error {
    bad("the answer is larger than allowed")
}

/// The status, and the body's length if it is said.
fn read_head(from: &mut impl BufRead) -> Result<(u16, Option<usize>)> {
    let mut head = from.take(MOST_HEAD);
    let status = status_of(&line(&mut head)?)?;
    let mut length = None;
    loop {
        let header = line(&mut head)?;
        if header.is_empty() {
            break;
        }
        let Some((name, value)) = header.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().map_err(|_error| bad("content-length is not a number"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(bad("a chunked answer was not asked for"));
        }
    }
    Ok((status, length))
}

fn line(from: &mut impl BufRead) -> Result<String> {
    let mut text = String::new();
    if from.read_line(&mut text)? == 0 {
        return Err(Error::new(ErrorKind::UnexpectedEof, "the peer closed the connection"));
    }
    if !text.ends_with('\n') {
        return Err(bad("a header is cut short or too long"));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

fn status_of(line: &str) -> Result<u16> {
    let mut words = line.split(' ');
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    words
        .next()
        .filter(|_| is_http)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| bad("the peer does not speak HTTP/1"))
}

fn bad(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_whole() {
        let mut out = Vec::new();
        write_request(&mut out, "POST", "/v1/cni", b"{}").unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("POST /v1/cni HTTP/1.1\r\n") && text.ends_with("Content-Length: 2\r\n\r\n{}"),
            "{text}"
        );
    }

    #[test]
    fn responses() {
        let read = |text: &str| read_response(&mut text.as_bytes(), 10);
        let ok = read("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: y\r\n\r\nhi").unwrap();
        assert_eq!(ok, Response { status: 200, body: b"hi".to_vec() });
        for (text, kind) in [
            ("", ErrorKind::UnexpectedEof),
            ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhi", ErrorKind::UnexpectedEof),
            ("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n", ErrorKind::InvalidData),
            ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", ErrorKind::InvalidData),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", ErrorKind::InvalidData),
            ("garbage\r\n\r\n", ErrorKind::InvalidData),
            ("HTTP/1.1 200", ErrorKind::InvalidData),
        ] {
            assert_eq!(read(text).unwrap_err().kind(), kind, "{text:?}");
        }
        let last = |text: &str| read_last_response(&mut text.as_bytes(), 10);
        assert_eq!(last("HTTP/1.0 200 OK\r\n\r\nto the end").unwrap().body, b"to the end");
        assert_eq!(last("HTTP/1.1 400 X\r\ncontent-length: 2\r\n\r\nhi").unwrap().body, b"hi");
        for text in ["HTTP/1.0 200 OK\r\n\r\nbeyond the limit", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhi"] {
            assert!(last(text).is_err(), "{text:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(10_000));
        assert!(read(&endless).is_err());
    }
}
