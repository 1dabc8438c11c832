//! Which messages does a datagram of rtnetlink(7) hold? Their headers alone, as numbers.
//!
//! Opens no socket and knows no attribute's meaning: what is cut short ends the list.

/// One message: its kind and what follows the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// `nlmsg_type`.
    pub(super) kind: u16,
    /// From the header on, so that offsets are those of the headers of linux.
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes that begin at `offset`.
    pub(super) fn attributes(&self, offset: usize) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes(self.bytes.get(offset..).unwrap_or_default())
    }

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

/// Kind and value of each attribute; the value of one that nests others is attributes again.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const KIND: u16 = 0x3fff;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & KIND;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
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
    fn every_attribute_is_found_and_those_within() {
        let bytes = [5, 0, 1, 0, 7, 0, 0, 0, 8, 0, 2, 0x80, 4, 0, 3, 0, 4, 0, 9, 0];
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(1, &[7][..]), (2, &[4, 0, 3, 0][..]), (9, &[][..])]);
        assert_eq!(attributes(found[1].1).collect::<Vec<_>>(), [(3, &[][..])]);
        for end in 0..5 {
            assert_eq!(attributes(&bytes[..end]).count(), 0, "{end} bytes");
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count() + attributes(&[0; 8]).count() + attributes(&[0xff; 8]).count(), 0);
        let message = [message(16, &[7]), bytes.to_vec()].concat();
        assert_eq!(Message { kind: 16, bytes: &message }.attributes(20).count(), 3);
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
