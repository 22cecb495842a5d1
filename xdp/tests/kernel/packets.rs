//! What comes in from the network.

use crate::compare::{self, with_header};
use crate::frames::{Frames, as_v6, fix_header};
use crate::rounds;
use crate::world::{
    Kernel, MAC, NODE, VIRTUAL, World, candidate, counts_of, datagrams, node_address, peer, service,
};
use dpr_director::{Peer, PolicyKind, ThisNode, Update};
use dpr_host::{AddressOptions, IpPrefix, NetNamespace, Netlink};
use dpr_model::{
    Capacity, ClientSocket, FlowKey, LoadPermille, MacAddress, NodeState, Protocol, ServiceSocket, Weight,
};
use dpr_rewrite::ipv4::{self, Fields};
use dpr_rewrite::tcp::flag;
use dpr_rewrite::{Version, ipv6};
use dpr_xdp::Sizes;
use dpr_xdp::abi::Counters;
use fastrand::Rng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

const SIZES: Sizes = Sizes { flows: 8192, half_open: 8192 };
/// So large that handshakes which nobody completes are no flood.
const SIZES_OF_MANY: Sizes = Sizes { half_open: 1 << 18, ..SIZES };
/// Packets in one world.
const PACKETS: usize = 3000;
/// Packets between two updates.
const PACKETS_PER_UPDATE: usize = 1000;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

pub(crate) fn random() {
    let mut kernel = Kernel::load(SIZES);
    let first = std::env::var("DPR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut compared, mut replies, mut entered, mut to_further) = (0, 0, [0; 2], [0; 2]);
    for seed in first..first + rounds(20, 400) as u64 {
        let world = one_world(&mut kernel, seed, &mut compared);
        entered.iter_mut().zip(world.entered).for_each(|(all, its)| *all += its);
        to_further.iter_mut().zip(world.to_further).for_each(|(all, its)| *all += its);
        replies += kernel.tables.counters().unwrap().nat_replies;
    }
    let [plain, tunnelled] = entered;
    let [by_address, by_slot] = to_further;
    println!(
        "{compared} packets; carried on for user space: {replies} replies, to addresses that others may own \
         {plain} packets as they came and {tunnelled} in tunnels; to further ports {by_address}, and {by_slot} \
         for owners of slots"
    );
    assert!(replies > 100 && plain > 100 && tunnelled > 20, "too few to prove anything");
    assert!(by_address > 1000 && by_slot > 100, "too few to prove anything");
}

fn one_world(kernel: &mut Kernel, seed: u64, compared: &mut usize) -> World {
    let mut rng = Rng::with_seed(seed);
    kernel.tables.clear().unwrap();
    let mut world = World::random(&mut rng);
    let has_turns = world.update.policy == PolicyKind::RoundRobin;
    let mut frames = Frames::new(rng.fork(), world.nodes, !has_turns);
    let mut before = Counters::default();
    for nth in 0..PACKETS {
        if nth % PACKETS_PER_UPDATE == 0 {
            world.update.this.load = LoadPermille(rng.u16(..1000));
            world.tell(kernel, rng.u8(..10) > 0);
            frames.prefers_virtual = world.is_by_slot(VIRTUAL.into());
        }
        let carried = world.carrying.flows().nth(rng.usize(..8));
        let frame = match carried.copied().filter(|_| rng.bool()) {
            Some(carried) => frames.of_carried(&carried),
            None => frames.draw(),
        };
        if compare::is_beyond_the_programs(&frame) {
            continue;
        }
        if !has_turns && [80, 443, 53].into_iter().any(|port| world.has_a_tie(port)) {
            continue;
        }
        if let Err(difference) = compare::check(&mut world, kernel, &frame, &mut before) {
            panic!("packet {nth}:\n{difference}\nin {:?}\nrepeat with DPR_SEED={seed}", world.update);
        }
        *compared += 1;
    }
    let [of_director, of_kernel] = world.connections(kernel);
    assert_eq!(of_director, of_kernel, "seed {seed}: the tables of connections differ");
    assert_counters_agree(&world, kernel, seed);
    world
}

/// What a promiscuous interface shows: the same frames with a MAC address that is not the node's.
pub(crate) fn for_another_host() {
    let mut kernel = Kernel::load(SIZES);
    let mut rng = Rng::with_seed(1);
    let mut world = World::random(&mut rng);
    world.tell(&mut kernel, true);
    let mut frames = Frames::new(rng.fork(), world.nodes, true);
    let mut own = 0;
    for _ in 0..PACKETS {
        let frame = frames.draw();
        own += usize::from(kernel.programs.run(&frame).unwrap().action != XDP_PASS);
    }
    assert!(own > PACKETS / 4, "only {own} frames were the programs' business");
    kernel.tables.clear().unwrap();
    world.tell(&mut kernel, true);
    let before = kernel.tables.counters().unwrap();
    for _ in 0..PACKETS {
        let mut frame = frames.draw();
        let differs_in = rng.usize(..6);
        frame[..6].copy_from_slice(&MAC.0);
        frame[differs_in] ^= if differs_in == 0 { 4 } else { rng.u8(1..) };
        let run = kernel.programs.run(&frame).unwrap();
        assert_eq!((run.action, &run.frame), (XDP_PASS, &frame));
    }
    assert_eq!(kernel.tables.counters().unwrap(), before);
}

fn assert_counters_agree(world: &World, kernel: &Kernel, seed: u64) {
    let (director, above) = (world.director.counters(), &world.counted_above);
    let counted = kernel.tables.counters().unwrap();
    let received: u64 =
        kernel.tables.counts(world.mirror.numbers_end()).unwrap().iter().map(|counts| counts.received).sum();
    let pairs = [
        ("connections kept", director.connections_kept - above.connections_kept, counted.connections_kept),
        (
            "connections forwarded",
            director.connections_forwarded - above.connections_forwarded,
            counted.connections_forwarded,
        ),
        ("connections received", director.connections_received - above.connections_received, received),
        (
            "packets forwarded",
            director.packets_forwarded - above.packets_forwarded,
            counted.packets_forwarded,
        ),
        (
            "packets delivered",
            director.packets_delivered - above.packets_delivered,
            counted.packets_delivered,
        ),
        ("packets received", director.packets_received - above.packets_received, counted.packets_received),
        ("replies to translated packets", director.nat_replies - above.nat_replies, counted.nat_replies),
        ("loops stopped", director.loops_stopped - above.loops_stopped, counted.loops_stopped),
        ("ICMP errors", director.icmp_too_big_sent - above.icmp_too_big_sent, counted.icmp_too_big_sent),
        ("ARP replies", director.arp_answered, counted.arp_answered),
    ];
    for (name, of_director, of_kernel) in pairs {
        assert_eq!(of_director, of_kernel, "seed {seed}: {name}");
    }
}

pub(crate) fn checksums_of_datagrams() {
    let mut kernel = Kernel::load(SIZES);
    let mut world = busy_world(PolicyKind::LocalEstimates, []);
    world.update.this.services = vec![datagrams(NODE, 53)];
    world = World::new(world.update, 1);
    world.tell(&mut kernel, true);
    let source = Ipv4Addr::new(192, 0, 2, 1);
    let fields = Fields { tos: 0, total_len: 28, id: 0, ttl: 64, protocol: 17, source, destination: NODE };
    let mut before = Counters::default();
    for checksum in 0..=u16::MAX {
        let mut packet = ipv4::header(&fields).to_vec();
        packet.extend_from_slice(&[4, 0, 0, 53, 0, 8]);
        packet.extend_from_slice(&checksum.to_be_bytes());
        let frame = with_header(MAC, MacAddress([2; 6]), &packet);
        compare::check(&mut world, &mut kernel, &frame, &mut before).unwrap();
    }
    assert_eq!(before.packets_delivered, 1 << 16);
}

/// Of a flow that was kept before the table knew it, for example before a restart.
pub(crate) fn sockets() {
    for version in [Version::V4, Version::V6] {
        NetNamespace::create().unwrap().enter(|| show_datagrams_of_sockets(version)).unwrap();
    }
}

fn show_datagrams_of_sockets(version: Version) {
    let mut kernel = Kernel::load(SIZES);
    let mut world = busy_world(PolicyKind::LocalEstimates, [(1, 100)]);
    let peer_address = Ipv4Addr::new(10, 1, 0, 1);
    let service = node_address(version, NODE);
    world.update.this.services = vec![datagrams(service, 53)];
    world.update.peers[0].services = [datagrams(node_address(version, peer_address), 53)].into();
    world = World::new(world.update, 1);
    world.tell(&mut kernel, true);
    let delivery = world.director.delivery_addresses()[0].delivery;
    let mut netlink = Netlink::open().unwrap();
    let loopback = netlink.link_by_name("lo").unwrap().unwrap().index;
    netlink.set_up(loopback).unwrap();
    let prefix = IpPrefix::new(delivery, if delivery.is_ipv4() { 32 } else { 128 }).unwrap();
    let options = AddressOptions { skip_duplicate_detection: true, ..AddressOptions::default() };
    netlink.add_address(loopback, prefix, options).unwrap();
    let client: IpAddr = match version {
        Version::V4 => Ipv4Addr::new(127, 0, 0, 2).into(),
        Version::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let frame = with_header(MAC, MacAddress([2; 6]), &datagram(client, service));
    let mut action = || {
        kernel.tables.clear().unwrap();
        kernel.programs.run(&frame).unwrap().action
    };

    let socket = UdpSocket::bind((delivery, 53)).unwrap();
    assert_eq!(action(), XDP_TX);
    socket.connect((client, 1024)).unwrap();
    assert_eq!(action(), XDP_PASS);
}

/// An empty one.
fn datagram(client: IpAddr, service: IpAddr) -> Vec<u8> {
    // With a checksum, which over IPv6 has to be there.
    let udp = [4, 0, 0, 53, 0, 8, 1, 1];
    [header_of(client, service, 17, 8), udp.to_vec()].concat()
}

/// The IP header of a packet that carries so many bytes.
fn header_of(source: IpAddr, destination: IpAddr, protocol: u8, payload_len: u16) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total_len = 20 + payload_len;
            ipv4::header(&Fields { tos: 0, total_len, id: 0, ttl: 64, protocol, source, destination })
                .to_vec()
        }
        (source, destination) => ipv6::header(&ipv6::Fields {
            traffic_class: 0,
            flow_label: 0,
            payload_len,
            protocol,
            hop_limit: 64,
            source: as_v6(source),
            destination: as_v6(destination),
        })
        .to_vec(),
    }
}

pub(crate) fn lottery() {
    let mut kernel = Kernel::load(SIZES_OF_MANY);
    let mut world = busy_world(PolicyKind::Inverse, [(1, 99), (2, 199), (3, 399)]);
    world.tell(&mut kernel, true);
    for client in 0..3000 {
        open(&mut kernel, client);
    }
    let mut shares: Vec<u64> = (1..=3).map(|number| counts_of(&kernel, number).sent).collect();
    shares.sort_unstable();
    for (share, expected) in shares.into_iter().zip([429, 857, 1714]) {
        assert!(share.abs_diff(expected) < 150, "{share} is not near {expected}");
    }
}

pub(crate) fn many_candidates() {
    let mut kernel = Kernel::load(SIZES_OF_MANY);
    let mut world = busy_world(PolicyKind::LocalEstimates, (1..=200).map(|nth| (nth, 500)));
    world.tell(&mut kernel, true);
    for client in 0..20_000 {
        open(&mut kernel, client);
    }
    let sent = kernel.tables.counts(201).unwrap();
    let most = sent.iter().map(|counts| counts.sent).max().unwrap();
    // Two random choices leave a gap of log log n (Mitzenmacher 2001), one would leave about 40.
    assert!(most <= 106, "{most}");
}

/// A node that keeps nothing, so that every connection goes to a peer; of these, numbers and loads are given.
pub(crate) fn busy_world(policy: PolicyKind, loads: impl IntoIterator<Item = (u32, u16)>) -> World {
    World::new(busy_update(policy, loads), 1)
}

pub(crate) fn busy_update(policy: PolicyKind, loads: impl IntoIterator<Item = (u32, u16)>) -> Update {
    let peer_with = |(nth, load): (u32, u16)| {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + nth);
        peer(candidate(address, load, 100, 100), vec![service(address, 80)])
    };
    let mut peers: Vec<Peer> = loads.into_iter().map(peer_with).collect();
    peers.sort_by_key(|peer| peer.candidate.node);
    Update {
        this: ThisNode {
            state: NodeState::Draining,
            load: LoadPermille(1000),
            capacity: Capacity::new(1000),
            weight: Weight::ORDINARY,
            services: vec![service(NODE, 80)],
        },
        peers,
        external: Vec::new(),
        frozen: false,
        policy,
        maxload: LoadPermille(0),
    }
}

pub(crate) fn open(kernel: &mut Kernel, client: u32) -> Ipv4Addr {
    send(kernel, client, flag::SYN)
}

/// Sends a client's segment; answers the node that it was forwarded to.
pub(crate) fn send(kernel: &mut Kernel, client: u32, flags: u8) -> Ipv4Addr {
    let run = kernel.programs.run(&segment(client, flags)).unwrap();
    assert_eq!(run.action, XDP_TX);
    Ipv4Addr::new(run.frame[30], run.frame[31], run.frame[32], run.frame[33])
}

fn address_of(client: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 0, 0)) + client)
}

/// The flow of a client's segments.
pub(crate) fn flow_of(client: u32) -> FlowKey {
    FlowKey {
        protocol: Protocol::Tcp,
        client: ClientSocket { address: address_of(client).into(), port: 1024 },
        service: ServiceSocket { address: NODE.into(), port: 80 },
    }
}

/// A client's segment over IPv4.
pub(crate) fn segment(client: u32, flags: u8) -> Vec<u8> {
    segment_over(Version::V4, client, flags)
}

/// A client's segment.
pub(crate) fn segment_over(version: Version, client: u32, flags: u8) -> Vec<u8> {
    segment_from(SocketAddr::new(node_address(version, address_of(client)), 1024), flags)
}

/// The same of a client with another port.
pub(crate) fn segment_from(client: SocketAddr, flags: u8) -> Vec<u8> {
    let service = node_address(Version::of(client.ip()), NODE);
    let mut packet = header_of(client.ip(), service, 6, 20);
    packet.extend_from_slice(&client.port().to_be_bytes());
    packet.extend_from_slice(&[0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    fix_header(&mut packet);
    with_header(MAC, MacAddress([2; 6]), &packet)
}
