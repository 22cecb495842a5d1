//! Addresses of both versions, and packets that become fragments.

use crate::world::node_address;
use dpr_rewrite::checksum::{fold, sum_of};
use dpr_rewrite::ethernet::ethertype;
use dpr_rewrite::{Version, ipv4, ipv6, protocol};
use fastrand::Rng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) fn mapped(node: Ipv4Addr) -> Ipv6Addr {
    node.to_ipv6_mapped()
}

pub(crate) fn in_v6(node: Ipv4Addr) -> Ipv6Addr {
    as_v6(node_address(Version::V6, node))
}

pub(crate) fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => mapped(address),
    }
}

pub(crate) fn delivery_address(version: Version, nth: u8) -> IpAddr {
    match version {
        Version::V4 => IpAddr::from([169, 254, 64, nth]),
        Version::V6 => Ipv6Addr::new(0xfd64, 0x7072, 0x4000, 0, 0, 0, 0, nth.into()).into(),
    }
}

pub(crate) fn ethertype_of(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 6 { ethertype::IPV6 } else { ethertype::IPV4 }
}

/// Makes a packet a fragment, of so many bytes behind its header at most.
pub(crate) fn fragment_v4(mut packet: Vec<u8>, id: u8, (offset, more): (u16, bool), len: usize) -> Vec<u8> {
    packet.truncate(ipv4::HEADER_LEN + len);
    let total_len = packet.len() as u16;
    packet[2..4].copy_from_slice(&total_len.to_be_bytes());
    packet[4..6].copy_from_slice(&[0, id]);
    packet[6..8].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
    fix_header(&mut packet);
    packet
}

pub(crate) fn fragment_v6(mut packet: Vec<u8>, id: u8, (offset, more): (u16, bool), len: usize) -> Vec<u8> {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    let next = std::mem::replace(&mut packet[6], protocol::FRAGMENT);
    packet.truncate(ipv6::HEADER_LEN + len);
    packet.splice(ipv6::HEADER_LEN..ipv6::HEADER_LEN, [next, 0, field[0], field[1], 0xab, 0xcd, 0, id]);
    let payload_len = (packet.len() - ipv6::HEADER_LEN) as u16;
    packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
    packet
}

/// An extension header in front of what begins with `next`: its number, and all of it.
pub(crate) fn with_extension(rng: &mut Rng, next: u8, behind: &[u8]) -> (u8, Vec<u8>) {
    let number = [protocol::HOP_BY_HOP, protocol::ROUTING, protocol::FRAGMENT, protocol::DESTINATION_OPTIONS]
        [rng.usize(..4)];
    let units = if number == protocol::FRAGMENT { 0 } else { rng.u8(..3) };
    let mut bytes = vec![0; 8 * (1 + usize::from(units))];
    // A whole packet that has a fragment header, or a route that may have an end.
    let fourth = if number == protocol::ROUTING && rng.u8(..4) == 0 { 1 } else { 0 };
    let second = if rng.u8(..40) == 0 { rng.u8(..) } else { units };
    bytes[..4].copy_from_slice(&[next, second, 0, fourth]);
    bytes.extend_from_slice(behind);
    (number, bytes)
}

/// Makes the checksum of an IPv4 header right, if it is all there.
pub(crate) fn fix_header(packet: &mut [u8]) {
    let len =
        usize::from(packet.first().filter(|first| **first >> 4 == 4).map_or(0, |first| first & 0xf)) * 4;
    let Some(header) = packet.get_mut(..len).filter(|header| header.len() >= ipv4::HEADER_LEN) else {
        return;
    };
    header[10..12].copy_from_slice(&[0, 0]);
    let checksum = !fold(sum_of(header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}
