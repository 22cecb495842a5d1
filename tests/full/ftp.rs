//! FTP: a control connection and data connections in both directions, all of one client on one node.

use crate::curl::{Fetched, curl};
use crate::vsftpd::Vsftpd;
use dpr_lab::capture::{Capture, Frame};
use dpr_lab::{Cluster, ClusterPlan, IpVersion, Node, NodePlan, Plane, Server, wait_until};
use dpr_tests::binary;
use dpr_tests::noise::Noise;
use dpr_tests::order::explain;
use dpr_tests::packet::Packet;
use dpr_tests::stage::{PATIENCE, Stage};
use std::fs;
use std::net::SocketAddr;

const PORT: u16 = 21;
/// From where servers open data connections in active mode.
const DATA_PORT: u16 = 20;
const BYTES: usize = 1024 * 1024;
/// Lets programs bind to IPv6 delivery addresses, which no interface has; for passive mode.
const NONLOCAL_BIND: &str = "/proc/sys/net/ipv6/ip_nonlocal_bind";
/// Sessions in each mode.
const SESSIONS: usize = 5;

/// Who opens data connections, and how client and server agree on them: extended passive, passive (RFC 2428, RFC 959),
/// extended active, active. In passive mode curl goes to the address that the server announces.
const MODES_V4: [&[&str]; 4] = [
    &[],
    &["--disable-epsv", "--no-ftp-skip-pasv-ip"],
    &["--ftp-port", "-"],
    &["--ftp-port", "-", "--disable-eprt"],
];
/// IPv6 has the extended modes only.
const MODES_V6: [&[&str]; 2] = [&[], &["--ftp-port", "-"]];

pub(crate) fn translated() {
    sessions(NodePlan::default(), IpVersion::V4);
}

pub(crate) fn translated_in_ipv6() {
    sessions(NodePlan::default(), IpVersion::V6);
}

pub(crate) fn to_an_alias() {
    sessions(alias(), IpVersion::V4);
}

pub(crate) fn to_an_alias_in_ipv6() {
    sessions(alias(), IpVersion::V6);
}

pub(crate) fn by_programs() {
    sessions(NodePlan { plane: Plane::Xdp, ..NodePlan::default() }, IpVersion::V4);
}

pub(crate) fn to_an_alias_by_programs() {
    sessions(NodePlan { plane: Plane::Xdp, ..alias() }, IpVersion::V6);
}

fn alias() -> NodePlan {
    NodePlan { separate_service_address: true, delivery: Some("alias"), ..NodePlan::default() }
}

/// Three nodes with vsftpd; clients come to the first one.
struct Ftp {
    // Dropped in this order: programs before the machines they run on.
    servers: Vec<Vsftpd>,
    stage: Stage,
    version: IpVersion,
}

impl Ftp {
    fn start(plan: NodePlan, version: IpVersion) -> Self {
        let node = NodePlan {
            service_port: PORT,
            ports: vec!["20", "50000-50009"],
            persistence: true,
            server: Server::Other,
            metrics: NodePlan::paired(PORT).metrics,
            ..plan.in_version(version)
        };
        let is_translated = node.delivery.is_none();
        let mut cluster =
            Cluster::build(&ClusterPlan { nodes: 3, clients: 3, node }, binary::path()).unwrap();
        // Behind a translation a server cannot see which address its client knows.
        let announced = (is_translated && version == IpVersion::V4).then(|| cluster.nodes[0].service().ip());
        let start = |node: &Node| {
            if is_translated && version == IpVersion::V6 {
                node.machine().exec(|| fs::write(NONLOCAL_BIND, "1")).unwrap().unwrap();
            }
            let directory = cluster.lab.directory().join(format!("vsftpd-{}", node.name()));
            Vsftpd::start(node.machine(), version, announced, &directory)
        };
        let servers = cluster.nodes.iter().map(start).collect();
        cluster.start_daemons().unwrap();
        let stage = Stage::of(cluster);
        wait_until("every server to be seen", PATIENCE, || {
            let statuses = stage.statuses();
            let up = statuses.iter().all(|status| status.services.iter().all(|service| service.healthy));
            if up { Ok(()) } else { Err(format!("{:?}", statuses[0].services)) }
        })
        .unwrap();
        Self { servers, stage, version }
    }

    fn modes(&self) -> &'static [&'static [&'static str]] {
        match self.version {
            IpVersion::V4 => &MODES_V4,
            IpVersion::V6 => &MODES_V6,
        }
    }

    /// A session of its own for one transfer.
    fn transfer(&self, client: usize, arguments: &[&str], path: &str) -> Fetched {
        let url = format!("ftp://{}/{path}", self.stage.nodes[0].service());
        curl(&self.stage.clients[client], &[arguments, &[&url]].concat())
    }

    /// The node that serves a client, in every mode and session.
    fn server_of(&self, client: usize) -> String {
        let mut names = Vec::new();
        for mode in self.modes() {
            for _ in 0..SESSIONS {
                let fetched = self.transfer(client, mode, "name");
                assert_eq!(fetched.transfer().exit_code, 0, "{mode:?}: {fetched:?}\n{}", self.logs());
                names.push(fetched.text().to_owned());
            }
        }
        names.dedup();
        assert_eq!(names.len(), 1, "one node for all connections of a client");
        names.remove(0)
    }

    fn logs(&self) -> String {
        self.servers.iter().map(|server| server.log() + "\n").collect()
    }
}

fn sessions(plan: NodePlan, version: IpVersion) {
    let plane = plan.plane;
    let mut ftp = Ftp::start(plan, version);
    assert_eq!(ftp.stage.statuses()[0].dataplane.kind, plane.label());
    ftp.stage.set_loads(&[900, 100, 110]);
    let wants = |frame: &Frame| Packet::of(frame).is_some_and(|packet| packet.tcp.is_some());
    let capture = Capture::start(&ftp.stage.clients[0], wants).unwrap();

    let first = ftp.server_of(0);
    assert_ne!(first, "n1", "an overloaded node gives its clients away");
    both_ways(&ftp, &first);
    active_connections_come_from(&ftp, ftp.stage.nodes[0].service(), &capture.finish().unwrap().frames);
    shown(&ftp);

    // Loads change: clients stay, and new ones go elsewhere.
    let position = ftp.stage.nodes.iter().position(|node| node.name() == first).unwrap();
    let mut loads = [900, 100, 100];
    loads[position] = 950;
    ftp.stage.set_loads(&loads);
    assert_eq!(ftp.server_of(0), first);
    let second = ftp.server_of(1);
    assert!(second != first && second != "n1", "{second}");
    // The director's own clients too.
    ftp.stage.set_loads(&[100, 900, 900]);
    assert_eq!(ftp.server_of(2), "n1");
    assert_eq!(ftp.server_of(1), second);

    // A dead node has no clients any more.
    ftp.stage.nodes[position].node_kill().unwrap();
    let served_by = wait_until("another node to serve the client", PATIENCE, || {
        match ftp.transfer(0, &["--connect-timeout", "1"], "name").text() {
            "" => Err("nobody".to_owned()),
            name => Ok(name.to_owned()),
        }
    });
    assert_ne!(served_by.unwrap(), first);
    assert_ne!(ftp.server_of(0), first);
}

/// A large file there and back in every mode, byte by byte.
fn both_ways(ftp: &Ftp, node: &str) {
    let position = ftp.stage.nodes.iter().position(|other| other.name() == node).unwrap();
    let content = Noise(0xf7).bytes(BYTES);
    let source = ftp.stage.lab.directory().join("upload");
    fs::write(&source, &content).unwrap();
    for (number, mode) in ftp.modes().iter().enumerate() {
        let path = format!("incoming/{number}");
        let upload = [mode, &["--upload-file", source.to_str().unwrap()][..]].concat();
        let uploaded = ftp.transfer(0, &upload, &path);
        assert_eq!(uploaded.transfer().exit_code, 0, "{mode:?}: {uploaded:?}\n{}", ftp.logs());
        assert!(fs::read(ftp.servers[position].file(&path)).unwrap() == content, "{mode:?} there");
        let downloaded = ftp.transfer(0, mode, &path);
        assert!(downloaded.output == content, "{mode:?} back: {} bytes", downloaded.output.len());
    }
}

/// Who opens a connection to the client does so from the service address, as the client expects.
fn active_connections_come_from(ftp: &Ftp, service: SocketAddr, frames: &[Frame]) {
    let client = ftp.stage.clients[0].address_in(ftp.version).unwrap();
    let opening = frames.iter().filter_map(|frame| Packet::of(frame)?.tcp);
    let sources: Vec<SocketAddr> = opening
        .filter(|tcp| tcp.syn && tcp.to.ip() == client && tcp.to.port() != PORT)
        .map(|tcp| tcp.from)
        .collect();
    let expected = SocketAddr::new(service.ip(), DATA_PORT);
    let active = sources.iter().filter(|source| **source == expected).count();
    assert!(active >= SESSIONS, "{active} active data connections");
    assert!(sources.iter().all(|source| source.ip() == service.ip()), "{sources:?}");
}

/// The director says where its clients are.
fn shown(ftp: &Ftp) {
    let director = &ftp.stage.nodes[0];
    let status = &ftp.stage.statuses()[0];
    let own = status.services.iter().find(|service| service.owner == director.id()).unwrap();
    assert_eq!(own.ports, ["20", "50000-50009"]);
    assert_eq!(own.persistence.map(|persistence| persistence.timeout_s), Some(360));
    assert_eq!(status.clients.map(|clients| clients.clients), Some(1));
    let connections = director.connections(1000).unwrap();
    let client = connections.iter().find(|connection| connection.state == "client").unwrap();
    let expected = ftp.stage.clients[0].address_in(ftp.version).unwrap();
    assert_eq!((client.flow.client.address, client.flow.client.port), (expected, 0));
    // Any port of the service is explained, by any node.
    let to = |port| SocketAddr::new(director.service().ip(), port);
    for (node, port) in ftp.stage.nodes.iter().zip([PORT, 20, 50_009]) {
        let explained = explain(node, SocketAddr::new(expected, 1024), to(port));
        assert_eq!(explained.owner, Some(director.id()), "{port}");
    }
}
