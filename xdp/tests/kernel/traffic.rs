//! The programs on interfaces: real connections through two nodes in namespaces of their own.
//!
//! ```text
//! client ═╦═ A: full, hands everything on        10.9.0.9 · 10.9.0.1 · 10.9.0.2
//!         ╚═ B: serves, and answers the client directly
//! ```

use crate::world::{candidate, node_address, peer, service};
use dpr_conntrack::Config;
use dpr_director::{
    DeliveryRange, DeliveryRanges, Director, PersistenceSettings, Settings, ThisNode, Update,
};
use dpr_host::{
    AddressOptions, BridgeOptions, IpPrefix, LinkIndex, NetNamespace, Netlink, Offload, Offloads, Route,
    RouteKind, RouteTable, Scope, VethEnd,
};
use dpr_model::{
    Candidate, Capacity, ForwardingMethod, LoadPermille, MacAddress, NodeId, NodeState, ServiceReport,
    Timestamp, Weight,
};
use dpr_rewrite::Version;
use dpr_xdp::{Attached, Host, Mirror, Mode, NextHop, Programs, Sizes, Tables, Timeouts, Wanted};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 9);
const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const PORT: u16 = 80;
const DELIVERIES: DeliveryRange = DeliveryRange::DEFAULT_V4;
const BRIDGE: &str = "bridge";
const LINK: &str = "in";
const CONNECTIONS: usize = 20;
/// Enough for joined segments on the way back.
const DOWNLOAD_LEN: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// A node: its namespace, its interface there, its programs.
struct Node {
    namespace: NetNamespace,
    link: LinkIndex,
    mac: MacAddress,
}

/// What both nodes have in common.
struct Cluster {
    mode: Mode,
    /// Version of the node addresses.
    nodes: Version,
    method: ForwardingMethod,
}

struct Running {
    programs: Programs,
    tables: Tables,
}

pub(crate) fn behind_the_driver() {
    forward_connections(Mode::Generic, Version::V4, ForwardingMethod::Ipip);
}

pub(crate) fn in_the_driver() {
    forward_connections(Mode::Native, Version::V4, ForwardingMethod::Ipip);
}

pub(crate) fn over_ipv6() {
    forward_connections(Mode::Native, Version::V6, ForwardingMethod::Ipip);
    forward_connections(Mode::Generic, Version::V6, ForwardingMethod::Gue);
}

fn forward_connections(mode: Mode, nodes: Version, method: ForwardingMethod) {
    let client = NetNamespace::create().unwrap();
    client.enter(make_bridge).unwrap();
    let (a, b) = (node(&client, "a", A), node(&client, "b", B));
    // What a driver's program sends back into a cable is taken only by an end that has a program as well. One that knows
    // nothing lets everything pass.
    let (mut ignorant, _) = dpr_xdp::load(Sizes { flows: 1, half_open: 1 }, None).unwrap();
    for port in ["a", "b"] {
        client.enter(|| ignorant.attach(port, Wanted::Only(mode))).unwrap().unwrap();
    }
    for (node, name) in [(&a, b'A'), (&b, b'B')] {
        let listener = node.namespace.enter(|| TcpListener::bind(("0.0.0.0", PORT))).unwrap().unwrap();
        thread::spawn(move || serve(&listener, name));
    }
    let cluster = Cluster { mode, nodes, method };
    let director = cluster.start(&a, A, LoadPermille(1000), (B, LoadPermille(0)), b.mac);
    let server = cluster.start(&b, B, LoadPermille(0), (A, LoadPermille(1000)), a.mac);

    for _ in 0..CONNECTIONS {
        assert_eq!(client.enter(download).unwrap(), vec![b'B'; DOWNLOAD_LEN]);
    }

    let counted = director.tables.counters().unwrap();
    assert_eq!(counted.connections_forwarded, CONNECTIONS as u64);
    assert!(counted.packets_forwarded > CONNECTIONS as u64 * 5, "{counted:?}");
    let counted = server.tables.counters().unwrap();
    assert!(counted.packets_received > 0 && counted.packets_replied > 0, "{counted:?}");
    let counts = server.tables.counts(2).unwrap();
    assert_eq!(counts[1].received, CONNECTIONS as u64);

    // Without programs the kernel has its packets again.
    drop(director.programs);
    assert_eq!(client.enter(download).unwrap(), vec![b'A'; DOWNLOAD_LEN]);
}

/// Asks the service on A and reads everything.
fn download() -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&SocketAddrV4::new(A, PORT).into(), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    received
}

fn serve(listener: &TcpListener, name: u8) {
    for stream in listener.incoming() {
        // A client that has gone is no fault of the server.
        let _ = stream.and_then(|mut stream| stream.write_all(&vec![name; DOWNLOAD_LEN]));
    }
}

fn make_bridge() {
    let mut netlink = Netlink::open().unwrap();
    netlink.create_bridge(BRIDGE, BridgeOptions::default()).unwrap();
    let bridge = netlink.link_by_name(BRIDGE).unwrap().unwrap();
    netlink.set_up(bridge.index).unwrap();
    let prefix = IpPrefix::new(CLIENT.into(), 24).unwrap();
    netlink.add_address(bridge.index, prefix, AddressOptions::default()).unwrap();
    // A local sender leaves checksums to the device, and XDP would send them on unfinished.
    Offloads::set(BRIDGE, Offload::TxChecksum, false).unwrap();
}

/// A namespace with a cable to the client's bridge, and a way for delivery addresses into its TCP stack.
fn node(client: &NetNamespace, name: &str, address: Ipv4Addr) -> Node {
    let namespace = NetNamespace::create().unwrap();
    client
        .enter(|| {
            let mut netlink = Netlink::open().unwrap();
            let far = VethEnd { namespace: Some(namespace.as_fd()), ..VethEnd::named(LINK) };
            netlink.create_veth(VethEnd::named(name), far).unwrap();
            let near = netlink.link_by_name(name).unwrap().unwrap().index;
            let bridge = netlink.link_by_name(BRIDGE).unwrap().unwrap().index;
            netlink.set_master(near, Some(bridge)).unwrap();
            netlink.set_up(near).unwrap();
        })
        .unwrap();
    let (link, mac) = namespace
        .enter(|| {
            let mut netlink = Netlink::open().unwrap();
            let link = netlink.link_by_name(LINK).unwrap().unwrap();
            netlink.set_up(link.index).unwrap();
            let prefix = IpPrefix::new(address.into(), 24).unwrap();
            netlink.add_address(link.index, prefix, AddressOptions::default()).unwrap();
            let deliveries = IpPrefix::new(DELIVERIES.network(), DELIVERIES.prefix_len()).unwrap();
            let route = Route {
                kind: RouteKind::Local,
                scope: Scope::Host,
                ..Route::on_link(deliveries, link.index).in_table(RouteTable::LOCAL)
            };
            netlink.add_route(&route).unwrap();
            (link.index, link.mac.unwrap())
        })
        .unwrap();
    Node { namespace, link, mac }
}

impl Cluster {
    /// Loads and attaches the programs of a node that has one peer.
    fn start(
        &self,
        node: &Node,
        home: Ipv4Addr,
        load: LoadPermille,
        (peer_home, peer_load): (Ipv4Addr, LoadPermille),
        peer_mac: MacAddress,
    ) -> Running {
        let address = node_address(self.nodes, home);
        let id = NodeId::from_address(address);
        let mut director = Director::new(Settings {
            node: id,
            address,
            delivery_ranges: DeliveryRanges::default(),
            services: vec![self.service(home)],
            answer_for: Vec::new(),
            mtu: 1500,
            nat_ports: None,
            conntrack: Config { capacity: 1, half_open_capacity: 1, ..Config::with_seed([1, 2]) },
            persistence: PersistenceSettings::default(),
            seed: 1,
        });
        let peer_address = node_address(self.nodes, peer_home);
        let its = Candidate {
            node: NodeId::from_address(peer_address),
            address: peer_address,
            ..candidate(peer_home, peer_load.0, 1000, 100)
        };
        let update = Update {
            this: ThisNode {
                state: NodeState::Active,
                load,
                capacity: Capacity::new(1000),
                weight: Weight::ORDINARY,
                services: vec![self.service(home)],
            },
            peers: vec![peer(its, vec![self.service(peer_home)])],
            external: Vec::new(),
            frozen: false,
            policy: dpr_director::PolicyKind::LocalEstimates,
            maxload: LoadPermille(0),
        };
        director.update(&update, Timestamp::from_millis(1000));
        let (mut programs, mut tables) = dpr_xdp::load(Sizes { flows: 1024, half_open: 1024 }, None).unwrap();
        let timeouts =
            Timeouts { syn: PATIENCE, established: PATIENCE, fin: PATIENCE, close: PATIENCE, udp: PATIENCE };
        let host = Host {
            mac: node.mac,
            shared_macs: &[],
            routers: [None; 2],
            timeouts,
            boot_time_ns: u64::MAX / 2,
            now: Timestamp::default(),
            flow_seed: 0,
        };
        let next = NextHop { link: node.link.0, source: node.mac, destination: peer_mac };
        let content = Mirror::new(id).content(&director.view(), &[], &host, |_| Some(next));
        tables.write(&content).unwrap();
        let attached =
            node.namespace.enter(|| programs.attach(LINK, Wanted::Only(self.mode))).unwrap().unwrap();
        assert_eq!(attached, Attached { mode: self.mode, why_not_native: None });
        Running { programs, tables }
    }

    fn service(&self, home: Ipv4Addr) -> ServiceReport {
        ServiceReport { method: self.method, ..service(home, PORT) }
    }
}
