//! Which frames the data plane is shown: classic BPF, so that the rest of the host's traffic costs it nothing.
//!
//! The filter only saves work. What passes it is parsed and judged like anything else.

use libc::sock_filter;
use std::net::Ipv4Addr;

/// What the data plane has to see on the service interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    /// Own service sockets.
    pub(crate) services: Vec<(Ipv4Addr, u16)>,
    /// Where tunnels end.
    pub(crate) node_address: Ipv4Addr,
    /// Addresses to answer ARP for.
    pub(crate) answer_arp_for: Vec<Ipv4Addr>,
}

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
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// Offsets from the start of an Ethernet frame.
const ETHERTYPE_AT: u32 = 12;
const IP_AT: u32 = 14;
const IP_PROTOCOL_AT: u32 = 23;
const IP_DESTINATION_AT: u32 = 30;
const ARP_TARGET_AT: u32 = 38;
/// Destination port, from the index register.
const TCP_DESTINATION_PORT_AT: u32 = IP_AT + 2;

/// Ancillary load (`SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT`): 1 when the device took a VLAN tag off the frame.
const VLAN_TAG_PRESENT_AT: u32 = 0xffff_f000 + 48;

const ACCEPT_ALL_BYTES: u32 = 0x4_0000;

/// A filter that accepts every frame, for the delivery device.
pub(crate) fn everything() -> Vec<sock_filter> {
    vec![statement(RETURN, ACCEPT_ALL_BYTES)]
}

/// The program for `interest`; when it would grow too long for the kernel, one that shows all IPv4 and ARP instead.
pub(crate) fn program(interest: &Interest) -> Vec<sock_filter> {
    let mut blocks = vec![arp_block(&interest.answer_arp_for)];
    blocks.push(protocol_block(4, &[interest.node_address]));
    let mut addresses: Vec<Ipv4Addr> = interest.services.iter().map(|(address, _)| *address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    blocks.push(protocol_block(1, &addresses));
    for address in addresses {
        let ports = interest.services.iter().filter(|(other, _)| *other == address).map(|(_, port)| *port);
        blocks.push(tcp_block(address, &ports.collect::<Vec<_>>()));
    }
    let mut program = tagged_block();
    program.extend(blocks.concat());
    if program.len() >= INSTRUCTIONS_MAX {
        return everything();
    }
    program.push(statement(RETURN, 0));
    program
}

/// Rejects frames that carried a VLAN tag: they belong to another interface.
fn tagged_block() -> Vec<sock_filter> {
    vec![
        statement(LOAD_BYTE, VLAN_TAG_PRESENT_AT),
        sock_filter { code: JUMP_EQUAL, jt: 1, jf: 0, k: 0 },
        statement(RETURN, 0),
    ]
}

/// Accepts ARP for one of `targets`, falls through otherwise.
fn arp_block(targets: &[Ipv4Addr]) -> Vec<sock_filter> {
    let mut block = Block::new();
    block.require(LOAD_HALF, ETHERTYPE_AT, 0x0806);
    block.accept_any_of(LOAD_WORD, ARP_TARGET_AT, targets.iter().map(|target| u32::from(*target)));
    block.finish()
}

/// Accepts an IP protocol to one of `destinations`.
fn protocol_block(protocol: u32, destinations: &[Ipv4Addr]) -> Vec<sock_filter> {
    let mut block = Block::new();
    block.require(LOAD_HALF, ETHERTYPE_AT, 0x0800);
    block.require(LOAD_BYTE, IP_PROTOCOL_AT, protocol);
    block.accept_any_of(LOAD_WORD, IP_DESTINATION_AT, destinations.iter().map(|address| u32::from(*address)));
    block.finish()
}

/// Accepts TCP to `destination` and one of `ports`.
fn tcp_block(destination: Ipv4Addr, ports: &[u16]) -> Vec<sock_filter> {
    let mut block = Block::new();
    block.require(LOAD_HALF, ETHERTYPE_AT, 0x0800);
    block.require(LOAD_BYTE, IP_PROTOCOL_AT, 6);
    block.require(LOAD_WORD, IP_DESTINATION_AT, u32::from(destination));
    block.push(statement(LOAD_INDEX_IHL, IP_AT));
    block.accept_any_of(
        LOAD_HALF_INDEXED,
        TCP_DESTINATION_PORT_AT,
        ports.iter().map(|port| u32::from(*port)),
    );
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

    fn push(&mut self, instruction: sock_filter) {
        self.instructions.push(instruction);
    }

    /// Leaves the block unless the loaded value is `expected`.
    fn require(&mut self, load: u16, at: u32, expected: u32) {
        self.push(statement(load, at));
        self.push(sock_filter { code: JUMP_EQUAL, jt: 1, jf: 0, k: expected });
        self.exits.push(self.instructions.len());
        self.push(statement(JUMP, 0));
    }

    /// Accepts the frame if the loaded value is any of `values`.
    fn accept_any_of(&mut self, load: u16, at: u32, values: impl Iterator<Item = u32>) {
        self.push(statement(load, at));
        for value in values {
            self.push(sock_filter { code: JUMP_EQUAL, jt: 0, jf: 1, k: value });
            self.push(statement(RETURN, ACCEPT_ALL_BYTES));
        }
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
mod tests {
    use super::*;

    const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    /// Runs a program as the kernel does; loads beyond the frame reject it.
    fn accepts(program: &[sock_filter], frame: &[u8]) -> bool {
        let load = |at: u32, len: usize| -> Option<u32> {
            if at == VLAN_TAG_PRESENT_AT {
                return Some(u32::from(frame[12..14] == [0x81, 0x00]));
            }
            let bytes = frame.get(at as usize..at as usize + len)?;
            Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        };
        let (mut accumulator, mut index, mut next) = (0, 0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[next];
            next += 1;
            let loaded = match code {
                LOAD_WORD => load(k, 4),
                LOAD_HALF => load(k, 2),
                LOAD_BYTE => load(k, 1),
                LOAD_HALF_INDEXED => load(k + index, 2),
                LOAD_INDEX_IHL => {
                    let Some(byte) = load(k, 1) else { return false };
                    index = (byte & 0x0f) * 4;
                    continue;
                }
                JUMP_EQUAL => {
                    next += usize::from(if accumulator == k { jt } else { jf });
                    continue;
                }
                JUMP => {
                    next += k as usize;
                    continue;
                }
                RETURN => return k > 0,
                other => panic!("instruction {other:#x}"),
            };
            let Some(value) = loaded else { return false };
            accumulator = value;
        }
    }

    fn ipv4(protocol: u8, destination: Ipv4Addr, port: u16, options: usize) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + options + 20];
        frame[12] = 8;
        frame[14] = 0x45 + (options / 4) as u8;
        frame[23] = protocol;
        frame[30..34].copy_from_slice(&destination.octets());
        frame[36 + options..38 + options].copy_from_slice(&port.to_be_bytes());
        frame
    }

    fn interest() -> Interest {
        Interest {
            services: vec![(NODE, 80), (NODE, 443), (SERVICE, 80)],
            node_address: NODE,
            answer_arp_for: vec![SERVICE],
        }
    }

    #[test]
    fn the_services_packets_pass_and_nothing_else_does() {
        let program = program(&interest());
        assert!(accepts(&program, &ipv4(6, NODE, 80, 0)));
        assert!(accepts(&program, &ipv4(6, NODE, 443, 8)));
        assert!(accepts(&program, &ipv4(6, SERVICE, 80, 40)));
        assert!(accepts(&program, &ipv4(4, NODE, 0, 0)));
        assert!(accepts(&program, &ipv4(1, SERVICE, 0, 0)));
        assert!(!accepts(&program, &ipv4(6, NODE, 22, 0)));
        assert!(!accepts(&program, &ipv4(6, SERVICE, 443, 0)));
        assert!(!accepts(&program, &ipv4(4, SERVICE, 0, 0)));
        assert!(!accepts(&program, &ipv4(17, NODE, 80, 0)));
        let mut tagged = ipv4(6, NODE, 80, 0);
        tagged[12..14].copy_from_slice(&[0x81, 0x00]);
        assert!(!accepts(&program, &tagged));
        assert!(!accepts(&program, &ipv4(6, NODE, 80, 0)[..36]));
    }

    #[test]
    fn arp_passes_for_addresses_that_the_host_does_not_hold() {
        let program = program(&interest());
        let mut frame = vec![0; 42];
        frame[12..14].copy_from_slice(&[8, 6]);
        frame[38..42].copy_from_slice(&SERVICE.octets());
        assert!(accepts(&program, &frame));
        frame[38..42].copy_from_slice(&NODE.octets());
        assert!(!accepts(&program, &frame));
    }

    #[test]
    fn very_many_services_get_a_filter_that_the_kernel_can_hold() {
        let services = (0..5000).map(|port| (NODE, port)).collect();
        let program = program(&Interest { services, ..interest() });
        assert_eq!(program.len(), 1);
    }
}
