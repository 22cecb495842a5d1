//! From the keys of services to services: what belongs together, and what cannot be.

mod shared;

use super::choice::{Method, NatKind};
use super::finding::Finding;
use super::keys::{Keys, ServiceKeys};
use super::network::DeliveryPrefix;
use super::schema::Located;
use super::{Persistence, Policy, ServerWithoutDpr, Service};
use dpr_director::DeliveryRanges;
use dpr_load_gossip::message::{PORT_RANGES_IN_ALL_MAX, SERVICES_MAX};
use dpr_model::{Capacity, DeliveryMode, ForwardingMethod, NodeId, PortRange, Sharing, Weight};
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

/// The services that `keys` describe, if nothing is missing; what contradicts itself goes to `findings`.
pub(super) fn resolve(keys: &Keys, findings: &mut Vec<Finding>) -> Option<Vec<Service>> {
    let node_address = keys.node.address.as_ref().map(|address| address.value.0);
    let is_agreed = keys.ownership.voters.is_some();
    let mut services: Vec<Service> = Vec::new();
    let mut complete = true;
    for (service_keys, place) in &keys.services {
        let Some(mut service) = service(service_keys, node_address, is_agreed) else {
            complete = false;
            continue;
        };
        service.shared_mac = shared::mac_of(&service, service_keys);
        let mut object = |problem: String, instead: &str| {
            findings.push(Finding::new(place.0.clone(), problem, instead.to_owned()));
        };
        refuse_twins(&services, &service, &mut object);
        refuse_ports(&services, &service, &mut object);
        refuse_persistence(&service, keys.balance.policy.as_ref().map(|policy| policy.value), &mut object);
        if let Some(node_address) = node_address {
            refuse_method(&service, node_address, &mut object);
        }
        refuse_servers(&service, service_keys, findings);
        shared::refuse(&service, service_keys, (node_address, is_agreed), findings);
        services.push(service);
    }
    if let Some((_, place)) = keys.services.get(SERVICES_MAX) {
        let problem = format!("more than {SERVICES_MAX} services do not fit into a load report");
        findings.push(Finding::new(place.0.clone(), problem, "spread the services over more nodes"));
    }
    let ranges: usize = services.iter().map(|service| service.ports.ranges().count()).sum();
    if let Some((_, place)) = keys.services.last().filter(|_| ranges > PORT_RANGES_IN_ALL_MAX) {
        let problem = format!("{ranges} port ranges do not fit into a load report");
        let instead = format!("write at most {PORT_RANGES_IN_ALL_MAX} for all services together");
        findings.push(Finding::new(place.0.clone(), problem, instead));
    }
    (complete && !services.is_empty()).then_some(services)
}

fn service(keys: &ServiceKeys, node_address: Option<IpAddr>, is_agreed: bool) -> Option<Service> {
    let method = match (keys.method.as_ref()?.value, keys.nat.as_ref()?.value) {
        (Method::Ipip, _) => ForwardingMethod::Ipip,
        (Method::Gue, _) => ForwardingMethod::Gue,
        (Method::Nat, NatKind::Full) => ForwardingMethod::Nat,
        (Method::Nat, NatKind::Half) => ForwardingMethod::HalfNat,
        (Method::Dr, _) => ForwardingMethod::Dr,
    };
    let address = keys.address.as_ref().map(|address| address.value.0).or(node_address)?;
    Some(Service {
        address,
        port: keys.port.as_ref()?.value.get(),
        ports: keys.ports.as_ref()?.value.0,
        protocol: keys.protocol.as_ref()?.value,
        method,
        delivery: keys.delivery.as_ref()?.value,
        persistence: persistence(keys, address)?,
        sharing: sharing(keys, is_agreed)?,
        partition_by: keys.partition_by.as_ref()?.value,
        shared_mac: None,
        servers: servers(keys)?,
    })
}

fn persistence(keys: &ServiceKeys, address: IpAddr) -> Option<Option<Persistence>> {
    let timeout = Duration::from_secs(keys.persistence_timeout.as_ref()?.value.get());
    let whole = address_bits(address);
    let prefix_len = keys.persistence_prefix.as_ref().map_or(whole, |prefix| prefix.value.get());
    Some(keys.persistence.as_ref()?.value.then_some(Persistence { prefix_len, timeout }))
}

fn address_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Without agreement an address is its home's, for good.
fn sharing(keys: &ServiceKeys, is_agreed: bool) -> Option<Sharing> {
    Some(match (keys.shared.as_ref()?.value, keys.takeover.as_ref()?.value) {
        (true, _) => Sharing::Shared(keys.ingress.as_ref()?.value),
        (false, true) if is_agreed => Sharing::Takeover,
        (false, _) => Sharing::Home,
    })
}

fn servers(keys: &ServiceKeys) -> Option<Vec<ServerWithoutDpr>> {
    let Some(servers) = &keys.servers else { return Some(Vec::new()) };
    let server = |located: &Located<super::keys::ServerKeys>| {
        let server = &located.value;
        Some(ServerWithoutDpr {
            socket: server.address.as_ref()?.value.0,
            weight: Weight(server.weight.as_ref()?.value.get()),
            capacity: server.capacity.as_ref().map(|capacity| Capacity::new(capacity.value.get())),
        })
    };
    servers.value.0.iter().map(server).collect()
}

fn refuse_twins(others: &[Service], service: &Service, object: &mut impl FnMut(String, &str)) {
    let socket = |service: &Service| (service.address, service.port, service.protocol);
    if others.iter().any(|other| socket(other) == socket(service)) {
        let shown = std::net::SocketAddr::new(service.address, service.port);
        let problem = format!("{} {shown} is a service already", service.protocol.label());
        object(problem, "remove one, or change its address or port");
    }
    let mixes = |other: &&Service| other.address == service.address && other.delivery != service.delivery;
    if others.iter().any(|other| mixes(&other)) {
        let problem = format!("services of {} are delivered in two ways", service.address);
        object(problem, "write the same `delivery` for all services of one address");
    }
    let differs = |other: &&Service| {
        other.address == service.address
            && (other.sharing, other.shared_mac) != (service.sharing, service.shared_mac)
    };
    if others.iter().any(|other| differs(&other)) {
        let problem = format!("services of {} are owned in two ways", service.address);
        object(problem, "write the same `shared`, `ingress`, `shared-mac` and `takeover` for all of them");
    }
}

/// Every port of an address is one service's.
fn refuse_ports(others: &[Service], service: &Service, object: &mut impl FnMut(String, &str)) {
    let translates = matches!(service.method, ForwardingMethod::Nat | ForwardingMethod::HalfNat);
    if translates && service.ports.ranges().next().is_some() {
        let problem = "further `ports` and translated addresses do not go together".to_owned();
        object(problem, "write another `method`, or a `[[service]]` for each port");
    }
    let neighbours: Vec<PortRange> = others
        .iter()
        .filter(|other| (other.address, other.protocol) == (service.address, service.protocol))
        .filter(|other| other.port != service.port)
        .flat_map(ranges)
        .collect();
    let own = ranges(service);
    for (position, range) in own.iter().enumerate() {
        let mut taken = neighbours.iter().chain(&own[..position]);
        if let Some(other) = taken.find(|other| other.overlaps(*range)) {
            let problem = format!("ports {range} and {other} of {} have a port in common", service.address);
            object(problem, "leave each port to one service");
        }
    }
}

/// All ports of a service.
fn ranges(service: &Service) -> Vec<PortRange> {
    PortRange::new(service.port, service.port).into_iter().chain(service.ports.ranges()).collect()
}

fn refuse_persistence(service: &Service, policy: Option<Policy>, object: &mut impl FnMut(String, &str)) {
    let Some(persistence) = service.persistence else { return };
    if persistence.prefix_len > address_bits(service.address) {
        let problem =
            format!("an address such as {} has no {} bits", service.address, persistence.prefix_len);
        object(problem, "write at most 32 as `persistence-prefix` of an IPv4 service");
    }
    if policy == Some(Policy::Stateless) {
        let problem = "the policy `stateless` remembers no clients".to_owned();
        object(problem, "write another `policy`, or leave `persistence` out");
    }
}

fn refuse_method(service: &Service, node_address: IpAddr, object: &mut impl FnMut(String, &str)) {
    if service.delivery == DeliveryMode::Alias && service.address == node_address {
        let problem =
            format!("{node_address} is the node address, and peers that have it too cannot reach this node");
        object(problem, "give the service an address of its own, or deliver it by `translate`");
    }
    let translates = matches!(service.method, ForwardingMethod::Nat | ForwardingMethod::HalfNat);
    if translates && service.address.is_ipv4() != node_address.is_ipv4() {
        let problem =
            format!("translation keeps the IP version, and the node address {node_address} is of another");
        object(problem, "use `ipip` or `gue`, or a service address of the node address's version");
    }
    if service.method == ForwardingMethod::HalfNat && service.servers.is_empty() {
        let problem = "`nat = \"half\"` is for servers without dpr, and there are none".to_owned();
        object(problem, "add `[[service.server]]`, or write `nat = \"full\"`");
    }
    if !translates && !service.servers.is_empty() {
        let problem = "only translated packets mean anything to servers without dpr".to_owned();
        object(problem, "write `method = \"nat\"`");
    }
}

/// Each server is one that translated packets can reach, and is there once.
fn refuse_servers(service: &Service, keys: &ServiceKeys, findings: &mut Vec<Finding>) {
    let places = keys.servers.iter().flat_map(|servers| servers.value.0.iter().map(|server| &server.at));
    for (position, (server, place)) in service.servers.iter().zip(places).enumerate() {
        let mut object =
            |problem: String, instead: &str| findings.push(Finding::new(place.clone(), problem, instead));
        if server.socket.is_ipv4() != service.address.is_ipv4() {
            let problem = format!("{} is of another IP version than {}", server.socket, service.address);
            object(problem, "translation keeps the IP version: write a server of the service's");
        }
        if server.socket.ip() == service.address {
            let problem = format!("{} is the service itself", server.socket);
            object(problem, "leave it out: this node serves what it keeps");
        }
        let id = NodeId::of_external(server.socket);
        if let Some(twin) =
            service.servers[..position].iter().find(|other| NodeId::of_external(other.socket) == id)
        {
            let problem = format!("{} and {} cannot be told apart", twin.socket, server.socket);
            object(problem, "remove one, or let it listen on another port");
        }
    }
}

/// The prefixes that all services share.
pub(super) fn delivery_ranges(keys: &Keys, findings: &mut Vec<Finding>) -> Option<DeliveryRanges> {
    let services = || keys.services.iter().map(|(service, _)| service);
    let v4 = one_range(services().filter_map(|service| service.delivery_address.as_ref()), findings)?;
    let v6 = one_range(services().filter_map(|service| service.delivery_address_v6.as_ref()), findings)?;
    let ranges = DeliveryRanges::default().with(v4.value.0).with(v6.value.0);
    let addresses = services().filter_map(|service| service.address.as_ref());
    for address in keys.node.address.iter().chain(addresses) {
        if ranges.contains(address.value.0) {
            findings.push(within_the_ranges(address.value.0, address.at.clone()));
        }
    }
    for server in
        services().filter_map(|service| service.servers.as_ref()).flat_map(|servers| &servers.value.0)
    {
        let socket = server.value.address.as_ref().filter(|socket| ranges.contains(socket.value.0.ip()));
        findings.extend(socket.map(|socket| within_the_ranges(socket.value.0.ip(), socket.at.clone())));
    }
    Some(ranges)
}

fn one_range<'a, const V6: bool>(
    mut ranges: impl Iterator<Item = &'a Located<DeliveryPrefix<V6>>>,
    findings: &mut Vec<Finding>,
) -> Option<&'a Located<DeliveryPrefix<V6>>> {
    let first = ranges.next()?;
    for other in ranges.filter(|other| other.value != first.value) {
        let problem =
            format!("{} and {} cannot both be this node's delivery range", first.value, other.value);
        findings.push(Finding::new(other.at.clone(), problem, "write the same prefix in every service"));
    }
    Some(first)
}

fn within_the_ranges(address: IpAddr, at: Range<usize>) -> Finding {
    let problem = format!("{address} is in a range of delivery addresses");
    Finding::new(at, problem, "choose another `delivery-address` for the services")
}
