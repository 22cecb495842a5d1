//! ARP for IPv4 over Ethernet (RFC 826): understanding who asks and who answers, writing replies, announcements and questions.

use crate::ethernet::{self, EthernetHeader, Tags, ethertype};
use core::net::Ipv4Addr;
use dpr_model::{DropReason, MacAddress};

/// Length of an ARP packet for IPv4 over Ethernet, bytes.
const PACKET_LEN: usize = 28;
/// Longest frame that is written here, bytes.
pub const FRAME_LEN_MAX: usize = ethernet::HEADER_LEN_MAX + PACKET_LEN;

/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// "Who has `target`? Tell `sender`."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpRequest {
    /// VLAN tags that the request came with, and the reply leaves with.
    pub tags: Tags,
    /// MAC address of whoever asks.
    pub sender_mac: MacAddress,
    /// IPv4 address of whoever asks; unspecified in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// The address that is asked for.
    pub target: Ipv4Addr,
}

impl ArpRequest {
    /// The request in an Ethernet frame whose header is `ethernet`, if it is one.
    pub fn parse(frame: &[u8], ethernet: &EthernetHeader) -> Option<Self> {
        let packet = packet_of(frame, ethernet)?;
        if packet[6..8] != REQUEST {
            return None;
        }
        let (sender, sender_mac) = sender_of(packet);
        let target = Ipv4Addr::new(packet[24], packet[25], packet[26], packet[27]);
        Some(Self { tags: ethernet.tags, sender_mac, sender, target })
    }

    /// Writes the frame that answers with `mac` to the start of `out`; returns its length.
    ///
    /// # Errors
    /// `Truncated` when `out` is shorter than that; [`FRAME_LEN_MAX`] is always enough.
    pub fn reply(&self, mac: MacAddress, out: &mut [u8]) -> Result<usize, DropReason> {
        let ethernet = EthernetHeader {
            destination: self.sender_mac,
            source: mac,
            tags: self.tags,
            ethertype: ethertype::ARP,
        };
        write(&ethernet, REPLY, (mac, self.target), (self.sender_mac, self.sender), out)
    }
}

/// Writes the frame that tells everybody, unasked, that `address` is at `mac` now: a request for it by its holder (RFC
/// 5227, section 3), to the start of `out`. Returns its length.
///
/// # Errors
/// `Truncated` when `out` is shorter than that; [`FRAME_LEN_MAX`] is always enough.
pub fn announcement(
    address: Ipv4Addr,
    mac: MacAddress,
    tags: Tags,
    out: &mut [u8],
) -> Result<usize, DropReason> {
    let ethernet =
        EthernetHeader { destination: MacAddress::BROADCAST, source: mac, tags, ethertype: ethertype::ARP };
    write(&ethernet, REQUEST, (mac, address), (MacAddress::default(), address), out)
}

/// Writes the frame by which the host with `mac` asks everybody for the MAC address of `target` to the start of `out`;
/// returns its length. It is a probe (RFC 5227, section 2.1.1): as it names no address of who asks, nobody learns a wrong
/// one from it.
///
/// # Errors
/// `Truncated` when `out` is shorter than that; [`FRAME_LEN_MAX`] is always enough.
pub fn question(target: Ipv4Addr, mac: MacAddress, tags: Tags, out: &mut [u8]) -> Result<usize, DropReason> {
    let ethernet =
        EthernetHeader { destination: MacAddress::BROADCAST, source: mac, tags, ethertype: ethertype::ARP };
    write(&ethernet, REQUEST, (mac, Ipv4Addr::UNSPECIFIED), (MacAddress::default(), target), out)
}

/// The host that sent a frame with the header `ethernet`, by its own word: whether it asks, answers or announces itself
/// (RFC 826). `None` if the frame is no ARP, or a probe, whose sender has no address yet.
pub fn sender(frame: &[u8], ethernet: &EthernetHeader) -> Option<(Ipv4Addr, MacAddress)> {
    let packet = packet_of(frame, ethernet)?;
    let known = matches!([packet[6], packet[7]], REQUEST | REPLY);
    Some(sender_of(packet)).filter(|(address, mac)| known && !address.is_unspecified() && !mac.is_group())
}

/// The ARP packet for IPv4 over Ethernet in a frame.
fn packet_of<'a>(frame: &'a [u8], ethernet: &EthernetHeader) -> Option<&'a [u8; PACKET_LEN]> {
    let packet: &[u8; PACKET_LEN] = frame.get(ethernet.header_len()..)?.first_chunk()?;
    (ethernet.ethertype == ethertype::ARP && packet[..6] == ETHERNET_IPV4).then_some(packet)
}

fn sender_of(packet: &[u8; PACKET_LEN]) -> (Ipv4Addr, MacAddress) {
    let mac = MacAddress([packet[8], packet[9], packet[10], packet[11], packet[12], packet[13]]);
    (Ipv4Addr::new(packet[14], packet[15], packet[16], packet[17]), mac)
}

fn write(
    ethernet: &EthernetHeader,
    operation: [u8; 2],
    sender: (MacAddress, Ipv4Addr),
    target: (MacAddress, Ipv4Addr),
    out: &mut [u8],
) -> Result<usize, DropReason> {
    let at = ethernet.write(out)?;
    let packet = out.get_mut(at..at + PACKET_LEN).ok_or(DropReason::Truncated)?;
    packet[..6].copy_from_slice(&ETHERNET_IPV4);
    packet[6..8].copy_from_slice(&operation);
    packet[8..14].copy_from_slice(&sender.0.0);
    packet[14..18].copy_from_slice(&sender.1.octets());
    packet[18..24].copy_from_slice(&target.0.0);
    packet[24..28].copy_from_slice(&target.1.octets());
    Ok(at + PACKET_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request with an untagged header, or one with a tag.
    fn request(tag: &[u8]) -> ([u8; 46], usize) {
        let mut frame = [0u8; 46];
        frame[12..12 + tag.len()].copy_from_slice(tag);
        let at = ethernet::HEADER_LEN + tag.len();
        frame[at - 2..at].copy_from_slice(&ethertype::ARP.to_be_bytes());
        frame[at..at + 8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        frame[at + 8..at + 14].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[at + 14..at + 18].copy_from_slice(&[10, 0, 0, 1]);
        frame[at + 24..at + 28].copy_from_slice(&[10, 0, 0, 9]);
        (frame, at + 28)
    }

    #[test]
    fn a_request_is_understood_and_answered_in_its_vlan() {
        for tag in [&[][..], &[0x81, 0x00, 0, 42][..]] {
            let (frame, len) = request(tag);
            let ethernet = EthernetHeader::parse(&frame).unwrap();
            let request = ArpRequest::parse(&frame[..len], &ethernet).unwrap();
            let mut reply = [0; FRAME_LEN_MAX];
            let reply_len = request.reply(MacAddress([2, 0, 0, 0, 0, 9]), &mut reply).unwrap();

            assert_eq!((request.target, reply_len), (Ipv4Addr::new(10, 0, 0, 9), len));
            assert_eq!(reply[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9]);
            assert_eq!(reply[12..len - 28], frame[12..len - 28]);
            assert_eq!(reply[len - 22..len - 10], [0, 2, 2, 0, 0, 0, 0, 9, 10, 0, 0, 9]);
            assert_eq!(ArpRequest::parse(&reply[..len], &ethernet), None);
            assert_eq!(ArpRequest::parse(&frame[..len - 1], &ethernet), None);
        }
    }

    #[test]
    fn an_announcement_goes_to_everybody_and_asks_for_the_address_of_its_sender() {
        let (address, mac) = (Ipv4Addr::new(10, 0, 0, 9), MacAddress([2, 0, 0, 0, 0, 9]));
        let mut frame = [0; FRAME_LEN_MAX];
        let len = announcement(address, mac, Tags::default(), &mut frame).unwrap();

        let ethernet = EthernetHeader::parse(&frame[..len]).unwrap();
        let read = ArpRequest::parse(&frame[..len], &ethernet).unwrap();
        assert_eq!((ethernet.destination, ethernet.source), (MacAddress::BROADCAST, mac));
        assert_eq!((read.sender, read.sender_mac, read.target), (address, mac, address));
        assert_eq!(frame[len - 10..len - 4], [0; 6]);
    }

    #[test]
    fn a_question_names_nobody_and_its_answer_names_who_was_asked_for() {
        let mac = MacAddress([2, 0, 0, 0, 0, 1]);
        let (target, target_mac) = (Ipv4Addr::new(10, 0, 0, 9), MacAddress([2, 0, 0, 0, 0, 9]));
        let tags = Tags::new(ethernet::Tag { ethertype: ethertype::VLAN, control: 42 }, None);
        let mut frame = [0; FRAME_LEN_MAX];
        let len = question(target, mac, tags, &mut frame).unwrap();

        let ethernet = EthernetHeader::parse(&frame[..len]).unwrap();
        assert_eq!(
            (ethernet.destination, ethernet.source, ethernet.tags),
            (MacAddress::BROADCAST, mac, tags)
        );
        assert_eq!(sender(&frame[..len], &ethernet), None);
        let request = ArpRequest::parse(&frame[..len], &ethernet).unwrap();
        assert_eq!((request.target, request.sender), (target, Ipv4Addr::UNSPECIFIED));
        let mut answer = [0; FRAME_LEN_MAX];
        let len = request.reply(target_mac, &mut answer).unwrap();
        let ethernet = EthernetHeader::parse(&answer[..len]).unwrap();
        assert_eq!(sender(&answer[..len], &ethernet), Some((target, target_mac)));
        assert_eq!(sender(&answer[..len - 1], &ethernet), None);
    }
}
