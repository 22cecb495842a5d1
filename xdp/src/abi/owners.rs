//! Who owns addresses, and slots of those that no node holds.

/// Slots of the addresses that no node holds, at most.
pub const SLOTS_MAX: usize = 32_768;
/// Set in [`FlowEntry::term`](super::FlowEntry::term) of entries that were made as the owner of a slot, and in no others.
pub const TERM_BY_SLOT: u8 = 0x80;

/// A slot of the addresses that no node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// Number of its owner.
    pub owner: u16,
    /// A [`Tenure`].
    pub tenure: u8,
    /// How often this node has become its owner; the count wraps.
    pub term: u8,
    /// As [`Service::is_recent`](super::Service::is_recent).
    pub is_recent: u8,
    /// Padding.
    pub zero: [u8; 3],
}

/// How an address is shared; flags of a [`Service`](super::Service).
pub mod sharing_flag {
    /// Connections that this node keeps get entries, of which others hear.
    pub const REMEMBERS_KEPT: u8 = 1;
    /// The address is changing hands: this node acts for none of its slots.
    pub const CHANGES_HANDS: u8 = 2;
    /// All nodes see all packets: what another one owns, that one sees too.
    pub const ALL_SEE: u8 = 4;
}

/// By which right an owner owns an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tenure {
    /// Nobody else may own it.
    Home,
    /// Others may become owner: it acts only while its right lasts.
    Leased,
    /// The address is changing hands: this node does not act.
    Pending,
    /// No node holds the address: each [`Slot`] has its owner.
    BySlot,
}

/// What of a flow decides about its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Partition {
    /// `source-address-and-port`
    SourceAddressAndPort,
    /// `source-address`
    SourceAddress,
    /// `destination-address`
    DestinationAddress,
    /// `source-port`
    SourcePort,
    /// `destination-port`
    DestinationPort,
    /// `all`
    All,
    /// Both addresses, where there are no ports.
    Addresses,
}
