//! The straight way for what most packets are: a whole TCP segment over IPv4 without IP options.
//!
//! It looks at fixed offsets after a single check of the length, in words as wide as the machine's, and calls nobody. It
//! never says what is wrong with a packet: whatever is not plain, or not sound, is left to the general way, which finds out.

use crate::ipv4::field::TOTAL_LENGTH;
use crate::ipv4::{self, Ipv4Header};
use crate::protocol;
use crate::tcp::field::DATA_OFFSET;
use crate::tcp::{self, TcpHeader};
use core::array;

/// Length of both headers without TCP options, bytes.
const HEADERS_LEN: usize = ipv4::HEADER_LEN + tcp::HEADER_LEN;

/// What the first three words of a plain header are where [`FIXED_BITS`] says that it matters: version 4 and five words of
/// header, no fragment, TCP.
const FIXED: [u32; 3] = words([[0x45, 0, 0, 0], [0; 4], [0, protocol::TCP, 0, 0]]);
const FIXED_BITS: [u32; 3] =
    words([[0xff, 0, 0, 0], [0, 0, FRAGMENT_BITS[0], FRAGMENT_BITS[1]], [0, 0xff, 0, 0]]);
const FRAGMENT_BITS: [u8; 2] = ipv4::FRAGMENT_MASK.to_be_bytes();

/// Both headers of a plain segment that begins at `at`, and perhaps has padding behind it; `None` for anything else.
#[inline(always)]
pub(super) fn segment(frame: &[u8], at: usize) -> Option<(Ipv4Header, TcpHeader)> {
    let bytes = frame.get(at..)?;
    let headers: &[u8; HEADERS_LEN] = bytes.first_chunk()?;
    let (ip, tcp) = headers.split_first_chunk()?;
    let tcp = tcp.first_chunk()?;
    let ip_words: [u32; 5] = array::from_fn(|nth| u32::from_ne_bytes(ip.as_chunks().0[nth]));
    let differs = |nth: usize| ip_words[nth] & FIXED_BITS[nth] ^ FIXED[nth];
    if differs(0) | differs(1) | differs(2) != 0 {
        return None;
    }
    // Words of any width and order will do for a sum (RFC 1071, section 2). One that is 65,535 in one's complement is a
    // multiple of it; so would be zero, which no header adds up to that says "version 4".
    let sum: u64 = ip_words.into_iter().map(u64::from).sum();
    if !sum.is_multiple_of(0xffff) {
        return None;
    }
    let total_len = usize::from(u16::from_be_bytes([ip[TOTAL_LENGTH], ip[TOTAL_LENGTH + 1]]));
    let tcp_len = usize::from(tcp[DATA_OFFSET] >> 4) * 4;
    let is_sound =
        total_len <= bytes.len() && tcp_len >= tcp::HEADER_LEN && ipv4::HEADER_LEN + tcp_len <= total_len;
    is_sound.then(|| (Ipv4Header::from_checked(ip), TcpHeader::from_checked(tcp)))
}

/// As they lie in memory.
const fn words<const N: usize>(bytes: [[u8; 4]; N]) -> [u32; N] {
    let mut words = [0; N];
    let mut nth = 0;
    while nth < N {
        words[nth] = u32::from_ne_bytes(bytes[nth]);
        nth += 1;
    }
    words
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::checksum::{fold, sum_of};
    use crate::ethernet::{self, ethertype};
    use crate::frame::{Kind, Packet, Parsed, Tags, packet_of, parse, parse_any};
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const IP: usize = ethernet::HEADER_LEN;
    const TCP: usize = IP + ipv4::HEADER_LEN;

    /// A sound frame: behind `transport`, `more` bytes of options and data, and `padding` bytes behind the packet.
    fn frame_of(fields: ipv4::Fields, transport: [u8; 16], more: usize, padding: usize) -> Vec<u8> {
        let total_len = (ipv4::HEADER_LEN + transport.len() + more) as u16;
        let mut frame = vec![2; IP - 2];
        frame.extend(ethertype::IPV4.to_be_bytes());
        frame.extend(ipv4::header(&ipv4::Fields { total_len, ..fields }));
        frame.extend(transport);
        frame.resize(IP + usize::from(total_len) + padding, 0);
        frame
    }

    fn fields(source: u32, destination: u32) -> ipv4::Fields {
        let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
        ipv4::Fields { tos: 0, total_len: 0, id: 7, ttl: 64, protocol: protocol::TCP, source, destination }
    }

    fn any_plain() -> impl Strategy<Value = Vec<u8>> {
        let ip = (any::<(u8, u16, u8)>(), any::<(u32, u32)>());
        (ip, any::<[u8; 16]>(), 5_u8..8, 16_usize..40, 0_usize..8).prop_map(
            |(((tos, id, ttl), (source, destination)), mut transport, words, more, padding)| {
                transport[DATA_OFFSET] = words << 4 | transport[DATA_OFFSET] & 0x0f;
                let fields = ipv4::Fields { tos, id, ttl, ..fields(source, destination) };
                frame_of(fields, transport, more, padding)
            },
        )
    }

    /// Sums the IP header up anew.
    fn finish(frame: &mut [u8]) {
        let at = IP + ipv4::field::CHECKSUM;
        frame[at..at + 2].fill(0);
        let sum = !fold(sum_of(&frame[IP..TCP]));
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// What the general way says about the packet of a frame.
    fn general(frame: &[u8]) -> Result<Packet, dpr_model::DropReason> {
        packet_of(frame, IP, Ipv4Header::parse(&frame[IP..])?)
    }

    proptest! {
        #[test]
        fn the_straight_way_says_of_a_plain_segment_what_the_general_one_says(frame in any_plain()) {
            let (ip, tcp) = segment(&frame, IP).expect("the frame is plain");

            let packet = Packet { at: IP, ip: ip.into(), kind: Kind::Tcp(tcp) };
            prop_assert_eq!(Ok(packet), general(&frame));
        }

        #[test]
        fn whatever_is_changed_the_straight_way_takes_nothing_that_the_general_one_refuses(
            mut frame in any_plain(),
            changes in prop::collection::vec((IP..TCP + tcp::HEADER_LEN, any::<u8>()), 1..3),
            is_finished: bool,
            len in TCP..100,
        ) {
            changes.into_iter().for_each(|(at, byte)| frame[at] = byte);
            if is_finished {
                finish(&mut frame);
            }
            frame.truncate(len);

            if let Some((ip, tcp)) = segment(&frame, IP) {
                let packet = Packet { at: IP, ip: ip.into(), kind: Kind::Tcp(tcp) };
                prop_assert_eq!(Ok(packet), general(&frame));
            }
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_general_way() {
        let mut transport = [0; 16];
        transport[DATA_OFFSET] = 5 << 4;
        let plain = |fields| frame_of(fields, transport, 4, 6)[IP..].to_vec();
        let sound = plain(fields(1, 2));

        assert!(segment(&sound, 0).is_some());
        assert!(segment(&sound[..HEADERS_LEN - 1], 0).is_none());
        assert!(segment(&plain(ipv4::Fields { protocol: protocol::UDP, ..fields(1, 2) }), 0).is_none());
    }

    #[test]
    fn a_frame_is_parsed_alike_with_and_without_the_straight_way() {
        let mut transport = [0; 16];
        transport[DATA_OFFSET] = 5 << 4;
        let frame = frame_of(fields(1, 2), transport, 4, 6);

        let Ok(Parsed::Ip(parsed)) = parse(&frame) else { panic!("an IP packet") };

        assert_eq!((parsed.tags, parsed.outer), (Tags::default(), None));
        assert_eq!(parse_any(&frame), Ok(Parsed::Ip(parsed)));
    }
}
