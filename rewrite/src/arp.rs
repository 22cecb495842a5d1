//! ARP for IPv4 over Ethernet (RFC 826): understanding requests, writing replies.

use crate::ethernet::{self, ethertype};
use core::net::Ipv4Addr;
use dpr_model::MacAddress;

/// Length of an ARP packet for IPv4 over Ethernet, bytes.
const PACKET_LEN: usize = 28;
/// Length of a reply with its Ethernet header, bytes.
pub const REPLY_LEN: usize = ethernet::HEADER_LEN + PACKET_LEN;

/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// "Who has `target`? Tell `sender`."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpRequest {
    /// MAC address of whoever asks.
    pub sender_mac: MacAddress,
    /// IPv4 address of whoever asks; unspecified in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// The address that is asked for.
    pub target: Ipv4Addr,
}

impl ArpRequest {
    /// The request in an Ethernet frame, if it is one.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let packet: &[u8; PACKET_LEN] = frame.get(ethernet::HEADER_LEN..)?.first_chunk()?;
        if packet[..6] != ETHERNET_IPV4 || packet[6..8] != REQUEST {
            return None;
        }
        Some(Self {
            sender_mac: MacAddress([packet[8], packet[9], packet[10], packet[11], packet[12], packet[13]]),
            sender: Ipv4Addr::new(packet[14], packet[15], packet[16], packet[17]),
            target: Ipv4Addr::new(packet[24], packet[25], packet[26], packet[27]),
        })
    }

    /// The frame that answers with `mac`.
    pub fn reply(&self, mac: MacAddress) -> [u8; REPLY_LEN] {
        let mut frame = [0; REPLY_LEN];
        frame[..14].copy_from_slice(&ethernet::header(self.sender_mac, mac, ethertype::ARP));
        frame[14..20].copy_from_slice(&ETHERNET_IPV4);
        frame[20..22].copy_from_slice(&REPLY);
        frame[22..28].copy_from_slice(&mac.0);
        frame[28..32].copy_from_slice(&self.target.octets());
        frame[32..38].copy_from_slice(&self.sender_mac.0);
        frame[38..42].copy_from_slice(&self.sender.octets());
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_understood_and_answered() {
        let mut frame = [0u8; 42];
        frame[12..14].copy_from_slice(&ethertype::ARP.to_be_bytes());
        frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        frame[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[28..32].copy_from_slice(&[10, 0, 0, 1]);
        frame[38..42].copy_from_slice(&[10, 0, 0, 9]);

        let request = ArpRequest::parse(&frame).unwrap();
        let reply = request.reply(MacAddress([2, 0, 0, 0, 0, 9]));

        assert_eq!(request.target, Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(reply[..6], [2, 0, 0, 0, 0, 1]);
        assert_eq!(reply[20..32], [0, 2, 2, 0, 0, 0, 0, 9, 10, 0, 0, 9]);
        assert_eq!(ArpRequest::parse(&reply), None);
        assert_eq!(ArpRequest::parse(&frame[..41]), None);
    }
}
