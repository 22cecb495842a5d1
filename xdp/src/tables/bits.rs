//! What most packets of others are told by: a bit for each port, and for each address.

use crate::abi::BIT_WORDS;
use crate::content::Content;
use dpr_rewrite::{gue, protocol};

/// A bit for each port of a service: of TCP, then of UDP, where tunnels have one as well. What was not written yet has none.
pub(super) fn port_bits(content: &Content) -> Vec<u64> {
    let mut words = vec![0; 2 * BIT_WORDS];
    let (tcp, udp) = words.split_at_mut(BIT_WORDS);
    for key in content.services.keys() {
        let words = if key.protocol == protocol::UDP { &mut *udp } else { &mut *tcp };
        set_bit(words, u16::from_be_bytes(key.port));
    }
    if !content.nodes.is_empty() {
        set_bit(udp, gue::PORT);
    }
    for port in content.nat_ports.into_iter().flat_map(|ports| ports.first()..=ports.last()) {
        set_bit(tcp, port);
        set_bit(udp, port);
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
