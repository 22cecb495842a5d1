//! Flows that user space decides about and the programs carry on, and who translates.

use super::{Address, Port};

/// How a packet of a flow goes on that user space has decided about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Carried {
    /// Source address that it leaves with; of a packet that is sent on as it is, nothing.
    pub source: Address,
    /// Destination address, alike.
    pub destination: Address,
    /// The ports of both, alike.
    pub ports: [Port; 2],
    /// When the last one came, in ticks of the monotonic clock, which wrap.
    pub seen: u32,
    /// The client's initial sequence number; not used by the programs.
    pub generation: u32,
    /// What the cluster calls the real server; not used by the programs.
    pub real_server: u32,
    /// Number of the [`Hop`] that is next; where packets are sent on as they are, of the node that terminates them.
    pub next: u16,
    /// Of [`carried_flag`].
    pub flags: u8,
    /// As [`FlowEntry::term`](super::FlowEntry::term); of a way back 0.
    pub term: u8,
}

/// What a [`Carried`] is.
pub mod carried_flag {
    /// The flow's way back to the client.
    pub const REPLY: u8 = 1;
    /// Packets are sent on as they are: by the method of their service.
    pub const AS_SENT: u8 = 2;
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
