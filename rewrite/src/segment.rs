//! Cutting what the host's offloads joined: one large TCP packet into segments that fit the wire.
//!
//! Receive offload joins segments, and local senders hand over what their device was to cut. Before such a
//! packet goes into a tunnel it has to be cut here, and its checksums completed.

use crate::checksum::{self, fold, sum_of};
use crate::frame::{Kind, Packet};
use crate::ipv4::{field, protocol};
use crate::tcp::{self, flag};
use dpr_model::DropReason;

/// The segments of one large TCP packet.
#[derive(Debug)]
pub struct Segments<'a> {
    /// IPv4 and TCP headers of the large packet.
    headers: &'a [u8],
    /// Its data.
    data: &'a [u8],
    ip_header_len: usize,
    segment_len: usize,
    /// Bytes of `data` that are cut already; `None` when the last segment is out.
    done: Option<usize>,
    packet: Packet,
    flags: u8,
    sequence: u32,
}

impl<'a> Segments<'a> {
    /// Cuts `packet` of `bytes` into pieces of `segment_len` bytes of data; a packet that fits is one piece, and
    /// leaves with its checksum completed.
    ///
    /// # Errors
    /// `Malformed` when the packet is no TCP segment or `segment_len` is zero.
    pub fn new(bytes: &'a [u8], packet: &Packet, segment_len: usize) -> Result<Self, DropReason> {
        let Kind::Tcp(header) = packet.kind else { return Err(DropReason::Malformed) };
        if segment_len == 0 {
            return Err(DropReason::Malformed);
        }
        let headers_len = packet.ip.header_len + header.header_len;
        let whole = bytes.get(packet.at..packet.end()).ok_or(DropReason::Truncated)?;
        let (headers, data) = whole.split_at_checked(headers_len).ok_or(DropReason::Truncated)?;
        Ok(Self {
            headers,
            data,
            ip_header_len: packet.ip.header_len,
            segment_len,
            done: Some(0),
            packet: *packet,
            flags: header.flags,
            sequence: header.sequence,
        })
    }

    /// Writes the next segment, an IPv4 packet, to the start of `out` and returns its length.
    ///
    /// # Errors
    /// `Truncated` when `out` is too short for it.
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<Result<usize, DropReason>> {
        let from = self.done?;
        let until = (from + self.segment_len).min(self.data.len());
        self.done = (until < self.data.len()).then_some(until);
        Some(self.write(from, until, out))
    }

    fn write(&self, from: usize, until: usize, out: &mut [u8]) -> Result<usize, DropReason> {
        let total_len = self.headers.len() + until - from;
        let out = out.get_mut(..total_len).ok_or(DropReason::Truncated)?;
        let (headers, data) = out.split_at_mut(self.headers.len());
        headers.copy_from_slice(self.headers);
        data.copy_from_slice(&self.data[from..until]);

        let (ip, segment) = out.split_at_mut(self.ip_header_len);
        self.finish_ip(ip, from, total_len);
        self.finish_tcp(segment, from, until);
        Ok(total_len)
    }

    /// Length, identification (one up per segment, as the sender's device would have done) and checksum.
    fn finish_ip(&self, ip: &mut [u8], from: usize, total_len: usize) {
        let nth = (from / self.segment_len) as u16;
        // A segment is no longer than the packet it was cut from, whose length was a u16.
        ip[field::TOTAL_LENGTH..field::TOTAL_LENGTH + 2].copy_from_slice(&(total_len as u16).to_be_bytes());
        ip[field::ID..field::ID + 2].copy_from_slice(&self.packet.ip.id.wrapping_add(nth).to_be_bytes());
        ip[field::CHECKSUM..field::CHECKSUM + 2].copy_from_slice(&[0, 0]);
        let sum = !fold(sum_of(ip));
        ip[field::CHECKSUM..field::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Sequence number, control bits (RFC 3168, section 6.1.2: CWR on the first segment only) and checksum.
    fn finish_tcp(&self, segment: &mut [u8], from: usize, until: usize) {
        let sequence = self.sequence.wrapping_add(from as u32);
        let mut flags = self.flags;
        if until < self.data.len() {
            flags &= !(flag::FIN | flag::PSH);
        }
        if from > 0 {
            flags &= !flag::CWR;
        }
        segment[tcp::field::SEQUENCE..tcp::field::SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
        segment[tcp::field::FLAGS] = flags;
        segment[tcp::field::CHECKSUM..tcp::field::CHECKSUM + 2].copy_from_slice(&[0, 0]);
        let ip = &self.packet.ip;
        let pseudo =
            checksum::pseudo_header_ipv4(ip.source, ip.destination, protocol::TCP, segment.len() as u16);
        let sum = !fold(pseudo + sum_of(segment));
        segment[tcp::field::CHECKSUM..tcp::field::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }
}
