//! Which frames the data plane is shown: classic BPF, so that the rest of the host's traffic costs it nothing.
//!
//! The filter only saves work. What passes it is parsed and judged like anything else.

mod tagged;

use super::interest::{Interest, Socket};
use dpr_model::{PortRange, Protocol};
use dpr_rewrite::ethernet::ethertype;
use dpr_rewrite::{gue, protocol};
use libc::sock_filter;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

/// A classic BPF program holds at most this many instructions (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
/// Half word at the index register plus an offset.
const LOAD_HALF_INDEXED: u16 = 0x48;
/// Index register = header length of the IPv4 packet at an offset.
const LOAD_INDEX_IHL: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const JUMP: u16 = 0x05;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// Offsets from the start of an Ethernet frame.
const ETHERTYPE_AT: u32 = 12;
const IP_AT: u32 = 14;
const ARP_TARGET_AT: u32 = 38;
const V4_FRAGMENT_AT: u32 = IP_AT + 6;
const V4_PROTOCOL_AT: u32 = IP_AT + 9;
const V4_SOURCE_AT: u32 = IP_AT + 12;
const V4_DESTINATION_AT: u32 = IP_AT + 16;
const V6_NEXT_HEADER_AT: u32 = IP_AT + 6;
const V6_SOURCE_AT: u32 = IP_AT + 8;
const V6_DESTINATION_AT: u32 = IP_AT + 24;
const V6_PAYLOAD_AT: u32 = IP_AT + 40;
/// Target of a neighbour solicitation (RFC 4861, section 4.3).
const ND_TARGET_AT: u32 = V6_PAYLOAD_AT + 8;
const ND_SOLICITATION: u32 = 135;
/// Destination port in a TCP or UDP header.
const DESTINATION_PORT_AT: u32 = 2;
/// "More fragments" and the offset.
const V4_ANY_FRAGMENT: u32 = 0x3fff;

/// `SKF_AD_OFF`: what is loaded from here on is no part of the frame.
const ANCILLARY: u32 = 0xffff_f000;
/// `SKF_AD_VLAN_TAG`: priority and identifier of the outer VLAN tag, which was taken off the frame.
const VLAN_TAG_AT: u32 = ANCILLARY + 44;
/// `SKF_AD_VLAN_TAG_PRESENT`: 1 when there was one.
const VLAN_TAG_PRESENT_AT: u32 = ANCILLARY + 48;

const ACCEPT_ALL_BYTES: u32 = 0x4_0000;

/// A filter that accepts every frame, for the delivery device.
pub(crate) fn everything() -> Vec<sock_filter> {
    vec![statement(RETURN, ACCEPT_ALL_BYTES)]
}

/// The program for `interest`; when it would grow too long for the kernel, one that shows everything instead.
pub(crate) fn program(interest: &Interest) -> Vec<sock_filter> {
    let untagged = judged(&blocks(interest));
    let program = match interest.vlans.is_empty() {
        true => [tagged_block(), untagged].concat(),
        false => tagged::program(interest, untagged),
    };
    if program.len() > INSTRUCTIONS_MAX { everything() } else { program }
}

/// One block after the other; what none accepts is rejected.
fn judged(blocks: &[Vec<sock_filter>]) -> Vec<sock_filter> {
    let mut program = blocks.concat();
    program.push(statement(RETURN, 0));
    program
}

fn blocks(interest: &Interest) -> Vec<Vec<sock_filter>> {
    let mut blocks: Vec<_> = interest.asked_for.iter().map(|address| neighbour_block(*address)).collect();
    blocks.extend(interest.half_nat_servers.iter().map(|(_, server)| from_block(server.ip())));
    for address in addresses(interest) {
        blocks.push(whole_address_block(address));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let ports = ports(interest, protocol, address);
            if !ports.is_empty() {
                blocks
                    .push(ports_block(address, protocol, |block| block.accept_any_of(ports.iter().copied())));
            }
            for (.., range) in interest.ranges.iter().filter(|(of, to, _)| (*of, *to) == (protocol, address))
            {
                blocks.push(ports_block(address, protocol, |block| block.accept_range(*range)));
            }
            for (range, _) in interest.nat.iter().filter(|(_, to)| to.contains(&address)) {
                blocks.push(ports_block(address, protocol, |block| block.accept_range(*range)));
            }
        }
    }
    blocks
}

/// Every address that packets of interest come to.
fn addresses(interest: &Interest) -> BTreeSet<IpAddr> {
    let services = interest.services.iter().map(|(_, socket)| socket.ip());
    services.chain([interest.node_address]).collect()
}

fn ports(interest: &Interest, protocol: Protocol, address: IpAddr) -> Vec<u32> {
    let is_there = |socket: &&Socket| socket.0 == protocol && socket.1.ip() == address;
    let services = interest.services.iter().filter(is_there).map(|(_, socket)| u32::from(socket.port()));
    let tunnels = protocol == Protocol::Udp && address == interest.node_address;
    services.chain(tunnels.then_some(u32::from(gue::PORT))).collect()
}

/// Rejects frames that carried a VLAN tag: they belong to another interface.
fn tagged_block() -> Vec<sock_filter> {
    vec![
        statement(LOAD_BYTE, VLAN_TAG_PRESENT_AT),
        sock_filter { code: JUMP_EQUAL, jt: 1, jf: 0, k: 0 },
        statement(RETURN, 0),
    ]
}

/// Accepts who asks for the MAC address of `target`, falls through otherwise.
fn neighbour_block(target: IpAddr) -> Vec<sock_filter> {
    let mut block = Block::new();
    match target {
        IpAddr::V4(target) => {
            block.require(LOAD_HALF, ETHERTYPE_AT, ethertype::ARP.into());
            block.require(LOAD_WORD, ARP_TARGET_AT, u32::from(target));
        }
        IpAddr::V6(target) => {
            block.require(LOAD_HALF, ETHERTYPE_AT, ethertype::IPV6.into());
            block.require(LOAD_BYTE, V6_NEXT_HEADER_AT, u32::from(protocol::ICMPV6));
            block.require(LOAD_BYTE, V6_PAYLOAD_AT, ND_SOLICITATION);
            block.require_v6(ND_TARGET_AT, target);
        }
    }
    block.accept();
    block.finish()
}

/// Accepts everything from `source`.
fn from_block(source: IpAddr) -> Vec<sock_filter> {
    let mut block = Block::new();
    match source {
        IpAddr::V4(source) => {
            block.require(LOAD_HALF, ETHERTYPE_AT, ethertype::IPV4.into());
            block.require(LOAD_WORD, V4_SOURCE_AT, u32::from(source));
        }
        IpAddr::V6(source) => {
            block.require(LOAD_HALF, ETHERTYPE_AT, ethertype::IPV6.into());
            block.require_v6(V6_SOURCE_AT, source);
        }
    }
    block.accept();
    block.finish()
}

/// Accepts what comes to `destination` and has no port to tell it by: ICMP, tunnels, fragments.
fn whole_address_block(destination: IpAddr) -> Vec<sock_filter> {
    use protocol::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6, IPV4, IPV6, ROUTING};
    let mut block = Block::to(destination);
    if destination.is_ipv4() {
        block.push(statement(LOAD_HALF, V4_FRAGMENT_AT));
        block.push(sock_filter { code: JUMP_ANY_BIT, jt: 0, jf: 1, k: V4_ANY_FRAGMENT });
        block.accept();
        block.push(statement(LOAD_BYTE, V4_PROTOCOL_AT));
        block.accept_any_of([ICMP, IPV4, IPV6].map(u32::from));
    } else {
        block.push(statement(LOAD_BYTE, V6_NEXT_HEADER_AT));
        let without_ports = [ICMPV6, IPV4, IPV6, FRAGMENT, HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS];
        block.accept_any_of(without_ports.map(u32::from));
    }
    block.finish()
}

/// Looks at the destination port of what `protocol` brings to `destination`.
fn ports_block(destination: IpAddr, protocol: Protocol, judge: impl Fn(&mut Block)) -> Vec<sock_filter> {
    let mut block = Block::to(destination);
    let number = u32::from(protocol.number());
    if destination.is_ipv4() {
        block.require(LOAD_BYTE, V4_PROTOCOL_AT, number);
        block.push(statement(LOAD_INDEX_IHL, IP_AT));
        block.push(statement(LOAD_HALF_INDEXED, IP_AT + DESTINATION_PORT_AT));
    } else {
        block.require(LOAD_BYTE, V6_NEXT_HEADER_AT, number);
        block.push(statement(LOAD_HALF, V6_PAYLOAD_AT + DESTINATION_PORT_AT));
    }
    judge(&mut block);
    block.finish()
}

/// A run of tests: the first that fails jumps behind the block.
struct Block {
    instructions: Vec<sock_filter>,
    /// Unconditional jumps whose target is the end of the block.
    exits: Vec<usize>,
}

impl Block {
    fn new() -> Self {
        Self { instructions: Vec::new(), exits: Vec::new() }
    }

    /// What comes to `destination`.
    fn to(destination: IpAddr) -> Self {
        let mut block = Self::new();
        match destination {
            IpAddr::V4(destination) => {
                block.require(LOAD_HALF, ETHERTYPE_AT, ethertype::IPV4.into());
                block.require(LOAD_WORD, V4_DESTINATION_AT, u32::from(destination));
            }
            IpAddr::V6(destination) => {
                block.require(LOAD_HALF, ETHERTYPE_AT, ethertype::IPV6.into());
                block.require_v6(V6_DESTINATION_AT, destination);
            }
        }
        block
    }

    fn push(&mut self, instruction: sock_filter) {
        self.instructions.push(instruction);
    }

    /// Leaves the block unless the loaded value is `expected`.
    fn require(&mut self, load: u16, at: u32, expected: u32) {
        self.push(statement(load, at));
        self.require_loaded(expected);
    }

    /// Leaves the block unless the loaded value is `expected`.
    fn require_loaded(&mut self, expected: u32) {
        self.push(sock_filter { code: JUMP_EQUAL, jt: 1, jf: 0, k: expected });
        self.exits.push(self.instructions.len());
        self.push(statement(JUMP, 0));
    }

    /// Leaves the block unless the 16 bytes there are `expected`.
    fn require_v6(&mut self, at: u32, expected: Ipv6Addr) {
        let bits = u128::from(expected);
        for nth in 0..4 {
            let word = (bits >> (96 - 32 * nth)) as u32;
            self.require(LOAD_WORD, at + 4 * nth, word);
        }
    }

    /// Accepts the frame.
    fn accept(&mut self) {
        self.push(statement(RETURN, ACCEPT_ALL_BYTES));
    }

    /// Accepts the frame if the loaded value is any of `values`.
    fn accept_any_of(&mut self, values: impl IntoIterator<Item = u32>) {
        for value in values {
            self.push(sock_filter { code: JUMP_EQUAL, jt: 0, jf: 1, k: value });
            self.accept();
        }
    }

    /// Accepts the frame if the loaded value is a port of `range`.
    fn accept_range(&mut self, range: PortRange) {
        self.push(sock_filter { code: JUMP_AT_LEAST, jt: 0, jf: 2, k: range.first().into() });
        self.push(sock_filter { code: JUMP_GREATER, jt: 1, jf: 0, k: range.last().into() });
        self.accept();
    }

    fn finish(mut self) -> Vec<sock_filter> {
        let end = self.instructions.len();
        for exit in self.exits {
            // Jump offsets count from the next instruction; a program has at most 4096.
            self.instructions[exit].k = (end - exit - 1) as u32;
        }
        self.instructions
    }
}

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests;
