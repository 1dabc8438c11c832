//! Does the reflector as a whole keep the rules of its protocols? Frames in, frames out, with a clock of our own.

#[cfg(test)]
mod tests {
    use super::super::datagram::{group_mac, read, write};
    use super::super::*;
    use crate::relay::dns::{Builder, CLASS_IN, Data, Message, Name, Section, kind};

    const LAN: LinkId = LinkId(2);
    const OTHER: LinkId = LinkId(3);
    const POD: LinkId = LinkId(10);
    const SECOND: LinkId = LinkId(11);
    const DEVICE: [u8; 6] = [2, 0, 0, 0, 0, 0xdd];

    fn pod_mac(link: LinkId) -> [u8; 6] {
        [2, 0, 0, 0, 1, u8::try_from(link.0).unwrap()]
    }

    fn our_mac(link: LinkId) -> [u8; 6] {
        [2, 0, 0, 0, 0, u8::try_from(link.0).unwrap()]
    }

    fn link(id: LinkId) -> Link {
        let role = if id == LAN || id == OTHER { Role::Uplink } else { Role::Pod(pod_mac(id)) };
        let v4 = Ipv4Addr::new(10, 0, u8::try_from(id.0).unwrap(), 1);
        let v6: Ipv6Addr = format!("fe80::{}", id.0).parse().unwrap();
        Link {
            id,
            name: format!("link{}", id.0),
            role,
            mac: our_mac(id),
            v4: Some(v4),
            v6: Some(v6),
            addresses: [IpAddr::V4(v4), IpAddr::V6(v6)].into(),
            protocols: ALL.into(),
        }
    }

    fn reflector(policy: Policy, links: &[LinkId]) -> Reflector {
        let mut reflector = Reflector::new(policy, 42);
        reflector.lead(true);
        for id in links {
            reflector.join(link(*id));
        }
        reflector
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn question(unicast: bool) -> Vec<u8> {
        let mut message = Builder::query();
        message.question(&name("_http._tcp.local"), kind::PTR, CLASS_IN, unicast).unwrap();
        message.finish()
    }

    fn address_of(host: &str, address: [u8; 4], ttl: u32) -> Vec<u8> {
        let mut message = Builder::response();
        message.record(Section::Answer, &name(host), (kind::A, CLASS_IN, true), ttl, Data::Raw(&address)).unwrap();
        message.finish()
    }

    /// A frame to a group from somebody.
    fn from(mac: [u8; 6], source: &str, to: &str, payload: &[u8]) -> Vec<u8> {
        let to: SocketAddr = to.parse().unwrap();
        write((mac, group_mac(to.ip())), source.parse().unwrap(), to, 255, payload).unwrap()
    }

    const MDNS: &str = "224.0.0.251:5353";
    const MDNS6: &str = "[ff02::fb]:5353";
    const SSDP: &str = "239.255.255.250:1900";

    fn hear(reflector: &mut Reflector, now: Duration, link: LinkId, frame: &[u8]) -> Vec<Action> {
        reflector.frame(now, link, frame, Heard { outgoing: false, unchecked: true })
    }

    /// Links and frames of what is to be sent.
    fn sent(actions: &[Action]) -> Vec<(LinkId, &[u8])> {
        actions
            .iter()
            .map(|action| match action {
                Action::Send(link, _, frame) => (*link, frame.as_slice()),
                Action::Ask { .. } => panic!("{action:?}"),
            })
            .collect()
    }

    fn reasons(reflector: &Reflector) -> Vec<(Path, Reason, u64)> {
        reflector.counts().into_iter().filter_map(|count| Some((count.path, count.reason?, count.frames))).collect()
    }

    #[test]
    fn an_announcement_reaches_every_pod_once_and_from_our_own_address() {
        let mut reflector = reflector(Policy::default(), &[LAN, OTHER, POD, SECOND]);
        for (source, to, own) in [("10.0.2.9:5353", MDNS, "10.0"), ("[fe80::99]:5353", MDNS6, "fe80")] {
            let payload = address_of("host.local", [10, 0, 2, 9], 120);
            let actions = hear(&mut reflector, at(0), LAN, &from(DEVICE, source, to, &payload));
            let sent = sent(&actions);
            assert_eq!(sent.iter().map(|(link, _)| *link).collect::<Vec<_>>(), [POD, SECOND], "no uplink");
            for (id, frame) in sent {
                let datagram = read(frame, true).unwrap();
                let own = if own == "fe80" { link(id).v6.map(IpAddr::V6) } else { link(id).v4.map(IpAddr::V4) };
                assert_eq!((Some(datagram.source.ip()), datagram.source.port()), (own, 5353));
                assert_eq!((datagram.hops, datagram.destination), (255, to.parse().unwrap()));
                assert_eq!((datagram.payload, datagram.from_mac), (payload.as_slice(), our_mac(id)));
                assert_eq!(frame[..6], group_mac(datagram.destination.ip()));
            }
        }
        let crossed: u64 = reflector.counts().iter().filter(|c| c.reason.is_none()).map(|c| c.frames).sum();
        assert_eq!(crossed, 2, "a frame counts once, however many pods hear it");
    }

    #[test]
    fn a_pods_question_goes_out_and_its_announcements_stay() {
        let mut reflector = reflector(Policy::default(), &[LAN, POD, SECOND]);
        let actions = hear(&mut reflector, at(0), POD, &from(pod_mac(POD), "10.0.10.2:5353", MDNS, &question(true)));
        let [(LAN, frame)] = sent(&actions)[..] else { panic!("{actions:?}") };
        let datagram = read(frame, true).unwrap();
        assert_eq!((datagram.source, datagram.hops), ("10.0.2.1:5353".parse().unwrap(), 255));
        assert!(!Message::read(datagram.payload).unwrap().questions[0].unicast, "QU would be answered to us");
        let own = address_of("pod.local", [10, 0, 10, 2], 120);
        let announced = hear(&mut reflector, at(0), POD, &from(pod_mac(POD), "10.0.10.2:5353", MDNS, &own));
        assert_eq!(announced, []);
        assert_eq!(reasons(&reflector), [(Path::PodToLan, Reason::Direction, 1)]);
    }

    #[test]
    fn both_ways_is_both_ways() {
        let mut reflector = reflector(Policy { both_ways: true, ..Policy::default() }, &[LAN, POD]);
        let own = address_of("pod.local", [10, 0, 10, 2], 120);
        let announced = hear(&mut reflector, at(0), POD, &from(pod_mac(POD), "10.0.10.2:5353", MDNS, &own));
        assert_eq!(sent(&announced)[0].0, LAN);
        let asked = hear(&mut reflector, at(0), LAN, &from(DEVICE, "10.0.2.9:5353", MDNS, &question(false)));
        assert_eq!(sent(&asked)[0].0, POD);
    }

    #[test]
    fn questions_of_the_lan_do_not_bother_pods() {
        let mut reflector = reflector(Policy::default(), &[LAN, POD]);
        assert_eq!(hear(&mut reflector, at(0), LAN, &from(DEVICE, "10.0.2.9:5353", MDNS, &question(false))), []);
        assert_eq!(reasons(&reflector), []);
    }

    #[test]
    fn from_uplink_to_uplink_only_what_is_configured_and_only_by_one_node() {
        let between = Policy { between: [Protocol::Mdns].into(), ..Policy::default() };
        let mut reflector = reflector(between, &[LAN, OTHER]);
        let ask = from(DEVICE, "10.0.2.9:5353", MDNS, &question(false));
        let notify = from(DEVICE, "10.0.2.9:4000", SSDP, b"NOTIFY * HTTP/1.1\r\n\r\n");
        assert_eq!(sent(&hear(&mut reflector, at(0), LAN, &ask))[0].0, OTHER);
        assert_eq!(hear(&mut reflector, at(0), LAN, &notify), []);
        reflector.lead(false);
        assert_eq!(hear(&mut reflector, at(2000), LAN, &ask), []);
    }

    #[test]
    fn what_was_said_on_a_link_is_not_said_there_again_within_a_second() {
        // RFC 6762 section 6.
        let mut reflector = reflector(Policy::default(), &[LAN, OTHER, POD]);
        let frame = from(DEVICE, "10.0.2.9:5353", MDNS, &address_of("host.local", [10, 0, 2, 9], 120));
        assert_eq!(hear(&mut reflector, at(0), LAN, &frame).len(), 1);
        assert_eq!(hear(&mut reflector, at(500), OTHER, &frame).len(), 0, "the same, by another way");
        assert_eq!(hear(&mut reflector, at(1000), LAN, &frame).len(), 1);
        assert_eq!(reasons(&reflector), [(Path::LanToPod, Reason::Duplicate, 1)]);
        let goodbye = from(DEVICE, "10.0.2.9:5353", MDNS, &address_of("host.local", [10, 0, 2, 9], 0));
        assert_eq!(hear(&mut reflector, at(2000), LAN, &goodbye).len(), 1);
        assert_eq!(hear(&mut reflector, at(2250), LAN, &goodbye).len(), 1, "a goodbye is held back less");
    }

    #[test]
    fn two_reflectors_on_one_pair_of_links_do_not_play_ping_pong() {
        let between = || Policy { between: [Protocol::Mdns].into(), ..Policy::default() };
        let (mut a, mut b) = (reflector(between(), &[LAN, OTHER]), Reflector::new(between(), 7));
        b.lead(true);
        for id in [LAN, OTHER] {
            let mut theirs = link(id);
            theirs.mac[4] = 9;
            theirs.v4 = Some(Ipv4Addr::new(10, 0, u8::try_from(id.0).unwrap(), 2));
            theirs.addresses = theirs.v4.map(IpAddr::V4).into_iter().collect();
            b.join(theirs);
        }
        let frame = from(DEVICE, "10.0.2.9:5353", MDNS, &address_of("host.local", [10, 0, 2, 9], 120));
        let (mut waiting, mut rounds) = (vec![(LAN, frame, 0)], 0);
        while let Some((link, frame, sender)) = waiting.pop() {
            rounds += 1;
            assert!(rounds < 10, "it goes round and round");
            for (who, number) in [(&mut a, 1), (&mut b, 2)] {
                if number != sender {
                    let actions = hear(who, at(rounds), link, &frame);
                    waiting.extend(sent(&actions).into_iter().map(|(to, frame)| (to, frame.to_vec(), number)));
                }
            }
        }
        assert_eq!(rounds, 3, "the announcement, and at worst one copy of each");
    }

    #[test]
    fn our_own_frames_are_known() {
        let mut reflector = reflector(Policy::default(), &[LAN, OTHER, POD]);
        let payload = address_of("host.local", [10, 0, 2, 9], 120);
        for frame in
            [from(our_mac(OTHER), "10.0.2.9:5353", MDNS, &payload), from(DEVICE, "10.0.3.1:5353", MDNS, &payload)]
        {
            assert_eq!(hear(&mut reflector, at(0), LAN, &frame), []);
        }
        assert_eq!(reasons(&reflector), [(Path::LanToPod, Reason::Own, 2)]);
        let own = from(our_mac(LAN), "10.0.2.1:5353", MDNS, &payload);
        let heard = Heard { outgoing: true, unchecked: false };
        assert_eq!(reflector.frame(at(0), LAN, &own, heard).len(), 1, "the host's own services are of the LAN");
        assert_eq!(
            hear(&mut reflector, at(0), POD, &from(pod_mac(POD), "10.0.10.2:5353", MDNS, &question(false))).len(),
            2
        );
        let echo = from(our_mac(LAN), "10.0.2.1:5353", MDNS, &question(false));
        let counted = reflector.counts();
        assert_eq!(reflector.frame(at(1), LAN, &echo, heard), [], "what we say goes out");
        assert_eq!(reflector.counts(), counted, "and is nothing to count");
        reflector.listens(Channel::Legacy(LAN, false), Some(40_000));
        let asked = from(our_mac(LAN), "10.0.2.1:40000", MDNS, &question(false));
        assert_eq!(reflector.frame(at(0), LAN, &asked, heard), []);
    }

    #[test]
    fn a_pod_speaks_for_itself_alone() {
        let mut reflector = reflector(Policy::default(), &[LAN, POD]);
        let frame = from(pod_mac(SECOND), "10.0.10.2:5353", MDNS, &question(false));
        assert_eq!(hear(&mut reflector, at(0), POD, &frame), []);
        assert_eq!(reasons(&reflector), [(Path::PodToLan, Reason::Spoof, 1)]);
    }

    #[test]
    fn a_protocol_crosses_only_where_it_is_wanted() {
        let mut reflector = reflector(Policy::default(), &[LAN, POD]);
        reflector.join(Link { protocols: [Protocol::Ssdp].into(), ..link(POD) });
        assert_eq!(hear(&mut reflector, at(0), POD, &from(pod_mac(POD), "10.0.10.2:5353", MDNS, &question(false))), []);
        let payload = address_of("host.local", [10, 0, 2, 9], 120);
        assert_eq!(hear(&mut reflector, at(0), LAN, &from(DEVICE, "10.0.2.9:5353", MDNS, &payload)), []);
        let notify = from(DEVICE, "10.0.2.9:4000", SSDP, b"NOTIFY * HTTP/1.1\r\n\r\n");
        let actions = hear(&mut reflector, at(0), LAN, &notify);
        let datagram = read(sent(&actions)[0].1, true).unwrap();
        assert_eq!(datagram.source, "10.0.2.9:4000".parse().unwrap(), "the device is who it is");
        reflector.leave(POD);
        assert_eq!(hear(&mut reflector, at(9000), LAN, &notify), []);
    }

    #[test]
    fn a_source_is_limited_but_for_goodbyes() {
        let mut reflector = reflector(Policy::default(), &[LAN, POD]);
        let say = |n: u32, ttl| {
            let [.., c, d] = n.to_be_bytes();
            from(DEVICE, "10.0.2.9:5353", MDNS, &address_of("host.local", [10, 9, c, d], ttl))
        };
        let passed = (0..300).filter(|n| !hear(&mut reflector, at(0), LAN, &say(*n, 120)).is_empty()).count();
        assert_eq!(passed, 200);
        assert_eq!(reasons(&reflector), [(Path::LanToPod, Reason::Rate, 100)]);
        let goodbyes = (0..300).filter(|n| !hear(&mut reflector, at(0), LAN, &say(*n, 0)).is_empty()).count();
        assert_eq!(goodbyes, 300);
    }

    #[test]
    fn a_pod_that_claims_many_addresses_has_one_allowance() {
        let mut reflector = reflector(Policy::default(), &[LAN, POD, SECOND]);
        for n in 0..3_000u32 {
            let [.., c, d] = n.to_be_bytes();
            let frame = from(pod_mac(POD), &format!("10.9.{c}.{d}:5353"), MDNS, &question(false));
            hear(&mut reflector, at(0), POD, &frame);
        }
        let limited = reasons(&reflector).iter().find(|(_, reason, _)| *reason == Reason::Rate).map(|(.., n)| *n);
        assert_eq!(limited, Some(2_800));
        let payload = address_of("host.local", [10, 0, 2, 9], 120);
        let told = hear(&mut reflector, at(0), LAN, &from(DEVICE, "10.0.2.9:5353", MDNS, &payload));
        assert_eq!(told.len(), 2, "nobody else pays for it");
    }

    /// The one question that goes out.
    fn asked(actions: &[Action]) -> (Channel, Vec<u8>) {
        let [Action::Ask { channel, payload, .. }] = actions else { panic!("{actions:?}") };
        (*channel, payload.clone())
    }

    #[test]
    fn a_one_shot_query_is_answered_to_whoever_asked() {
        // RFC 6762 section 6.7.
        let mut reflector = reflector(Policy::default(), &[LAN, POD, SECOND]);
        let mut query = Builder::new(0x77, 0);
        query.question(&name("host.local"), kind::A, CLASS_IN, false).unwrap();
        let query = query.finish();
        let mut ask = |link, source| {
            let frame = from(pod_mac(link), source, MDNS, &query);
            asked(&hear(&mut reflector, at(0), link, &frame))
        };
        let ((channel, first), (_, second)) = (ask(POD, "10.0.10.2:4000"), ask(SECOND, "10.0.11.2:4000"));
        assert_eq!(channel, Channel::Legacy(LAN, false));
        assert_ne!(first[..2], second[..2], "the same port and identifier of two askers");
        assert_eq!(first[2..], query[2..]);
        let mut answer = Builder::new(u16::from_be_bytes([second[0], second[1]]), 0x8400);
        answer.question(&name("host.local"), kind::A, CLASS_IN, false).unwrap();
        let own = (kind::A, CLASS_IN, true);
        answer.record(Section::Answer, &name("host.local"), own, 120, Data::Raw(&[10, 0, 2, 9])).unwrap();
        let answer = answer.finish();
        let responder = "10.0.2.9:5353".parse().unwrap();
        assert_eq!(reflector.answer(at(10), channel, "10.0.2.9:53".parse().unwrap(), &answer), [], "another port");
        let actions = reflector.answer(at(10), channel, responder, &answer);
        let [(SECOND, frame)] = sent(&actions)[..] else { panic!("{actions:?}") };
        let datagram = read(frame, true).unwrap();
        assert_eq!(datagram.destination, "10.0.11.2:4000".parse().unwrap());
        assert_eq!((datagram.source, datagram.hops), ("10.0.11.1:5353".parse().unwrap(), 255));
        assert_eq!(frame[..6], pod_mac(SECOND));
        let read = Message::read(datagram.payload).unwrap();
        assert_eq!((read.header.id, read.records[0].ttl, read.records[0].flush), (0x77, 10, false));
        assert_eq!(reflector.answer(at(2000), channel, responder, &answer), [], "too late");
    }

    #[test]
    fn a_search_is_answered_by_unicast_with_the_devices_own_address() {
        let mut reflector = reflector(Policy::default(), &[LAN, POD]);
        let search = from(pod_mac(POD), "10.0.10.2:4000", SSDP, b"M-SEARCH * HTTP/1.1\r\nMX: 2\r\n\r\n");
        let (channel, _) = asked(&hear(&mut reflector, at(0), POD, &search));
        assert_eq!(reflector.open_until(at(0), channel), Some(at(3000)));
        let device = "10.0.2.9:1900".parse().unwrap();
        let actions = reflector.answer(at(2900), channel, device, b"HTTP/1.1 200 OK\r\n\r\n");
        let datagram = read(sent(&actions)[0].1, true).unwrap();
        assert_eq!((datagram.source, datagram.destination), (device, "10.0.10.2:4000".parse().unwrap()));
        assert_eq!(reflector.answer(at(2900), channel, device, b"GET / HTTP/1.1\r\n\r\n"), []);
        assert_eq!(reflector.answer(at(3000), channel, device, b"HTTP/1.1 200 OK\r\n\r\n"), []);
        assert_eq!(reflector.open_until(at(3000), channel), None);
    }

    #[test]
    fn the_devices_link_local_address_is_not_for_the_asker() {
        let mut reflector = reflector(Policy::default(), &[LAN, POD]);
        let search = from(pod_mac(POD), "[fe80::a]:4000", "[ff02::c]:1900", b"M-SEARCH * HTTP/1.1\r\n\r\n");
        let (channel, _) = asked(&hear(&mut reflector, at(0), POD, &search));
        let device = "[fe80::d]:1900".parse().unwrap();
        let actions = reflector.answer(at(10), channel, device, b"HTTP/1.1 200 OK\r\n\r\n");
        let datagram = read(sent(&actions)[0].1, true).unwrap();
        assert_eq!(datagram.source, "[fe80::10]:1900".parse().unwrap());
    }

    #[test]
    fn without_an_address_nothing_is_said() {
        let mut reflector = reflector(Policy::default(), &[LAN, POD]);
        reflector.join(Link { v4: None, ..link(LAN) });
        assert_eq!(hear(&mut reflector, at(0), POD, &from(pod_mac(POD), "10.0.10.2:5353", MDNS, &question(false))), []);
        assert_eq!(reasons(&reflector), [(Path::PodToLan, Reason::Address, 1)]);
    }

    #[test]
    fn hostile_bytes_change_nothing() {
        let mut reflector = reflector(Policy { both_ways: true, ..Policy::default() }, &[LAN, POD]);
        let whole = from(DEVICE, "10.0.2.9:5353", MDNS, &address_of("host.local", [10, 0, 2, 9], 120));
        for length in 0..whole.len() {
            let cut = reflector.frame(at(0), LAN, &whole[..length], Heard::default());
            assert_eq!(cut, [], "{length}");
        }
        for (step, at_byte) in (14..whole.len()).enumerate() {
            for value in [0u8, 1, 0x3f, 0x80, 0xc0, 0xff] {
                let mut odd = whole.clone();
                odd[at_byte] = value;
                let now = at(2_000 * u64::try_from(step + 1).unwrap());
                reflector.frame(now, LAN, &odd, Heard::default());
                reflector.frame(now, POD, &odd, Heard::default());
            }
        }
        for source in ["0.0.0.0:5353", "224.0.0.1:5353", "10.0.2.9:0"] {
            let frame = from(DEVICE, source, MDNS, &address_of("odd.local", [10, 0, 2, 9], 120));
            assert_eq!(hear(&mut reflector, at(900_000), LAN, &frame), [], "{source}");
        }
    }
}
