//! Services whose packets may go straight.

use super::{AddressV4, Port};

/// Places for them, as a power of two: four times as many as there are services at most.
pub const STRAIGHT_BITS: u32 = 14;

/// A service over IPv4 of TCP whose established connections go by `ipip`, and about which this node alone decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct StraightWay {
    /// Service address.
    pub address: AddressV4,
    /// Service port.
    pub port: Port,
    /// 1, or 0 where there is none.
    pub is_open: u8,
    /// Padding.
    pub zero: u8,
}
