//! How files become one archive: ustar (POSIX.1-1988) in gzip, plain files in one folder, nothing beyond a limit.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

const BLOCK: usize = 512;

/// An archive that is being written.
pub(super) struct Archive {
    out: GzEncoder<Vec<u8>>,
    folder: &'static str,
    most_file: usize,
    left: usize,
}

impl Archive {
    pub(super) fn new(folder: &'static str, most_file: usize, most_all: usize) -> Self {
        Self { out: GzEncoder::new(Vec::new(), Compression::default()), folder, most_file, left: most_all }
    }

    /// Adds a file of ours. What is too long loses its end, which is told; what finds no room at all is refused so.
    pub(super) fn add(&mut self, name: &'static str, bytes: &[u8]) -> io::Result<Result<Option<String>, String>> {
        if self.left < BLOCK {
            return Ok(Err("the archive is as large as it may be".to_owned()));
        }
        let most = self.most_file.min(self.left);
        let kept = bytes.get(..most.min(bytes.len())).unwrap_or_default();
        self.left = self.left.saturating_sub(kept.len() + BLOCK);
        self.out.write_all(&head(&format!("{}/{name}", self.folder), kept.len()))?;
        self.out.write_all(kept)?;
        let padding = kept.len().next_multiple_of(BLOCK) - kept.len();
        self.out.write_all(&vec![0; padding])?;
        let cut = bytes.len() - kept.len();
        Ok(Ok((cut > 0).then(|| format!("its last {cut} bytes"))))
    }

    pub(super) fn finish(mut self) -> io::Result<Vec<u8>> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.finish()
    }
}

/// The head of a plain file that its owner alone reads.
fn head(path: &str, length: usize) -> Vec<u8> {
    let field = |width: usize, text: &str| {
        let mut bytes: Vec<u8> = text.bytes().take(width).collect();
        bytes.resize(width, 0);
        bytes
    };
    let octal = |width: usize, value: usize| field(width, &format!("{value:0digits$o}", digits = width - 1));
    let before =
        [field(100, path), octal(8, 0o600), octal(8, 0), octal(8, 0), octal(12, length), octal(12, 0)].concat();
    let kind = [b"0".to_vec(), field(100, ""), b"ustar\x0000".to_vec(), field(32, "root"), field(32, "root")].concat();
    // The sum is made as if it were blanks itself.
    let sum: usize = before.iter().chain(&kind).map(|byte| usize::from(*byte)).sum::<usize>() + 8 * usize::from(b' ');
    let mut head = [before, field(8, &format!("{sum:06o}\0 ")), kind].concat();
    head.resize(BLOCK, 0);
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn files_are_blocks_with_a_head_and_keep_to_the_limit() {
        let mut archive = Archive::new("dump", 100, 2000);
        assert_eq!(archive.add("a", b"hello").unwrap(), Ok(None));
        assert_eq!(archive.add("b", &[b'x'; 150]).unwrap(), Ok(Some("its last 50 bytes".into())));
        assert_eq!(archive.add("c", b"").unwrap(), Ok(None));
        assert!(archive.add("d", b"no").unwrap().is_err());
        let packed = archive.finish().unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 7 * BLOCK);
        assert!(bytes.starts_with(b"dump/a\0") && bytes[257..265] == *b"ustar\x0000", "a ustar head");
        assert_eq!((&bytes[124..136], &bytes[156..157]), (&b"00000000005\0"[..], &b"0"[..]));
        assert_eq!(bytes[512..517], *b"hello");
        let sum: u32 = bytes[..512]
            .iter()
            .enumerate()
            .map(|(at, b)| u32::from(if (148..156).contains(&at) { b' ' } else { *b }))
            .sum();
        assert_eq!(std::str::from_utf8(&bytes[148..154]).unwrap(), format!("{sum:06o}"));
    }
}
