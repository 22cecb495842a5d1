//! TCP segments as frames: a writer of its own, and a reader that believes nothing.

use dpr_model::{ClientSocket, FlowKey};
use dpr_rewrite::checksum::{fold, pseudo_header, sum_of};
use dpr_rewrite::ethernet::{self, ethertype};
use dpr_rewrite::ipv4::{self, Fields, Ipv4Header};
use dpr_rewrite::protocol;
use dpr_rewrite::tcp::{self, flag};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// Time to live of packets that ends send (RFC 1700).
const TTL: u8 = 64;
/// Window that ends announce; nobody ever has more than one segment on its way.
const WINDOW: u16 = 65_535;
/// The MSS option (RFC 9293, section 3.2): kind, length, and two bytes of value.
const MSS_KIND: u8 = 2;
const MSS_LEN: usize = 4;

/// A segment from one socket to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    /// Maximum segment size option.
    pub(crate) mss: Option<u16>,
    pub(crate) data: Vec<u8>,
}

/// A segment of a client that is sent by hand; who it is for is said by where it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSegment {
    pub(crate) client: ClientSocket,
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
}

/// The SYN of a new connection of `client`.
pub fn syn_from(client: ClientSocket) -> ClientSegment {
    ClientSegment { client, sequence: 1000, flags: flag::SYN }
}

/// The ACK that ends the handshake which [`syn_from`] began, as far as a director can tell.
pub fn ack_from(client: ClientSocket) -> ClientSegment {
    ClientSegment { client, sequence: 1001, flags: flag::ACK }
}

impl ClientSegment {
    /// The segment for the service socket of `flow`.
    pub(crate) fn addressed(self, flow: &FlowKey) -> Segment {
        Segment {
            source: socket(flow.client.address, flow.client.port),
            destination: socket(flow.service.address, flow.service.port),
            sequence: self.sequence,
            acknowledgement: 1,
            flags: self.flags,
            mss: None,
            data: Vec::new(),
        }
    }
}

/// Why a frame is not a segment that an end would accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotASegment {
    #[error("it is not a whole IPv4 packet with TCP in it")]
    Malformed,
    #[error("the checksum of its segment is wrong")]
    Checksum,
}

impl Segment {
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// How far the segment advances the sequence numbers: its data, SYN and FIN.
    pub(crate) fn len(&self) -> u32 {
        let flags = u32::from(self.has(flag::SYN)) + u32::from(self.has(flag::FIN));
        u32::try_from(self.data.len()).unwrap_or(u32::MAX) + flags
    }

    /// The segment in an Ethernet frame. MAC addresses are of no meaning here and all zero.
    pub(crate) fn to_frame(&self) -> Vec<u8> {
        let segment_len = tcp::HEADER_LEN + self.options_len() + self.data.len();
        let mut frame = Vec::with_capacity(ethernet::HEADER_LEN + ipv4::HEADER_LEN + segment_len);
        frame.extend_from_slice(&ethernet::header(Default::default(), Default::default(), ethertype::IPV4));
        frame.extend_from_slice(&ipv4::header(&Fields {
            tos: 0,
            total_len: u16::try_from(ipv4::HEADER_LEN + segment_len).unwrap_or(u16::MAX),
            id: 0,
            ttl: TTL,
            protocol: protocol::TCP,
            source: *self.source.ip(),
            destination: *self.destination.ip(),
        }));
        let tcp_at = frame.len();
        self.write_header(&mut frame);
        frame.extend_from_slice(&self.data);
        let sum = !fold(self.checksum_over(&frame[tcp_at..]));
        let checksum_at = tcp_at + tcp::field::CHECKSUM;
        frame[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// The segment in an Ethernet frame, if every length and checksum in it holds.
    pub(crate) fn from_frame(frame: &[u8]) -> Result<Self, NotASegment> {
        let packet = frame.get(ethernet::HEADER_LEN..).ok_or(NotASegment::Malformed)?;
        let ip = Ipv4Header::parse(packet).map_err(|_| NotASegment::Malformed)?;
        if ip.protocol != protocol::TCP || ip.is_fragment() {
            return Err(NotASegment::Malformed);
        }
        let bytes = &packet[usize::from(ip.header_len)..usize::from(ip.total_len)];
        let fixed: &[u8; tcp::HEADER_LEN] = bytes.first_chunk().ok_or(NotASegment::Malformed)?;
        let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let number = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let header_len = usize::from(fixed[12] >> 4) * 4;
        let options = bytes.get(tcp::HEADER_LEN..header_len).ok_or(NotASegment::Malformed)?;
        let segment = Self {
            source: SocketAddrV4::new(ip.source, word(0)),
            destination: SocketAddrV4::new(ip.destination, word(2)),
            sequence: number(tcp::field::SEQUENCE),
            acknowledgement: number(8),
            flags: fixed[tcp::field::FLAGS],
            mss: match options {
                [MSS_KIND, _, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
                _ => None,
            },
            data: bytes[header_len..].to_vec(),
        };
        match fold(segment.checksum_over(bytes)) {
            0xffff => Ok(segment),
            _ => Err(NotASegment::Checksum),
        }
    }

    fn options_len(&self) -> usize {
        if self.mss.is_some() { MSS_LEN } else { 0 }
    }

    fn write_header(&self, frame: &mut Vec<u8>) {
        let words = (tcp::HEADER_LEN + self.options_len()) / 4;
        frame.extend_from_slice(&self.source.port().to_be_bytes());
        frame.extend_from_slice(&self.destination.port().to_be_bytes());
        frame.extend_from_slice(&self.sequence.to_be_bytes());
        frame.extend_from_slice(&self.acknowledgement.to_be_bytes());
        frame.push(u8::try_from(words << 4).unwrap_or(u8::MAX));
        frame.push(self.flags);
        frame.extend_from_slice(&WINDOW.to_be_bytes());
        frame.extend_from_slice(&[0; 4]); // Checksum, urgent pointer.
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            frame.extend_from_slice(&[MSS_KIND, MSS_LEN as u8, high, low]);
        }
    }

    fn checksum_over(&self, segment: &[u8]) -> u32 {
        let length = u16::try_from(segment.len()).unwrap_or(u16::MAX);
        let (source, destination) = (*self.source.ip(), *self.destination.ip());
        pseudo_header(source.into(), destination.into(), protocol::TCP, length) + sum_of(segment)
    }
}

/// An IPv4 socket address; the simulator has no IPv6 yet, and says 0.0.0.0 for it.
pub(crate) fn socket(address: IpAddr, port: u16) -> SocketAddrV4 {
    match address {
        IpAddr::V4(v4) => SocketAddrV4::new(v4, port),
        IpAddr::V6(_) => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> Segment {
        Segment {
            source: SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 4000),
            destination: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 80),
            sequence: 7,
            acknowledgement: 9,
            flags: flag::SYN | flag::ACK,
            mss: Some(1460),
            data: vec![1, 2, 3],
        }
    }

    #[test]
    fn what_is_written_is_read_again_by_this_reader_and_by_the_data_plane() {
        let frame = segment().to_frame();

        assert_eq!(Segment::from_frame(&frame), Ok(segment()));
        let Ok(dpr_rewrite::Parsed::Ip(parsed)) = dpr_rewrite::parse(&frame) else { panic!("IPv4") };
        let dpr_rewrite::Kind::Tcp(header) = parsed.packet.kind else { panic!("TCP") };
        assert_eq!((header.source_port, header.sequence, header.flags), (4000, 7, segment().flags));
    }

    #[test]
    fn a_damaged_segment_is_refused() {
        let mut frame = segment().to_frame();
        *frame.last_mut().unwrap() ^= 1;

        assert_eq!(Segment::from_frame(&frame), Err(NotASegment::Checksum));
        assert_eq!(Segment::from_frame(&frame[..40]), Err(NotASegment::Malformed));
    }
}
