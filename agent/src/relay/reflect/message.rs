//! What of an mDNS message may cross to another link, and how must it read there? Pure.
//!
//! Where nothing must go the bytes stay as they were, but for single bits; where records must, the rest is written anew.

use crate::relay::dns::{Builder, DnsError, Header, Message, Record, Section, kind};

use super::Reason;
use super::datagram::is_link_local;

/// Top bit of a class: QU of a question, cache-flush of a record (RFC 6762 sections 5.4 and 10.2).
const TOP: u8 = 0x80;
/// An EDNS pseudo-record: its class and TTL are something else (RFC 6891 section 6.1.2).
const OPT: u16 = 41;
/// The longest time one-shot queriers may keep an answer (RFC 6762 section 6.7).
const LEGACY_TTL: u32 = 10;
/// TC of the flags.
const TRUNCATED: u16 = 0x0200;

/// A message that may cross, as it reads there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crossing {
    /// Does it answer, or announce?
    pub is_response: bool,
    /// Does it take everything back (RFC 6762 section 10.1)? Then it must not be lost.
    pub is_goodbye: bool,
    /// Its identifier: one-shot queriers tell answers by it.
    pub id: u16,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a message from `port` is to other links.
///
/// Queries: QU is cleared, because a unicast answer would end at us (RFC 6762 section 5.4). Known answers that span
/// several messages are left out: they are joined by source address, and ours stands for many (sections 7.2 and 15.2).
/// Probes do not cross (section 8.1), nor does what came from another port than 5353 and is no query (section 6).
pub(super) fn cross(bytes: &[u8], port: u16) -> Result<Crossing, Reason> {
    let message = Message::read(bytes).map_err(|_unreadable| Reason::Malformed)?;
    let Header { id, .. } = message.header;
    if message.header.opcode() != 0 || message.header.rcode() != 0 {
        return Err(Reason::Malformed);
    }
    if message.header.is_response() {
        // Section 6: a response repeats no question, and comes from the port.
        if port != super::Protocol::Mdns.port() || !message.questions.is_empty() {
            return Err(Reason::Malformed);
        }
        let bytes = without_link_local(&message, bytes)?;
        return Ok(Crossing { is_response: true, is_goodbye: is_goodbye(&message), id, bytes });
    }
    if message.is_probe() {
        return Err(Reason::Probe);
    }
    if message.questions.is_empty() {
        return Err(Reason::KnownAnswers);
    }
    let bytes = if message.header.is_truncated() { questions_alone(&message) } else { with_known(&message, bytes) }?;
    Ok(Crossing { is_response: false, is_goodbye: false, id, bytes: any_will_do(bytes)? })
}

/// The same query under another identifier.
pub(super) fn under(mut bytes: Vec<u8>, id: u16) -> Vec<u8> {
    if let Some(place) = bytes.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
    bytes
}

/// The identifier of what may be the answer to a one-shot query.
pub(super) fn answer_id(bytes: &[u8]) -> Option<u16> {
    Header::peek(bytes).filter(|header| header.is_response()).map(|header| header.id)
}

/// The answer to a one-shot query of another link as its asker may read it: under its own identifier, with its
/// question, to be kept for ten seconds at most and without cache-flush (RFC 6762 section 6.7).
pub(super) fn legacy_answer(bytes: &[u8], id: u16) -> Result<Vec<u8>, Reason> {
    let malformed = |_unreadable: DnsError| Reason::Malformed;
    let message = Message::read(bytes).map_err(malformed)?;
    if !message.is_sane_response() || message.questions.is_empty() {
        return Err(Reason::Malformed);
    }
    let mut bytes = under(without_link_local(&message, bytes)?, id);
    let edits: Vec<(usize, u32)> = Message::read(&bytes)
        .map_err(malformed)?
        .records
        .iter()
        .filter(|record| record.kind != OPT)
        .map(|record| (record.ttl_at, record.ttl.min(LEGACY_TTL)))
        .collect();
    for (ttl_at, ttl) in edits {
        // The class stands right before the TTL.
        if let Some(place) = bytes.get_mut(ttl_at - 2..ttl_at + 4) {
            if let Some(class) = place.first_mut() {
                *class &= !TOP;
            }
            if let Some(place) = place.get_mut(2..) {
                place.copy_from_slice(&ttl.to_be_bytes());
            }
        }
    }
    Ok(bytes)
}

fn is_goodbye(message: &Message<'_>) -> bool {
    let mut answers = message.section(Section::Answer).peekable();
    answers.peek().is_some() && answers.all(|record| record.ttl == 0)
}

/// An address of a link says nothing on another one (RFC 6762 section 14).
fn is_of_link(record: &Record<'_>) -> bool {
    record.address().is_some_and(is_link_local)
}

/// The message without addresses of its link; an error when there were no others.
fn without_link_local(message: &Message<'_>, bytes: &[u8]) -> Result<Vec<u8>, Reason> {
    if !message.records.iter().any(is_of_link) {
        return Ok(bytes.to_vec());
    }
    // What says which types the names of those addresses have says nothing alone.
    if message.records.iter().all(|record| is_of_link(record) || matches!(record.kind, kind::NSEC | OPT)) {
        return Err(Reason::LinkLocal);
    }
    written(message, message.header.flags, |record| !is_of_link(record))
}

fn with_known(message: &Message<'_>, bytes: &[u8]) -> Result<Vec<u8>, Reason> {
    if message.records.iter().any(is_of_link) {
        return written(message, message.header.flags, |record| !is_of_link(record));
    }
    Ok(bytes.to_vec())
}

fn questions_alone(message: &Message<'_>) -> Result<Vec<u8>, Reason> {
    written(message, message.header.flags & !TRUNCATED, |_| false)
}

fn written(message: &Message<'_>, flags: u16, keeps: impl Fn(&Record<'_>) -> bool) -> Result<Vec<u8>, Reason> {
    let mut anew = Builder::new(message.header.id, flags);
    let write = || {
        for question in &message.questions {
            anew.question(&question.name(), question.kind, question.class, question.unicast)?;
        }
        for record in message.records.iter().filter(|record| keeps(record)) {
            anew.copy(record, record.ttl)?;
        }
        Ok(anew.finish())
    };
    write().map_err(|_does_not_fit: DnsError| Reason::Malformed)
}

/// Clears QU of every question.
fn any_will_do(mut bytes: Vec<u8>) -> Result<Vec<u8>, Reason> {
    let message = Message::read(&bytes).map_err(|_unreadable| Reason::Malformed)?;
    let places: Vec<usize> =
        message.questions.iter().filter(|question| question.unicast).map(|question| question.class_at).collect();
    for at in places {
        if let Some(class) = bytes.get_mut(at) {
            *class &= !TOP;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::dns::{CLASS_IN, Data, Name};

    const PORT: u16 = 5353;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn own(kind: u16) -> (u16, u16, bool) {
        (kind, CLASS_IN, true)
    }

    fn response(addresses: &[&[u8]], ttl: u32) -> Vec<u8> {
        let mut message = Builder::response();
        for address in addresses {
            let kind = if address.len() == 4 { kind::A } else { kind::AAAA };
            message.record(Section::Answer, &name("host.local"), own(kind), ttl, Data::Raw(address)).unwrap();
        }
        message.finish()
    }

    fn query(unicast: bool, known: u32) -> Builder {
        let mut message = Builder::query();
        message.question(&name("_http._tcp.local"), kind::PTR, CLASS_IN, unicast).unwrap();
        for at in 0..known {
            let target = name(&format!("i{at}._http._tcp.local"));
            let shared = (kind::PTR, CLASS_IN, false);
            message.record(Section::Answer, &name("_http._tcp.local"), shared, 9, Data::Name(&target)).unwrap();
        }
        message
    }

    #[test]
    fn qu_is_cleared_and_the_rest_kept() {
        // RFC 6762 section 5.4.
        let bytes = query(true, 2).finish();
        let crossing = cross(&bytes, PORT).unwrap();
        let read = Message::read(&crossing.bytes).unwrap();
        assert!(!read.questions[0].unicast && !crossing.is_response);
        assert_eq!(crossing.bytes.len(), bytes.len());
        assert_eq!(bytes.iter().zip(&crossing.bytes).filter(|(a, b)| a != b).count(), 1);
        let plain = query(false, 2).finish();
        assert_eq!(cross(&plain, PORT).unwrap().bytes, plain);
    }

    #[test]
    fn probes_stay_on_their_link() {
        // RFC 6762 section 8.1.
        let mut probe = query(false, 0);
        probe.record(Section::Authority, &name("host.local"), own(kind::A), 120, Data::Raw(&[10, 0, 0, 1])).unwrap();
        assert_eq!(cross(&probe.finish(), PORT), Err(Reason::Probe));
    }

    #[test]
    fn known_answers_of_several_messages_are_not_joined_under_our_address() {
        // RFC 6762 section 7.2.
        let mut first = query(false, 3).finish();
        first[2] |= 2;
        let crossing = cross(&first, PORT).unwrap();
        let read = Message::read(&crossing.bytes).unwrap();
        assert_eq!((read.questions.len(), read.records.len(), read.header.is_truncated()), (1, 0, false));
        let mut rest = Builder::query();
        let shared = (kind::PTR, CLASS_IN, false);
        rest.record(Section::Answer, &name("a.local"), shared, 9, Data::Name(&name("b.local"))).unwrap();
        assert_eq!(cross(&rest.finish(), PORT), Err(Reason::KnownAnswers));
    }

    #[test]
    fn addresses_of_the_link_do_not_cross() {
        // RFC 6762 section 14.
        let (mine, four, six) =
            ([10, 0, 0, 1], [169, 254, 7, 7], [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        let crossing = cross(&response(&[&four, &mine, &six], 120), PORT).unwrap();
        let read = Message::read(&crossing.bytes).unwrap();
        assert_eq!(
            read.records.iter().map(|record| record.address().unwrap().to_string()).collect::<Vec<_>>(),
            ["10.0.0.1"]
        );
        assert!(read.records[0].flush && read.header.is_authoritative());
        for alone in [&four[..], &six] {
            assert_eq!(cross(&response(&[alone], 120), PORT), Err(Reason::LinkLocal));
        }
        let whole = response(&[&mine], 120);
        assert_eq!(cross(&whole, PORT).unwrap().bytes, whole);
    }

    #[test]
    fn what_names_point_to_stays_right_when_records_go() {
        let mut message = Builder::response();
        let (host, instance) = (name("printer.local"), name("Printer._ipp._tcp.local"));
        message.record(Section::Answer, &host, own(kind::A), 120, Data::Raw(&[169, 254, 1, 1])).unwrap();
        message.record(Section::Answer, &instance, own(kind::SRV), 120, Data::Service(631, &host)).unwrap();
        message.record(Section::Additional, &host, own(kind::A), 120, Data::Raw(&[10, 0, 0, 1])).unwrap();
        let crossing = cross(&message.finish(), PORT).unwrap();
        let read = Message::read(&crossing.bytes).unwrap();
        assert_eq!(read.records[0].service().unwrap().target, host);
        assert_eq!((read.records[0].name(), read.records[1].name()), (instance, host));
    }

    #[test]
    fn goodbyes_are_known() {
        // RFC 6762 section 10.1.
        assert!(cross(&response(&[&[10, 0, 0, 1]], 0), PORT).unwrap().is_goodbye);
        assert!(!cross(&response(&[&[10, 0, 0, 1]], 1), PORT).unwrap().is_goodbye);
        assert!(!cross(&response(&[], 1), PORT).unwrap().is_goodbye);
    }

    #[test]
    fn what_is_not_mdns_does_not_cross() {
        // RFC 6762 sections 6, 18.3 and 18.11.
        let fine = response(&[&[10, 0, 0, 1]], 120);
        assert_eq!(cross(&fine, 4000), Err(Reason::Malformed), "an answer from another port");
        for (at, bits) in [(2, 0x08), (3, 3)] {
            let mut odd = fine.clone();
            odd[at] |= bits;
            assert_eq!(cross(&odd, PORT), Err(Reason::Malformed), "{at}");
        }
        let mut repeats = query(false, 1).finish();
        repeats[2] |= 0x80;
        assert_eq!(cross(&repeats, PORT), Err(Reason::Malformed), "an answer with a question");
        assert_eq!(cross(&fine[..20], PORT), Err(Reason::Malformed));
        assert_eq!(cross(&[], PORT), Err(Reason::Malformed));
    }

    #[test]
    fn one_shot_answers_are_short_lived() {
        // RFC 6762 section 6.7.
        let mut answer = Builder::new(7, 0x8400);
        answer.question(&name("host.local"), kind::A, CLASS_IN, false).unwrap();
        answer.record(Section::Answer, &name("host.local"), own(kind::A), 120, Data::Raw(&[10, 0, 0, 1])).unwrap();
        answer.record(Section::Answer, &name("host.local"), own(kind::A), 3, Data::Raw(&[169, 254, 0, 1])).unwrap();
        answer.record(Section::Additional, &name("x.local"), own(kind::TXT), 3, Data::Raw(b"\x01a")).unwrap();
        let bytes = answer.finish();
        assert_eq!(answer_id(&bytes), Some(7));
        let changed = legacy_answer(&bytes, 0x1234).unwrap();
        let read = Message::read(&changed).unwrap();
        assert_eq!((read.header.id, read.questions.len()), (0x1234, 1));
        assert_eq!(read.records.iter().map(|r| (r.ttl, r.flush)).collect::<Vec<_>>(), [(10, false), (3, false)]);
        assert_eq!(legacy_answer(&response(&[&[10, 0, 0, 1]], 1), 1), Err(Reason::Malformed), "without its question");
        assert_eq!(answer_id(&query(false, 0).finish()), None);
    }
}
