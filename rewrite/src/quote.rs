//! The packet that an ICMP error is about, of either version.

use crate::network::{Network, Version};
use crate::{icmp, icmpv6, protocol, tcp, udp};
use core::net::IpAddr;
use dpr_model::{DropReason, Protocol};

/// Length of an error's header in front of the quoted packet, bytes; ICMP and ICMPv6 agree.
pub const HEADER_LEN: usize = 8;
/// Offset of the checksum from the start of that header, bytes.
pub const CHECKSUM: usize = 2;

/// The packet that an ICMP error is about. Whoever gets the error had sent it, and it has the error's IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Where its IP header begins, from the start of the frame.
    at: u16,
    /// Where its transport header begins, from the start of the frame.
    transport_at: u16,
    /// Whether the checksum of its transport is quoted: RFC 792 promises eight bytes, enough for UDP's.
    has_checksum: bool,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Port of whoever sent it, and gets the error.
    pub source_port: u16,
    /// Port of whoever it was for.
    pub destination_port: u16,
    /// For whom it was.
    pub destination: IpAddr,
}

impl Quote {
    /// What the ICMP message in `payload` quotes, if it is an error about a segment or datagram that its receiver had
    /// sent; `payload_at` is where the message begins in its frame, `carried_by` the IP header in front of it.
    ///
    /// # Errors
    /// `Truncated` or `Malformed` for an error whose quotation lies.
    pub(crate) fn parse(
        payload: &[u8],
        payload_at: usize,
        carried_by: &Network,
    ) -> Result<Option<Self>, DropReason> {
        let header: &[u8; HEADER_LEN] = payload.first_chunk().ok_or(DropReason::Truncated)?;
        let is_error = match carried_by.version() {
            Version::V4 => icmp::is_error(header[0]),
            Version::V6 => icmpv6::is_error(header[0]),
        };
        if !is_error {
            return Ok(None);
        }
        let quoted = payload.get(HEADER_LEN..).ok_or(DropReason::Truncated)?;
        let ip = Network::parse_quoted(quoted)?;
        if ip.version() != carried_by.version() {
            return Err(DropReason::Malformed);
        }
        let Some(protocol) = Protocol::from_number(ip.protocol()) else { return Ok(None) };
        if ip.is_fragment() || ip.source() != carried_by.destination() {
            return Ok(None);
        }
        // RFC 792 guarantees eight bytes of the transport: ports, and the sequence number or length and checksum.
        let transport: &[u8; 4] = quoted
            .get(ip.header_len()..)
            .and_then(|bytes| bytes.first_chunk())
            .ok_or(DropReason::Truncated)?;
        let at = payload_at + HEADER_LEN;
        let checksum_end = ip.header_len() + checksum_at(protocol) + 2;
        Ok(Some(Self {
            at: u16::try_from(at).map_err(|_| DropReason::Malformed)?,
            transport_at: u16::try_from(at + ip.header_len()).map_err(|_| DropReason::Malformed)?,
            has_checksum: checksum_end <= quoted.len().min(ip.total_len()),
            protocol,
            source_port: u16::from_be_bytes([transport[0], transport[1]]),
            destination_port: u16::from_be_bytes([transport[2], transport[3]]),
            destination: ip.destination(),
        }))
    }

    /// Where the quoted IP header begins, from the start of the frame.
    pub fn at(&self) -> usize {
        usize::from(self.at)
    }

    /// Where the quoted transport header begins, from the start of the frame.
    pub fn transport_at(&self) -> usize {
        usize::from(self.transport_at)
    }

    /// Where the checksum of the quoted transport is, from the start of the frame; `None` when the quotation ends before.
    pub fn checksum_at(&self) -> Option<usize> {
        self.has_checksum.then(|| self.transport_at() + checksum_at(self.protocol))
    }
}

/// Offset of the checksum from the start of a transport header, bytes.
const fn checksum_at(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => tcp::field::CHECKSUM,
        Protocol::Udp => udp::field::CHECKSUM,
    }
}

/// The protocol that carries errors about packets of a version.
pub(crate) const fn carrier(version: Version) -> u8 {
    match version {
        Version::V4 => protocol::ICMP,
        Version::V6 => protocol::ICMPV6,
    }
}
