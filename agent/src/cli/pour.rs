//! An answer of the agent that comes piece by piece and goes into a file or a pipe, and how much of it came.
//!
//! A file is the reader's own (0600), never reached through a link, and holds what came so far whenever this is interrupted.

use std::fs::{File, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, IsTerminal, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cli::{Ending, query};
use crate::fault::quote;
use crate::sys::unix_socket::connect;
use crate::wire::http;

/// The longest piece that is taken.
const MOST_PIECE: usize = 16 << 20;
/// The longest line of a head, and the most lines.
const MOST_LINE: u64 = 8 << 10;
const MOST_LINES: usize = 64;

/// Opens the file that is to be written; `-` is standard output, unless that is a terminal.
fn open(file: &Path) -> io::Result<Box<dyn Write>> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    let opened = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(file)?;
    if opened.metadata()?.is_file() {
        opened.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(Box::new(opened))
}

/// Asks for `path`, and writes every piece of the answer to `file`, until the agent or whoever reads ends it; `see` sees
/// each piece first. The agent may be silent for as long as `patience`. What was in the file stays there until there is an
/// answer.
///
/// # Errors
/// The ending that says why there is no answer, or no whole one.
pub fn pour(
    socket: &Path,
    path: &str,
    file: &Path,
    patience: Duration,
    mut see: impl FnMut(&[u8]),
) -> Result<(), Ending> {
    if file == Path::new("-") && io::stdout().is_terminal() {
        return Err(Ending::Usage("a terminal cannot show this: write it to a file, or into a pipe".to_owned()));
    }
    let shown = quote(&socket.to_string_lossy());
    let gone = |error: io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Ending::TimedOut(format!("the agent at {shown} said nothing for {} s", patience.as_secs()))
        }
        _ => query::unreachable(socket, &error),
    };
    let mut stream = connect(socket, Instant::now() + patience).map_err(gone)?;
    stream.set_read_timeout(Some(patience)).and_then(|()| stream.set_write_timeout(Some(patience))).map_err(gone)?;
    http::write_request(&mut stream, "POST", path, b"").map_err(gone)?;
    let mut from = BufReader::new(stream);
    let head = Head::read(&mut from).map_err(gone)?;
    if head.status != 200 || !head.is_chunked {
        let mut body = Vec::new();
        from.take(head.length.unwrap_or(0).min(MOST_LINE)).read_to_end(&mut body).map_err(gone)?;
        return Err(query::refused(path, head.status, &body));
    }
    let failed = |error: io::Error| Ending::Failed(format!("write {}: {error}", quote(&file.to_string_lossy())));
    let mut to = open(file).map_err(failed)?;
    let broken_off = |error: io::Error| match gone(error) {
        Ending::NotReachable(_) => Ending::NotReachable(format!(
            "the agent at {shown} ended before its answer did; what came of it is in {}",
            quote(&file.to_string_lossy())
        )),
        other => other,
    };
    while let Some(piece) = piece(&mut from).map_err(broken_off)? {
        see(&piece);
        match to.write_all(&piece).and_then(|()| to.flush()) {
            Ok(()) => {}
            // Whoever read has read enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// The head of an answer.
struct Head {
    status: u16,
    length: Option<u64>,
    is_chunked: bool,
}

impl Head {
    fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let first = line(from)?;
        let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        let mut head = Self { status: status.ok_or_else(odd)?, length: None, is_chunked: false };
        for _ in 0..MOST_LINES {
            let header = line(from)?;
            let Some((name, value)) = header.split_once(':') else { return Ok(head) };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.trim().parse().ok(),
                "transfer-encoding" => head.is_chunked = value.trim().eq_ignore_ascii_case("chunked"),
                _ => {}
            }
        }
        Err(odd())
    }
}

/// The next piece (RFC 9112 section 7.1); `None`: that was the last.
fn piece(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let size = line(from)?;
    let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).map_err(|_odd| odd())?;
    if size > MOST_PIECE {
        return Err(odd());
    }
    let mut piece = vec![0; size];
    from.read_exact(&mut piece)?;
    line(from)?;
    Ok((size > 0).then_some(piece))
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    from.take(MOST_LINE).read_line(&mut text)?;
    if !text.ends_with('\n') {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the answer is cut short"));
    }
    Ok(text.trim_end().to_owned())
}

fn odd() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the answer is no answer in pieces")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces() {
        let mut whole = "3;x=y\r\nabc\r\n0\r\n\r\n".as_bytes();
        assert_eq!(piece(&mut whole).unwrap().as_deref(), Some(&b"abc"[..]));
        assert_eq!(piece(&mut whole).unwrap(), None);
        for bad in ["", "3\r\nab", "x\r\n", "fffffffffff\r\n", "-1\r\n"] {
            assert!(piece(&mut bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn heads() {
        let read = |text: &str| Head::read(&mut text.as_bytes());
        let head = read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert_eq!((head.status, head.length, head.is_chunked), (200, None, true));
        assert_eq!(read("HTTP/1.1 400 no\r\ncontent-length: 7\r\n\r\n").unwrap().length, Some(7));
        for bad in [
            "",
            "garbage\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: y\r\n",
            &format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(99)),
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
