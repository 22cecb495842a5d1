//! What stands in the middle of a lane and forwards.

use super::lane::{DIRECTOR, INGRESS_LINK, SINK, Way};
use super::rivals::{self, Replies};
use super::source::SERVICE_PORT;
use crate::config::{Config, DataplaneKind, Defaults};
use crate::dataplane::{self, Peer, ThisNode, Update};
use anyhow::Context as _;
use dpr_director::PolicyKind;
use dpr_host::{NetNamespace, Sysctl};
use dpr_model::{
    Candidate, Capacity, Incarnation, LoadPermille, NodeId, NodeState, Protocol, ServiceReport,
    ServiceSocket, Weight,
};
use dpr_xdp::Sizes;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// Not in a BPF file system: programs end with the benchmark.
const NO_PINS: &str = "/proc";
/// Told to a data plane before it is measured.
const UPDATES: usize = 3;
const UPDATE_INTERVAL: Duration = Duration::from_millis(20);

/// A director at work.
pub(super) struct Running {
    plane: Option<dataplane::Handle>,
    _namespace: NetNamespace,
}

impl Running {
    pub(super) fn stop(self) -> anyhow::Result<()> {
        let Some(plane) = self.plane else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(plane.stop()).context("stopping the data plane")
    }
}

/// Starts what the lane is about, in the director's namespace.
pub(super) fn start(way: Way, namespace: NetNamespace) -> anyhow::Result<Running> {
    let mut plane = None;
    match way {
        Way::Wire => {}
        Way::Userspace => plane = Some(namespace.enter(|| start_plane(DataplaneKind::Userspace))??),
        Way::Programs => plane = Some(namespace.enter(|| start_plane(DataplaneKind::Xdp))??),
        Way::KernelRouting => namespace.enter(|| Sysctl::ip_forward().write("1"))??,
        Way::NftablesDnat => {
            rivals::translate(
                &namespace,
                (DIRECTOR, SERVICE_PORT),
                (SINK, SERVICE_PORT),
                Replies::OfTheirOwn,
            )?;
        }
    }
    Ok(Running { plane, _namespace: namespace })
}

/// The data plane of a node with the default configuration, and the sink as its lighter peer.
fn start_plane(kind: DataplaneKind) -> anyhow::Result<dataplane::Handle> {
    let file = format!("[node]\naddress = \"{DIRECTOR}\"\n[[service]]\nport = {SERVICE_PORT}\n");
    let defaults = Defaults { host_name: "bench".to_owned(), processors: 1 };
    let config = Config::parse(Path::new("bench.toml"), &file, &defaults)?;
    let settings = dataplane::Settings {
        node: config.node.id,
        address: config.node.address,
        interface: INGRESS_LINK.to_owned(),
        vlans: config.node.vlans,
        services: config.services,
        delivery_ranges: config.delivery_ranges,
        nat_ports: config.nat_ports,
        conntrack: config.conntrack,
        program_mode: config.program_mode,
        pin_directory: Path::new(NO_PINS).to_owned(),
    };
    let plane = dataplane::start(kind, &settings)?;
    // More than one: the way to the sink is asked for at the first.
    for _ in 0..UPDATES {
        plane.update(None, update());
        sleep(UPDATE_INTERVAL);
    }
    Ok(plane)
}

/// This node is full and the sink is idle, so that every connection goes there.
fn update() -> Update {
    let service = |address: std::net::Ipv4Addr| {
        let socket = ServiceSocket { address: address.into(), port: SERVICE_PORT };
        ServiceReport::new(Protocol::Tcp, socket)
    };
    let sink = Peer {
        candidate: Candidate {
            node: NodeId::from_address(SINK.into()),
            address: SINK.into(),
            load: LoadPermille(0),
            capacity: Capacity::new(1000),
            weight: Weight::ORDINARY,
            outstanding: 0,
        },
        state: NodeState::Active,
        alive: true,
        incarnation: Incarnation(1),
        report_interval: Duration::from_millis(100),
        acknowledged: None,
        services: [service(SINK)].into(),
        nat_ports: None,
        mtu: None,
        source_filters: dpr_model::SourceFilters::default(),
    };
    Update {
        this: ThisNode {
            state: NodeState::Active,
            load: LoadPermille(1000),
            capacity: Capacity::new(1000),
            weight: Weight::ORDINARY,
            services: vec![service(DIRECTOR)],
        },
        peers: vec![sink],
        external: Vec::new(),
        frozen: false,
        policy: PolicyKind::LocalEstimates,
        maxload: LoadPermille(0),
    }
}

/// Whether this user may load the kernel's programs.
pub(super) fn programs_can_be_loaded() -> bool {
    dpr_xdp::load(Sizes { flows: 1, half_open: 1 }, None).is_ok()
}
