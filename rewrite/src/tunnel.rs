//! IP-in-IP (RFC 2003) with the hop budget in the outer identification field.
//!
//! The outer header always says "don't fragment", so its identification has no meaning for fragmentation
//! (RFC 6864, section 4.1: atomic datagrams) and is free to say how far the packet may still travel.

use crate::ipv4::{self, Fields, HEADER_LEN, Ipv4Header, protocol};
use core::net::Ipv4Addr;
use dpr_model::{DropReason, HopBudget};

/// Bytes that a tunnel adds in front of a packet.
pub const OVERHEAD: usize = HEADER_LEN;

/// Upper twelve bits of the identification of our tunnels; the lower four are the hops left.
pub const HOPS_MAGIC: u16 = 0xd940;
/// Which bits of the identification are the magic.
pub const HOPS_MAGIC_MASK: u16 = 0xfff0;

/// Time to live of an outer header: nodes of a cluster are few hops apart (RFC 1700 suggests 64).
const OUTER_TTL: u8 = 64;

/// The budget that an outer header carries; `None` when the tunnel is not ours.
pub fn hops_of(outer: &Ipv4Header) -> Option<HopBudget> {
    let ours = outer.id & HOPS_MAGIC_MASK == HOPS_MAGIC && outer.dont_fragment() && !outer.is_fragment();
    ours.then(|| HopBudget::from_wire((outer.id & !HOPS_MAGIC_MASK) as u8))
}

/// Writes an outer header in front of the packet that begins at `at` in `buffer`; returns where it begins.
///
/// The inner time to live is the forwarder's business ([`crate::edit::decrement_ttl`], RFC 2003, section 3.1).
/// DSCP and ECN are copied outward (RFC 6040, section 4.1, normal mode).
///
/// # Errors
/// `Truncated` when `buffer` has no room in front of `at` or no packet behind it, `TooBig` when the sum passes 65,535 bytes.
pub fn encapsulate(
    buffer: &mut [u8],
    at: usize,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    hops: HopBudget,
) -> Result<usize, DropReason> {
    let inner = Ipv4Header::parse_quoted(buffer.get(at..).ok_or(DropReason::Truncated)?)?;
    let start = at.checked_sub(OVERHEAD).ok_or(DropReason::Truncated)?;
    let total_len = u16::try_from(inner.total_len + OVERHEAD).map_err(|_| DropReason::TooBig)?;
    let outer = ipv4::header(&Fields {
        tos: inner.tos,
        total_len,
        id: HOPS_MAGIC | u16::from(hops.get()),
        ttl: OUTER_TTL,
        protocol: protocol::IPIP,
        source,
        destination,
    });
    buffer.get_mut(start..at).ok_or(DropReason::Truncated)?.copy_from_slice(&outer);
    Ok(start)
}
