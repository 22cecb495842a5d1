//! Packets of many flows, one after the other, as the yardsticks' programs make them.

use crate::abi::{AddressV4, FlowKey, Port};
use aya::Pod;
use dpr_model::{FlowKey as Flow, MacAddress};

/// Length of the frames, bytes.
pub(crate) const FRAME_LEN: usize = 54;
/// The client's port in all of them.
const CLIENT_PORT: u16 = 1024;

/// Which packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// How many flows; a power of two, visited in random order.
    pub flows: u32,
    /// The first client; the others follow.
    pub first_client: u32,
    /// Where they send to.
    pub service: AddressV4,
    /// Port there.
    pub service_port: u16,
    /// Control bits of the segments.
    pub tcp_flags: u8,
    /// MAC address of the node that they come to.
    pub mac: MacAddress,
}

impl Walk {
    /// The connections of the packets.
    pub fn connections(&self) -> impl Iterator<Item = Flow> + '_ {
        self.keys().filter_map(|key| key.flow())
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = FlowKey> + '_ {
        (0..self.flows).map(|nth| FlowKey {
            client: (self.first_client + nth).to_be_bytes(),
            service: self.service,
            client_port: CLIENT_PORT.to_be_bytes(),
            service_port: self.service_port.to_be_bytes(),
            protocol: 6,
            zero: [0; 3],
        })
    }
}

/// A walk as the programs know it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct RawWalk {
    state: u32,
    mask: u32,
    client: u32,
    service: AddressV4,
    service_port: Port,
    flags: u8,
    mac: [u8; 6],
    zero: [u8; 3],
}

// SAFETY: `repr(C)` of integers and arrays of them, 28 bytes without hidden padding.
unsafe impl Pod for RawWalk {}

impl RawWalk {
    /// At its first packet.
    pub(crate) fn of(walk: &Walk) -> Self {
        Self {
            state: 1,
            mask: walk.flows - 1,
            client: walk.first_client,
            service: walk.service,
            service_port: walk.service_port.to_be_bytes(),
            flags: walk.tcp_flags,
            mac: walk.mac.0,
            zero: [0; 3],
        }
    }
}
