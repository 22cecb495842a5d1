//! What strangers send is counted and changes nothing.

use dpr_lab::capture::{Capture, Frame};
use dpr_lab::forge::{FrameSender, ethernet_ipv4, ipv4, tcp, udp_socket};
use dpr_lab::paired::Crowd;
use dpr_lab::{INTERFACE, NodePlan, wait_until};
use dpr_model::status::Status;
use dpr_tests::noise::Noise;
use dpr_tests::packet::Packet;
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage, assert_none_broke, crowd_plan};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// The daemons' default group.
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 77, 77), 7777);
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
const FORGED: u64 = 200;
const PROTOCOL_IPIP: u8 = 4;
/// Flag of the TCP header.
const SYN: u8 = 0x02;
/// The ID of honest outer headers: twelve bits that mark tunnels of `dpr`, four that say how many hops are left.
const NO_HOPS_LEFT: u16 = 0xd940;

pub(crate) fn gossip() {
    let key = RemovedFile(std::env::temp_dir().join(format!("dpr-scenario-key-{}", std::process::id())));
    std::fs::write(&key.0, KEY).unwrap();
    let stage =
        Stage::start(2, 1, NodePlan { key_file: Some(key.0.clone()), ..NodePlan::paired(PAIRED_PORT) });
    let attacker = &stage.clients[0];
    let genuine = overheard(&stage);
    let before = stage.statuses().remove(0);
    let crowd = Crowd::open(attacker, crowd_plan(vec![stage.nodes[0].service()], 5)).unwrap();

    let socket = udp_socket(attacker, 7777).unwrap();
    let unicast = SocketAddrV4::new(stage.nodes[0].machine().ipv4().unwrap(), GROUP.port());
    let mut noise = Noise(0xdecaf);
    for round in 0..FORGED {
        let datagram = &genuine[round as usize % genuine.len()];
        let mut altered = datagram.clone();
        let position = noise.below(altered.len());
        altered[position] ^= 1 << noise.below(8);
        let truncated = &datagram[..noise.below(datagram.len())];
        let random = noise.bytes(1 + round as usize * 7);
        for forged in [datagram.as_slice(), &altered, truncated, &random] {
            socket.send_to(forged, if round % 2 == 0 { unicast } else { GROUP }).unwrap();
        }
        // A full receive queue would make the count wrong.
        std::thread::sleep(Duration::from_millis(5));
    }

    let rejected = |status: &Status| status.gossip.rejected.values().sum::<u64>();
    wait_until("every forged datagram to be counted", PATIENCE, || {
        let status = stage.nodes[0].status().map_err(|error| error.to_string())?;
        let more = rejected(&status) - rejected(&before);
        // An empty datagram may be no datagram at all for the receiver.
        if more >= FORGED * 4 - 10 { Ok(()) } else { Err(format!("{more} of {}", FORGED * 4)) }
    })
    .unwrap();
    let after = &stage.statuses()[0];
    assert!(after.gossip.rejected.len() >= 2, "different reasons are told apart: {:?}", after.gossip);
    assert_eq!(peers(&before), peers(after), "nobody became a peer, and nobody ceased to be one");
    assert!(after.peers.iter().all(|peer| peer.alive), "{:?}", after.peers);
    assert!(after.gossip.accepted > before.gossip.accepted, "honest reports still arrive");
    assert_none_broke(&crowd.finish());
}

pub(crate) fn tunnels() {
    let stage = Stage::paired(2, 1);
    let (victim, attacker) = (stage.nodes[0].machine(), &stage.clients[0]);
    let (peer, stranger) = (stage.nodes[1].machine().ipv4().unwrap(), attacker.ipv4().unwrap());
    let client = SocketAddrV4::new(stranger, 50_000);
    let before = stage.statuses().remove(0);
    let crowd = stage.open_crowd(0, crowd_plan(vec![stage.nodes[0].service()], 5));

    let syn_to = |to: SocketAddrV4| ipv4(*client.ip(), *to.ip(), 6, 7, &tcp(client, to, 1, SYN));
    let honest = syn_to(SocketAddrV4::new(victim.ipv4().unwrap(), PAIRED_PORT));
    let elsewhere = syn_to(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80));
    let tunnelled =
        |from: Ipv4Addr, id: u16, inner: &[u8]| ipv4(from, victim.ipv4().unwrap(), PROTOCOL_IPIP, id, inner);
    let nested = tunnelled(peer, NO_HOPS_LEFT, &honest);
    let sender = FrameSender::open(attacker, INTERFACE).unwrap();
    let mut noise = Noise(0xbad);
    for _ in 0..FORGED {
        let packets = [
            tunnelled(stranger, NO_HOPS_LEFT, &honest),
            tunnelled(peer, NO_HOPS_LEFT, &elsewhere),
            tunnelled(peer, NO_HOPS_LEFT, &honest[..noise.below(20)]),
            tunnelled(peer, NO_HOPS_LEFT | 0x000f, &nested),
            tunnelled(peer, NO_HOPS_LEFT, &noise.bytes(60)),
        ];
        for packet in &packets {
            sender.send(&ethernet_ipv4(attacker.mac(), victim.mac(), packet)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }

    wait_until("every forged tunnel packet to be counted", PATIENCE, || {
        let status = stage.nodes[0].status().map_err(|error| error.to_string())?;
        let all: u64 =
            status.counters.drops.values().sum::<u64>() - before.counters.drops.values().sum::<u64>();
        let stranger = drops(&status, "tunnel-from-stranger");
        let unknown = drops(&status, "tunnel-unknown-service");
        let truncated = drops(&status, "truncated");
        let enough = stranger >= FORGED && unknown >= FORGED && truncated >= FORGED && all >= FORGED * 5;
        if enough { Ok(()) } else { Err(format!("{all} drops: {:?}", status.counters.drops)) }
    })
    .unwrap();
    let after = &stage.statuses()[0];
    assert_eq!(after.counters.connections_received, before.counters.connections_received);
    assert_eq!(after.counters.packets_forwarded, before.counters.packets_forwarded, "nothing was passed on");
    assert_none_broke(&crowd.finish());
}

/// The data plane stands still while more frames come than wait for it.
pub(crate) fn beyond_the_queue() {
    const SENT: u64 = 6000;
    /// As docs/decisions/0052 promises.
    const SLOTS: u64 = 4096;
    let stage = Stage::paired(2, 1);
    let (victim, attacker) = (stage.nodes[0].machine(), &stage.clients[0]);
    let stranger = attacker.ipv4().unwrap();
    let client = SocketAddrV4::new(stranger, 50_000);
    let service = SocketAddrV4::new(victim.ipv4().unwrap(), PAIRED_PORT);
    let inner = ipv4(stranger, *service.ip(), 6, 7, &tcp(client, service, 1, SYN));
    let packet = ipv4(stranger, *service.ip(), PROTOCOL_IPIP, NO_HOPS_LEFT, &inner);
    let frame = ethernet_ipv4(attacker.mac(), victim.mac(), &packet);
    let sender = FrameSender::open(attacker, INTERFACE).unwrap();

    let halt = stage.nodes[0].halt("dataplane").unwrap();
    for _ in 0..SENT {
        sender.send(&frame).unwrap();
    }
    drop(halt);
    wait_until("every frame to be counted", PATIENCE, || {
        let status = stage.nodes[0].status().map_err(|error| error.to_string())?;
        let (seen, lost) = (drops(&status, "tunnel-from-stranger"), drops(&status, "queue-full"));
        // A few slots are for what else comes.
        let is_all = seen + lost >= SENT && lost >= SENT - SLOTS && seen > SLOTS / 2;
        if is_all { Ok(()) } else { Err(format!("{seen} seen, {lost} lost")) }
    })
    .unwrap();
}

/// Load reports of n2 as the group hears them; n1 would silently ignore its own.
fn overheard(stage: &Stage) -> Vec<Vec<u8>> {
    let speaker = stage.nodes[1].machine().mac();
    let said = move |frame: &Frame| {
        Packet::of(frame).is_some_and(|packet| packet.macs.0 == speaker.0) && payload(frame).is_some()
    };
    let mut capture = Capture::start(&stage.clients[0], said).unwrap();
    wait_until("ten load reports", PATIENCE, || match capture.frames().len() {
        0..10 => Err("fewer".to_owned()),
        _ => Ok(()),
    })
    .unwrap();
    capture.frames().iter().filter_map(payload).collect()
}

/// The datagram of a frame to the group's port.
fn payload(frame: &Frame) -> Option<Vec<u8>> {
    let udp = etherparse::SlicedPacket::from_ethernet(&frame.bytes).ok()?.transport?;
    match udp {
        etherparse::TransportSlice::Udp(udp) if udp.destination_port() == GROUP.port() => {
            Some(udp.payload().to_vec())
        }
        _ => None,
    }
}

/// Packets dropped for a reason.
fn drops(status: &Status, reason: &str) -> u64 {
    status.counters.drops.get(reason).copied().unwrap_or(0)
}

fn peers(status: &Status) -> Vec<u32> {
    status.peers.iter().map(|peer| peer.node.id.0).collect()
}

/// A file that goes with its value.
struct RemovedFile(std::path::PathBuf);

impl Drop for RemovedFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
