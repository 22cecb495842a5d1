//! Services whose packets may go straight.

use super::{Address, Port};

/// Places for them, as a power of two: four times as many as there are services at most.
pub const STRAIGHT_BITS: u32 = 14;

/// A service of TCP whose established connections go by `ipip`, and about which this node alone decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct StraightWay {
    /// Service address; of IPv4 it is mapped.
    pub address: Address,
    /// Service port.
    pub port: Port,
    /// Of the address: 4 or 6, or 0 where there is no service.
    pub version: u8,
    /// Padding.
    pub zero: u8,
}
