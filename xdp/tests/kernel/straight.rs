//! Segments of connections that this node has sent on: those that go straight, and those that only look so.

use crate::compare;
use crate::frames::fix_header;
use crate::packets::{busy_update, segment_over};
use crate::rounds;
use crate::world::{Kernel, MTU, MTU_MIN, NODE, World, node_address, service};
use dpr_director::PolicyKind;
use dpr_model::{NodeId, NodeState, PortGroup, PortRange, ServiceReport};
use dpr_rewrite::Version;
use dpr_rewrite::tcp::flag;
use dpr_xdp::Sizes;
use dpr_xdp::abi::Counters;
use fastrand::Rng;
use std::net::Ipv4Addr;

const SIZES: Sizes = Sizes { flows: 1024, half_open: 1024 };
/// Few, so that most of their segments carry on a connection.
const CLIENTS: u32 = 8;
const SEGMENTS: usize = 500;
/// A further port of the service.
const FURTHER: u16 = 81;
/// Where IP begins in a frame.
const IP: usize = 14;
/// The only one besides this node, so that nothing is left to chance.
const PEER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// Segments of one version in tunnels of one version.
struct Segments {
    version: Version,
    nodes: Version,
    rng: Rng,
}

/// What changes with an update has to close and open ways.
pub(crate) fn segments() {
    let mut kernel = Kernel::load(SIZES);
    for [version, nodes] in
        [[Version::V4; 2], [Version::V4, Version::V6], [Version::V6, Version::V4], [Version::V6; 2]]
    {
        for seed in 1..=rounds(3, 50) as u64 {
            kernel.tables.clear().unwrap();
            let mut segments = Segments { version, nodes, rng: Rng::with_seed(seed) };
            let mut world = segments.world();
            let mut before = Counters::default();
            segments.show(&mut world, &mut kernel, &mut before);
            let straight = before.packets_forwarded;
            world.update.policy = PolicyKind::Stateless;
            segments.show(&mut world, &mut kernel, &mut before);
            world.update.policy = PolicyKind::LocalEstimates;
            world.update.peers[0].mtu = Some(MTU_MIN);
            segments.show(&mut world, &mut kernel, &mut before);
            (world.update.peers[0].alive, world.update.peers[0].state) = (false, NodeState::Leaving);
            segments.show(&mut world, &mut kernel, &mut before);

            assert!(straight > SEGMENTS as u64 / 4, "only {straight} packets were sent on");
        }
    }
}

impl Segments {
    fn world(&self) -> World {
        let mut update = busy_update(PolicyKind::LocalEstimates, [(1, 100)]);
        let mut ports = PortGroup::NONE;
        assert!(ports.add(PortRange::new(FURTHER, FURTHER).unwrap()));
        let of = |address| ServiceReport { ports, ..service(node_address(self.version, address), 80) };
        update.this.state = NodeState::Active;
        update.this.services = vec![of(NODE)];
        let peer = &mut update.peers[0];
        peer.services = [of(PEER)].into();
        peer.candidate.address = node_address(self.nodes, PEER);
        peer.candidate.node = NodeId::from_address(peer.candidate.address);
        World::over(self.nodes, update, Vec::new(), 1)
    }

    fn show(&mut self, world: &mut World, kernel: &mut Kernel, before: &mut Counters) {
        let Self { version, nodes, .. } = *self;
        world.tell(kernel, true);
        // So few that nobody limits the answers to them.
        let mut too_big_left = 5;
        for nth in 0..SEGMENTS {
            let flags = if nth % 16 < 2 { flag::SYN } else { flag::ACK };
            let mut frame = segment_over(version, self.rng.u32(..CLIENTS), flags);
            if self.rng.u8(..3) == 0 {
                let port_at = IP + version.header_len() + 2;
                frame[port_at..port_at + 2].copy_from_slice(&FURTHER.to_be_bytes());
            }
            if self.rng.bool() {
                self.change(&mut frame, &mut too_big_left);
            }
            if !compare::is_beyond_the_programs(&frame) {
                compare::check(world, kernel, &frame, before)
                    .unwrap_or_else(|error| panic!("segment {nth}, {version:?} in {nodes:?}:\n{error}"));
                let [of_director, of_kernel] = world.connections(kernel);
                assert_eq!(of_director, of_kernel, "segment {nth}: the tables of connections differ");
            }
        }
    }

    /// Makes one thing about a plain segment special.
    fn change(&mut self, frame: &mut Vec<u8>, too_big_left: &mut u32) {
        let tcp = IP + self.version.header_len();
        let rng = &mut self.rng;
        match (rng.u8(..12), self.version) {
            (0, Version::V4) => frame[IP + 8] = rng.u8(..4),
            (0, Version::V6) => frame[IP + 7] = rng.u8(..4),
            (1, _) => frame[IP + 1] = rng.u8(..),
            (2, _) => frame[tcp + 13] = rng.u8(..),
            // Of IPv4 about fragments, of IPv6 the upper half of the length and the protocol.
            (3, Version::V4) => frame[IP + 6 + rng.usize(..2)] ^= 1 << rng.u8(..8),
            (3, Version::V6) => frame[IP + [4, 6][rng.usize(..2)]] ^= 1 << rng.u8(..8),
            (4, Version::V4) => frame[IP + 3] = rng.u8(18..60),
            (4, Version::V6) => frame[IP + 5] = rng.u8(..40),
            (5, _) => frame[tcp + 12] = rng.u8(..),
            (6, _) => frame[IP] ^= 1 << rng.u8(..8),
            (7, _) => frame[tcp + 3] ^= 1,
            (8, Version::V4) => frame[IP + 9] = [17, 1, 0][rng.usize(..3)],
            (8, Version::V6) => frame[IP + 6] = [17, 58, 0][rng.usize(..3)],
            (9, _) => frame.resize(frame.len() + rng.usize(..20), 0xaa),
            (10, _) => frame.truncate(rng.usize(tcp..frame.len())),
            _ => self.fill(frame, too_big_left),
        }
        if frame.len() >= tcp && self.version == Version::V4 {
            fix_header(&mut frame[IP..]);
        }
        if self.rng.u8(..16) == 0 {
            frame[IP + 10] ^= 1;
        }
    }

    /// Makes a segment so long that it just fits into a tunnel, or just does not.
    fn fill(&mut self, frame: &mut Vec<u8>, too_big_left: &mut u32) {
        let room = usize::from(MTU) - self.nodes.header_len();
        let too_much = usize::from(*too_big_left > 0 && self.rng.bool());
        *too_big_left -= too_much as u32;
        // Of the way to a node with a smaller MTU all of these are too long, and what is limited is not comparable.
        let len = if *too_big_left > 0 { room + too_much } else { 100 };
        frame.resize(IP + len, 0);
        let (at, in_field) = match self.version {
            Version::V4 => (IP + 2, len),
            Version::V6 => (IP + 4, len - self.version.header_len()),
        };
        frame[at..at + 2].copy_from_slice(&(in_field as u16).to_be_bytes());
    }
}
