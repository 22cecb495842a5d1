//! Frames of all kinds against programs, run as the kernel runs them.

use super::*;
use crate::config::Vlan;
use crate::dataplane::userspace::interest;
use std::net::{Ipv4Addr, SocketAddr};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 9);

/// Runs a program for a frame, whose outer tag the kernel takes off; loads beyond the frame reject it.
fn accepts(program: &[sock_filter], frame: &[u8]) -> bool {
    let outer = [[0x81, 0x00], [0x88, 0xa8]].iter().any(|tpid| frame[12..14] == *tpid);
    let control = outer.then(|| u32::from(u16::from_be_bytes([frame[14], frame[15]])));
    let stripped = [&frame[..12], &frame[16..]].concat();
    let frame = if outer { &stripped } else { frame };
    let load = |at: u32, len: usize| -> Option<u32> {
        match at {
            VLAN_TAG_PRESENT_AT => return Some(u32::from(outer)),
            VLAN_TAG_AT => return Some(control.unwrap_or_default()),
            _ => {}
        }
        let bytes = frame.get(at as usize..at as usize + len)?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    };
    let (mut accumulator, mut index, mut next) = (0, 0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[next];
        next += 1;
        let mut jump = |taken: bool| next += usize::from(if taken { jt } else { jf });
        let loaded = match code {
            LOAD_WORD => load(k, 4),
            LOAD_HALF => load(k, 2),
            LOAD_BYTE => load(k, 1),
            LOAD_HALF_INDEXED => load(k + index, 2),
            LOAD_INDEX_IHL => {
                let Some(byte) = load(k, 1) else { return false };
                index = (byte & 0x0f) * 4;
                continue;
            }
            JUMP_EQUAL => {
                jump(accumulator == k);
                continue;
            }
            JUMP_GREATER => {
                jump(accumulator > k);
                continue;
            }
            JUMP_AT_LEAST => {
                jump(accumulator >= k);
                continue;
            }
            JUMP_ANY_BIT => {
                jump(accumulator & k != 0);
                continue;
            }
            JUMP => {
                next += k as usize;
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            RETURN => return k > 0,
            other => panic!("instruction {other:#x}"),
        };
        let Some(value) = loaded else { return false };
        accumulator = value;
    }
}

fn ipv4(protocol: u8, destination: Ipv4Addr, port: u16, options: usize) -> Vec<u8> {
    let mut frame = vec![0; 14 + 20 + options + 20];
    frame[12] = 8;
    frame[14] = 0x45 + (options / 4) as u8;
    frame[23] = protocol;
    frame[30..34].copy_from_slice(&destination.octets());
    frame[36 + options..38 + options].copy_from_slice(&port.to_be_bytes());
    frame
}

fn ipv6(next_header: u8, destination: Ipv6Addr, port: u16) -> Vec<u8> {
    let mut frame = vec![0; 14 + 40 + 32];
    frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
    frame[20] = next_header;
    frame[38..54].copy_from_slice(&destination.octets());
    frame[56..58].copy_from_slice(&port.to_be_bytes());
    frame
}

/// The frame with tags, the outer one first: EtherType, then what follows it.
fn under(tags: &[u32], frame: &[u8]) -> Vec<u8> {
    let tags = tags.iter().flat_map(|tag| tag.to_be_bytes()).collect();
    [frame[..12].to_vec(), tags, frame[12..].to_vec()].concat()
}

fn interest(node: IpAddr, services: &[(Protocol, IpAddr, u16)], nat: bool) -> Interest {
    let services: Vec<_> = services
        .iter()
        .map(|(protocol, address, port)| (*protocol, SocketAddr::new(*address, *port)))
        .collect();
    let ports = nat.then(|| PortRange::new(61_000, 62_000).unwrap());
    interest::tests::interest(node, &services, ports)
}

fn v4() -> Vec<sock_filter> {
    let services = [
        (Protocol::Tcp, NODE.into(), 80),
        (Protocol::Tcp, NODE.into(), 443),
        (Protocol::Udp, SERVICE.into(), 53),
    ];
    program(&interest(NODE.into(), &services, false))
}

#[test]
fn the_services_packets_pass_and_nothing_else_does() {
    let program = v4();
    assert!(accepts(&program, &ipv4(6, NODE, 80, 0)));
    assert!(accepts(&program, &ipv4(6, NODE, 443, 8)));
    assert!(accepts(&program, &ipv4(17, SERVICE, 53, 40)));
    assert!(accepts(&program, &ipv4(4, NODE, 0, 0)));
    assert!(accepts(&program, &ipv4(17, NODE, 6080, 0)));
    assert!(accepts(&program, &ipv4(1, SERVICE, 0, 0)));
    assert!(!accepts(&program, &ipv4(6, NODE, 22, 0)));
    assert!(!accepts(&program, &ipv4(6, SERVICE, 53, 0)));
    assert!(!accepts(&program, &ipv4(17, NODE, 80, 0)));
    assert!(!accepts(&program, &ipv4(6, Ipv4Addr::new(10, 0, 0, 2), 80, 0)));
    assert!(!accepts(&program, &under(&[0x8100_0064], &ipv4(6, NODE, 80, 0))));
    assert!(!accepts(&program, &ipv4(6, NODE, 80, 0)[..36]));
}

#[test]
fn fragments_pass_whatever_stands_where_the_ports_would_be() {
    let mut fragment = ipv4(6, NODE, 22, 0);
    fragment[21] = 1;
    assert!(accepts(&v4(), &fragment));
    fragment[20..22].copy_from_slice(&[0x20, 0]);
    assert!(accepts(&v4(), &fragment));
}

#[test]
fn ipv6_passes_by_the_same_rules() {
    let services = [(Protocol::Tcp, NODE_V6.into(), 80), (Protocol::Udp, SERVICE_V6.into(), 53)];
    let program = program(&interest(NODE_V6.into(), &services, false));
    for (next_header, destination, port, passes) in [
        (6, NODE_V6, 80, true),
        (6, NODE_V6, 22, false),
        (17, SERVICE_V6, 53, true),
        (17, NODE_V6, 6080, true),
        (58, SERVICE_V6, 0, true),
        (44, SERVICE_V6, 0, true),
        (41, NODE_V6, 0, true),
        (6, Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2), 80, false),
    ] {
        let frame = ipv6(next_header, destination, port);
        assert_eq!(accepts(&program, &frame), passes, "{next_header} to {destination} {port}");
    }
}

#[test]
fn replies_to_translated_connections_pass_by_their_port() {
    let program = program(&interest(NODE.into(), &[(Protocol::Tcp, SERVICE.into(), 80)], true));
    for (port, passes) in [(60_999, false), (61_000, true), (62_000, true), (62_001, false)] {
        assert_eq!(accepts(&program, &ipv4(6, NODE, port, 0)), passes, "{port}");
        assert_eq!(accepts(&program, &ipv4(17, SERVICE, port, 0)), passes, "{port}");
    }
}

#[test]
fn who_asks_for_an_address_that_the_host_does_not_hold_is_heard() {
    let services = [(Protocol::Tcp, SERVICE.into(), 80), (Protocol::Tcp, SERVICE_V6.into(), 80)];
    let program = program(&interest(NODE.into(), &services, false));
    let mut request = vec![0; 42];
    request[12..14].copy_from_slice(&[8, 6]);
    request[38..42].copy_from_slice(&SERVICE.octets());
    assert!(accepts(&program, &request));
    request[38..42].copy_from_slice(&NODE.octets());
    assert!(!accepts(&program, &request));

    let solicited_node = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 9);
    let mut solicitation = ipv6(58, solicited_node, 0);
    solicitation[54] = 135;
    solicitation[62..78].copy_from_slice(&SERVICE_V6.octets());
    assert!(accepts(&program, &solicitation));
    solicitation[62..78].copy_from_slice(&NODE_V6.octets());
    assert!(!accepts(&program, &solicitation));
}

fn in_vlans() -> Vec<sock_filter> {
    let services = [(Protocol::Tcp, NODE.into(), 80), (Protocol::Tcp, SERVICE_V6.into(), 80)];
    let vlans = ["100", "200.7"].map(|text| Vlan::parse(text).unwrap()).to_vec();
    program(&Interest { vlans, ..interest(NODE.into(), &services, false) })
}

#[test]
fn under_the_tags_of_a_named_vlan_the_same_passes_as_without_and_under_others_nothing() {
    let program = in_vlans();
    for frame in [ipv4(6, NODE, 80, 0), ipv4(6, NODE, 80, 40), ipv6(6, SERVICE_V6, 80), ipv4(1, NODE, 0, 0)] {
        assert!(accepts(&program, &frame));
        for tags in
            [&[0x8100_0064][..], &[0x88a8_e064], &[0x88a8_00c8, 0x8100_0007], &[0x8100_00c8, 0x8100_2007]]
        {
            assert!(accepts(&program, &under(tags, &frame)), "{tags:x?} {frame:x?}");
        }
        for tags in [
            &[0x8100_0065][..],
            &[0x8100_0000],
            &[0x8100_00c8],
            &[0x8100_0064, 0x8100_0007],
            &[0x88a8_00c8, 0x8100_0008],
            &[0x88a8_00c8, 0x8100_0007, 0x8100_0007],
        ] {
            assert!(!accepts(&program, &under(tags, &frame)), "{tags:x?} {frame:x?}");
        }
    }
    for frame in [ipv4(6, NODE, 22, 0), ipv6(6, SERVICE_V6, 22)] {
        assert!(!accepts(&program, &under(&[0x8100_0064], &frame)));
        assert!(!accepts(&program, &under(&[0x88a8_00c8, 0x8100_0007], &frame)));
    }
}

#[test]
fn under_tags_who_asks_for_a_held_address_is_heard_and_what_neighbours_answer() {
    let program = in_vlans();
    let arp = |operation: u8| {
        let mut frame = vec![0; 42];
        frame[12..14].copy_from_slice(&[8, 6]);
        frame[21] = operation;
        frame[38..42].copy_from_slice(&NODE.octets());
        frame
    };
    let mut advertisement = ipv6(58, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 0);
    advertisement[54] = 136;
    for frame in [arp(1), arp(2), advertisement] {
        assert!(!accepts(&program, &frame), "{frame:x?}");
        assert!(accepts(&program, &under(&[0x8100_0064], &frame)), "{frame:x?}");
        assert!(accepts(&program, &under(&[0x88a8_00c8, 0x8100_0007], &frame)), "{frame:x?}");
        assert!(!accepts(&program, &under(&[0x8100_0065], &frame)), "{frame:x?}");
    }
}

#[test]
fn very_many_services_get_a_filter_that_the_kernel_can_hold() {
    let services: Vec<_> = (1..5000).map(|port| (Protocol::Tcp, NODE.into(), port)).collect();
    assert_eq!(program(&interest(NODE.into(), &services, false)).len(), 1);
}
