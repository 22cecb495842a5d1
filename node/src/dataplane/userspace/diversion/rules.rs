//! The rules of the packet filter: each names packets that the director has a verdict for.
//!
//! Frames with VLAN tags are among them only where their VLAN is named. What the kernel still gets of a service's packets it
//! would answer for itself; what it gets too little of is lost for the host's other programs. So these rules follow
//! `director`'s view exactly, but for fragments: those behind the first have no ports, and a protocol's fragments to a
//! service address all count.

use super::super::interest::Interest;
use super::tagged;
use dpr_director::DeliveryRange;
use dpr_host::nft::{Datatype, Match, PayloadBase, PayloadField, Rule, Verdict};
use dpr_model::{PortRange, Protocol};
use dpr_rewrite::ipv4::DONT_FRAGMENT;
use dpr_rewrite::tunnel::{HOPS_MAGIC, HOPS_MAGIC_MASK, LABEL_MAGIC, LABEL_MAGIC_MASK};
use dpr_rewrite::{Version, ethernet::ethertype, gue, protocol};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

const VERSIONS: [Version; 2] = [Version::V4, Version::V6];
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Where an ICMP error quotes a packet, from the start of its own header.
const QUOTED: u8 = 8;

/// Every rule for `interest`, for untagged frames and those of its VLANs.
pub(super) fn of(interest: &Interest) -> Vec<Rule> {
    let mut rules = of_untagged(interest);
    let tagged = interest.vlans.iter().flat_map(|vlan| rules.iter().map(|rule| tagged::of_vlan(rule, *vlan)));
    let tagged: Vec<Rule> = tagged.collect();
    rules.extend(tagged);
    rules
}

fn of_untagged(interest: &Interest) -> Vec<Rule> {
    let mut rules = Vec::new();
    for protocol in PROTOCOLS {
        let of_protocol = interest.services.iter().filter(|(of, _)| *of == protocol);
        rules.extend(Rule::drop_to_any(protocol, of_protocol.map(|(_, socket)| *socket)));
    }
    for (protocol, address, ports) in &interest.ranges {
        rules.extend(further(*protocol, *address, *ports));
    }
    for version in VERSIONS {
        rules.extend(errors_about(version, interest));
        rules.extend(fragments_to(version, interest));
        rules.extend(anything_to_any(version, &interest.answer_for));
        let forbidden = interest.forbidden.iter().filter(|range| Version::of(range.network()) == version);
        rules.extend(forbidden.map(|range| anything_to_range(*range)));
        for (ports, addresses) in &interest.nat {
            rules.extend(translated(version, addresses, *ports));
        }
        rules.extend(half_translated(version, interest));
    }
    rules.extend(tunnels(interest));
    rules
}

fn rule(version: Version, conditions: Vec<Match>) -> Rule {
    let ethertype = match version {
        Version::V4 => ethertype::IPV4,
        Version::V6 => ethertype::IPV6,
    };
    let matches = std::iter::once(Match::untagged_ethertype(ethertype)).chain(conditions).collect();
    Rule { matches, verdict: Verdict::Drop }
}

fn network(offset: u8, value: &[u8]) -> Match {
    Match::payload(PayloadBase::Network, offset, value)
}

fn transport(offset: u8, value: &[u8]) -> Match {
    Match::payload(PayloadBase::Transport, offset, value)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn bytes_of(socket: SocketAddr) -> Vec<u8> {
    [octets(socket.ip()), socket.port().to_be_bytes().to_vec()].concat()
}

fn source(version: Version) -> PayloadField {
    match version {
        Version::V4 => PayloadField::IPV4_SOURCE,
        Version::V6 => PayloadField::IPV6_SOURCE,
    }
}

fn destination(version: Version) -> PayloadField {
    match version {
        Version::V4 => PayloadField::IPV4_DESTINATION,
        Version::V6 => PayloadField::IPV6_DESTINATION,
    }
}

/// A set of what is not empty.
fn in_set(fields: Vec<PayloadField>, members: BTreeSet<Vec<u8>>) -> Option<Match> {
    (!members.is_empty()).then_some(Match::InSet { fields, members })
}

fn of_version(addresses: &BTreeSet<IpAddr>, version: Version) -> BTreeSet<Vec<u8>> {
    addresses
        .iter()
        .filter(|address| Version::of(**address) == version)
        .map(|address| octets(*address))
        .collect()
}

/// ICMP of this version.
fn icmp(version: Version) -> Match {
    Match::TransportProtocol(match version {
        Version::V4 => protocol::ICMP,
        Version::V6 => protocol::ICMPV6,
    })
}

/// What an ICMP error quotes: a packet of this version and `protocol`, without options and extension headers, as we send
/// none.
struct Quoted {
    conditions: [Match; 3],
    source: PayloadField,
    source_port: PayloadField,
    destination: PayloadField,
    destination_port: PayloadField,
}

impl Quoted {
    fn new(version: Version, quoted: Protocol) -> Self {
        let first = match version {
            Version::V4 => transport(QUOTED, &[0x45]),
            Version::V6 => Match::masked_payload(PayloadBase::Transport, QUOTED, &[0xf0], &[0x60]),
        };
        let protocol_at = match version {
            Version::V4 => 9,
            Version::V6 => 6,
        };
        let of_header = |field: PayloadField| PayloadField {
            base: PayloadBase::Transport,
            offset: QUOTED + field.offset,
            ..field
        };
        let header_len = version.header_len() as u8; // 20 or 40.
        let port = |offset| PayloadField {
            base: PayloadBase::Transport,
            offset: QUOTED + header_len + offset,
            length: 2,
            datatype: Datatype::InetService,
        };
        Self {
            conditions: [icmp(version), first, transport(QUOTED + protocol_at, &[quoted.number()])],
            source: of_header(source(version)),
            source_port: port(0),
            destination: of_header(destination(version)),
            destination_port: port(2),
        }
    }
}

/// ICMP errors about segments and datagrams that a service sent.
fn errors_about(version: Version, interest: &Interest) -> Vec<Rule> {
    let of_protocol = |quoted_protocol: Protocol| {
        let members: BTreeSet<Vec<u8>> = interest
            .services
            .iter()
            .filter(|(of, socket)| *of == quoted_protocol && Version::of(socket.ip()) == version)
            .map(|(_, socket)| [octets(socket.ip()), bytes_of(*socket)].concat())
            .collect();
        let quoted = Quoted::new(version, quoted_protocol);
        let fields = vec![destination(version), quoted.source, quoted.source_port];
        let set = in_set(fields, members)?;
        Some(rule(version, quoted.conditions.into_iter().chain([set]).collect()))
    };
    PROTOCOLS.into_iter().filter_map(of_protocol).collect()
}

/// Segments and datagrams to further ports of a service, and ICMP errors about what came from there.
fn further(protocol: Protocol, address: IpAddr, ports: PortRange) -> [Rule; 2] {
    let version = Version::of(address);
    let to_address = network(destination(version).offset, &octets(address));
    let mut packet = vec![Match::TransportProtocol(protocol.number()), to_address.clone()];
    packet.extend(within(PayloadField::DESTINATION_PORT, ports));
    let quoted = Quoted::new(version, protocol);
    let from_address = transport(quoted.source.offset, &octets(address));
    let mut error: Vec<Match> = quoted.conditions.into_iter().chain([to_address, from_address]).collect();
    error.extend(within(quoted.source_port, ports));
    [rule(version, packet), rule(version, error)]
}

fn within(field: PayloadField, ports: PortRange) -> [Match; 2] {
    let (first, last) = (ports.first().to_be_bytes(), ports.last().to_be_bytes());
    Match::between(field.base, field.offset, &first, &last)
}

/// Fragments to service addresses of the protocols that services have there.
fn fragments_to(version: Version, interest: &Interest) -> Vec<Rule> {
    let is_fragment = match version {
        // More fragments, or an offset.
        Version::V4 => Match::other_than(PayloadBase::Network, 6, &[0x3f, 0xff], &[0, 0]),
        // A fragment header behind the fixed one, where every sender that we know of puts it.
        Version::V6 => network(6, &[protocol::FRAGMENT]),
    };
    let of_protocol = |of: Protocol| {
        let addresses = interest.services.iter().filter(|(service, _)| *service == of);
        let addresses = addresses.map(|(_, socket)| socket.ip()).collect();
        let set = in_set(vec![destination(version)], of_version(&addresses, version))?;
        Some(rule(version, vec![is_fragment.clone(), Match::TransportProtocol(of.number()), set]))
    };
    PROTOCOLS.into_iter().filter_map(of_protocol).collect()
}

/// Everything to some addresses.
fn anything_to_any(version: Version, addresses: &BTreeSet<IpAddr>) -> Option<Rule> {
    let set = in_set(vec![destination(version)], of_version(addresses, version))?;
    Some(rule(version, vec![set]))
}

fn anything_to_range(range: DeliveryRange) -> Rule {
    let network = octets(range.network());
    let bits = usize::from(range.prefix_len());
    let mask: Vec<u8> = (0..network.len())
        .map(|byte| u8::MAX.checked_shl(8 - (bits.saturating_sub(byte * 8)).min(8) as u32).unwrap_or(0))
        .collect();
    let version = Version::of(range.network());
    let offset = destination(version).offset;
    rule(version, vec![Match::masked_payload(PayloadBase::Network, offset, &mask, &network)])
}

/// Replies to translated connections, and errors about what was sent in them.
fn translated(version: Version, addresses: &BTreeSet<IpAddr>, ports: PortRange) -> Vec<Rule> {
    let addresses = of_version(addresses, version);
    let mut rules = Vec::new();
    for of in PROTOCOLS {
        let Some(to) = in_set(vec![destination(version)], addresses.clone()) else { return Vec::new() };
        let mut reply = vec![Match::TransportProtocol(of.number()), to.clone()];
        reply.extend(within(PayloadField::DESTINATION_PORT, ports));
        let quoted = Quoted::new(version, of);
        let mut error: Vec<Match> = quoted.conditions.into_iter().chain([to]).collect();
        error.extend(in_set(vec![quoted.source], addresses.clone()));
        error.extend(within(quoted.source_port, ports));
        rules.extend([rule(version, reply), rule(version, error)]);
    }
    rules
}

/// What servers send to clients through this host, and their errors about what they got. What they send to this node is
/// its own: it asks them whether they answer.
fn half_translated(version: Version, interest: &Interest) -> Vec<Rule> {
    let mut rules = Vec::new();
    for of in PROTOCOLS {
        let members: BTreeSet<Vec<u8>> = interest
            .half_nat_servers
            .iter()
            .filter(|(protocol, socket)| *protocol == of && Version::of(socket.ip()) == version)
            .map(|(_, socket)| bytes_of(*socket))
            .collect();
        let reply = in_set(vec![source(version), PayloadField::SOURCE_PORT], members.clone());
        let quoted = Quoted::new(version, of);
        let error = in_set(vec![quoted.destination, quoted.destination_port], members);
        let (Some(reply), Some(error)) = (reply, error) else { continue };
        let through = (Version::of(interest.node_address) == version).then(|| {
            let node = octets(interest.node_address);
            Match::other_than(
                PayloadBase::Network,
                destination(version).offset,
                &vec![0xff; node.len()],
                &node,
            )
        });
        let replies = [Match::TransportProtocol(of.number()), reply];
        rules.push(rule(version, replies.into_iter().chain(through).collect()));
        rules.push(rule(version, quoted.conditions.into_iter().chain([error]).collect()));
    }
    rules
}

/// Tunnels of peers that carry a hop budget; what else is tunnelled to this host stays the kernel's.
fn tunnels(interest: &Interest) -> Vec<Rule> {
    let version = Version::of(interest.node_address);
    let Some(from_a_peer) = in_set(vec![source(version)], of_version(&interest.peers, version)) else {
        return Vec::new();
    };
    let to_this_node = network(destination(version).offset, &octets(interest.node_address));
    let marked = match version {
        Version::V4 => {
            let id_and_flags = [HOPS_MAGIC.to_be_bytes(), DONT_FRAGMENT.to_be_bytes()].concat();
            let mask = [HOPS_MAGIC_MASK.to_be_bytes(), 0x7fff_u16.to_be_bytes()].concat();
            Match::masked_payload(PayloadBase::Network, 4, &mask, &id_and_flags)
        }
        Version::V6 => {
            let (mask, label) = (LABEL_MAGIC_MASK.to_be_bytes(), LABEL_MAGIC.to_be_bytes());
            Match::masked_payload(PayloadBase::Network, 1, &mask[1..], &label[1..])
        }
    };
    let ip_in_ip = |inner: Version| {
        let carried = Match::TransportProtocol(inner.protocol_in_a_tunnel());
        rule(version, vec![carried, to_this_node.clone(), marked.clone(), from_a_peer.clone()])
    };
    let gue = rule(
        version,
        vec![
            Match::TransportProtocol(protocol::UDP),
            to_this_node.clone(),
            transport(2, &gue::PORT.to_be_bytes()),
            Match::masked_payload(
                PayloadBase::Transport,
                12,
                &gue::PRIVATE_MAGIC_MASK.to_be_bytes(),
                &gue::PRIVATE_MAGIC.to_be_bytes(),
            ),
            from_a_peer.clone(),
        ],
    );
    VERSIONS.map(ip_in_ip).into_iter().chain([gue]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_becomes_its_mask() {
        let mask = |network: &str, length| {
            let range = DeliveryRange::new(network.parse().unwrap(), length).unwrap();
            match &anything_to_range(range).matches[1] {
                Match::Payload(payload) => payload.mask.clone().unwrap(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(mask("169.254.64.0", 20), [255, 255, 240, 0]);
        assert_eq!(mask("10.0.0.0", 8), [255, 0, 0, 0]);
        let expected = [[255; 8], [0; 8]].concat();
        assert_eq!(mask("fd64:7072:4000::", 64), expected);
    }
}
