//! From single keys to a [`Config`]: defaults that are no constants, and combinations that cannot be.

use super::finding::Finding;
use super::keys::{BalanceKeys, ConntrackKeys, GossipKeys, HttpKeys, Keys, NodeKeys};
use super::network::{Groups, HostAddress, Peers};
use super::schema::Located;
use super::services;
use super::value::Name;
use super::{Balance, Config, Conntrack, Defaults, Gossip, Node, Server};
use dpr_conntrack::Timeouts;
use dpr_model::{Capacity, ForwardingMethod, LoadPermille, NodeId, Weight};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration that `keys` describe, if nothing is missing; what contradicts itself goes to `findings`.
pub(super) fn resolve(
    keys: Keys,
    directory: &Path,
    defaults: &Defaults,
    findings: &mut Vec<Finding>,
) -> Option<Config> {
    let node = node(&keys.node, defaults);
    let services = services::resolve(&keys, findings);
    let delivery_ranges = services::delivery_ranges(&keys, findings);
    let gossip = gossip(&keys.gossip, keys.node.address.as_ref(), directory, findings);
    let conntrack = conntrack(&keys.conntrack, findings);
    let server = server(&keys.http, directory, findings);
    let dns = super::dns::dns(&keys, node.as_ref().map_or("", |node| &node.name), findings);
    let ownership = super::ownership::ownership(&keys, findings);
    let control_socket = control_socket(keys.control.socket.as_ref(), directory, findings);
    let services = services?;
    let translates = services.iter().any(|service| service.method == ForwardingMethod::Nat);
    Some(Config {
        node: node?,
        delivery_ranges: delivery_ranges?,
        nat_ports: translates.then_some(keys.nat.ports.as_ref()?.value.0),
        services,
        gossip: gossip?,
        balance: balance(&keys.balance)?,
        conntrack: conntrack?,
        server: server?,
        dns: dns?,
        ownership: ownership?,
        dataplane: keys.dataplane.kind.as_ref()?.value,
        program_mode: keys.dataplane.mode.as_ref()?.value,
        pin_directory: directory.join(&keys.dataplane.pin_directory.as_ref()?.value),
        control_socket: control_socket?,
        log_filter: keys.log.level.as_ref()?.value.as_str().to_owned(),
        keys,
    })
}

fn node(keys: &NodeKeys, defaults: &Defaults) -> Option<Node> {
    let address = keys.address.as_ref()?.value.0;
    let id = keys.id.as_ref().map_or_else(|| NodeId::from_address(address), |id| NodeId(id.value.get()));
    let name = match &keys.name {
        Some(name) => name.value.as_str().to_owned(),
        None => {
            Name::new(&defaults.host_name).map_or_else(|| id.to_string(), |name| name.as_str().to_owned())
        }
    };
    let ordinary_capacity = defaults.processors.saturating_mul(CAPACITY_PER_PROCESSOR);
    Some(Node {
        address,
        id,
        name,
        weight: Weight(keys.weight.as_ref()?.value.get()),
        capacity: Capacity::new(
            keys.capacity.as_ref().map_or(ordinary_capacity, |capacity| capacity.value.get()),
        ),
        interface: keys.interface.as_ref().map(|interface| interface.value.as_str().to_owned()),
        vlans: keys.vlans.as_ref()?.value.0.clone(),
    })
}

/// Concurrent connections per processor of an ordinary web server.
const CAPACITY_PER_PROCESSOR: u32 = 256;

fn gossip(
    keys: &GossipKeys,
    node_address: Option<&Located<HostAddress>>,
    directory: &Path,
    findings: &mut Vec<Finding>,
) -> Option<Gossip> {
    let peers = keys.peers.as_ref()?;
    let (node_address, own_at) = (node_address?.value.0, node_address?.at.clone());
    let groups = match &keys.groups {
        Some(groups) => groups.clone(),
        None => Located { value: Groups(vec![default_group(node_address)]), at: own_at },
    };
    if groups.value.0.is_empty() && peers.value.0.is_empty() {
        let instead = "name the other nodes in `peers`, or leave `groups` at its default";
        findings.push(Finding::new(
            groups.at.clone(),
            "without groups and peers nodes cannot find each other",
            instead,
        ));
    }
    for (list, at) in [(&groups.value.0, &groups.at), (&peers.value.0, &peers.at)] {
        if let Some(other) = list.iter().find(|socket| socket.is_ipv4() != node_address.is_ipv4()) {
            let problem = format!("{other} is of another IP version than the node address {node_address}");
            let instead = "load reports come from the node address: write addresses of its version";
            findings.push(Finding::new(at.clone(), problem, instead));
        }
    }
    let port = groups.value.0.first().map_or(Peers::PORT, SocketAddr::port);
    if let Some(other) = groups.value.0.iter().find(|group| group.port() != port) {
        let problem = format!("a node listens on one port for reports, and {other} is not on port {port}");
        findings.push(Finding::new(groups.at.clone(), problem, "write the same port for every group"));
    }
    Some(Gossip {
        groups: groups.value.0,
        port,
        peers: peers.value.0.iter().copied().filter(|peer| peer.ip() != node_address).collect(),
        interval: Duration::from_millis(keys.interval.as_ref()?.value.get()),
        key_file: keys.key_file.as_ref().map(|file| directory.join(&file.value)),
    })
}

/// A group within the organisation (RFC 2365, section 6.1), or the site (RFC 4291, section 2.7: transient). Reports do
/// not pass routers; the scope of an IPv6 group also makes the kernel send from an address that is not link-local.
fn default_group(node_address: IpAddr) -> SocketAddr {
    let group = match node_address {
        IpAddr::V4(_) => IpAddr::from([239, 255, 77, 77]),
        IpAddr::V6(_) => IpAddr::from([0xff15, 0, 0, 0, 0, 0, 0, 0x7777]),
    };
    SocketAddr::new(group, Peers::PORT)
}

fn balance(keys: &BalanceKeys) -> Option<Balance> {
    Some(Balance {
        policy: keys.policy.as_ref()?.value,
        maxload: LoadPermille(keys.maxload.as_ref()?.value.get()),
        metrics: keys.metrics.as_ref().map(|metrics| metrics.value.0.clone()),
    })
}

fn conntrack(keys: &ConntrackKeys, findings: &mut Vec<Finding>) -> Option<Conntrack> {
    let capacity: usize = keys.capacity.as_ref()?.value.get();
    let half_open_capacity = match &keys.half_open_capacity {
        None => HALF_OPEN_CAPACITY.min(capacity),
        Some(half_open) => {
            if half_open.value.get::<usize>() > capacity {
                let problem = format!("more half-open connections than the table holds at all ({capacity})");
                findings.push(Finding::new(
                    half_open.at.clone(),
                    problem,
                    format!("write at most {capacity}"),
                ));
            }
            half_open.value.get()
        }
    };
    Some(Conntrack {
        capacity,
        half_open_capacity,
        timeouts: Timeouts {
            syn: Duration::from_secs(keys.syn_timeout.as_ref()?.value.get()),
            established: Duration::from_secs(keys.established_timeout.as_ref()?.value.get()),
            fin: Duration::from_secs(keys.fin_timeout.as_ref()?.value.get()),
            close: Duration::from_secs(keys.close_timeout.as_ref()?.value.get()),
            udp: Duration::from_secs(keys.udp_timeout.as_ref()?.value.get()),
        },
        clients: keys.clients.as_ref()?.value.get(),
    })
}

/// Half-open entries by default: a minute of a thousand unanswered SYNs a second.
const HALF_OPEN_CAPACITY: usize = 65_536;

fn server(keys: &HttpKeys, directory: &Path, findings: &mut Vec<Finding>) -> Option<Server> {
    match (&keys.root, keys.external.as_ref()?.value) {
        (None, false) => Some(Server::Page),
        (Some(root), false) => Some(Server::Files(directory.join(&root.value))),
        (None, true) => Some(Server::External),
        (Some(root), true) => {
            let problem = "`root` is for the built-in server, which `external = true` switches off";
            findings.push(Finding::new(root.at.clone(), problem, "remove one of the two"));
            None
        }
    }
}

/// Bytes of a UNIX socket's path at most: `sun_path` of `sockaddr_un` without its final zero, unix(7).
const SOCKET_PATH_MAX: usize = 107;

fn control_socket(
    socket: Option<&Located<PathBuf>>,
    directory: &Path,
    findings: &mut Vec<Finding>,
) -> Option<PathBuf> {
    let socket = socket?;
    let path = directory.join(&socket.value);
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        let problem = format!("the path of a UNIX socket has at most {SOCKET_PATH_MAX} bytes");
        findings.push(Finding::new(socket.at.clone(), problem, "choose a shorter path"));
        return None;
    }
    Some(path)
}
