//! What local servers answer.

use crate::compare::with_header;
use crate::frames::fix_header;
use crate::rounds;
use crate::world::{Kernel, MAC, World};
use dpr_model::{DropReason, MacAddress, Reply, Verdict};
use dpr_rewrite::checksum::{fold, pseudo_header, sum_of};
use dpr_rewrite::ethernet::HEADER_LEN;
use dpr_rewrite::ipv4::{self, Fields};
use dpr_rewrite::{ChecksumState, parse_ip, reply};
use dpr_xdp::Sizes;
use fastrand::Rng;
use std::net::Ipv4Addr;

const CONTINUE: u32 = u32::MAX;
const DROP: u32 = 2;

pub(crate) fn random() {
    let mut kernel = Kernel::load(Sizes { flows: 64, half_open: 64 });
    let mut rng = Rng::with_seed(1);
    let mut world = World::random(&mut rng);
    world.tell(&mut kernel, true);
    for nth in 0..rounds(20_000, 200_000) {
        let frame = draw(&mut rng);
        let before = kernel.tables.counters().unwrap();
        let run = kernel.programs.run_reply(&frame).unwrap();
        let after = kernel.tables.counters().unwrap();
        let parsed = parse_ip(&frame, HEADER_LEN).unwrap();
        match world.director.handle_reply(&parsed, 1) {
            Verdict::Reply(Reply { from, mss_max, .. }) => {
                let mut expected = frame.clone();
                if let Err(reason) =
                    reply(&mut expected, &parsed.packet, from, mss_max, ChecksumState::Complete)
                {
                    assert_eq!(run.action, DROP, "reply {nth} {reason:?}");
                    assert_eq!(after.dropped(reason), before.dropped(reason) + 1, "reply {nth} {reason:?}");
                    continue;
                }
                assert_eq!(run.action, CONTINUE, "reply {nth}");
                assert_eq!(run.frame, expected, "reply {nth} {frame:02x?}");
                assert_eq!(after.packets_replied, before.packets_replied + 1);
            }
            Verdict::Drop(reason) => {
                assert_eq!(run.action, DROP, "reply {nth} {reason:?}");
                assert_eq!(after.dropped(reason), before.dropped(reason) + 1);
                assert_eq!(reason, DropReason::UnknownDelivery);
            }
            // What is no reply must not leave the node with an address that is valid on the node only.
            verdict => {
                assert_eq!(verdict, Verdict::Pass);
                let is_delivery = frame[26..28] == [169, 254];
                assert_eq!(run.action, if is_delivery { DROP } else { CONTINUE }, "reply {nth}");
                assert_eq!(run.frame, frame);
            }
        }
    }
}

fn draw(rng: &mut Rng) -> Vec<u8> {
    let source = match rng.u8(..10) {
        0 => Ipv4Addr::new(10, 0, 0, 1),
        1 => Ipv4Addr::new(169, 254, 79, rng.u8(..)),
        _ => Ipv4Addr::new(169, 254, 64, rng.u8(1..6)),
    };
    let destination = Ipv4Addr::new(192, 0, 2, rng.u8(..));
    let mut fragment = None;
    let mut tcp = vec![
        0,
        80,
        4,
        0,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        2,
        0,
        [0x12, 0x10, 0x02, 0x04][rng.usize(..4)],
        1,
        0,
        0,
        0,
        0,
        0,
    ];
    tcp.extend(options(rng));
    tcp[12] = ((tcp.len() / 4) << 4) as u8;
    let data_len = rng.usize(..40);
    tcp.extend(std::iter::repeat_with(|| rng.u8(..)).take(data_len));
    let protocol = [6, 6, 6, 17, 47][rng.usize(..5)];
    let sum_at = if protocol == 17 { 6 } else { 16 };
    if protocol == 17 {
        let len = tcp.len() as u16;
        tcp[4..6].copy_from_slice(&len.to_be_bytes());
        tcp[6..8].copy_from_slice(&[0, 0]);
    }
    let checksum =
        !fold(pseudo_header(source.into(), destination.into(), protocol, tcp.len() as u16) + sum_of(&tcp));
    if protocol != 17 || rng.bool() {
        tcp[sum_at..sum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    // Nothing else is delivered.
    if protocol != 47 && rng.u8(..8) == 0 {
        tcp.truncate(rng.usize(..24));
        fragment = Some([[0x20, 0], [0x20, 2], [0, 2]][rng.usize(..3)]);
    }
    let total_len = 20 + tcp.len() as u16;
    let fields = Fields { tos: 0, total_len, id: 0, ttl: 64, protocol, source, destination };
    let mut packet = ipv4::header(&fields).to_vec();
    packet.extend(tcp);
    if let Some(field) = fragment {
        packet[6..8].copy_from_slice(&field);
    }
    fix_header(&mut packet);
    with_header(MacAddress([2; 6]), MAC, &packet)
}

/// TCP options, mostly with a maximum segment size, at even and odd places, and sometimes nonsense.
fn options(rng: &mut Rng) -> Vec<u8> {
    let mut options = vec![1; rng.usize(..6)];
    if rng.u8(..4) > 0 {
        let mss: u16 = [1460, 1440, 1420, 536, 9000][rng.usize(..5)];
        options.extend([2, 4]);
        options.extend(mss.to_be_bytes());
    }
    if rng.u8(..6) == 0 {
        options.extend(std::iter::repeat_with(|| rng.u8(..8)).take(8));
    }
    options.resize(options.len().next_multiple_of(4).min(40), 0);
    options
}
