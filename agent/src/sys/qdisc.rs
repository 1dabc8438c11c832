//! Which filters does the clsact qdisc of an interface hold, and how does it go when it holds none?
//!
//! Acts in the calling thread's network namespace. Two fixed requests over one netlink socket (rtnetlink(7)): of the
//! answers nothing is read but their kind, their error code, and what tells a filter from others.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::netlink::{Message, attributes, messages};

/// `TC_H_MAKE(TC_H_CLSACT, 0xfff2)` and `…0xfff3` of linux/pkt_sched.h: where ingress and egress filters hang.
const HOOKS: [u32; 2] = [0xffff_fff2, 0xffff_fff3];
/// `TC_H_CLSACT`: where the qdisc itself hangs.
const CLSACT: u32 = 0xffff_fff1;
/// `TCA_KIND` (type 1, 4 + 7 bytes) with its padding, so that only a clsact qdisc goes, never an `ingress` one.
const KIND: [u8; 12] = [11, 0, 1, 0, b'c', b'l', b's', b'a', b'c', b't', 0, 0];

/// A filter, by what tells it apart from others at its hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Frames go through chain 0, and through others where a filter sends them.
    pub chain: u32,
    /// Lower ones run first.
    pub priority: u16,
    /// Its number among those of one priority.
    pub handle: u32,
    /// The name it has the program by that it runs and whose verdict it takes; none where it is another kind of filter.
    pub program: Option<String>,
    /// The id of that program.
    pub id: Option<u32>,
}

/// The filters of interface `ifindex` in the order they run in: ingress, egress. None where there is no clsact qdisc.
pub fn filters(ifindex: u32) -> io::Result<[Vec<Filter>; 2]> {
    let socket = open()?;
    let [ingress, egress] = HOOKS;
    // The kernel names each chain of filters, too, with handle 0.
    let of = |hook| Ok::<_, io::Error>(listed(&socket, ifindex, hook)?.into_iter().filter(|f| f.handle != 0).collect());
    Ok([of(ingress)?, of(egress)?])
}

/// Removes the clsact qdisc of interface `ifindex` if no filter is left in it; says whether it did.
///
/// Whoever adds a filter between the look and the removal loses it: the kernel offers no "remove if empty".
pub fn remove_unused_clsact(ifindex: u32) -> io::Result<bool> {
    let socket = open()?;
    for hook in HOOKS {
        if !listed(&socket, ifindex, hook)?.is_empty() {
            return Ok(false);
        }
    }
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    send(&socket, &request(libc::RTM_DELQDISC, flags, ifindex, CLSACT, &KIND))?;
    while !answers(&socket)?.iter().any(Answer::is_last) {}
    Ok(true)
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn listed(socket: &Socket, ifindex: u32, hook: u32) -> io::Result<Vec<Filter>> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    send(socket, &request(libc::RTM_GETTFILTER, flags, ifindex, hook, &[]))?;
    let mut found = Vec::new();
    loop {
        let answers = answers(socket)?;
        found.extend(answers.iter().filter_map(|answer| match answer {
            Answer::Filter(filter) => Some(filter.clone()),
            Answer::Last | Answer::Other => None,
        }));
        if answers.iter().any(Answer::is_last) {
            return Ok(found);
        }
    }
}

enum Answer {
    Filter(Filter),
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
    let mut answers = Vec::new();
    for message in messages(&datagram) {
        answers.push(match i32::from(message.kind) {
            libc::NLMSG_ERROR => match code(message).ok_or_else(cut)? {
                0 => Answer::Last,
                refused => return Err(io::Error::from_raw_os_error(refused.saturating_neg())),
            },
            libc::NLMSG_DONE => Answer::Last,
            _ if message.kind == libc::RTM_NEWTFILTER => Answer::Filter(filter(message).ok_or_else(cut)?),
            _ => Answer::Other,
        });
    }
    if answers.is_empty() { Err(cut()) } else { Ok(answers) }
}

fn cut() -> io::Error {
    io::Error::other("the kernel's answer is cut short")
}

/// The code of an error message.
fn code(message: Message<'_>) -> Option<i32> {
    message.word(16).map(u32::cast_signed)
}

/// Handle and priority are the third and the fifth word of a `tcmsg`, the priority in the upper half; then come attributes
/// (linux/pkt_cls.h).
fn filter(message: Message<'_>) -> Option<Filter> {
    const OPTIONS: u16 = 2;
    const CHAIN: u16 = 11;
    let all = || message.attributes(36);
    let value = |wanted| all().find_map(|(kind, value)| (kind == wanted).then_some(value));
    let (program, id) = value(OPTIONS).and_then(program).unzip();
    Some(Filter {
        chain: value(CHAIN).and_then(number).unwrap_or_default(),
        handle: message.word(24)?,
        priority: u16::try_from(message.word(32)? >> 16).ok()?,
        program,
        id,
    })
}

/// Name and id of the eBPF program that a filter with these options runs as its action. Only such a filter has a program's
/// number; those of other kinds, and of classic bytecode, have none.
fn program(options: &[u8]) -> Option<(String, u32)> {
    const NAME: u16 = 7;
    const FLAGS: u16 = 8;
    const DIRECT_ACTION: u32 = 1;
    const ID: u16 = 11;
    let value = |wanted| attributes(options).find_map(|(kind, value)| (kind == wanted).then_some(value));
    let (name, id) = (value(NAME)?, value(ID).and_then(number)?);
    let is_direct = value(FLAGS).and_then(number)? & DIRECT_ACTION != 0;
    is_direct.then(|| (String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned(), id))
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
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
    fn an_interface_that_is_not_there_has_no_filters() {
        assert_eq!(filters(999_999).unwrap(), [vec![], vec![]]);
    }
}
