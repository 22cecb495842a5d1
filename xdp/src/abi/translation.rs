//! Translated flows, and who translates.

use super::{Address, Port};

/// What a packet of a flow leaves with that user space translates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Translation {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// The ports of both.
    pub ports: [Port; 2],
    /// When it last did so, in ticks of the monotonic clock, which wrap.
    pub seen: u32,
    /// The client's initial sequence number; not used by the programs.
    pub generation: u32,
    /// What the cluster calls the real server; not used by the programs.
    pub real_server: u32,
    /// Number of the [`Hop`] that is next.
    pub hop: u16,
    /// 1 on the way back to the client.
    pub is_reply: u8,
    /// Padding.
    pub zero: u8,
}

/// A neighbour by which translated packets leave, on the interface that packets come in on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Hop {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Largest IP packet on the way to it, bytes; 0 while its MAC address is not known.
    pub mtu: u16,
}

/// Who sends translated packets from an address, and from which ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Translator {
    /// Number of the node.
    pub node: u32,
    /// Lowest port.
    pub first_port: u16,
    /// Highest port.
    pub last_port: u16,
}
