//! Neighbour discovery for IPv6 (RFC 4861): understanding and writing solicitations and advertisements.
//!
//! Nothing here probes, keeps a neighbour cache or speaks for a router.

use crate::ethernet::{self, EthernetHeader, Tags, ethertype};
use crate::icmpv6;
use crate::ipv6::{self, Fields, Ipv6Header};
use crate::network::Network;
use crate::{checksum, protocol};
use core::net::Ipv6Addr;
use dpr_model::{DropReason, MacAddress};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Type, code, checksum, reserved or flags, target: what both messages have in front of their options, bytes.
const MESSAGE_LEN: usize = 24;
/// What cannot have passed a router has this hop limit (RFC 4861, section 7.1.1).
const HOP_LIMIT: u8 = 255;

/// Unit of an option's length field, and length of a link-layer address option for Ethernet, bytes.
const OPTION_UNIT: usize = 8;
const OPTION_SOURCE_LINK_LAYER: u8 = 1;
const OPTION_TARGET_LINK_LAYER: u8 = 2;
/// RFC 3971, section 5.3.2; its first six bytes are the nonce (RFC 7527, section 4.1).
const OPTION_NONCE: u8 = 14;
/// Options of a solicitation that are looked at. No standard defines more than two for it.
const OPTIONS_MAX: usize = 8;

/// The advertisement answers a solicitation.
const FLAG_SOLICITED: u8 = 0x40;
/// The advertisement replaces what neighbours remember.
const FLAG_OVERRIDE: u8 = 0x20;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Group MAC address of [`ALL_NODES`] (RFC 2464, section 7).
const ALL_NODES_MAC: MacAddress = MacAddress([0x33, 0x33, 0, 0, 0, 1]);
/// First 104 bits of a solicited-node group (RFC 4291, section 2.7.1).
const SOLICITED_NODE_PREFIX: [u8; 13] = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];

const PAYLOAD_LEN: usize = MESSAGE_LEN + OPTION_UNIT;
/// Longest frame that is written here, bytes; a solicitation is as long.
pub const ADVERTISEMENT_LEN_MAX: usize = ethernet::HEADER_LEN_MAX + ipv6::HEADER_LEN + PAYLOAD_LEN;

/// "Who has `target`? Tell `source`."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourSolicitation {
    /// VLAN tags that the question came with, and the answer leaves with.
    pub tags: Tags,
    /// MAC address of whoever asks.
    pub source_mac: MacAddress,
    /// IPv6 address of whoever asks; unspecified when it wants `target` for itself (RFC 4862, section 5.4).
    pub source: Ipv6Addr,
    /// The address that is asked for.
    pub target: Ipv6Addr,
    /// Random bytes by which somebody who probes for an address knows its own probe when a loop in the network brings
    /// it back (RFC 7527). No answer repeats them.
    pub nonce: Option<[u8; 6]>,
}

impl NeighbourSolicitation {
    /// The solicitation in a frame, if it is one that passes every test of RFC 4861, section 7.1.1; `ethernet` and `ip`
    /// are its headers.
    pub fn parse(frame: &[u8], ethernet: &EthernetHeader, ip: &Network) -> Option<Self> {
        let Received { header, target, options } = Received::parse(SOLICITATION, frame, ethernet, ip)?;
        let is_probe = header.source.is_unspecified();
        let group = header.destination.octets().starts_with(&SOLICITED_NODE_PREFIX);
        if target.is_multicast() || is_probe && (options.source_mac.is_some() || !group) {
            return None;
        }
        Some(Self {
            tags: ethernet.tags,
            source_mac: options.source_mac.unwrap_or(ethernet.source),
            source: header.source,
            target,
            nonce: options.nonce,
        })
    }

    /// Writes the frame that answers with `mac` to the start of `out`: to whoever asked, or to all nodes when somebody
    /// wants the address for itself (RFC 4861, section 7.2.4). Returns its length.
    ///
    /// # Errors
    /// `Truncated` when `out` is shorter than that; [`ADVERTISEMENT_LEN_MAX`] is always enough.
    pub fn advertisement(&self, mac: MacAddress, out: &mut [u8]) -> Result<usize, DropReason> {
        if self.source.is_unspecified() {
            return announcement(self.target, mac, self.tags, out);
        }
        let to = (self.source, self.source_mac);
        Message::advertisement(self.target, mac, to, FLAG_SOLICITED | FLAG_OVERRIDE).write(self.tags, out)
    }
}

/// The address and the MAC address that the advertisement in a frame is about, if it is one that passes every test of RFC
/// 4861, section 7.1.2, and names a MAC address; `ethernet` and `ip` are its headers.
pub fn advertised(frame: &[u8], ethernet: &EthernetHeader, ip: &Network) -> Option<(Ipv6Addr, MacAddress)> {
    let Received { target, options, .. } = Received::parse(ADVERTISEMENT, frame, ethernet, ip)?;
    let mac = options.target_mac.filter(|mac| !mac.is_group())?;
    (!target.is_multicast()).then_some((target, mac))
}

/// Writes the frame that tells all nodes, unasked, that `target` is at `mac` now (RFC 4861, section 7.2.6), to the start
/// of `out`. Returns its length.
///
/// # Errors
/// `Truncated` when `out` is shorter than that; [`ADVERTISEMENT_LEN_MAX`] is always enough.
pub fn announcement(
    target: Ipv6Addr,
    mac: MacAddress,
    tags: Tags,
    out: &mut [u8],
) -> Result<usize, DropReason> {
    Message::advertisement(target, mac, (ALL_NODES, ALL_NODES_MAC), FLAG_OVERRIDE).write(tags, out)
}

/// Writes the frame by which the host with `mac` asks for the MAC address of `target` (RFC 4861, section 7.2.2) to the start
/// of `out`; returns its length. It comes from the link-local address that belongs to `mac`, which any host on the link can
/// answer.
///
/// # Errors
/// `Truncated` when `out` is shorter than that; [`ADVERTISEMENT_LEN_MAX`] is always enough.
pub fn question(target: Ipv6Addr, mac: MacAddress, tags: Tags, out: &mut [u8]) -> Result<usize, DropReason> {
    let [.., high, middle, low] = target.octets();
    let mut group = [0; 16];
    group[..13].copy_from_slice(&SOLICITED_NODE_PREFIX);
    group[13..].copy_from_slice(&[high, middle, low]);
    // RFC 2464, section 7.
    let group_mac = MacAddress([0x33, 0x33, 0xff, high, middle, low]);
    let message = Message {
        kind: SOLICITATION,
        from: link_local(mac),
        to: (group.into(), group_mac),
        flags: 0,
        target,
        option: OPTION_SOURCE_LINK_LAYER,
        mac,
    };
    message.write(tags, out)
}

/// The address that a host gives itself out of its MAC address (RFC 4291, appendix A).
fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// What both messages have in common on the way in.
struct Received<'a> {
    header: &'a Ipv6Header,
    target: Ipv6Addr,
    options: Options,
}

impl<'a> Received<'a> {
    /// The message of `kind` in a frame, if what is true of both is true of it (RFC 4861, sections 7.1.1 and 7.1.2).
    fn parse(kind: u8, frame: &[u8], ethernet: &EthernetHeader, ip: &'a Network) -> Option<Self> {
        let Network::V6(header) = ip else { return None };
        // RFC 6980, section 5: never in fragments.
        if header.protocol != protocol::ICMPV6 || header.hop_limit != HOP_LIMIT || header.fragment().is_some()
        {
            return None;
        }
        let at = ethernet.header_len();
        let message = frame.get(at + ip.header_len()..at + ip.total_len())?;
        let fixed: &[u8; MESSAGE_LEN] = message.first_chunk()?;
        if fixed[0] != kind || fixed[1] != 0 {
            return None;
        }
        // A header's payload length is a u16, and the message is part of it.
        if checksum::fold(ip.pseudo_header(message.len() as u16) + checksum::sum_of(message)) != 0xffff {
            return None;
        }
        let mut target = [0; 16];
        target.copy_from_slice(&fixed[8..24]);
        let options = Options::parse(message.get(MESSAGE_LEN..)?)?;
        Some(Self { header, target: target.into(), options })
    }
}

/// A message with one option, which says a MAC address.
struct Message {
    kind: u8,
    from: Ipv6Addr,
    to: (Ipv6Addr, MacAddress),
    flags: u8,
    target: Ipv6Addr,
    option: u8,
    mac: MacAddress,
}

impl Message {
    fn advertisement(target: Ipv6Addr, mac: MacAddress, to: (Ipv6Addr, MacAddress), flags: u8) -> Self {
        Self { kind: ADVERTISEMENT, from: target, to, flags, target, option: OPTION_TARGET_LINK_LAYER, mac }
    }

    fn write(&self, tags: Tags, out: &mut [u8]) -> Result<usize, DropReason> {
        let (destination, destination_mac) = self.to;
        let ethernet = EthernetHeader {
            destination: destination_mac,
            source: self.mac,
            tags,
            ethertype: ethertype::IPV6,
        };
        let at = ethernet.write(out)?;
        let end = at + ipv6::HEADER_LEN + PAYLOAD_LEN;
        let packet = out.get_mut(at..end).ok_or(DropReason::Truncated)?;
        let (ip, message) = packet.split_at_mut(ipv6::HEADER_LEN);
        ip.copy_from_slice(&ipv6::header(&Fields {
            traffic_class: 0,
            flow_label: 0,
            payload_len: PAYLOAD_LEN as u16,
            protocol: protocol::ICMPV6,
            hop_limit: HOP_LIMIT,
            source: self.from,
            destination,
        }));
        message[..8].copy_from_slice(&[self.kind, 0, 0, 0, self.flags, 0, 0, 0]);
        message[8..24].copy_from_slice(&self.target.octets());
        message[24..26].copy_from_slice(&[self.option, 1]);
        message[26..32].copy_from_slice(&self.mac.0);
        icmpv6::write_checksum(message, self.from, destination, PAYLOAD_LEN as u16);
        Ok(end)
    }
}

#[derive(Default)]
struct Options {
    source_mac: Option<MacAddress>,
    target_mac: Option<MacAddress>,
    nonce: Option<[u8; 6]>,
}

impl Options {
    /// `None` when an option has no length or passes the end of the message.
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut options = Self::default();
        for _ in 0..OPTIONS_MAX {
            if bytes.is_empty() {
                return Some(options);
            }
            let [kind, units, value @ ..]: [u8; OPTION_UNIT] = *bytes.first_chunk()?;
            if units == 0 {
                return None;
            }
            match kind {
                OPTION_SOURCE_LINK_LAYER => options.source_mac = Some(MacAddress(value)),
                OPTION_TARGET_LINK_LAYER => options.target_mac = Some(MacAddress(value)),
                OPTION_NONCE => options.nonce = Some(value),
                _ => {}
            }
            bytes = bytes.get(usize::from(units) * OPTION_UNIT..)?;
        }
        bytes.is_empty().then_some(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::Tag;
    use crate::{Parsed, parse};

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const TARGET_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    #[test]
    fn a_question_is_understood_and_its_answer_names_who_was_asked_for() {
        let target = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0x1234, 0x5678);
        let tags = Tags::new(Tag { ethertype: ethertype::VLAN, control: 42 }, None);
        let mut frame = [0; ADVERTISEMENT_LEN_MAX];
        let len = question(target, MAC, tags, &mut frame).unwrap();

        let Ok(Parsed::Neighbour(asked)) = parse(&frame[..len]) else { panic!("not understood") };
        assert_eq!((asked.target, asked.source_mac, asked.tags), (target, MAC, tags));
        assert_eq!(asked.source, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1));
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x34, 0x56, 0x78]);

        let mut answer = [0; ADVERTISEMENT_LEN_MAX];
        let len = asked.advertisement(TARGET_MAC, &mut answer).unwrap();
        let Ok(Parsed::Ip(read)) = parse(&answer[..len]) else { panic!("no packet") };
        let ethernet = EthernetHeader::parse(&answer[..len]).unwrap();
        assert_eq!((ethernet.destination, ethernet.tags), (MAC, tags));
        assert_eq!(advertised(&answer[..len], &ethernet, &read.packet.ip), Some((target, TARGET_MAC)));
        answer[len - 1] ^= 1;
        assert_eq!(advertised(&answer[..len], &ethernet, &read.packet.ip), None);
    }
}
