//! Everything else that a host does, before `dpr` starts, while it runs, and after it has ended.

use crate::echo::{ForeignTunnel, UdpEcho, ask_udp, ping};
use dpr_lab::paired::{Crowd, PairedServer, Transfer};
use dpr_lab::{Cluster, ClusterPlan, Machine, NodePlan};
use dpr_tests::binary;
use dpr_tests::noise::Noise;
use dpr_tests::stage::{PAIRED_PORT, PATIENCE, Stage, assert_none_broke, crowd_plan, served_by};
use std::net::SocketAddr;

/// A TCP service with long connections, as ssh is one.
const TCP_PORT: u16 = 22;
const UDP_PORT: u16 = 7;
/// The second and the third need fragments.
const PAYLOADS: [usize; 3] = [64, 4000, 20_000];
/// Of the foreign tunnel's packets. Two differ from the mark of our tunnels in one bit, and the last one has it.
const IDS: [u16; 5] = [0, 0x1234, 0xd840, 0xd950, 0xd945];

pub(crate) fn untouched() {
    let plan = ClusterPlan { nodes: 2, clients: 1, node: NodePlan::paired(PAIRED_PORT) };
    let cluster = Cluster::build(&plan, binary::path()).unwrap();
    let mut host = Host::of(&cluster);
    let lasting = Crowd::open(&cluster.clients[0], crowd_plan(vec![host.tcp], 5)).unwrap();
    host.assert_answers(&cluster);

    let mut stage = Stage::of(cluster);
    stage.start_daemons().unwrap();
    stage.set_loads(&[900, 100]);
    let forwarded = stage.open_crowd(0, crowd_plan(vec![stage.nodes[0].service()], 20));
    host.assert_answers(&stage);
    let forwarded = forwarded.finish();

    for node in &mut stage.nodes {
        assert!(node.terminate().unwrap().success());
    }
    host.assert_answers(&stage);

    assert_none_broke(&forwarded);
    assert_eq!(served_by(&forwarded, "n2"), 20, "a director that forwards nothing disturbs nobody");
    let lasting = lasting.finish();
    assert_none_broke(&lasting);
    assert!(lasting.iter().all(|record| record.rounds >= 10), "they lived through all of it: {lasting:?}");
}

/// What n1 does besides.
struct Host {
    tcp: SocketAddr,
    udp: SocketAddr,
    tunnel: ForeignTunnel,
    _tcp_server: PairedServer,
    _udp_server: UdpEcho,
    /// A server elsewhere, on the client's machine, that the host itself is a client of.
    elsewhere: PairedServer,
}

impl Host {
    fn of(cluster: &Cluster) -> Self {
        let machine = cluster.nodes[0].machine();
        Self {
            tcp: SocketAddr::new(machine.address(), TCP_PORT),
            udp: SocketAddr::new(machine.address(), UDP_PORT),
            tunnel: ForeignTunnel::open(machine),
            _tcp_server: PairedServer::start(machine, "host", TCP_PORT).unwrap(),
            _udp_server: UdpEcho::start(machine, UDP_PORT),
            elsewhere: PairedServer::start(&cluster.clients[0], "elsewhere", PAIRED_PORT).unwrap(),
        }
    }

    fn assert_answers(&mut self, cluster: &Cluster) {
        let (machine, client) = (cluster.nodes[0].machine(), &cluster.clients[0]);
        let local = transfer(client, self.tcp);
        assert_eq!(local, self.tcp, "the server sees the address that was asked for");
        // The port is a service's on this host, and an ordinary one elsewhere.
        let elsewhere = SocketAddr::new(client.address(), self.elsewhere.port());
        assert_eq!(transfer(machine, elsewhere), elsewhere);
        for length in PAYLOADS {
            let payload = Noise(length as u64).bytes(length);
            assert!(ask_udp(client, self.udp, &payload).unwrap() == payload, "{length} bytes of UDP");
            assert!(
                ping(client, machine.ipv4().unwrap(), &payload).unwrap() == payload,
                "a ping of {length} bytes"
            );
        }
        for id in IDS {
            let (sent, arrived) = self.tunnel.carry(client, machine, id).unwrap();
            assert_eq!(sent, arrived, "the foreign tunnel's packet {id:#06x}");
        }
    }
}

/// Moves some verified bytes both ways, and says which address the server saw as its own.
fn transfer(from: &Machine, target: SocketAddr) -> SocketAddr {
    let transfer =
        Transfer { target, up: 100_000, down: 100_000, seed: 22, source_port: None, timeout: PATIENCE };
    let record = transfer.run(from).unwrap().unwrap();
    assert_eq!(record.greeting.peer.ip(), from.address(), "the server sees the client's own address");
    record.greeting.local
}
