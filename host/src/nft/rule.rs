//! Rules: what a packet must look like, and what then happens to it.

use dpr_model::Protocol;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Greatest length of a value that the kernel compares: a 128-bit register.
const VALUE_LEN_MAX: usize = 16;

/// Greatest length of a set's key: sixteen 32-bit registers (`NFT_REG32_COUNT`).
const KEY_LEN_MAX: usize = 64;

/// EtherTypes of IPv4 and IPv6 (IANA).
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Where counting of offsets starts (`enum nft_payload_bases`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    /// The Ethernet header. A VLAN tag is part of it even if the device took it off. Links without
    /// Ethernet headers match nothing here.
    Link,
    /// The IP header.
    Network,
    /// What follows the IP header with its options. Fragments but the first match nothing here.
    Transport,
}

/// How `nft list` shows a part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datatype {
    /// As an IPv4 address.
    Ipv4Address,
    /// As an IPv6 address.
    Ipv6Address,
    /// As a port.
    InetService,
}

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadField {
    /// Where counting starts.
    pub base: PayloadBase,
    /// Bytes to skip, 0 to 255.
    pub offset: u8,
    /// Bytes to look at, 1 to 16.
    pub length: u8,
    /// What they are.
    pub datatype: Datatype,
}

impl PayloadField {
    /// Source address of an IPv4 packet.
    pub const IPV4_SOURCE: Self =
        Self { base: PayloadBase::Network, offset: 12, length: 4, datatype: Datatype::Ipv4Address };

    /// Destination address of an IPv4 packet.
    pub const IPV4_DESTINATION: Self =
        Self { base: PayloadBase::Network, offset: 16, length: 4, datatype: Datatype::Ipv4Address };

    /// Source address of an IPv6 packet.
    pub const IPV6_SOURCE: Self =
        Self { base: PayloadBase::Network, offset: 8, length: 16, datatype: Datatype::Ipv6Address };

    /// Destination address of an IPv6 packet.
    pub const IPV6_DESTINATION: Self =
        Self { base: PayloadBase::Network, offset: 24, length: 16, datatype: Datatype::Ipv6Address };

    /// Source port of TCP or UDP.
    pub const SOURCE_PORT: Self =
        Self { base: PayloadBase::Transport, offset: 0, length: 2, datatype: Datatype::InetService };

    /// Destination port of TCP or UDP.
    pub const DESTINATION_PORT: Self =
        Self { base: PayloadBase::Transport, offset: 2, length: 2, datatype: Datatype::InetService };
}

/// How bytes of a packet stand to a value; numbers are big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// They are the value.
    Equal,
    /// They are not.
    NotEqual,
    /// They are the value or more.
    AtLeast,
    /// They are the value or less.
    AtMost,
}

/// Some bytes of a packet stand in a relation to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadMatch {
    /// Where counting starts.
    pub base: PayloadBase,
    /// Bytes to skip.
    pub offset: u8,
    /// Bits to look at; `None` for all. As long as the value.
    pub mask: Option<Vec<u8>>,
    /// How they stand to the value.
    pub relation: Relation,
    /// The value, 1 to 16 bytes. A packet that ends before matches nothing.
    pub value: Vec<u8>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Some bytes stand in a relation to a value.
    Payload(PayloadMatch),
    /// The protocol behind the IP header and IPv6's extension headers (`meta l4proto`).
    TransportProtocol(u8),
    /// The kernel calls it this EtherType (`meta protocol`), whatever tags it had; for links without
    /// Ethernet headers.
    Protocol(u16),
    /// Some fields together are a member of a set. Takes the same time however large the set is.
    InSet {
        /// The fields.
        fields: Vec<PayloadField>,
        /// For each member the values of the fields, one after the other.
        members: BTreeSet<Vec<u8>>,
    },
}

impl Match {
    /// `value` stands at `offset`.
    pub fn payload(base: PayloadBase, offset: u8, value: &[u8]) -> Self {
        Self::related(Relation::Equal, base, offset, None, value)
    }

    /// `value` stands at `offset` in the bits of `mask`.
    pub fn masked_payload(base: PayloadBase, offset: u8, mask: &[u8], value: &[u8]) -> Self {
        Self::related(Relation::Equal, base, offset, Some(mask), value)
    }

    /// An Ethernet frame of this EtherType without a VLAN tag. A frame with a tag belongs to another
    /// link (or, with VLAN 0, is left to the kernel), even if the device took the tag off: a packet
    /// socket sees such a frame without its tag, and has to look at `PACKET_AUXDATA` to know.
    pub fn untagged_ethertype(ethertype: u16) -> Self {
        Self::payload(PayloadBase::Link, 12, &ethertype.to_be_bytes())
    }

    /// Something else than `value` stands at `offset` in the bits of `mask`.
    pub fn other_than(base: PayloadBase, offset: u8, mask: &[u8], value: &[u8]) -> Self {
        Self::related(Relation::NotEqual, base, offset, Some(mask), value)
    }

    /// A number from `first` to `last` stands at `offset`.
    pub fn between(base: PayloadBase, offset: u8, first: &[u8], last: &[u8]) -> [Self; 2] {
        [
            Self::related(Relation::AtLeast, base, offset, None, first),
            Self::related(Relation::AtMost, base, offset, None, last),
        ]
    }

    fn related(relation: Relation, base: PayloadBase, offset: u8, mask: Option<&[u8]>, value: &[u8]) -> Self {
        Self::Payload(PayloadMatch {
            base,
            offset,
            mask: mask.map(<[u8]>::to_vec),
            relation,
            value: value.to_vec(),
        })
    }
}

/// What happens to a packet that meets all conditions of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel's network stack never sees it; packet sockets did.
    Drop,
    /// It goes on; later rules are not asked.
    Accept,
}

/// Conditions, all of which must hold, and what then happens. The kernel counts the packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions, in the order in which they are asked.
    pub matches: Vec<Match>,
    /// What happens.
    pub verdict: Verdict,
}

impl Rule {
    /// Drops packets of `protocol` to any of some sockets, with one look-up for each IP version among them.
    pub fn drop_to_any(protocol: Protocol, sockets: impl IntoIterator<Item = SocketAddr>) -> Vec<Self> {
        let (v4, v6): (BTreeSet<SocketAddr>, BTreeSet<SocketAddr>) =
            sockets.into_iter().partition(SocketAddr::is_ipv4);
        let rule = |ethertype, destination, members: BTreeSet<SocketAddr>| Self {
            matches: vec![
                Match::untagged_ethertype(ethertype),
                Match::TransportProtocol(protocol.number()),
                Match::InSet {
                    fields: vec![destination, PayloadField::DESTINATION_PORT],
                    members: members.into_iter().map(socket_bytes).collect(),
                },
            ],
            verdict: Verdict::Drop,
        };
        let v4 = (!v4.is_empty()).then(|| rule(ETHERTYPE_IPV4, PayloadField::IPV4_DESTINATION, v4));
        let v6 = (!v6.is_empty()).then(|| rule(ETHERTYPE_IPV6, PayloadField::IPV6_DESTINATION, v6));
        v4.into_iter().chain(v6).collect()
    }
}

/// Address and port as they follow each other in a set's member.
fn socket_bytes(socket: SocketAddr) -> Vec<u8> {
    let mut bytes = match socket.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.extend_from_slice(&socket.port().to_be_bytes());
    bytes
}

/// A condition that cannot be put to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMatch {
    /// A value that is empty or does not fit into a register.
    #[error("a value of {0} bytes cannot be compared; 1 to {VALUE_LEN_MAX} can")]
    ValueLength(usize),
    /// A mask that is not as long as the value.
    #[error("a mask of {mask} bytes for a value of {value}")]
    MaskLength {
        /// Length of the mask, bytes.
        mask: usize,
        /// Length of the value, bytes.
        value: usize,
    },
    /// A set whose fields are empty, or together longer than the registers.
    #[error("a set of {0} fields cannot be looked up")]
    Fields(usize),
    /// A member that is not as long as the fields together.
    #[error("a member of {member} bytes in a set of {fields} bytes")]
    MemberLength {
        /// Length of the member, bytes.
        member: usize,
        /// Length of the fields together, bytes.
        fields: usize,
    },
}

impl Match {
    /// Whether it can be put to the kernel.
    pub(super) fn check(&self) -> Result<(), InvalidMatch> {
        match self {
            Self::Protocol(_) | Self::TransportProtocol(_) => Ok(()),
            Self::Payload(PayloadMatch { mask, value, .. }) => match (value.len(), mask) {
                (1..=VALUE_LEN_MAX, None) => Ok(()),
                (1..=VALUE_LEN_MAX, Some(mask)) if mask.len() == value.len() => Ok(()),
                (1..=VALUE_LEN_MAX, Some(mask)) => {
                    Err(InvalidMatch::MaskLength { mask: mask.len(), value: value.len() })
                }
                (length, _) => Err(InvalidMatch::ValueLength(length)),
            },
            Self::InSet { fields, members } => check_set(fields, members),
        }
    }
}

fn check_set(fields: &[PayloadField], members: &BTreeSet<Vec<u8>>) -> Result<(), InvalidMatch> {
    if let Some(field) = fields.iter().find(|field| !(1..=VALUE_LEN_MAX).contains(&usize::from(field.length)))
    {
        return Err(InvalidMatch::ValueLength(usize::from(field.length)));
    }
    if !(1..=KEY_LEN_MAX).contains(&key_len(fields)) {
        return Err(InvalidMatch::Fields(fields.len()));
    }
    let together: usize = fields.iter().map(|field| usize::from(field.length)).sum();
    match members.iter().find(|member| member.len() != together) {
        Some(member) => Err(InvalidMatch::MemberLength { member: member.len(), fields: together }),
        None => Ok(()),
    }
}

/// Length of a set's key: each field starts at a 32-bit register.
pub(super) fn key_len(fields: &[PayloadField]) -> usize {
    fields.iter().map(|field| usize::from(field.length).next_multiple_of(4)).sum()
}

/// A member as the kernel wants it, with each field filled up to a 32-bit register.
pub(super) fn key_of(fields: &[PayloadField], member: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(key_len(fields));
    let mut rest = member;
    for field in fields {
        let (value, after) = rest.split_at(usize::from(field.length).min(rest.len()));
        key.extend_from_slice(value);
        key.resize(key.len().next_multiple_of(4), 0);
        rest = after;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_a_set_has_each_field_in_registers_of_its_own() {
        let fields = [PayloadField::IPV4_DESTINATION, PayloadField::DESTINATION_PORT];

        let key = key_of(&fields, &[10, 0, 0, 1, 0x1f, 0x90]);

        assert_eq!(key, [10, 0, 0, 1, 0x1f, 0x90, 0, 0]);
        assert_eq!(key.len(), key_len(&fields));
    }

    #[test]
    fn what_does_not_fit_the_registers_is_refused_before_the_kernel_sees_it() {
        let value = |length| Match::payload(PayloadBase::Network, 0, &vec![0; length]);
        let mask = Match::masked_payload(PayloadBase::Network, 0, &[0xff], &[0, 1]);
        let member = Match::InSet {
            fields: vec![PayloadField::DESTINATION_PORT],
            members: BTreeSet::from([vec![0, 80, 0]]),
        };

        assert_eq!(value(0).check(), Err(InvalidMatch::ValueLength(0)));
        assert_eq!(value(16).check(), Ok(()));
        assert_eq!(value(17).check(), Err(InvalidMatch::ValueLength(17)));
        assert_eq!(mask.check(), Err(InvalidMatch::MaskLength { mask: 1, value: 2 }));
        assert_eq!(member.check(), Err(InvalidMatch::MemberLength { member: 3, fields: 2 }));
        assert_eq!(
            Match::InSet { fields: Vec::new(), members: BTreeSet::new() }.check(),
            Err(InvalidMatch::Fields(0))
        );
    }
}
