//! Cutting what the host's offloads joined: one large TCP or UDP packet into packets that fit the wire.
//!
//! Receive offload joins segments, and local senders hand over what their device was to cut. Before such a
//! packet goes into a tunnel it has to be cut here, and its checksums completed.

use crate::checksum::{fold, sum_of};
use crate::frame::{Kind, Packet};
use crate::ipv4::{self, Ipv4Header};
use crate::ipv6;
use crate::network::Network;
use crate::tcp::{self, TcpHeader, flag};
use crate::udp;
use dpr_model::DropReason;

/// The segments of one large TCP packet, or the datagrams of one large UDP packet.
#[derive(Debug)]
pub struct Segments<'a> {
    /// IP and transport headers of the large packet.
    headers: &'a [u8],
    /// Its data.
    data: &'a [u8],
    segment_len: usize,
    /// Bytes of `data` that are cut already; `None` when the last segment is out.
    done: Option<usize>,
    ip: Network,
    transport: Transport,
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Tcp(TcpHeader),
    Udp,
}

impl<'a> Segments<'a> {
    /// Cuts `packet` of `bytes` into pieces of `segment_len` bytes of data; a packet that fits is one piece, and
    /// leaves with its checksum completed.
    ///
    /// # Errors
    /// `Malformed` when the packet is neither TCP nor UDP or `segment_len` is zero.
    pub fn new(bytes: &'a [u8], packet: &Packet, segment_len: usize) -> Result<Self, DropReason> {
        let (transport, transport_len, end) = match packet.kind {
            Kind::Tcp(header) => (Transport::Tcp(header), header.header_len(), packet.end()),
            Kind::Udp(header) => {
                (Transport::Udp, udp::HEADER_LEN, packet.transport_at() + usize::from(header.len))
            }
            Kind::IcmpError(_) | Kind::EchoRequest | Kind::Fragment(_) | Kind::Other => {
                return Err(DropReason::Malformed);
            }
        };
        if segment_len == 0 {
            return Err(DropReason::Malformed);
        }
        let headers_len = packet.ip.header_len() + transport_len;
        let whole = bytes.get(packet.at..end).ok_or(DropReason::Truncated)?;
        let (headers, data) = whole.split_at_checked(headers_len).ok_or(DropReason::Truncated)?;
        Ok(Self { headers, data, segment_len, done: Some(0), ip: packet.ip, transport })
    }

    /// Writes the next segment, an IP packet, to the start of `out` and returns its length.
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

        let (ip, transport) = out.split_at_mut(self.ip.header_len());
        match &self.ip {
            Network::V4(header) => self.finish_ipv4(header, ip, from, total_len),
            Network::V6(_) => finish_ipv6(ip, total_len),
        }
        match &self.transport {
            Transport::Tcp(header) => self.finish_tcp(header, transport, from, until),
            Transport::Udp => self.finish_udp(transport),
        }
        Ok(total_len)
    }

    /// Length, identification (one up per segment, as the sender's device would have done) and checksum.
    fn finish_ipv4(&self, header: &Ipv4Header, ip: &mut [u8], from: usize, total_len: usize) {
        use ipv4::field::{CHECKSUM, ID, TOTAL_LENGTH};
        let nth = (from / self.segment_len) as u16;
        // A segment is no longer than the packet it was cut from, whose length was a u16.
        ip[TOTAL_LENGTH..TOTAL_LENGTH + 2].copy_from_slice(&(total_len as u16).to_be_bytes());
        ip[ID..ID + 2].copy_from_slice(&header.id().wrapping_add(nth).to_be_bytes());
        ip[CHECKSUM..CHECKSUM + 2].copy_from_slice(&[0, 0]);
        let sum = !fold(sum_of(ip));
        ip[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Sequence number, control bits (RFC 3168, section 6.1.2: CWR on the first segment only) and checksum.
    fn finish_tcp(&self, header: &TcpHeader, segment: &mut [u8], from: usize, until: usize) {
        use tcp::field::{CHECKSUM, FLAGS, SEQUENCE};
        let sequence = header.sequence().wrapping_add(from as u32);
        let mut flags = header.flags();
        if until < self.data.len() {
            flags &= !(flag::FIN | flag::PSH);
        }
        if from > 0 {
            flags &= !flag::CWR;
        }
        segment[SEQUENCE..SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
        segment[FLAGS] = flags;
        segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&[0, 0]);
        let sum = self.sum_of_transport(segment);
        segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Length and checksum.
    fn finish_udp(&self, datagram: &mut [u8]) {
        use udp::field::{CHECKSUM, LENGTH};
        let len = datagram.len() as u16;
        datagram[LENGTH..LENGTH + 2].copy_from_slice(&len.to_be_bytes());
        datagram[CHECKSUM..CHECKSUM + 2].copy_from_slice(&[0, 0]);
        let sum = udp::checksum_to_send(self.sum_of_transport(datagram));
        datagram[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }

    fn sum_of_transport(&self, transport: &[u8]) -> u16 {
        !fold(self.ip.pseudo_header(transport.len() as u16) + sum_of(transport))
    }
}

/// The length, which does not count the fixed header.
fn finish_ipv6(ip: &mut [u8], total_len: usize) {
    use ipv6::field::PAYLOAD_LENGTH;
    let payload_len = (total_len - ipv6::HEADER_LEN) as u16;
    ip[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 2].copy_from_slice(&payload_len.to_be_bytes());
}
