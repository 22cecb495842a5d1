//! Fragmenting IPv4 packets (RFC 791, section 3.2) that do not fit behind a tunnel's headers and may be cut.
//!
//! They are cut before encapsulation and not after (RFC 4459 weighs both): the TCP stack behind the tunnel puts them
//! together, and the node at its end keeps nothing. IPv6 is never fragmented on its way.

use crate::checksum::{fold, sum_of};
use crate::frame::Packet;
use crate::ipv4::{self, FRAGMENT_OFFSET_MASK, FRAGMENT_UNIT, MORE_FRAGMENTS};
use crate::network::Network;
use dpr_model::DropReason;

/// Longest IPv4 header, bytes.
const HEADER_LEN_MAX: usize = 60;
/// Longest IPv4 packet that a receiver can put together, bytes.
const REASSEMBLED_LEN_MAX: usize = 65_535;

/// Option kinds (RFC 791, section 3.1).
const OPTION_END: u8 = 0;
const OPTION_NO_OPERATION: u8 = 1;
/// Set in the kind of options that every fragment has.
const OPTION_COPIED: u8 = 0x80;

/// The fragments of one IPv4 packet, which may be a fragment itself.
#[derive(Debug)]
pub struct Fragments<'a> {
    /// Header of the packet, and of the first fragment.
    first_header: &'a [u8],
    /// Header of all other fragments: without the options that are not copied.
    later_header: Header,
    data: &'a [u8],
    mtu: usize,
    /// Flags and fragment offset of the packet.
    fragment: u16,
    /// Bytes of `data` that are out already; `None` when all are.
    done: Option<usize>,
}

#[derive(Debug)]
struct Header {
    bytes: [u8; HEADER_LEN_MAX],
    len: usize,
}

impl<'a> Fragments<'a> {
    /// Cuts `packet` of `bytes` into packets of at most `mtu` bytes; one that fits is one piece.
    ///
    /// # Errors
    /// `TooBig` when the packet must not be fragmented, or `mtu` has no room for data; `Malformed` for broken options
    /// and for a fragment that reaches past any packet's end.
    pub fn new(bytes: &'a [u8], packet: &Packet, mtu: u16) -> Result<Self, DropReason> {
        let Network::V4(ip) = &packet.ip else { return Err(DropReason::TooBig) };
        let mtu = usize::from(mtu);
        let header_len = ip.header_len();
        let fits = ip.total_len() <= mtu;
        if !fits && (ip.dont_fragment() || mtu < header_len + FRAGMENT_UNIT) {
            return Err(DropReason::TooBig);
        }
        let whole = bytes.get(packet.at..packet.end()).ok_or(DropReason::Truncated)?;
        let (first_header, data) = whole.split_at_checked(header_len).ok_or(DropReason::Truncated)?;
        if header_len + ip.fragment_offset() + data.len() > REASSEMBLED_LEN_MAX {
            return Err(DropReason::Malformed);
        }
        let later_header = Header::of_later_fragments(first_header)?;
        Ok(Self { first_header, later_header, data, mtu, fragment: ip.fragment_field(), done: Some(0) })
    }

    /// Writes the next fragment, an IPv4 packet, to the start of `out` and returns its length.
    ///
    /// # Errors
    /// `Truncated` when `out` is too short for it.
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<Result<usize, DropReason>> {
        let from = self.done?;
        let header =
            if from == 0 { self.first_header } else { &self.later_header.bytes[..self.later_header.len] };
        let room = self.mtu - header.len();
        let is_last = self.data.len() - from <= room;
        let until = if is_last { self.data.len() } else { from + room / FRAGMENT_UNIT * FRAGMENT_UNIT };
        self.done = (!is_last).then_some(until);
        let data = &self.data[from..until];
        Some(write(out, header, data, fragment_field(self.fragment, from, is_last)))
    }
}

/// Flags and offset of the piece that begins `from` bytes into a packet with `of_packet`.
fn fragment_field(of_packet: u16, from: usize, is_last: bool) -> u16 {
    // The sum was checked to stay within a packet's length, so it fits its thirteen bits.
    let offset = (of_packet & FRAGMENT_OFFSET_MASK) + (from / FRAGMENT_UNIT) as u16;
    let more = if is_last { of_packet & MORE_FRAGMENTS } else { MORE_FRAGMENTS };
    of_packet & !(FRAGMENT_OFFSET_MASK | MORE_FRAGMENTS) | more | offset
}

fn write(out: &mut [u8], header: &[u8], data: &[u8], fragment: u16) -> Result<usize, DropReason> {
    use ipv4::field::{CHECKSUM, FRAGMENT, TOTAL_LENGTH};
    let total_len = header.len() + data.len();
    let out = out.get_mut(..total_len).ok_or(DropReason::Truncated)?;
    let (ip, payload) = out.split_at_mut(header.len());
    ip.copy_from_slice(header);
    payload.copy_from_slice(data);
    // No longer than the packet it was cut from, whose length was a u16.
    ip[TOTAL_LENGTH..TOTAL_LENGTH + 2].copy_from_slice(&(total_len as u16).to_be_bytes());
    ip[FRAGMENT..FRAGMENT + 2].copy_from_slice(&fragment.to_be_bytes());
    ip[CHECKSUM..CHECKSUM + 2].copy_from_slice(&[0, 0]);
    let sum = !fold(sum_of(ip));
    ip[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(total_len)
}

impl Header {
    /// The header of fragments behind the first, given the first one's.
    fn of_later_fragments(first: &[u8]) -> Result<Self, DropReason> {
        let (fixed, mut options) = first.split_at_checked(ipv4::HEADER_LEN).ok_or(DropReason::Truncated)?;
        let mut header = Self { bytes: [OPTION_END; HEADER_LEN_MAX], len: ipv4::HEADER_LEN };
        header.bytes[..ipv4::HEADER_LEN].copy_from_slice(fixed);
        while let [kind, rest @ ..] = options {
            let option_len = match *kind {
                OPTION_END => break,
                OPTION_NO_OPERATION => 1,
                _ => usize::from(*rest.first().filter(|len| **len >= 2).ok_or(DropReason::Malformed)?),
            };
            let (option, behind) = options.split_at_checked(option_len).ok_or(DropReason::Malformed)?;
            if kind & OPTION_COPIED != 0 {
                // Together no longer than the options they are taken from.
                header.bytes[header.len..header.len + option_len].copy_from_slice(option);
                header.len += option_len;
            }
            options = behind;
        }
        header.len = header.len.next_multiple_of(4);
        header.bytes[0] = 0x40 | (header.len / 4) as u8;
        Ok(header)
    }
}
