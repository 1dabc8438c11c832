//! Does the clsact qdisc of an interface still hold filters, and how does it go?
//!
//! Acts in the calling thread's network namespace. Two fixed requests over one netlink socket (rtnetlink(7)): nothing of
//! the answers is read but their kind and their error code.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// `TC_H_MAKE(TC_H_CLSACT, 0xfff2)` and `…0xfff3` of linux/pkt_sched.h: where ingress and egress filters hang.
const HOOKS: [u32; 2] = [0xffff_fff2, 0xffff_fff3];
/// `TC_H_CLSACT`: where the qdisc itself hangs.
const CLSACT: u32 = 0xffff_fff1;
/// `TCA_KIND` (type 1, 4 + 7 bytes) with its padding, so that only a clsact qdisc goes, never an `ingress` one.
const KIND: [u8; 12] = [11, 0, 1, 0, b'c', b'l', b's', b'a', b'c', b't', 0, 0];

/// Removes the clsact qdisc of interface `ifindex` if no filter is left in it; says whether it did.
///
/// Whoever adds a filter between the look and the removal loses it: the kernel offers no "remove if empty".
pub fn remove_unused_clsact(ifindex: u32) -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    for hook in HOOKS {
        if holds_filters(&socket, ifindex, hook)? {
            return Ok(false);
        }
    }
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    send(&socket, &request(libc::RTM_DELQDISC, flags, ifindex, CLSACT, &KIND))?;
    while !answers(&socket)?.iter().any(Answer::is_last) {}
    Ok(true)
}

fn holds_filters(socket: &Socket, ifindex: u32, hook: u32) -> io::Result<bool> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    send(socket, &request(libc::RTM_GETTFILTER, flags, ifindex, hook, &[]))?;
    let mut found = false;
    loop {
        let answers = answers(socket)?;
        found |= answers.iter().any(|answer| matches!(answer, Answer::Filter));
        if answers.iter().any(Answer::is_last) {
            return Ok(found);
        }
    }
}

enum Answer {
    Filter,
    Last,
    Other,
}

impl Answer {
    fn is_last(&self) -> bool {
        matches!(self, Self::Last)
    }
}

fn send(socket: &Socket, request: &[u8]) -> io::Result<()> {
    socket.send(request, 0).map(|_whole| ())
}

/// One datagram's messages; a refusal becomes the error.
fn answers(socket: &Socket) -> io::Result<Vec<Answer>> {
    let (datagram, _kernel) = socket.recv_from_full()?;
    let mut rest = datagram.as_slice();
    let mut answers = Vec::new();
    while let Some((length, kind)) = header(rest) {
        let message = rest.get(..length).ok_or_else(cut)?;
        answers.push(match i32::from(kind) {
            libc::NLMSG_ERROR => match code(message).ok_or_else(cut)? {
                0 => Answer::Last,
                refused => return Err(io::Error::from_raw_os_error(refused.saturating_neg())),
            },
            libc::NLMSG_DONE => Answer::Last,
            _ if kind == libc::RTM_NEWTFILTER => Answer::Filter,
            _ => Answer::Other,
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    if answers.is_empty() { Err(cut()) } else { Ok(answers) }
}

fn cut() -> io::Error {
    io::Error::other("the kernel's answer is cut short")
}

/// Length and kind of the message at the start.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    Some((usize::try_from(length).ok().filter(|length| *length >= 16)?, kind))
}

/// The code of an error message.
fn code(message: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(message.get(16..20)?.try_into().ok()?))
}

/// A message header and a `tcmsg` (linux/rtnetlink.h), then attributes.
fn request(kind: u16, flags: libc::c_int, ifindex: u32, parent: u32, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + 20 + attributes.len()).unwrap_or(u32::MAX);
    let flags = u16::try_from(flags).unwrap_or_default();
    let words = [0, ifindex, 0, parent, 0];
    let mut message = Vec::with_capacity(64);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(words.iter().flat_map(|word: &u32| word.to_ne_bytes()));
    message.extend(attributes);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_without_clsact_has_nothing_to_remove() {
        assert!(remove_unused_clsact(999_999).is_err());
    }

    #[test]
    fn a_message_shorter_than_its_header_is_none() {
        assert_eq!(header(&[16, 0, 0, 0, 2, 0]), Some((16, 2)));
        assert_eq!(header(&[15, 0, 0, 0, 2, 0]), None);
        assert_eq!(header(&[16, 0, 0]), None);
        assert_eq!(code(&[0; 19]), None);
    }
}
