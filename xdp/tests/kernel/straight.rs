//! Segments of connections that this node has sent on: those that go straight, and those that only look so.

use crate::compare;
use crate::frames::fix_header;
use crate::packets::{busy_world, segment};
use crate::rounds;
use crate::world::{Kernel, MTU_MIN, World};
use dpr_director::PolicyKind;
use dpr_model::NodeState;
use dpr_rewrite::tcp::flag;
use dpr_xdp::Sizes;
use dpr_xdp::abi::Counters;
use fastrand::Rng;

const SIZES: Sizes = Sizes { flows: 1024, half_open: 1024 };
/// Few, so that most of their segments carry on a connection.
const CLIENTS: u32 = 8;
const SEGMENTS: usize = 500;
/// Where IP begins in a frame, and where TCP does in a plain one.
const IP: usize = 14;
const TCP: usize = IP + 20;
/// Of the IP packet in the longest frame that fits into a tunnel, bytes.
const ROOM: usize = 1480;

/// What changes with an update has to close and open ways.
pub(crate) fn segments() {
    let mut kernel = Kernel::load(SIZES);
    for seed in 1..=rounds(5, 50) as u64 {
        kernel.tables.clear().unwrap();
        let mut rng = Rng::with_seed(seed);
        // One candidate besides this node, so that nothing is left to chance.
        let mut world = busy_world(PolicyKind::LocalEstimates, [(1, 100)]);
        world.update.this.state = NodeState::Active;
        let mut before = Counters::default();
        show(&mut world, &mut kernel, &mut rng, &mut before);
        let straight = before.packets_forwarded;
        world.update.policy = PolicyKind::Stateless;
        show(&mut world, &mut kernel, &mut rng, &mut before);
        world.update.policy = PolicyKind::LocalEstimates;
        world.update.peers[0].mtu = Some(MTU_MIN);
        show(&mut world, &mut kernel, &mut rng, &mut before);
        (world.update.peers[0].alive, world.update.peers[0].state) = (false, NodeState::Leaving);
        show(&mut world, &mut kernel, &mut rng, &mut before);

        assert!(straight > SEGMENTS as u64 / 4, "only {straight} packets were sent on");
    }
}

fn show(world: &mut World, kernel: &mut Kernel, rng: &mut Rng, before: &mut Counters) {
    world.tell(kernel, true);
    // So few that nobody limits the answers to them.
    let mut too_big_left = 5;
    for nth in 0..SEGMENTS {
        let client = rng.u32(..CLIENTS);
        let mut frame = match nth % 16 {
            0 | 1 => segment(client, flag::SYN),
            _ => segment(client, flag::ACK),
        };
        if rng.bool() {
            change(&mut frame, rng, &mut too_big_left);
        }
        if !compare::is_beyond_the_programs(&frame) {
            compare::check(world, kernel, &frame, before)
                .unwrap_or_else(|error| panic!("segment {nth}:\n{error}"));
            let [of_director, of_kernel] = world.connections(kernel);
            assert_eq!(of_director, of_kernel, "segment {nth}: the tables of connections differ");
        }
    }
}

/// Makes one thing about a plain segment special.
fn change(frame: &mut Vec<u8>, rng: &mut Rng, too_big_left: &mut u32) {
    match rng.u8(..12) {
        0 => frame[IP + 8] = rng.u8(..4),
        1 => frame[IP + 1] = rng.u8(..),
        2 => frame[TCP + 13] = rng.u8(..),
        3 => frame[IP + 6 + rng.usize(..2)] ^= 1 << rng.u8(..8),
        4 => frame[IP + 3] = rng.u8(18..60),
        5 => frame[TCP + 12] = rng.u8(..),
        6 => frame[IP] ^= 1 << rng.u8(..8),
        7 => frame[TCP + 3] ^= 1,
        8 => frame[IP + 9] = [17, 1, 0][rng.usize(..3)],
        9 => frame.resize(frame.len() + rng.usize(..20), 0xaa),
        10 => frame.truncate(rng.usize(IP + 20..frame.len())),
        _ => {
            let too_much = usize::from(*too_big_left > 0 && rng.bool());
            *too_big_left -= too_much as u32;
            // Of the way to a node with a smaller MTU all of these are too long, and what is limited is not comparable.
            let len = if *too_big_left > 0 { ROOM + too_much } else { 100 };
            frame.resize(IP + len, 0);
            frame[IP + 2..IP + 4].copy_from_slice(&(len as u16).to_be_bytes());
        }
    }
    if frame.len() >= TCP {
        fix_header(&mut frame[IP..]);
    }
    if rng.u8(..16) == 0 {
        frame[IP + 10] ^= 1;
    }
}
