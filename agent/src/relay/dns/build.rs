//! How is a DNS message written? Questions and records in their order, names compressed, never above a limit.
//!
//! Only what fits is written: what is refused leaves the message as it was.

use super::{DnsError, HEADER, MOST_BYTES, Name, RESPONSE, Record, Section, TOP};

/// The most bytes a pointer can point past.
const POINTABLE: usize = 0x4000;
/// The most places that are remembered to point to: looking through them is the cost of every label.
const MOST_PLACES: usize = 64;

/// What a record says.
#[derive(Debug, Clone, Copy)]
pub enum Data<'a> {
    /// Bytes as they are.
    Raw(&'a [u8]),
    /// One name (PTR, CNAME, …).
    Name(&'a Name),
    /// An SRV with priority and weight 0.
    Service(u16, &'a Name),
}

/// A message that is being written.
#[derive(Debug, Clone)]
pub struct Builder {
    bytes: Vec<u8>,
    /// Where names, or ends of names, begin that a pointer can point to.
    places: Vec<usize>,
    counts: [u16; 4],
    limit: usize,
}

impl Builder {
    /// A message with this identifier and these flags, at most [`MOST_BYTES`] long.
    pub fn new(id: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        for (byte, value) in bytes.iter_mut().zip([id.to_be_bytes(), flags.to_be_bytes()].concat()) {
            *byte = value;
        }
        Self { bytes, places: Vec::new(), counts: [0; 4], limit: MOST_BYTES }
    }

    /// A multicast query: identifier 0, no flags.
    pub fn query() -> Self {
        Self::new(0, 0)
    }

    /// A multicast response: identifier 0, authoritative (RFC 6762 section 18).
    pub fn response() -> Self {
        Self::new(0, RESPONSE | super::AUTHORITATIVE)
    }

    /// The same, at most this long.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.limit = bytes.min(MOST_BYTES);
        self
    }

    /// Asks; with `unicast` a unicast answer will do (QU).
    ///
    /// # Errors
    /// It does not fit, or there are records already.
    pub fn question(&mut self, name: &Name, kind: u16, class: u16, unicast: bool) -> Result<(), DnsError> {
        self.step(0, |message| {
            message.name(name);
            message.words([kind, class | if unicast { TOP } else { 0 }]);
        })
    }

    /// Says something in a section.
    ///
    /// # Errors
    /// It does not fit, or a later section has been begun.
    pub fn record(
        &mut self,
        section: Section,
        name: &Name,
        (kind, class, flush): (u16, u16, bool),
        ttl: u32,
        data: Data<'_>,
    ) -> Result<(), DnsError> {
        self.step(index(section), |message| {
            message.head(name, (kind, class, flush), ttl);
            message.data(|message| match data {
                Data::Raw(bytes) => message.bytes.extend_from_slice(bytes),
                Data::Name(name) => message.name(name),
                Data::Service(port, host) => {
                    message.words([0, 0, port]);
                    message.name(host);
                }
            });
        })
    }

    /// Says what a record of another message says, with this TTL; compressed names in it come out right.
    ///
    /// # Errors
    /// As [`Builder::record`]; or a name in its data is none.
    pub fn copy(&mut self, record: &Record<'_>, ttl: u32) -> Result<(), DnsError> {
        let bad = DnsError::Name(record.data.start);
        let (before, name, after) = match record.data_name_at() {
            None => (record.data(), None, [].as_slice()),
            Some(at) => {
                let (name, end) = Name::read(record.message, record.data.start + at)?;
                let rest = record.message.get(end..record.data.end).ok_or(bad)?;
                (record.data().get(..at).ok_or(bad)?, Some(name), rest)
            }
        };
        self.step(index(record.section), |message| {
            message.head(&record.name(), (record.kind, record.class, record.flush), ttl);
            message.data(|message| {
                message.bytes.extend_from_slice(before);
                if let Some(name) = &name {
                    message.name(name);
                }
                message.bytes.extend_from_slice(after);
            });
        })
    }

    /// How long it is by now.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it says and asks nothing yet.
    pub fn is_empty(&self) -> bool {
        self.counts == [0; 4]
    }

    /// The message.
    pub fn finish(mut self) -> Vec<u8> {
        let counts = self.counts.iter().flat_map(|count| count.to_be_bytes());
        for (byte, value) in self.bytes.iter_mut().skip(4).zip(counts) {
            *byte = value;
        }
        self.bytes
    }

    /// Writes one entry of a section, or nothing.
    fn step(&mut self, section: usize, write: impl FnOnce(&mut Self)) -> Result<(), DnsError> {
        if self.counts.iter().skip(section + 1).any(|count| *count > 0) {
            return Err(DnsError::Order);
        }
        let (length, places) = (self.bytes.len(), self.places.len());
        write(self);
        if self.bytes.len() > self.limit {
            self.bytes.truncate(length);
            self.places.truncate(places);
            return Err(DnsError::Long(self.limit));
        }
        if let Some(count) = self.counts.get_mut(section) {
            *count += 1;
        }
        Ok(())
    }

    fn head(&mut self, name: &Name, (kind, class, flush): (u16, u16, bool), ttl: u32) {
        self.name(name);
        self.words([kind, class | if flush { TOP } else { 0 }]);
        self.bytes.extend(ttl.to_be_bytes());
    }

    /// What `write` writes, behind its length.
    fn data(&mut self, write: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.words([0]);
        write(self);
        // Beyond 65535 bytes the message is beyond its limit too.
        let length = u16::try_from(self.bytes.len() - at - 2).unwrap_or(u16::MAX).to_be_bytes();
        for (byte, value) in self.bytes.iter_mut().skip(at).zip(length) {
            *byte = value;
        }
    }

    fn words<const N: usize>(&mut self, words: [u16; N]) {
        self.bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    }

    /// Writes labels until the rest of the name stands somewhere already.
    fn name(&mut self, name: &Name) {
        let mut rest = name.clone();
        while let Some((label, next)) = rest.split_first() {
            if let Some(place) = self.find(&rest) {
                self.words([0xc000 | place]);
                return;
            }
            if self.bytes.len() < POINTABLE && self.places.len() < MOST_PLACES {
                self.places.push(self.bytes.len());
            }
            self.bytes.push(u8::try_from(label.len()).unwrap_or_default());
            self.bytes.extend_from_slice(label);
            rest = next;
        }
        self.bytes.push(0);
    }

    /// Where this very name stands, in the same case: compression must not change what a name looks like.
    fn find(&self, name: &Name) -> Option<u16> {
        let is_it =
            |place: &&usize| Name::read(&self.bytes, **place).is_ok_and(|(other, _)| other.labels().eq(name.labels()));
        // A name that is still being written has no end yet, and does not read.
        self.places.iter().find(is_it).and_then(|place| u16::try_from(*place).ok())
    }
}

fn index(section: Section) -> usize {
    match section {
        Section::Answer => 1,
        Section::Authority => 2,
        Section::Additional => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{name, printer};
    use super::super::{CLASS_IN, Message, kind};
    use super::*;

    #[test]
    fn a_copy_says_the_same_with_another_ttl() {
        let bytes = printer();
        let read = Message::read(&bytes).unwrap();
        let mut copy = Builder::response();
        read.records.iter().filter(|record| record.kind != kind::PTR).for_each(|record| copy.copy(record, 7).unwrap());
        let copied = copy.finish();
        let copied = Message::read(&copied).unwrap();
        assert!(copied.records.iter().all(|record| record.ttl == 7));
        assert_eq!(copied.records[0].service(), read.records[1].service());
        assert_eq!(copied.records[3].data(), read.records[4].data());
    }

    #[test]
    fn a_message_ends_at_its_limit() {
        let mut message = Builder::response().at_most(64);
        let short = name("a.local");
        message.record(Section::Answer, &short, (kind::TXT, CLASS_IN, false), 1, Data::Raw(&[0; 20])).unwrap();
        let before = message.len();
        let long = message.record(Section::Answer, &short, (kind::TXT, CLASS_IN, false), 1, Data::Raw(&[0; 20]));
        assert_eq!((long, message.len()), (Err(DnsError::Long(64)), before), "what does not fit leaves no trace");
        message.record(Section::Additional, &short, (kind::A, CLASS_IN, false), 1, Data::Raw(&[0])).unwrap();
        let read = message.finish();
        assert_eq!(Message::read(&read).unwrap().records.len(), 2);
        let mut huge = Builder::response();
        let huge = huge.record(Section::Answer, &short, (kind::TXT, CLASS_IN, false), 1, Data::Raw(&vec![0; 70_000]));
        assert_eq!(huge, Err(DnsError::Long(MOST_BYTES)));
    }
}
