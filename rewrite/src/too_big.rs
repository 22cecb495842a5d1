//! The answer to a packet that does not fit, in the packet's own version.

use crate::icmp::{self, FRAGMENTATION_NEEDED_LEN_MAX};
use crate::icmpv6::{self, PACKET_TOO_BIG_LEN_MAX};
use crate::network::{Network, Version};
use core::net::IpAddr;
use dpr_model::DropReason;

/// Longest packet that [`answer`] writes, bytes.
pub const ANSWER_LEN_MAX: usize = if PACKET_TOO_BIG_LEN_MAX > FRAGMENTATION_NEEDED_LEN_MAX {
    PACKET_TOO_BIG_LEN_MAX
} else {
    FRAGMENTATION_NEEDED_LEN_MAX
};

/// Tells the sender of `original`, from `source`, the largest packet that fits, bytes: "fragmentation needed" or "packet
/// too big", written to the start of `out`. Returns its length.
///
/// # Errors
/// `Truncated` when `out` is shorter than [`ANSWER_LEN_MAX`] or `original` holds no header; `VersionMismatch` when
/// `source` is of the other version; `TooBig` when no answer would help ([`icmpv6::packet_too_big`]).
pub fn answer(original: &[u8], mtu: u16, source: IpAddr, out: &mut [u8]) -> Result<usize, DropReason> {
    match (Network::parse_quoted(original)?.version(), source) {
        (Version::V4, IpAddr::V4(source)) => icmp::fragmentation_needed(original, mtu, source, out),
        (Version::V6, IpAddr::V6(source)) => icmpv6::packet_too_big(original, mtu, source, out),
        _ => Err(DropReason::VersionMismatch),
    }
}
