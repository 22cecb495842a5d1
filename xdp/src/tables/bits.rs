//! What most packets of others are told by: a bit for each port, and for each address.

use crate::abi::{BIT_WORDS, FurtherPorts};
use crate::content::Content;
use dpr_rewrite::{gue, protocol};

/// A bit for each port of a service, further ones too: of TCP, then of UDP, where tunnels have one as well. What was not written yet has none.
pub(super) fn port_bits(content: &Content) -> Vec<u64> {
    let mut words = vec![0; 2 * BIT_WORDS];
    let (tcp, udp) = words.split_at_mut(BIT_WORDS);
    for key in content.services.keys() {
        let words = if key.protocol == protocol::UDP { &mut *udp } else { &mut *tcp };
        set_bit(words, u16::from_be_bytes(key.port));
    }
    for range in content.further_ports.values().flat_map(FurtherPorts::iter) {
        let words = if range.protocol == protocol::UDP { &mut *udp } else { &mut *tcp };
        set_bits(words, range.first, range.last);
    }
    if !content.nodes.is_empty() {
        set_bit(udp, gue::PORT);
    }
    if let Some(ports) = content.nat_ports {
        set_bits(tcp, ports.first(), ports.last());
        set_bits(udp, ports.first(), ports.last());
    }
    words
}

/// A bit for each address that something is known about, by its words of 16 bits.
pub(super) fn address_bits(content: &Content) -> Vec<u64> {
    let mut words = vec![0; BIT_WORDS];
    for address in content.addresses.keys() {
        let (halves, _) = address.as_chunks::<2>();
        // As a processor with the programs' byte order reads them.
        set_bit(&mut words, halves.iter().fold(0, |bit, half| bit ^ u16::from_ne_bytes(*half)));
    }
    words
}

fn set_bit(words: &mut [u64], number: u16) {
    words[usize::from(number / 64)] |= 1 << (number % 64);
}

/// The same of all numbers from `first` to `last`, word by word: there may be thousands.
fn set_bits(words: &mut [u64], first: u16, last: u16) {
    for word in first / 64..=last / 64 {
        let from = if word == first / 64 { first % 64 } else { 0 };
        let to = if word == last / 64 { last % 64 } else { 63 };
        words[usize::from(word)] |= u64::MAX << from & u64::MAX >> (63 - to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::FurtherRange;
    use std::collections::BTreeMap;

    #[test]
    fn every_further_port_has_a_bit_and_no_other() {
        for (first, last) in [(20, 20), (63, 64), (1, 65_535), (100, 1000), (128, 191)] {
            let mut ports = FurtherPorts::default();
            ports.add(FurtherRange { first, last, port: [0, 80], protocol: protocol::UDP, zero: 0 });
            let further_ports = BTreeMap::from([([1; 16], ports)]);

            let words = port_bits(&Content { further_ports, ..Content::default() });

            let (tcp, udp) = words.split_at(BIT_WORDS);
            let has_bit = |port: u16| udp[usize::from(port / 64)] >> (port % 64) & 1 == 1;
            assert!((0..=u16::MAX).all(|port| has_bit(port) == (first..=last).contains(&port)), "{first}");
            assert!(tcp.iter().all(|word| *word == 0));
        }
    }
}
