//! A hash of the flow, by which routers and network cards spread tunnelled packets.

use crate::frame::{Kind, Packet};
use crate::network::Network;
use core::net::{IpAddr, Ipv6Addr};

/// Hash of the flow that a packet belongs to. Every packet of a flow in one direction has the same one; so have errors
/// about the other direction, which travel with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash(u32);

impl FlowHash {
    /// For a tunnel whose outer headers have no place for a hash.
    pub(crate) const NONE: Self = Self(0);

    /// Hash of a packet's flow. `seed` keeps strangers from aiming at one path: nodes need not agree on it.
    #[inline]
    pub fn of(packet: &Packet, seed: u32) -> Self {
        let ip = &packet.ip;
        let (hash, ports) = match &packet.kind {
            Kind::Tcp(header) => (mix_ends(seed, ip), pair(header.source_port(), header.destination_port())),
            Kind::Udp(header) => (mix_ends(seed, ip), pair(header.source_port, header.destination_port)),
            Kind::IcmpError(quote) => {
                let hash = mix_address(mix_address(seed, quote.destination), ip.destination());
                (hash, pair(quote.destination_port, quote.source_port))
            }
            Kind::EchoRequest | Kind::Fragment(_) | Kind::Other => (mix_ends(seed, ip), 0),
        };
        Self(finish(mix(hash, ports)))
    }

    /// The hash.
    pub fn get(self) -> u32 {
        self.0
    }
}

fn pair(source_port: u16, destination_port: u16) -> u32 {
    u32::from(source_port) << 16 | u32::from(destination_port)
}

/// Source and destination.
#[inline]
fn mix_ends(hash: u32, ip: &Network) -> u32 {
    match ip {
        Network::V4(ip) => mix(mix(hash, u32::from(ip.source())), u32::from(ip.destination())),
        Network::V6(ip) => mix_v6(mix_v6(hash, ip.source), ip.destination),
    }
}

fn mix_address(hash: u32, address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => mix(hash, u32::from(address)),
        IpAddr::V6(address) => mix_v6(hash, address),
    }
}

fn mix_v6(hash: u32, address: Ipv6Addr) -> u32 {
    let octets = address.octets();
    let (words, _) = octets.as_chunks::<4>();
    words.iter().fold(hash, |hash, word| mix(hash, u32::from_be_bytes(*word)))
}

/// One round of MurmurHash3 (Appleby 2011, `MurmurHash3_x86_32`), and below its end: a few instructions that kernel
/// programs can afford as well.
#[inline]
fn mix(hash: u32, word: u32) -> u32 {
    let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ word).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

#[inline]
fn finish(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}
