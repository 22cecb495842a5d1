//! What local servers answer.

use crate::compare::with_header;
use crate::frames::{as_v6, fragment_v4, fragment_v6};
use crate::rounds;
use crate::world::{Kernel, MAC, World};
use dpr_model::{
    ClientSocket, DropReason, FlowKey, ForwardingMethod, MacAddress, Protocol, Reply, ServiceReport,
    ServiceSocket, Verdict,
};
use dpr_rewrite::checksum::{fold, pseudo_header, sum_of};
use dpr_rewrite::ethernet::HEADER_LEN;
use dpr_rewrite::ipv4::{self, Fields};
use dpr_rewrite::tcp::flag;
use dpr_rewrite::{ChecksumState, Kind, Packet, ipv6, parse_ip, reply};
use dpr_xdp::{Change, Sizes};
use fastrand::Rng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const CONTINUE: u32 = u32::MAX;
const DROP: u32 = 2;

pub(crate) fn random() {
    let mut kernel = Kernel::load(Sizes { flows: 64, half_open: 64 });
    let mut rng = Rng::with_seed(1);
    let mut world = World::random(&mut rng);
    // The programs know one MSS for each address, the director one for each method (docs/decisions/0030).
    let by_gue = |service: &ServiceReport| ServiceReport { method: ForwardingMethod::Gue, ..*service };
    world.update.this.services = world.update.this.services.iter().map(by_gue).collect();
    for peer in &mut world.update.peers {
        peer.services = peer.services.iter().map(by_gue).collect();
    }
    world.tell(&mut kernel, true);
    let mut resets = 0;
    for nth in 0..rounds(20_000, 200_000) {
        let frame = draw(&mut rng);
        let before = kernel.tables.counters().unwrap();
        let run = kernel.programs.run_reply(&frame).unwrap();
        let after = kernel.tables.counters().unwrap();
        let told: Vec<Change> = std::iter::from_fn(|| world.mirror.next_change(&mut kernel.tables)).collect();
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
                let reset = reset_of(&parsed.packet, from).map(Change::Reset);
                assert_eq!(told, Vec::from_iter(reset), "reply {nth}");
                resets += told.len();
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
                let is_delivery = match frame[12] {
                    0x08 => frame[26..28] == [169, 254],
                    _ => frame[22..24] == [0xfd, 0x64],
                };
                assert_eq!(run.action, if is_delivery { DROP } else { CONTINUE }, "reply {nth}");
                assert_eq!(run.frame, frame);
            }
        }
    }
    assert!(resets > 100, "too few resets to prove anything");
}

/// The connection that a server ends with this reply.
fn reset_of(packet: &Packet, service: IpAddr) -> Option<FlowKey> {
    let Kind::Tcp(header) = &packet.kind else { return None };
    header.has(flag::RST).then(|| FlowKey {
        protocol: Protocol::Tcp,
        client: ClientSocket { address: packet.ip.destination(), port: header.destination_port() },
        service: ServiceSocket { address: service, port: header.source_port() },
    })
}

fn draw(rng: &mut Rng) -> Vec<u8> {
    let (source, destination) = if rng.bool() { ends_v4(rng) } else { ends_v6(rng) };
    let mut fragment = None;
    let mut tcp = [0, 80, 4, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0].to_vec();
    tcp[13] = [0x12, 0x10, 0x02, 0x04][rng.usize(..4)];
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
    let checksum = !fold(pseudo_header(source, destination, protocol, tcp.len() as u16) + sum_of(&tcp));
    if protocol != 17 || rng.bool() {
        tcp[sum_at..sum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    // Nothing else is delivered.
    if protocol != 47 && rng.u8(..8) == 0 {
        tcp.truncate(rng.usize(..24));
        fragment = Some([(0, true), (2, true), (2, false)][rng.usize(..3)]);
    }
    let packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total_len = 20 + tcp.len() as u16;
            let fields = Fields { tos: 0, total_len, id: 0, ttl: 64, protocol, source, destination };
            let packet = [ipv4::header(&fields).as_slice(), &tcp].concat();
            fragment.map_or(packet.clone(), |piece| fragment_v4(packet, 0, piece, tcp.len()))
        }
        (source, destination) => {
            let fields = ipv6::Fields {
                traffic_class: 0,
                flow_label: 0,
                payload_len: tcp.len() as u16,
                protocol,
                hop_limit: 64,
                source: as_v6(source),
                destination: as_v6(destination),
            };
            let packet = [ipv6::header(&fields).as_slice(), &tcp].concat();
            fragment.map_or(packet.clone(), |piece| fragment_v6(packet, 0, piece, tcp.len()))
        }
    };
    with_header(MacAddress([2; 6]), MAC, &packet)
}

fn ends_v4(rng: &mut Rng) -> (IpAddr, IpAddr) {
    let source = match rng.u8(..10) {
        0 => Ipv4Addr::new(10, 0, 0, 1),
        1 => Ipv4Addr::new(169, 254, 79, rng.u8(..)),
        _ => Ipv4Addr::new(169, 254, 64, rng.u8(1..6)),
    };
    (source.into(), Ipv4Addr::new(192, 0, 2, rng.u8(..)).into())
}

fn ends_v6(rng: &mut Rng) -> (IpAddr, IpAddr) {
    let source = match rng.u8(..10) {
        0 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x0a00, 1),
        1 => Ipv6Addr::new(0xfd64, 0x7072, 0x4000, 0, 1, 0, 0, rng.u16(..)),
        _ => Ipv6Addr::new(0xfd64, 0x7072, 0x4000, 0, 0, 0, 0, rng.u16(1..6)),
    };
    (source.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, rng.u16(..)).into())
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
