//! How frames with comments are written so that Wireshark and tshark read them: the pcapng format
//! (draft-ietf-opsawg-pcapng), little-endian, nanoseconds, one interface block for each interface that occurs.

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

const COMMENT: u16 = 1;
const FLAGS: u16 = 2;
const INTERFACE_STATISTICS: u32 = 5;
const RECEIVED: u16 = 4;
const DROPPED: u16 = 5;
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
    /// Which way it went, where that is known.
    pub way: Option<Way>,
    /// The comment.
    pub comment: String,
}

/// Which way a frame went through its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In.
    In = 1,
    /// Out.
    Out = 2,
}

/// Writes one section.
#[derive(Debug)]
pub struct Writer {
    to: Vec<u8>,
    interfaces: Vec<String>,
}

impl Default for Writer {
    /// One that begins with the section's header.
    fn default() -> Self {
        let (mut to, mut body) = (Vec::new(), Vec::new());
        body.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        // Version 1.0, of a length that is not said.
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        block(&mut to, SECTION_HEADER, &body);
        Self { to, interfaces: Vec::new() }
    }
}

impl Writer {
    /// Writes one frame, and before it its interface when that is new.
    pub fn frame(&mut self, frame: &Frame) {
        let interface = self.interface(&frame.interface);
        let mut body = Vec::new();
        let [high, low] = [frame.nanos >> 32, frame.nanos & u64::from(u32::MAX)];
        for word in [u64::from(interface), high, low, frame.head.len() as u64, u64::from(frame.length)] {
            body.extend(u32::try_from(word).unwrap_or(u32::MAX).to_le_bytes());
        }
        padded(&mut body, &frame.head);
        option(&mut body, COMMENT, frame.comment.as_bytes());
        if let Some(way) = frame.way {
            option(&mut body, FLAGS, &(way as u32).to_le_bytes());
        }
        end_of_options(&mut body);
        block(&mut self.to, ENHANCED_PACKET, &body);
    }

    /// Writes how many frames an interface had and how many of them were lost on their way here, and why this is the end.
    pub fn statistics(&mut self, interface: &str, nanos: u64, (had, lost): (u64, u64), comment: &str) {
        let interface = self.interface(interface);
        let mut body = Vec::new();
        let [high, low] = [nanos >> 32, nanos & u64::from(u32::MAX)];
        for word in [u64::from(interface), high, low] {
            body.extend(u32::try_from(word).unwrap_or(u32::MAX).to_le_bytes());
        }
        option(&mut body, COMMENT, comment.as_bytes());
        option(&mut body, RECEIVED, &had.to_le_bytes());
        option(&mut body, DROPPED, &lost.to_le_bytes());
        end_of_options(&mut body);
        block(&mut self.to, INTERFACE_STATISTICS, &body);
    }

    fn interface(&mut self, name: &str) -> u32 {
        if let Some(index) = self.interfaces.iter().position(|known| known == name) {
            return u32::try_from(index).unwrap_or(u32::MAX);
        }
        let mut body = Vec::new();
        body.extend(LINKTYPE_ETHERNET.to_le_bytes());
        // Reserved, and no limit of what is captured.
        body.extend([0; 6]);
        option(&mut body, INTERFACE_NAME, name.as_bytes());
        option(&mut body, TIME_RESOLUTION, &[NANOSECONDS]);
        end_of_options(&mut body);
        block(&mut self.to, INTERFACE_DESCRIPTION, &body);
        self.interfaces.push(name.to_owned());
        u32::try_from(self.interfaces.len() - 1).unwrap_or(u32::MAX)
    }
}

impl Writer {
    /// What was written since this was last asked: whole blocks.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.to)
    }

    /// How many bytes wait to be taken.
    pub fn len(&self) -> usize {
        self.to.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.to.is_empty()
    }
}

/// A block says its length before and after what it holds.
fn block(to: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = u32::try_from(body.len() + 12).unwrap_or(u32::MAX).to_le_bytes();
    to.extend([&kind.to_le_bytes()[..], &length, body, &length].concat());
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
        let mut writer = Writer::default();
        let frame = Frame {
            interface: "eth0".into(),
            nanos: (7 << 32) + 5,
            length: 99,
            head: vec![1, 2, 3],
            way: Some(Way::Out),
            comment: "why".into(),
        };
        writer.frame(&frame);
        writer.frame(&frame);
        writer.statistics("eth0", 9, (12, 3), "the end");
        let out = writer.take();
        assert!(writer.is_empty());
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
                assert_eq!(&out[at + 40..at + 48], b"\x02\0\x04\0\x02\0\0\0");
            }
            kinds.push(word(at));
            at += length;
        }
        assert_eq!(
            kinds,
            [SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET, ENHANCED_PACKET, INTERFACE_STATISTICS]
        );
    }
}
