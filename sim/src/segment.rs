//! TCP segments as frames: a writer of its own, and a reader that believes nothing.

use dpr_model::{ClientSocket, FlowKey};
use dpr_rewrite::checksum::{fold, pseudo_header, sum_of};
use dpr_rewrite::ethernet::{self, ethertype};
use dpr_rewrite::tcp::{self, flag};
use dpr_rewrite::{Kind, ipv4, ipv6, parse_ip, protocol};
use std::net::{IpAddr, SocketAddr};

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
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
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
            source: SocketAddr::new(flow.client.address, flow.client.port),
            destination: SocketAddr::new(flow.service.address, flow.service.port),
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
    #[error("it is not a whole IP packet with TCP in it")]
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
        let mut frame = Vec::with_capacity(ethernet::HEADER_LEN + ipv6::HEADER_LEN + segment_len);
        self.write_ip_header(&mut frame, segment_len);
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
        let parsed = parse_ip(frame, ethernet::HEADER_LEN).map_err(|_| NotASegment::Malformed)?;
        let (Kind::Tcp(_), None) = (parsed.packet.kind, parsed.outer) else {
            return Err(NotASegment::Malformed);
        };
        let ip = parsed.packet.ip;
        let bytes = &frame[parsed.packet.transport_at()..parsed.packet.end()];
        let fixed: &[u8; tcp::HEADER_LEN] = bytes.first_chunk().ok_or(NotASegment::Malformed)?;
        let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let number = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let header_len = usize::from(fixed[12] >> 4) * 4;
        let options = bytes.get(tcp::HEADER_LEN..header_len).ok_or(NotASegment::Malformed)?;
        let segment = Self {
            source: SocketAddr::new(ip.source(), word(0)),
            destination: SocketAddr::new(ip.destination(), word(2)),
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

    fn write_ip_header(&self, frame: &mut Vec<u8>, segment_len: usize) {
        let ethernet = |ethertype| ethernet::header(Default::default(), Default::default(), ethertype);
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend_from_slice(&ethernet(ethertype::IPV4));
                frame.extend_from_slice(&ipv4::header(&ipv4::Fields {
                    tos: 0,
                    total_len: u16::try_from(ipv4::HEADER_LEN + segment_len).unwrap_or(u16::MAX),
                    id: 0,
                    ttl: TTL,
                    protocol: protocol::TCP,
                    source,
                    destination,
                }));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend_from_slice(&ethernet(ethertype::IPV6));
                frame.extend_from_slice(&ipv6::header(&ipv6::Fields {
                    traffic_class: 0,
                    flow_label: 0,
                    payload_len: u16::try_from(segment_len).unwrap_or(u16::MAX),
                    protocol: protocol::TCP,
                    hop_limit: TTL,
                    source,
                    destination,
                }));
            }
            (source, destination) => panic!("a segment from {source} to {destination}"),
        }
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
        pseudo_header(self.source.ip(), self.destination.ip(), protocol::TCP, length) + sum_of(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment([source, destination]: [&str; 2]) -> Segment {
        Segment {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            sequence: 7,
            acknowledgement: 9,
            flags: flag::SYN | flag::ACK,
            mss: Some(1460),
            data: vec![1, 2, 3],
        }
    }

    const ENDS: [[&str; 2]; 2] =
        [["198.51.100.1:4000", "10.0.0.1:80"], ["[2001:db8::1]:4000", "[fd00:a::1]:80"]];

    #[test]
    fn what_is_written_is_read_again_by_this_reader_and_by_the_data_plane() {
        for segment in ENDS.map(segment) {
            let frame = segment.to_frame();

            assert_eq!(Segment::from_frame(&frame), Ok(segment.clone()));
            let Ok(dpr_rewrite::Parsed::Ip(parsed)) = dpr_rewrite::parse(&frame) else { panic!("IP") };
            let Kind::Tcp(header) = parsed.packet.kind else { panic!("TCP") };
            assert_eq!((header.source_port(), header.sequence(), header.flags()), (4000, 7, segment.flags));
        }
    }

    #[test]
    fn a_damaged_segment_is_refused() {
        for segment in ENDS.map(segment) {
            let mut frame = segment.to_frame();
            *frame.last_mut().unwrap() ^= 1;

            assert_eq!(Segment::from_frame(&frame), Err(NotASegment::Checksum));
            assert_eq!(Segment::from_frame(&frame[..40]), Err(NotASegment::Malformed));
        }
    }
}
