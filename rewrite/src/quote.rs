//! The packet that an ICMP error is about, of either version.

use crate::network::{Network, Version};
use crate::{icmp, icmpv6, protocol};
use dpr_model::{DropReason, Protocol};

/// Length of an error's header in front of the quoted packet, bytes; ICMP and ICMPv6 agree.
pub const HEADER_LEN: usize = 8;
/// Offset of the checksum from the start of that header, bytes.
pub const CHECKSUM: usize = 2;

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Where its IP header begins, from the start of the frame.
    pub at: usize,
    /// Its IP header; the packet itself is usually cut off.
    pub ip: Network,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Port of whoever sent the quoted packet.
    pub source_port: u16,
    /// Port of whoever it was for.
    pub destination_port: u16,
}

impl Quote {
    /// What the ICMP message in `payload` quotes, if it is an error about a segment or datagram; `payload_at` is where
    /// the message begins in its frame, `version` that of the packet that carries it.
    ///
    /// # Errors
    /// `Truncated` or `Malformed` for an error whose quotation lies.
    pub(crate) fn parse(
        payload: &[u8],
        payload_at: usize,
        version: Version,
    ) -> Result<Option<Self>, DropReason> {
        let header: &[u8; HEADER_LEN] = payload.first_chunk().ok_or(DropReason::Truncated)?;
        let is_error = match version {
            Version::V4 => icmp::is_error(header[0]),
            Version::V6 => icmpv6::is_error(header[0]),
        };
        if !is_error {
            return Ok(None);
        }
        let quoted = payload.get(HEADER_LEN..).ok_or(DropReason::Truncated)?;
        let ip = Network::parse_quoted(quoted)?;
        if ip.version() != version {
            return Err(DropReason::Malformed);
        }
        let Some(protocol) = Protocol::from_number(ip.protocol()) else { return Ok(None) };
        if ip.is_fragment() {
            return Ok(None);
        }
        // RFC 792 guarantees eight bytes of the transport: ports, and the sequence number or length and checksum.
        let transport: &[u8; 4] = quoted
            .get(ip.header_len()..)
            .and_then(|bytes| bytes.first_chunk())
            .ok_or(DropReason::Truncated)?;
        Ok(Some(Self {
            at: payload_at + HEADER_LEN,
            ip,
            protocol,
            source_port: u16::from_be_bytes([transport[0], transport[1]]),
            destination_port: u16::from_be_bytes([transport[2], transport[3]]),
        }))
    }

    /// Where the quoted transport header begins, from the start of the frame.
    pub fn transport_at(&self) -> usize {
        self.at + self.ip.header_len()
    }
}

/// The protocol that carries errors about packets of a version.
pub(crate) const fn carrier(version: Version) -> u8 {
    match version {
        Version::V4 => protocol::ICMP,
        Version::V6 => protocol::ICMPV6,
    }
}
