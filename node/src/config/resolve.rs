//! From single keys to a [`Config`]: defaults that are no constants, and combinations that cannot be.

use super::finding::Finding;
use super::keys::{BalanceKeys, ConntrackKeys, GossipKeys, HttpKeys, Keys, NodeKeys, ServiceKeys};
use super::schema::Located;
use super::value::{HostAddress, Ipv4Prefix, Name, Peers};
use super::{Balance, Config, Conntrack, Defaults, Gossip, Node, Server, Service};
use dpr_load_gossip::message::SERVICES_MAX;
use dpr_model::{Capacity, LoadPermille, NodeId, Weight};
use std::net::{Ipv4Addr, SocketAddrV4};
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
    let services = services(&keys, findings);
    let delivery_range = delivery_range(&keys, findings);
    if let Some(range) = &delivery_range {
        keep_out_of_delivery_range(&keys, range, findings);
    }
    let gossip = gossip(&keys.gossip, keys.node.address.as_ref(), directory, findings);
    let conntrack = conntrack(&keys.conntrack, findings);
    let server = server(&keys.http, directory, findings);
    let dns = super::dns::dns(&keys, node.as_ref().map_or("", |node| &node.name), findings);
    let control_socket = control_socket(keys.control.socket.as_ref(), directory, findings);
    Some(Config {
        node: node?,
        services: services?,
        delivery_range: delivery_range?.value,
        gossip: gossip?,
        balance: balance(&keys.balance)?,
        conntrack: conntrack?,
        server: server?,
        dns: dns?,
        dataplane: keys.dataplane.kind.as_ref()?.value,
        control_socket: control_socket?,
        log_filter: keys.log.level.as_ref()?.value.as_str().to_owned(),
        keys,
    })
}

fn node(keys: &NodeKeys, defaults: &Defaults) -> Option<Node> {
    let address = keys.address.as_ref()?.value.0;
    let id =
        keys.id.as_ref().map_or_else(|| NodeId::from_address(address.into()), |id| NodeId(id.value.get()));
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
    })
}

/// Concurrent connections per processor of an ordinary web server.
const CAPACITY_PER_PROCESSOR: u32 = 256;

fn services(keys: &Keys, findings: &mut Vec<Finding>) -> Option<Vec<Service>> {
    let node_address = keys.node.address.as_ref().map(|address| address.value.0);
    let mut services: Vec<Service> = Vec::new();
    let mut complete = true;
    for (service_keys, place) in &keys.services {
        let Some(service) = service(service_keys, node_address) else {
            complete = false;
            continue;
        };
        let socket = |service: &Service| (service.address, service.port, service.protocol);
        if services.iter().any(|other| socket(other) == socket(&service)) {
            let problem = format!(
                "{} {}:{} is a service already",
                service.protocol.label(),
                service.address,
                service.port
            );
            findings.push(Finding::new(
                place.0.clone(),
                problem,
                "remove one, or change its address or port",
            ));
        }
        services.push(service);
    }
    if let Some((_, place)) = keys.services.get(SERVICES_MAX) {
        let problem = format!("more than {SERVICES_MAX} services do not fit into a load report");
        findings.push(Finding::new(place.0.clone(), problem, "spread the services over more nodes"));
    }
    (complete && !services.is_empty()).then_some(services)
}

fn service(keys: &ServiceKeys, node_address: Option<Ipv4Addr>) -> Option<Service> {
    Some(Service {
        address: keys.address.as_ref().map(|address| address.value.0).or(node_address)?,
        port: keys.port.as_ref()?.value.get(),
        protocol: keys.protocol.as_ref()?.value,
        method: keys.method.as_ref()?.value,
        delivery: keys.delivery.as_ref()?.value,
    })
}

/// The one prefix that all services share.
fn delivery_range(keys: &Keys, findings: &mut Vec<Finding>) -> Option<Located<Ipv4Prefix>> {
    let mut ranges = keys.services.iter().filter_map(|(service, _)| service.delivery_address.as_ref());
    let first = ranges.next()?;
    for other in ranges.filter(|other| other.value != first.value) {
        let problem =
            format!("{} and {} cannot both be this node's delivery range", first.value, other.value);
        findings.push(Finding::new(other.at.clone(), problem, "write the same prefix in every service"));
    }
    Some(first.clone())
}

fn keep_out_of_delivery_range(keys: &Keys, range: &Located<Ipv4Prefix>, findings: &mut Vec<Finding>) {
    let services = keys.services.iter().filter_map(|(service, _)| service.address.as_ref());
    for address in keys.node.address.iter().chain(services) {
        if range.value.contains(address.value.0) {
            let problem =
                format!("{} is in {}, the range of delivery addresses", address.value.0, range.value);
            let instead = "choose another `delivery-address` for the services";
            findings.push(Finding::new(address.at.clone(), problem, instead));
        }
    }
}

fn gossip(
    keys: &GossipKeys,
    node_address: Option<&Located<HostAddress>>,
    directory: &Path,
    findings: &mut Vec<Finding>,
) -> Option<Gossip> {
    let (groups, peers) = (keys.groups.as_ref()?, keys.peers.as_ref()?);
    if groups.value.0.is_empty() && peers.value.0.is_empty() {
        let instead = "name the other nodes in `peers`, or leave `groups` at its default";
        findings.push(Finding::new(
            groups.at.clone(),
            "without groups and peers nodes cannot find each other",
            instead,
        ));
    }
    let port = groups.value.0.first().map_or(Peers::PORT, SocketAddrV4::port);
    if let Some(other) = groups.value.0.iter().find(|group| group.port() != port) {
        let problem = format!("a node listens on one port for reports, and {other} is not on port {port}");
        findings.push(Finding::new(groups.at.clone(), problem, "write the same port for every group"));
    }
    let own = node_address.map(|address| address.value.0);
    Some(Gossip {
        groups: groups.value.0.clone(),
        port,
        peers: peers.value.0.iter().copied().filter(|peer| Some(*peer.ip()) != own).collect(),
        interval: Duration::from_millis(keys.interval.as_ref()?.value.get()),
        key_file: keys.key_file.as_ref().map(|file| directory.join(&file.value)),
    })
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
        syn_timeout: Duration::from_secs(keys.syn_timeout.as_ref()?.value.get()),
        established_timeout: Duration::from_secs(keys.established_timeout.as_ref()?.value.get()),
        fin_timeout: Duration::from_secs(keys.fin_timeout.as_ref()?.value.get()),
        close_timeout: Duration::from_secs(keys.close_timeout.as_ref()?.value.get()),
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
