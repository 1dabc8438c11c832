//! What does one question ask, and one record say?
//!
//! Reads where the message was found sound already; what makes no sense in a record's data is `None`, not a fault.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::{Name, kind, word};

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Answers; in a query the known ones.
    Answer,
    /// Authority; in a query what a probe is about to claim.
    Authority,
    /// Additional.
    Additional,
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub(super) message: &'a [u8],
    pub(super) name_at: usize,
    /// Which record type is asked for.
    pub kind: u16,
    /// Class, without the top bit.
    pub class: u16,
    /// QU: a unicast answer will do.
    pub unicast: bool,
    /// Where its class stands in the message, for whoever clears QU.
    pub class_at: usize,
}

impl Question<'_> {
    /// What is asked for.
    pub fn name(&self) -> Name {
        name_of(self.message, self.name_at)
    }
}

/// One record.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    pub(super) message: &'a [u8],
    pub(super) name_at: usize,
    /// Its section.
    pub section: Section,
    /// Its type.
    pub kind: u16,
    /// Class, without the top bit.
    pub class: u16,
    /// Cache-flush: older records of this name, type and class are no more.
    pub flush: bool,
    /// Seconds it may be kept; 0: goodbye.
    pub ttl: u32,
    /// Where the TTL stands in the message, for whoever changes it.
    pub ttl_at: usize,
    /// Where its data lie in the message.
    pub data: Range<usize>,
}

/// Where an instance can be reached (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Lower is tried first.
    pub priority: u16,
    /// Share among equals.
    pub weight: u16,
    /// Its port.
    pub port: u16,
    /// Its host.
    pub target: Name,
}

impl<'a> Record<'a> {
    /// Whose record it is.
    pub fn name(&self) -> Name {
        name_of(self.message, self.name_at)
    }

    /// The data as they are; names in them may be compressed.
    pub fn data(&self) -> &'a [u8] {
        self.message.get(self.data.clone()).unwrap_or_default()
    }

    /// The name that a PTR, CNAME, DNAME or NS points to.
    pub fn target(&self) -> Option<Name> {
        matches!(self.kind, kind::PTR | kind::CNAME | kind::DNAME | kind::NS).then(|| self.name_in_data(0))?
    }

    /// What an SRV says.
    pub fn service(&self) -> Option<Service> {
        if self.kind != kind::SRV {
            return None;
        }
        let field = |at| word(self.data(), at);
        Some(Service { priority: field(0)?, weight: field(2)?, port: field(4)?, target: self.name_in_data(6)? })
    }

    /// The address that an A or AAAA says.
    pub fn address(&self) -> Option<IpAddr> {
        match self.kind {
            kind::A => <[u8; 4]>::try_from(self.data()).ok().map(|octets| Ipv4Addr::from(octets).into()),
            kind::AAAA => <[u8; 16]>::try_from(self.data()).ok().map(|octets| Ipv6Addr::from(octets).into()),
            _ => None,
        }
    }

    /// The strings of a TXT, each at most 255 bytes; ends where the data stop making sense.
    pub fn texts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = if self.kind == kind::TXT { self.data() } else { &[] };
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (text, next) = after.split_at_checked(usize::from(*length))?;
            rest = next;
            Some(text)
        })
    }

    /// The types that an NSEC says its name has; mDNS has window 0 alone (RFC 6762 section 6.1).
    pub fn types(&self) -> Option<Vec<u16>> {
        if self.kind != kind::NSEC {
            return None;
        }
        let (_, end) = Name::read(self.message, self.data.start).ok()?;
        let bitmap = self.message.get(end..self.data.end)?;
        let (&[window, length], bits) = bitmap.split_first_chunk::<2>()?;
        let bits = bits.get(..usize::from(length)).filter(|bits| window == 0 && bits.len() <= 32)?;
        let numbered = (0u16..).zip(bits.iter().flat_map(|byte| (0..8).map(move |bit| byte << bit & 0x80 != 0)));
        Some(numbered.filter(|(_, set)| *set).map(|(number, _)| number).collect())
    }

    /// Where in the data a name stands, for types whose data may hold compressed names.
    pub(super) fn data_name_at(&self) -> Option<usize> {
        match self.kind {
            kind::PTR | kind::CNAME | kind::DNAME | kind::NS | kind::NSEC => Some(0),
            kind::MX => Some(2),
            kind::SRV => Some(6),
            _ => None,
        }
    }

    fn name_in_data(&self, at: usize) -> Option<Name> {
        let (name, end) = Name::read(self.message, self.data.start + at).ok()?;
        (end <= self.data.end).then_some(name)
    }
}

/// A name that was walked when the message was read.
fn name_of(message: &[u8], at: usize) -> Name {
    Name::read(message, at).map(|(name, _)| name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::*;

    #[test]
    fn a_name_that_says_which_types_it_has() {
        let mut data = vec![4, b'h', b'o', b's', b't', 5];
        data.splice(5.., b"\x05local\x00\x00\x05\x40\x00\x00\x08\x40".iter().copied());
        let mut response = Builder::response();
        let nsec = (kind::NSEC, CLASS_IN, true);
        response.record(Section::Answer, &"host.local".parse().unwrap(), nsec, 120, Data::Raw(&data)).unwrap();
        response.record(Section::Answer, &"host.local".parse().unwrap(), nsec, 120, Data::Raw(&data[..12])).unwrap();
        let bytes = response.finish();
        let read = Message::read(&bytes).unwrap();
        assert_eq!(read.records[0].types(), Some(vec![kind::A, kind::AAAA, kind::SRV]));
        assert_eq!(read.records[1].types(), None, "cut off");
    }
}
