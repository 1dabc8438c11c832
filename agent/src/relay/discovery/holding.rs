//! Which records hold, and what do the names in them say (RFC 6763 section 4.1)?

use std::time::Duration;

use super::super::dns::{Message, Name, Record};
use super::Table;
use super::plane::Kept;

impl Table {
    /// Every record that holds on the link with index `link`, in order of arrival: with its datagram, and until when.
    pub(super) fn holding(&self, link: u32, now: Duration) -> impl Iterator<Item = (&Kept, Record<'_>, Duration)> {
        self.of_link(link).flat_map(|(_, plane)| plane.all()).flat_map(move |(kept, holds)| {
            let records = Message::read(&kept.payload).map(|message| message.records).unwrap_or_default();
            let until = holds.into_iter().filter(move |(_, until)| *until > now);
            until.filter_map(move |(at, until)| Some((kept, records.get(at)?.clone(), until)))
        })
    }
}

/// The type, when a name is one: `_service._proto.local` (RFC 6763 section 4.1). Neither subtypes nor the list of types.
pub(in super::super) fn service_type(name: &Name) -> Option<String> {
    let labels: Vec<&[u8]> = name.labels().take(4).collect();
    let [service, protocol, domain] = labels[..] else { return None };
    let is_type = service.starts_with(b"_") && domain.eq_ignore_ascii_case(b"local");
    let is_protocol = [b"_tcp".as_slice(), b"_udp"].iter().any(|each| protocol.eq_ignore_ascii_case(each));
    let text = |label| String::from_utf8_lossy(label).to_ascii_lowercase();
    (is_type && is_protocol).then(|| format!("{}.{}", text(service), text(protocol)))
}

/// An instance's own name, such as "Office Printer".
pub(super) fn own_name(instance: &Name) -> String {
    instance.split_first().map(|(own, _)| String::from_utf8_lossy(own).into_owned()).unwrap_or_default()
}
