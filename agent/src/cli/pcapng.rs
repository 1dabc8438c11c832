//! How frames with comments are written so that Wireshark and tshark read them: the pcapng format
//! (draft-ietf-opsawg-pcapng), little-endian, nanoseconds, one interface block for each interface that occurs.

use std::io::{Result, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

const COMMENT: u16 = 1;
const INTERFACE_NAME: u16 = 2;
const TIME_RESOLUTION: u16 = 9;
/// Ten to the power of minus nine.
const NANOSECONDS: u8 = 9;

/// A frame and what is to be said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// Where it was.
    pub interface: String,
    /// When: nanoseconds of the Unix epoch.
    pub nanos: u64,
    /// Its length on the link.
    pub length: u32,
    /// Its first bytes.
    pub head: Vec<u8>,
    /// The comment.
    pub comment: String,
}

/// Writes one section.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
    interfaces: Vec<String>,
}

impl<W: Write> Writer<W> {
    /// Writes the section's header.
    pub fn new(mut to: W) -> Result<Self> {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        // Version 1.0, of a length that is not said.
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        block(&mut to, SECTION_HEADER, &body)?;
        Ok(Self { to, interfaces: Vec::new() })
    }

    /// Writes one frame, and before it its interface when that is new.
    pub fn frame(&mut self, frame: &Frame) -> Result<()> {
        let interface = self.interface(&frame.interface)?;
        let mut body = Vec::new();
        let [high, low] = [frame.nanos >> 32, frame.nanos & u64::from(u32::MAX)];
        for word in [u64::from(interface), high, low, frame.head.len() as u64, u64::from(frame.length)] {
            body.extend(u32::try_from(word).unwrap_or(u32::MAX).to_le_bytes());
        }
        padded(&mut body, &frame.head);
        option(&mut body, COMMENT, frame.comment.as_bytes());
        end_of_options(&mut body);
        block(&mut self.to, ENHANCED_PACKET, &body)
    }

    /// Writes out what is still held back.
    pub fn flush(&mut self) -> Result<()> {
        self.to.flush()
    }

    fn interface(&mut self, name: &str) -> Result<u32> {
        if let Some(index) = self.interfaces.iter().position(|known| known == name) {
            return Ok(u32::try_from(index).unwrap_or(u32::MAX));
        }
        let mut body = Vec::new();
        body.extend(LINKTYPE_ETHERNET.to_le_bytes());
        // Reserved, and no limit of what is captured.
        body.extend([0; 6]);
        option(&mut body, INTERFACE_NAME, name.as_bytes());
        option(&mut body, TIME_RESOLUTION, &[NANOSECONDS]);
        end_of_options(&mut body);
        block(&mut self.to, INTERFACE_DESCRIPTION, &body)?;
        self.interfaces.push(name.to_owned());
        Ok(u32::try_from(self.interfaces.len() - 1).unwrap_or(u32::MAX))
    }
}

/// A block says its length before and after what it holds.
fn block(to: &mut impl Write, kind: u32, body: &[u8]) -> Result<()> {
    let length = u32::try_from(body.len() + 12).unwrap_or(u32::MAX).to_le_bytes();
    to.write_all(&[&kind.to_le_bytes()[..], &length, body, &length].concat())
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    body.extend(code.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    padded(body, value);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

/// Everything is filled up to 32 bits.
fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_blocks_that_say_their_length_twice() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out).unwrap();
        let frame = Frame {
            interface: "eth0".into(),
            nanos: (7 << 32) + 5,
            length: 99,
            head: vec![1, 2, 3],
            comment: "why".into(),
        };
        writer.frame(&frame).unwrap();
        writer.frame(&frame).unwrap();
        writer.flush().unwrap();
        let word = |at: usize| u32::from_le_bytes(out[at..at + 4].try_into().unwrap());
        let (mut at, mut kinds) = (0, Vec::new());
        while at < out.len() {
            let length = word(at + 4) as usize;
            assert_eq!((length % 4, word(at + length - 4) as usize), (0, length), "block at {at}");
            if word(at) == ENHANCED_PACKET {
                let fields: Vec<_> = (0..5).map(|n| word(at + 8 + 4 * n)).collect();
                assert_eq!(fields, [0, 7, 5, 3, 99]);
                assert_eq!(&out[at + 28..at + 32], &[1, 2, 3, 0]);
                assert_eq!(&out[at + 32..at + 40], b"\x01\0\x03\0why\0");
            }
            kinds.push(word(at));
            at += length;
        }
        assert_eq!(kinds, [SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET, ENHANCED_PACKET]);
    }
}
