//! What does this DNS message say? Reads mDNS queries and responses (RFC 1035 section 4, RFC 6762 section 18), and writes
//! them.
//!
//! Every byte may be hostile: a message is read whole or refused, names never loop, and nothing is allocated beyond two
//! lists of places and the names that are asked for. Never judges whether a message is honest.

mod build;
mod name;
mod record;

use thiserror::Error;

pub use build::{Builder, Data};
pub use name::Name;
pub use record::{Question, Record, Section, Service};

/// The mDNS port (RFC 6762 section 5.2).
pub const PORT: u16 = 5353;
/// The largest mDNS message, IP and UDP headers not counted off (RFC 6762 section 17).
pub const MOST_BYTES: usize = 9000;
/// The Internet class.
pub const CLASS_IN: u16 = 1;

/// Record types that the relay knows.
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// A name server.
    pub const NS: u16 = 2;
    /// Another name for this one.
    pub const CNAME: u16 = 5;
    /// A pointer: service type to instance, address to name.
    pub const PTR: u16 = 12;
    /// Processor and system of a host.
    pub const HINFO: u16 = 13;
    /// A mail exchanger.
    pub const MX: u16 = 15;
    /// Keys and values of an instance (RFC 6763 section 6).
    pub const TXT: u16 = 16;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// Host and port of an instance (RFC 2782).
    pub const SRV: u16 = 33;
    /// A whole tree's other name.
    pub const DNAME: u16 = 39;
    /// Which types a name has (RFC 6762 section 6.1).
    pub const NSEC: u16 = 47;
    /// In questions: every type.
    pub const ANY: u16 = 255;
}

/// Top bit of a class: of a question "a unicast answer will do" (QU), of a record "flush what you have" (RFC 6762
/// sections 5.4 and 10.2).
const TOP: u16 = 0x8000;
const HEADER: usize = 12;
const RESPONSE: u16 = 0x8000;
const AUTHORITATIVE: u16 = 0x0400;
const TRUNCATED: u16 = 0x0200;

/// Why bytes are not a DNS message, or cannot become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DnsError {
    /// It ends before what its header or a record announces.
    #[error("the DNS message ends at byte {0}, before what it announces")]
    Short(usize),
    /// Longer than [`MOST_BYTES`], or than the limit of a [`Builder`].
    #[error("the DNS message is longer than {0} bytes")]
    Long(usize),
    /// A name that is too long, loops, points forward or has labels of an unknown kind.
    #[error("the DNS message has an invalid name at byte {0}")]
    Name(usize),
    /// Records are written section by section.
    #[error("the DNS message has a record out of its section's turn")]
    Order,
}

/// The first four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Identifier; 0 in multicast.
    pub id: u16,
    /// The flags word as it is on the wire.
    pub flags: u16,
}

impl Header {
    /// Reads no more than the header; `None` when there is not even that.
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        bytes.get(..HEADER)?;
        Some(Self { id: word(bytes, 0)?, flags: word(bytes, 2)? })
    }

    /// QR: whether it answers.
    pub const fn is_response(self) -> bool {
        self.flags & RESPONSE != 0
    }

    /// Operation; only 0 is mDNS (RFC 6762 section 18.3).
    pub const fn opcode(self) -> u16 {
        self.flags >> 11 & 0xf
    }

    /// Response code; only 0 is mDNS (RFC 6762 section 18.11).
    pub const fn rcode(self) -> u16 {
        self.flags & 0xf
    }

    /// AA.
    pub const fn is_authoritative(self) -> bool {
        self.flags & AUTHORITATIVE != 0
    }

    /// TC: in a query, more known answers follow (RFC 6762 section 7.2).
    pub const fn is_truncated(self) -> bool {
        self.flags & TRUNCATED != 0
    }
}

/// A message that was read whole.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// Identifier and flags.
    pub header: Header,
    /// Its questions.
    pub questions: Vec<Question<'a>>,
    /// Its records, section by section.
    pub records: Vec<Record<'a>>,
}

impl<'a> Message<'a> {
    /// Reads a message. Bytes behind it are ignored.
    ///
    /// # Errors
    /// What is wrong with it: a message is read whole or not at all.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DnsError> {
        if bytes.len() > MOST_BYTES {
            return Err(DnsError::Long(MOST_BYTES));
        }
        let short = || DnsError::Short(bytes.len());
        let header = Header::peek(bytes).ok_or_else(short)?;
        let count = |at| word(bytes, at).ok_or_else(short);
        let sections =
            [(Section::Answer, count(6)?), (Section::Authority, count(8)?), (Section::Additional, count(10)?)];
        // No room is made for what is announced, only for what is there.
        let (mut questions, mut records, mut at) = (Vec::new(), Vec::new(), HEADER);
        for _ in 0..count(4)? {
            questions.push(question(bytes, &mut at)?);
        }
        for (section, announced) in sections {
            for _ in 0..announced {
                records.push(record(bytes, section, &mut at)?);
            }
        }
        Ok(Self { header, questions, records })
    }

    /// The records of one section.
    pub fn section(&self, section: Section) -> impl Iterator<Item = &Record<'a>> {
        self.records.iter().filter(move |record| record.section == section)
    }

    /// Whether it asks if names are free (RFC 6762 section 8.1).
    pub fn is_probe(&self) -> bool {
        !self.header.is_response() && self.section(Section::Authority).next().is_some()
    }

    /// Whether it is a multicast response as RFC 6762 section 18 wants it: opcode and rcode 0.
    pub fn is_sane_response(&self) -> bool {
        self.header.is_response() && self.header.opcode() == 0 && self.header.rcode() == 0
    }
}

fn question<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Question<'a>, DnsError> {
    let (name_at, after) = (*at, Name::skip(bytes, *at)?);
    let (kind, class) = fields(bytes, after)?;
    *at = after + 4;
    let (unicast, class) = (class & TOP != 0, class & !TOP);
    Ok(Question { message: bytes, name_at, kind, class, unicast, class_at: after + 2 })
}

fn record<'a>(bytes: &'a [u8], section: Section, at: &mut usize) -> Result<Record<'a>, DnsError> {
    let short = || DnsError::Short(bytes.len());
    let (name_at, after) = (*at, Name::skip(bytes, *at)?);
    let (kind, class) = fields(bytes, after)?;
    let ttl_at = after + 4;
    let ttl = bytes.get(ttl_at..ttl_at + 4).and_then(|ttl| ttl.try_into().ok()).map(u32::from_be_bytes);
    let length = usize::from(word(bytes, ttl_at + 4).ok_or_else(short)?);
    let data = ttl_at + 6..ttl_at + 6 + length;
    bytes.get(data.clone()).ok_or_else(short)?;
    *at = data.end;
    let (flush, class) = (class & TOP != 0, class & !TOP);
    Ok(Record { message: bytes, name_at, section, kind, class, flush, ttl: ttl.ok_or_else(short)?, ttl_at, data })
}

/// Type and class.
fn fields(bytes: &[u8], at: usize) -> Result<(u16, u16), DnsError> {
    let short = || DnsError::Short(bytes.len());
    Ok((word(bytes, at).ok_or_else(short)?, word(bytes, at + 2).ok_or_else(short)?))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    pair.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    pub(super) fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// A header with these counts, then `rest`.
    fn message(counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0x84, 0];
        bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        bytes.extend(rest);
        bytes
    }

    pub(super) fn printer() -> Vec<u8> {
        let (service, instance, host) = (name("_ipp._tcp.local"), name("My Printer._ipp._tcp.local"), name("hp.local"));
        let mut message = Builder::response();
        let (shared, own) = (|kind| (kind, CLASS_IN, false), |kind| (kind, CLASS_IN, true));
        message.record(Section::Answer, &service, shared(kind::PTR), 4500, Data::Name(&instance)).unwrap();
        message.record(Section::Additional, &instance, own(kind::SRV), 120, Data::Service(631, &host)).unwrap();
        message.record(Section::Additional, &instance, own(kind::TXT), 4500, Data::Raw(b"\x04pdl=\x01x")).unwrap();
        message.record(Section::Additional, &host, own(kind::A), 120, Data::Raw(&[192, 168, 1, 9])).unwrap();
        let six = "fe80::9".parse::<Ipv6Addr>().unwrap().octets();
        message.record(Section::Additional, &host, own(kind::AAAA), 120, Data::Raw(&six)).unwrap();
        message.finish()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = printer();
        let read = Message::read(&bytes).unwrap();
        assert!(read.is_sane_response() && read.header.is_authoritative() && !read.is_probe());
        let [ptr, srv, txt, a, aaaa] = &read.records[..] else { panic!("{read:?}") };
        assert_eq!(
            (ptr.section, ptr.name(), ptr.ttl, ptr.flush),
            (Section::Answer, name("_ipp._tcp.local"), 4500, false)
        );
        assert_eq!(ptr.target(), Some(name("my printer._IPP._tcp.local.")));
        let service = srv.service().unwrap();
        assert_eq!((service.port, service.target, srv.flush), (631, name("hp.local"), true));
        assert_eq!(txt.texts().collect::<Vec<_>>(), [b"pdl=".as_slice(), b"x"]);
        assert_eq!(a.address(), Some("192.168.1.9".parse().unwrap()));
        assert_eq!(aaaa.address(), Some("fe80::9".parse().unwrap()));
        assert_eq!((a.target(), a.service(), a.types(), ptr.address()), (None, None, None, None));
        assert_eq!(bytes[a.ttl_at..a.ttl_at + 4], [0, 0, 0, 120]);
        assert!(bytes.len() < 160, "names are compressed: {}", bytes.len());
    }

    #[test]
    fn questions_say_if_unicast_will_do() {
        let mut query = Builder::query();
        query.question(&name("_http._tcp.local"), kind::PTR, CLASS_IN, true).unwrap();
        query.question(&name("host.local"), kind::ANY, CLASS_IN, false).unwrap();
        query
            .record(Section::Authority, &name("host.local"), (kind::A, CLASS_IN, false), 120, Data::Raw(&[1; 4]))
            .unwrap();
        let late = query.question(&name("late.local"), kind::A, CLASS_IN, false);
        assert_eq!(late, Err(DnsError::Order), "no question behind a record");
        let mut bytes = query.finish();
        let read = Message::read(&bytes).unwrap();
        assert!(read.is_probe() && !read.header.is_response());
        let asked: Vec<_> = read.questions.iter().map(|q| (q.name().to_string(), q.kind, q.class, q.unicast)).collect();
        assert_eq!(asked[0], ("_http._tcp.local".to_owned(), kind::PTR, CLASS_IN, true));
        assert_eq!(asked[1], ("host.local".to_owned(), kind::ANY, CLASS_IN, false));
        let at = read.questions[0].class_at;
        bytes[at] &= 0x7f;
        assert!(!Message::read(&bytes).unwrap().questions[0].unicast);
    }

    #[test]
    fn sixty_questions_are_a_message() {
        // Home Assistant asks for all it knows at once.
        let mut query = Builder::query();
        (0..60)
            .for_each(|n| query.question(&name(&format!("_svc{n}._tcp.local")), kind::PTR, CLASS_IN, false).unwrap());
        let bytes = query.finish();
        assert!(bytes.len() < 1472, "{}", bytes.len());
        let read = Message::read(&bytes).unwrap();
        assert_eq!(read.questions[59].name(), name("_svc59._tcp.local"));
    }

    #[test]
    fn hostile_messages_are_refused() {
        let long_label = [[63; 1].as_slice(), &[b'x'; 63]].concat();
        let four = long_label.repeat(4);
        let question = |name: &[u8]| [name, &[0, 12, 0, 1]].concat();
        let record = |name: &[u8], length: u16, data: &[u8]| {
            [name, &[0, 12, 0, 1, 0, 0, 0, 120], &length.to_be_bytes(), data].concat()
        };
        let ladder: Vec<u8> = (0..40u8).flat_map(|n| [0xc0, if n == 0 { 12 } else { 12 + 2 * (n - 1) }]).collect();
        let rows: Vec<(&str, Vec<u8>, DnsError)> = vec![
            ("nothing", vec![], DnsError::Short(0)),
            ("half a header", vec![0; 11], DnsError::Short(11)),
            ("a question that is not there", message([1, 0, 0, 0], &[]), DnsError::Short(12)),
            ("records that are not there", message([0, 0xffff, 0xffff, 0xffff], &[]), DnsError::Short(12)),
            ("a label beyond the end", message([1, 0, 0, 0], b"\x3fabc"), DnsError::Short(16)),
            ("a name without an end", message([1, 0, 0, 0], b"\x03abc"), DnsError::Short(16)),
            ("half a pointer", message([1, 0, 0, 0], &[0xc0]), DnsError::Short(13)),
            ("a pointer to itself", message([1, 0, 0, 0], &question(&[0xc0, 12])), DnsError::Name(12)),
            ("a pointer forward", message([1, 0, 0, 0], &question(&[0xc0, 14, 0])), DnsError::Name(12)),
            ("a pointer into the header", message([1, 0, 0, 0], &question(&[0xc0, 2])), DnsError::Name(12)),
            ("a loop of two", message([2, 0, 0, 0], &[1, b'a', 0xc0, 12, 0, 1, 0, 1]), DnsError::Name(12)),
            ("a label of a reserved kind", message([1, 0, 0, 0], &question(&[0x41, b'a', 0])), DnsError::Name(12)),
            ("a name of 256 bytes", message([1, 0, 0, 0], &question(&[&four[..], &[0]].concat())), DnsError::Name(12)),
            ("type and class cut off", message([1, 0, 0, 0], &[0, 0, 12, 0]), DnsError::Short(16)),
            ("a TTL cut off", message([0, 1, 0, 0], &[0, 0, 12, 0, 1, 0, 0]), DnsError::Short(19)),
            ("data beyond the end", message([0, 1, 0, 0], &record(&[0], 9, &[0; 8])), DnsError::Short(31)),
            ("too long", vec![0; MOST_BYTES + 1], DnsError::Long(MOST_BYTES)),
            (
                "a ladder of pointers",
                {
                    let mut bytes = message([0, 1, 1, 0], &record(&[0], 80, &ladder));
                    bytes.extend(record(&[0xc0, 23 + 78], 0, &[]));
                    bytes
                },
                DnsError::Name(103),
            ),
        ];
        for (what, bytes, error) in rows {
            assert_eq!(Message::read(&bytes).map(|read| read.records.len()), Err(error), "{what}");
        }
    }

    /// Looks at everything a message has to show.
    fn explore(bytes: &[u8]) -> usize {
        let Ok(read) = Message::read(bytes) else { return 0 };
        let mut copy = Builder::new(read.header.id, read.header.flags);
        for question in &read.questions {
            let _too_long = copy.question(&question.name(), question.kind, question.class, question.unicast);
        }
        for record in &read.records {
            let _shown =
                (record.name().to_string(), record.target(), record.service(), record.address(), record.types());
            let _refused = (record.texts().count(), copy.copy(record, record.ttl / 2));
        }
        let copied = copy.finish();
        let again = Message::read(&copied).unwrap_or_else(|error| panic!("{error}: {copied:02x?} from {bytes:02x?}"));
        assert!(again.records.len() <= read.records.len());
        1 + read.records.len()
    }

    /// xorshift64*: the same bytes every time.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }

        fn below(&mut self, most: usize) -> usize {
            usize::try_from(self.roll() >> 33).unwrap() % most
        }

        fn byte(&mut self) -> u8 {
            self.roll().to_be_bytes()[0]
        }
    }

    #[test]
    fn no_bytes_are_too_odd() {
        let mut dice = Dice(0x6d75_6c74_7573);
        let honest = printer();
        let (mut understood, mut tried) = (0, 0);
        for round in 0..40_000 {
            let bytes: Vec<u8> = if round % 4 == 0 {
                // Noise behind a header with small counts.
                let length = dice.below(120);
                let noise: Vec<u8> =
                    (0..length).map(|_| if dice.below(3) == 0 { dice.byte() } else { dice.byte() & 3 }).collect();
                message(std::array::from_fn(|_| u16::try_from(dice.below(3)).unwrap()), &noise)
            } else {
                let mut bytes = honest.clone();
                for _ in 0..=dice.below(4) {
                    let at = dice.below(bytes.len());
                    match dice.below(4) {
                        0 => bytes[at] = dice.byte(),
                        1 => bytes[at] ^= 1 << dice.below(8),
                        2 => drop(bytes.splice(at..at, [0xc0, dice.byte() & 0x7f])),
                        _ => bytes.truncate(at.max(1)),
                    }
                }
                bytes
            };
            understood += usize::from(explore(&bytes) > 0);
            tried += 1;
        }
        assert!(understood > tried / 20, "of {tried} messages {understood} were read: the dice are no test");
    }
}
