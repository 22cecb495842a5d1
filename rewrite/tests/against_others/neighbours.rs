//! Neighbour solicitations that smoltcp writes, and advertisements that it reads.

use core::net::Ipv6Addr;
use dpr_model::MacAddress;
use dpr_rewrite::ethernet::{self, EthernetHeader, Tags};
use dpr_rewrite::ndp::{ADVERTISEMENT_LEN_MAX, NeighbourSolicitation, announcement};
use dpr_rewrite::{Parsed, parse};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags,
    NdiscRepr, RawHardwareAddress,
};

const ASKER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
const TARGET: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff12, 0x3456);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ASKER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
const OWN_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

struct Question {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    hop_limit: u8,
    link_layer: Option<[u8; 6]>,
}

const QUESTION: Question = Question {
    source: ASKER,
    destination: GROUP,
    target: TARGET,
    hop_limit: 255,
    link_layer: Some(ASKER_MAC),
};

const PROBE: Question = Question { source: Ipv6Addr::UNSPECIFIED, link_layer: None, ..QUESTION };

impl Question {
    /// The IP packet, written by smoltcp, with `options` behind its own.
    fn packet(&self, options: &[u8]) -> Vec<u8> {
        let lladdr = self.link_layer.map(|mac| RawHardwareAddress::from(EthernetAddress(mac)));
        let solicitation = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: self.target, lladdr });
        let message_len = solicitation.buffer_len() + options.len();
        let ip = Ipv6Repr {
            src_addr: self.source,
            dst_addr: self.destination,
            next_header: IpProtocol::Icmpv6,
            payload_len: message_len,
            hop_limit: self.hop_limit,
        };
        let mut packet = vec![0; 40 + message_len];
        ip.emit(&mut Ipv6Packet::new_unchecked(&mut packet[..]));
        packet[40 + solicitation.buffer_len()..].copy_from_slice(options);
        let mut message = Icmpv6Packet::new_unchecked(&mut packet[40..]);
        let mut caps = ChecksumCapabilities::ignored();
        caps.icmpv6 = smoltcp::phy::Checksum::None;
        solicitation.emit(&self.source, &self.destination, &mut message, &caps);
        message.fill_checksum(&self.source, &self.destination);
        packet
    }

    fn frame(&self, tags: &[u8], options: &[u8]) -> Vec<u8> {
        let mut frame = [[0x33, 0x33, 0xff, 0x12, 0x34, 0x56], SENDER_MAC].concat();
        frame.extend_from_slice(tags);
        frame.extend_from_slice(&[0x86, 0xdd]);
        frame.extend_from_slice(&self.packet(options));
        frame
    }
}

fn understood(frame: &[u8]) -> Option<NeighbourSolicitation> {
    match parse(frame).unwrap() {
        Parsed::Neighbour(solicitation) => Some(solicitation),
        Parsed::Ip(_) => None,
        other => panic!("{other:?}"),
    }
}

/// (Ethernet header, destination, flags) of an advertisement for [`TARGET`] at [`OWN_MAC`], read by smoltcp.
fn read(frame: &[u8]) -> (EthernetHeader, Ipv6Addr, NdiscNeighborFlags) {
    let ethernet = EthernetHeader::parse(frame).unwrap();
    let ip = Ipv6Packet::new_checked(&frame[ethernet.header_len()..]).unwrap();
    let repr = Ipv6Repr::parse(&ip).unwrap();
    assert_eq!((repr.src_addr, repr.hop_limit), (TARGET, 255));
    let message = Icmpv6Packet::new_checked(ip.payload()).unwrap();
    let caps = ChecksumCapabilities::default();
    match Icmpv6Repr::parse(&repr.src_addr, &repr.dst_addr, &message, &caps).unwrap() {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) => {
            assert_eq!(target_addr, TARGET);
            assert_eq!(lladdr.unwrap().as_bytes(), OWN_MAC.0);
            assert_eq!(ethernet.source, OWN_MAC);
            (ethernet, repr.dst_addr, flags)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_solicitation_is_answered_to_whoever_asked_in_the_same_vlan() {
    for tags in [&[][..], &[0x81, 0x00, 0, 42], &[0x88, 0xa8, 0, 7, 0x81, 0x00, 0, 42]] {
        let frame = QUESTION.frame(tags, &[]);
        let solicitation = understood(&frame).unwrap();
        assert_eq!((solicitation.source, solicitation.target), (ASKER, TARGET));
        assert_eq!(solicitation.source_mac, MacAddress(ASKER_MAC));

        let mut out = [0; ADVERTISEMENT_LEN_MAX];
        let len = solicitation.advertisement(OWN_MAC, &mut out).unwrap();

        let (ethernet, destination, flags) = read(&out[..len]);
        assert_eq!(ethernet.destination, MacAddress(ASKER_MAC));
        assert_eq!(out[12..12 + tags.len()], *tags);
        assert_eq!(destination, ASKER);
        assert!(flags == NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE);
        assert!(solicitation.advertisement(OWN_MAC, &mut out[..len - 1]).is_err());
    }
}

#[test]
fn who_does_not_say_its_mac_address_is_answered_where_the_frame_came_from() {
    let frame = Question { destination: TARGET, link_layer: None, ..QUESTION }.frame(&[], &[]);
    assert_eq!(understood(&frame).unwrap().source_mac, MacAddress(SENDER_MAC));
}

#[test]
fn a_probe_for_an_address_is_answered_to_all_nodes_and_may_carry_a_nonce() {
    for (options, nonce) in [(&[][..], None), (&[14, 1, 1, 2, 3, 4, 5, 6], Some([1, 2, 3, 4, 5, 6]))] {
        let solicitation = understood(&PROBE.frame(&[], options)).unwrap();
        assert_eq!((solicitation.source, solicitation.nonce), (Ipv6Addr::UNSPECIFIED, nonce));

        let mut out = [0; ADVERTISEMENT_LEN_MAX];
        let len = solicitation.advertisement(OWN_MAC, &mut out).unwrap();

        let (ethernet, destination, flags) = read(&out[..len]);
        assert_eq!(ethernet.destination, MacAddress([0x33, 0x33, 0, 0, 0, 1]));
        assert_eq!(destination, ALL_NODES);
        assert!(flags == NdiscNeighborFlags::OVERRIDE);
        let mut announced = [0; ADVERTISEMENT_LEN_MAX];
        let announced_len = announcement(TARGET, OWN_MAC, Tags::default(), &mut announced).unwrap();
        assert_eq!(announced[..announced_len], out[..len]);
    }
}

#[test]
fn what_rfc_4861_forbids_is_no_solicitation() {
    let refused = [
        Question { hop_limit: 254, ..QUESTION },
        Question { target: ALL_NODES, ..QUESTION },
        Question { destination: TARGET, ..PROBE },
        Question { link_layer: Some(ASKER_MAC), ..PROBE },
    ];
    for question in refused {
        assert_eq!(understood(&question.frame(&[], &[])), None);
    }
    // Options without length and past the end.
    for options in [[14, 0, 0, 0, 0, 0, 0, 0], [14, 2, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(understood(&QUESTION.frame(&[], &options)), None);
    }
    assert_eq!(understood(&QUESTION.frame(&[], &[14, 1, 0])), None);
    assert_eq!(understood(&QUESTION.frame(&[], &[250, 1, 0, 0, 0, 0, 0, 0].repeat(9))), None);
    for at in ethernet::HEADER_LEN + 40..QUESTION.frame(&[], &[]).len() {
        let mut damaged = QUESTION.frame(&[], &[]);
        damaged[at] ^= 0x10;
        assert_eq!(understood(&damaged), None, "byte {at}");
    }
}
