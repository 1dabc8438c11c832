//! Which messages does a datagram of rtnetlink(7) hold? Their headers alone, as numbers.
//!
//! Opens no socket and understands no attribute: what is cut short ends the list.

/// One message: its kind and what follows the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// `nlmsg_type`.
    pub(super) kind: u16,
    /// From the header on, so that offsets are those of the headers of linux.
    bytes: &'a [u8],
}

impl Message<'_> {
    /// The 32-bit word at `offset`; the header takes the first 16 bytes.
    pub(super) fn word(&self, offset: usize) -> Option<u32> {
        self.bytes.get(offset..offset.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
    }
}

/// The messages of one datagram.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (length, kind) = header(rest)?;
        let bytes = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, bytes })
    })
}

/// Length and kind of the message at the start.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    Some((usize::try_from(length).ok().filter(|length| *length >= 16)?, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, words: &[u32]) -> Vec<u8> {
        let length = u32::try_from(16 + words.len() * 4).unwrap();
        let mut bytes = Vec::from(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    #[test]
    fn every_message_of_a_datagram_is_found() {
        let datagram = [message(16, &[7, 8]), message(41, &[])].concat();
        let found: Vec<_> = messages(&datagram).map(|m| (m.kind, m.word(16), m.word(20), m.word(24))).collect();
        assert_eq!(found, [(16, Some(7), Some(8), None), (41, None, None, None)]);
    }

    #[test]
    fn what_is_cut_short_ends_the_list() {
        assert_eq!(header(&[16, 0, 0, 0, 2, 0]), Some((16, 2)));
        assert_eq!(header(&[15, 0, 0, 0, 2, 0]), None);
        assert_eq!(header(&[16, 0, 0]), None);
        let whole = message(16, &[7]);
        for end in 0..whole.len() {
            assert_eq!(messages(&whole[..end]).count(), 0, "{end} bytes");
        }
        assert_eq!(messages(&[0xff; 64]).count(), 0, "a length beyond the datagram");
    }
}
