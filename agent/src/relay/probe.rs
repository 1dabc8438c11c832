//! Who answers a harmless question to everybody, and by which way did the answer come? The question, what an answer says,
//! and whose it is by the MAC it came from.
//!
//! Pure: nothing is sent here, and time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::discovery::Mac;
use super::discovery::holding::service_type;
use super::dns::{self, Builder, CLASS_IN, Message, Name, kind};

/// The most who answer that are told apart.
pub const MOST_ANSWERERS: usize = 256;
/// The name that lists all types of services, without its domain.
const TYPES: &str = "_services._dns-sd._udp";
/// The most types that are asked about, and the most bytes of such a question: one packet.
const MOST_TYPES: usize = 32;
const LONGEST_QUESTION: usize = 1200;
/// The most that one of them says, and the most bytes of each.
const MOST_SAID: usize = 16;
const LONGEST_SAID: usize = 128;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Which types of services there are (RFC 6763 section 9).
    Mdns,
    /// Which devices there are: M-SEARCH for everything (UPnP Device Architecture 2.0, section 1.3.2).
    Ssdp,
}

impl Question {
    /// The question about a protocol of this name.
    pub fn about(protocol: &str) -> Option<Self> {
        match protocol {
            "mdns" => Some(Self::Mdns),
            "ssdp" => Some(Self::Ssdp),
            _ => None,
        }
    }

    /// The group and port that it goes to.
    pub fn group(self, is_v6: bool) -> SocketAddr {
        match (self, is_v6) {
            (Self::Mdns, false) => SocketAddr::new(Ipv4Addr::new(224, 0, 0, 251).into(), dns::PORT),
            (Self::Mdns, true) => SocketAddr::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb).into(), dns::PORT),
            (Self::Ssdp, false) => SocketAddr::new(Ipv4Addr::new(239, 255, 255, 250).into(), 1900),
            (Self::Ssdp, true) => SocketAddr::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xc).into(), 1900),
        }
    }

    /// Its time to live.
    pub fn hops(self) -> u8 {
        match self {
            Self::Mdns => 255,
            Self::Ssdp => 2,
        }
    }

    /// What is asked; of mDNS also who has services of these types. Which types there are is answered once for all who
    /// have one (RFC 6762 section 7.4), so only the second question tells them apart.
    pub fn payload(self, is_v6: bool, types: &[String]) -> Vec<u8> {
        match self {
            Self::Mdns => {
                let mut query = Builder::query().at_most(LONGEST_QUESTION);
                let names = std::iter::once(TYPES).chain(types.iter().map(String::as_str).take(MOST_TYPES));
                for name in names.filter_map(|name| format!("{name}.local").parse::<Name>().ok()) {
                    let _fits = query.question(&name, kind::PTR, CLASS_IN, false);
                }
                query.finish()
            }
            Self::Ssdp => {
                let host = if is_v6 { "[FF02::C]" } else { "239.255.255.250" };
                format!(
                    "M-SEARCH * HTTP/1.1\r\nHOST: {host}:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n"
                )
                .into_bytes()
            }
        }
    }

    /// What an answer says; `None`: it is none.
    pub fn read(self, payload: &[u8]) -> Option<Said> {
        match self {
            Self::Mdns => {
                let message = Message::read(payload).ok().filter(Message::is_sane_response)?;
                let mut said = Said::default();
                let pointers = message.records.iter().filter(|record| record.kind == kind::PTR && record.ttl > 0);
                for (owner, target) in pointers.filter_map(|record| Some((record.name(), record.target()?))) {
                    if is_type_list(&owner) {
                        said.types.extend(service_type(&target));
                    } else if service_type(&owner).is_some() {
                        let full = target.to_string();
                        said.names.push(cut(full.strip_suffix(".local").unwrap_or(&full)));
                    }
                }
                said.types.truncate(MOST_SAID);
                said.names.truncate(MOST_SAID);
                (said != Said::default()).then_some(said)
            }
            Self::Ssdp => {
                let text = String::from_utf8_lossy(payload.get(..payload.len().min(4096))?).into_owned();
                let mut lines = text.lines();
                lines.next().filter(|line| line.starts_with("HTTP/1.") && line.contains(" 200"))?;
                let header = |line: &str| {
                    let (name, value) = line.split_once(':')?;
                    name.trim().eq_ignore_ascii_case("st").then(|| cut(value.trim()))
                };
                Some(Said { types: Vec::new(), names: lines.find_map(header).into_iter().collect() })
            }
        }
    }
}

fn is_type_list(name: &Name) -> bool {
    name.to_string().eq_ignore_ascii_case(&format!("{TYPES}.local"))
}

/// What one answer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Types of services that somebody has.
    pub types: Vec<String>,
    /// The answerer's own: names of services, or the type of a device.
    pub names: Vec<String>,
}

fn cut(text: &str) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= LONGEST_SAID).last();
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

/// By which way an answer came to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// Whoever asked has a responder of its own.
    Itself,
    /// From a device of the link.
    Wire,
    /// The relay brought it: from a pod to the node, or from the node to a pod.
    Relay,
    /// From another pod, past the relay: both are in bridge mode.
    Sibling,
    /// A pod answered, and the node did not hear it: the answer went out on the wire alone.
    NotRelayed,
}

impl Path {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Itself => "itself",
            Self::Wire => "wire",
            Self::Relay => "relay",
            Self::Sibling => "sibling",
            Self::NotRelayed => "not_relayed",
        }
    }
}

/// Who is where: what MACs mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seats {
    /// The MAC of whoever asks.
    pub own: Mac,
    /// The parent's.
    pub parent: Mac,
    /// The pods on the parent, by their MACs.
    pub pods: BTreeMap<Mac, String>,
}

/// One frame that may be an answer.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// Where it came from.
    pub mac: Mac,
    /// From which address.
    pub source: IpAddr,
    /// Did it go out on the interface, instead of coming in?
    pub outgoing: bool,
    /// How long after the question.
    pub after: Duration,
    /// What it carries.
    pub payload: &'a [u8],
}

/// One who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// By which way.
    pub path: Path,
    /// `node`, or `NAMESPACE/POD`; empty for a device of the link.
    pub who: String,
    /// The MAC it came from.
    pub mac: Mac,
    /// The addresses it came from.
    pub addresses: Vec<IpAddr>,
    /// How long the first one took.
    pub after: Duration,
    /// How many datagrams.
    pub datagrams: u64,
    /// What it says: types of services or of devices.
    pub says: Vec<String>,
}

#[derive(Debug)]
struct Seen {
    addresses: BTreeSet<IpAddr>,
    came_in: bool,
    after: Duration,
    datagrams: u64,
    says: BTreeSet<String>,
}

/// The answers to one question.
#[derive(Debug)]
pub struct Answers {
    question: Question,
    seats: Seats,
    seen: BTreeMap<Mac, Seen>,
    types: BTreeSet<String>,
    /// Answers of whom there was no room for.
    pub left_out: u64,
}

impl Answers {
    /// None yet.
    pub fn to(question: Question, seats: Seats) -> Self {
        Self { question, seats, seen: BTreeMap::new(), types: BTreeSet::new(), left_out: 0 }
    }

    /// Takes a frame in, if it is an answer.
    pub fn hear(&mut self, heard: &Heard<'_>) {
        let Some(said) = self.question.read(heard.payload) else { return };
        if self.seen.len() >= MOST_ANSWERERS && !self.seen.contains_key(&heard.mac) {
            self.left_out += 1;
            return;
        }
        let new = || Seen {
            addresses: BTreeSet::new(),
            came_in: false,
            after: heard.after,
            datagrams: 0,
            says: BTreeSet::new(),
        };
        let seen = self.seen.entry(heard.mac).or_insert_with(new);
        seen.came_in |= !heard.outgoing;
        seen.datagrams += 1;
        if seen.addresses.len() < MOST_SAID {
            seen.addresses.insert(heard.source);
        }
        for name in said.types.iter().chain(&said.names) {
            if seen.says.len() < MOST_SAID {
                seen.says.insert(name.clone());
            }
        }
        for kind in said.types {
            if self.types.len() < MOST_TYPES {
                self.types.insert(kind);
            }
        }
    }

    /// The types of services that were heard of.
    pub fn types(&self) -> impl Iterator<Item = &String> {
        self.types.iter()
    }

    /// Who answered, the quickest first.
    pub fn told(self) -> Vec<Answer> {
        let Self { seats, seen, .. } = self;
        let answer = |(mac, seen): (Mac, Seen)| {
            let pod = seats.pods.get(&mac);
            let path = match pod {
                _ if mac == seats.own => Path::Itself,
                // Asked in a pod.
                _ if mac == seats.parent => Path::Relay,
                Some(_) if seats.own != seats.parent => Path::Sibling,
                Some(_) if seen.came_in => Path::Relay,
                Some(_) => Path::NotRelayed,
                None => Path::Wire,
            };
            let who = if mac == seats.parent { "node".to_owned() } else { pod.cloned().unwrap_or_default() };
            Answer {
                path,
                who,
                mac,
                addresses: seen.addresses.into_iter().collect(),
                after: seen.after,
                datagrams: seen.datagrams,
                says: seen.says.into_iter().collect(),
            }
        };
        let mut answers: Vec<Answer> = seen.into_iter().map(answer).collect();
        answers.sort_by_key(|answer| (answer.after, answer.mac));
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::super::dns::{Data, Section};
    use super::*;

    const NODE: Mac = [2, 0, 0, 0, 0, 1];
    const POD: Mac = [2, 0, 0, 0, 0, 2];
    const OTHER: Mac = [2, 0, 0, 0, 0, 3];
    const DEVICE: Mac = [2, 0, 0, 0, 0, 9];

    fn types(of: &[&str]) -> Vec<u8> {
        let list: Name = "_services._dns-sd._udp.local".parse().unwrap();
        let mut message = Builder::response();
        for each in of {
            let target: Name = format!("{each}.local").parse().unwrap();
            message.record(Section::Answer, &list, (kind::PTR, CLASS_IN, false), 4500, Data::Name(&target)).unwrap();
        }
        message.finish()
    }

    fn seats(own: Mac) -> Seats {
        let pods = [(POD, "default/a".to_owned()), (OTHER, "default/b".to_owned())].into();
        Seats { own, parent: NODE, pods }
    }

    #[test]
    fn the_way_is_told_by_the_mac() {
        /// What it is, who asks, who answers, which ways the answers went, and what follows.
        type Row = (&'static str, Mac, Mac, &'static [bool], Path, &'static str);
        let payload = types(&["_ipp._tcp", "_http._tcp"]);
        let rows: [Row; 9] = [
            ("the node's own, at the node", NODE, NODE, &[true], Path::Itself, "node"),
            ("a pod's, relayed", NODE, POD, &[true, false], Path::Relay, "default/a"),
            ("a pod's, not relayed", NODE, POD, &[true], Path::NotRelayed, "default/a"),
            ("a device's, at the node", NODE, DEVICE, &[false], Path::Wire, ""),
            ("the node's, in a pod", POD, NODE, &[false], Path::Relay, "node"),
            ("the pod's own", POD, POD, &[true], Path::Itself, "default/a"),
            ("another pod's", POD, OTHER, &[false], Path::Sibling, "default/b"),
            ("a device's, in a pod", POD, DEVICE, &[false], Path::Wire, ""),
            ("a pod's, twice", NODE, OTHER, &[false, false], Path::Relay, "default/b"),
        ];
        for (what, own, mac, ways, path, who) in rows {
            let mut answers = Answers::to(Question::Mdns, seats(own));
            for (at, outgoing) in ways.iter().enumerate() {
                let after = Duration::from_millis(20 + u64::try_from(at).unwrap());
                let source = [10, 0, 0, 1].into();
                answers.hear(&Heard { mac, source, outgoing: *outgoing, after, payload: &payload });
            }
            assert_eq!(answers.types().count(), 2, "{what}");
            let told = answers.told();
            let [answer] = &told[..] else { panic!("{what}") };
            assert_eq!((answer.path, answer.who.as_str()), (path, who), "{what}");
            assert_eq!((answer.after, answer.datagrams), (Duration::from_millis(20), ways.len() as u64), "{what}");
            assert_eq!(answer.says, ["_http._tcp", "_ipp._tcp"], "{what}");
        }
    }

    #[test]
    fn only_answers_are_answers_and_there_is_room_for_so_many() {
        let mut answers = Answers::to(Question::Mdns, seats(NODE));
        let mut hear = |mac, payload: &[u8]| {
            let (source, after) = ([10, 0, 0, 1].into(), Duration::ZERO);
            answers.hear(&Heard { mac, source, outgoing: false, after, payload });
        };
        hear(POD, &Question::Mdns.payload(false, &[]));
        hear(POD, &types(&[]));
        hear(POD, b"nonsense");
        for n in 0..=u16::try_from(MOST_ANSWERERS).unwrap() {
            let [a, b] = n.to_be_bytes();
            hear([2, 0, 0, 1, a, b], &types(&["_x._udp"]));
        }
        assert_eq!(answers.left_out, 1);
        assert_eq!(answers.told().len(), MOST_ANSWERERS);
    }

    #[test]
    fn devices_say_what_they_are() {
        let read = |text: &str| Question::Ssdp.read(text.as_bytes()).map(|said| said.names);
        let long = "x".repeat(1000);
        assert_eq!(read("HTTP/1.1 200 OK\r\nst: upnp:rootdevice\r\n\r\n"), Some(vec!["upnp:rootdevice".to_owned()]));
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\n"), Some(vec![]));
        assert_eq!(read(&format!("HTTP/1.1 200 OK\r\nST:{long}\r\n")), Some(vec!["x".repeat(LONGEST_SAID)]));
        for odd in ["", "NOTIFY * HTTP/1.1\r\nST: x\r\n", "HTTP/1.1 404 no\r\nST: x\r\n"] {
            assert_eq!(read(odd), None, "{odd}");
        }
        let asked = String::from_utf8(Question::Ssdp.payload(true, &[])).unwrap();
        assert!(
            asked.contains("HOST: [FF02::C]:1900\r\n") && asked.ends_with("MX: 1\r\nST: ssdp:all\r\n\r\n"),
            "{asked}"
        );
        let many: Vec<String> = (0..100).map(|n| format!("_a-rather-long-type-{n}._tcp")).collect();
        let asked = Question::Mdns.payload(false, &many);
        let read = Message::read(&asked).unwrap();
        assert_eq!(read.questions[0].name().to_string(), "_services._dns-sd._udp.local");
        assert_eq!(read.questions[1].name().to_string(), "_a-rather-long-type-0._tcp.local");
        assert!(read.questions.len() == 1 + MOST_TYPES && asked.len() <= LONGEST_QUESTION, "{}", asked.len());
    }
}
