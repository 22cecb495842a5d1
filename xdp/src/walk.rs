//! Packets of many flows, one after the other, as the yardsticks' programs make them.

use crate::abi::{Address, Port, mapped};
use aya::Pod;
use dpr_model::{ClientSocket, FlowKey, MacAddress, Protocol, ServiceSocket};
use dpr_rewrite::{Version, ethernet, tcp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The client's port in all of them.
const CLIENT_PORT: u16 = 1024;
/// Clients over IPv6; their last word is the walk's.
const CLIENTS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);

/// Which packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// How many flows; a power of two, visited in random order.
    pub flows: u32,
    /// The first client, or the last word of its address over IPv6; the others follow.
    pub first_client: u32,
    /// Where they send to, by either version.
    pub service: IpAddr,
    /// Port there.
    pub service_port: u16,
    /// Control bits of the segments.
    pub tcp_flags: u8,
    /// MAC address of the node that they come to.
    pub mac: MacAddress,
}

impl Walk {
    /// The connections of the packets.
    pub fn connections(&self) -> impl Iterator<Item = FlowKey> + '_ {
        (0..self.flows).map(|nth| FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address: self.client(nth), port: CLIENT_PORT },
            service: ServiceSocket { address: self.service, port: self.service_port },
        })
    }

    /// Version of the packets.
    pub fn version(&self) -> Version {
        Version::of(self.service)
    }

    /// Length of the frames, bytes.
    pub(crate) fn frame_len(&self) -> usize {
        ethernet::HEADER_LEN + self.version().header_len() + tcp::HEADER_LEN
    }

    fn client(&self, nth: u32) -> IpAddr {
        let word = self.first_client.wrapping_add(nth);
        match self.version() {
            Version::V4 => Ipv4Addr::from(word).into(),
            Version::V6 => Ipv6Addr::from(u128::from(CLIENTS_V6) | u128::from(word)).into(),
        }
    }
}

/// A walk as the programs know it.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub(crate) struct RawWalk {
    state: u32,
    mask: u32,
    client: Address,
    service: Address,
    service_port: Port,
    flags: u8,
    is_ipv6: u8,
    mac: [u8; 6],
    zero: [u8; 2],
}

// SAFETY: `repr(C)` of integers and arrays of them, 52 bytes without hidden padding.
unsafe impl Pod for RawWalk {}

impl RawWalk {
    /// At its first packet.
    pub(crate) fn of(walk: &Walk) -> Self {
        Self {
            state: 1,
            mask: walk.flows - 1,
            client: mapped(walk.client(0)),
            service: mapped(walk.service),
            service_port: walk.service_port.to_be_bytes(),
            flags: walk.tcp_flags,
            is_ipv6: u8::from(walk.version() == Version::V6),
            mac: walk.mac.0,
            zero: [0; 2],
        }
    }
}
