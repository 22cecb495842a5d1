//! Sockets of the services, as the kernel lists them.

use super::counted::{Connections, Counted};
use crate::config::Service;
use dpr_director::{DeliveryRange, DeliveryRanges};
use dpr_host::sock_diag::{InetSockets, Listener};
use dpr_model::{DeliveryMode, Protocol, ServiceSocket};
use dpr_rewrite::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Where a server has to listen to get a service's packets; services of several addresses have one in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Door {
    /// Transport protocol.
    pub(crate) protocol: Protocol,
    /// IPv6, not IPv4.
    pub(crate) is_v6: bool,
    /// Port.
    pub(crate) port: u16,
}

impl Door {
    /// That of a service.
    pub(crate) fn of(protocol: Protocol, service: ServiceSocket) -> Self {
        Self { protocol, is_v6: service.address.is_ipv6(), port: service.port }
    }
}

/// Looks for sockets of the service ports.
pub(super) struct Sockets {
    /// `None` where the kernel cannot list sockets, or nothing asks.
    tcp: Option<InetSockets>,
    udp: Option<InetSockets>,
    /// Each door, and an address that packets come to there.
    doors: BTreeMap<Door, IpAddr>,
    tcp_ports: Vec<u16>,
    ranges: DeliveryRanges,
    counted: Option<Counted>,
}

impl Sockets {
    pub(super) fn new(services: &[Service], ranges: DeliveryRanges) -> Self {
        let doors: BTreeMap<Door, IpAddr> =
            services.iter().map(|service| (door_of(service), delivered_to(service, ranges))).collect();
        let tcp_ports: BTreeSet<u16> =
            doors.keys().filter(|door| door.protocol == Protocol::Tcp).map(|door| door.port).collect();
        let open = |protocol, meaning: &str| {
            let warn = |error: &_| tracing::warn!(%error, "{meaning}");
            InetSockets::open(protocol).inspect_err(warn).ok()
        };
        let has_udp = doors.keys().any(|door| door.protocol == Protocol::Udp);
        let open_udp = || open(Protocol::Udp, "UDP services are taken to be up");
        Self {
            tcp: open(Protocol::Tcp, "connections are estimated by all TCP sockets in use"),
            udp: has_udp.then(open_udp).flatten(),
            doors,
            tcp_ports: tcp_ports.into_iter().collect(),
            ranges,
            counted: None,
        }
    }

    /// Connections to the service ports while `in_use` TCP sockets are in use; `own` are the delivery addresses of services
    /// that this node is home to: who came by others was forwarded. `None` where the kernel cannot list sockets.
    pub(super) fn connections(&mut self, own: &[IpAddr], in_use: u64) -> Option<Connections> {
        let began = Instant::now();
        if let Some(known) = self.counted.and_then(|counted| counted.carried_on(in_use, began)) {
            return Some(known);
        }
        let connections = self.count(own)?;
        let ended = Instant::now();
        self.counted = Some(Counted::new(connections, in_use, ended.duration_since(began), ended));
        Some(connections)
    }

    fn count(&mut self, own: &[IpAddr]) -> Option<Connections> {
        let mut connections = Connections::default();
        let count = |local: SocketAddr| {
            connections.established += 1;
            let is_forwarded = self.ranges.contains(local.ip()) && !own.contains(&local.ip());
            connections.forwarded_in += u64::from(is_forwarded);
        };
        self.tcp.as_mut()?.for_each_established(&self.tcp_ports, count).ok()?;
        Some(connections)
    }

    /// For each door, whether a server listens that delivered packets reach; `true` where nobody knows.
    pub(super) fn listening(&mut self) -> BTreeMap<Door, bool> {
        let (tcp, udp, ranges) = (&mut self.tcp, &mut self.udp, self.ranges);
        let mut is_listening = |door: Door, address: IpAddr| {
            let kernel = match door.protocol {
                Protocol::Tcp => tcp.as_mut(),
                Protocol::Udp => udp.as_mut(),
            };
            match kernel.map(|sockets| sockets.listeners(door.port)) {
                Some(Ok(listeners)) => listeners.iter().any(|listener| is_reached(listener, address, ranges)),
                Some(Err(_)) | None => true,
            }
        };
        self.doors.iter().map(|(&door, &address)| (door, is_listening(door, address))).collect()
    }
}

fn door_of(service: &Service) -> Door {
    Door::of(service.protocol, service.socket())
}

/// An address that packets of a service come to on this node.
pub(crate) fn delivered_to(service: &Service, ranges: DeliveryRanges) -> IpAddr {
    match service.delivery {
        DeliveryMode::Translate => ranges.of(Version::of(service.address)).network(),
        DeliveryMode::Alias => service.address,
    }
}

/// Whether packets to `address`, or to any other delivery address, reach `listener`.
pub(crate) fn is_reached(listener: &Listener, address: IpAddr, ranges: DeliveryRanges) -> bool {
    let range: DeliveryRange = ranges.of(Version::of(address));
    let bound_within = range.contains(listener.socket.ip().to_canonical()) && range.contains(address);
    listener.link.is_none() && (bound_within || listener.accepts(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::{ForwardingMethod, PortGroup};
    use std::net::TcpListener;

    #[test]
    fn a_server_on_every_address_is_reached_and_one_on_a_single_address_is_not() {
        let listener = |text: &str| Listener { socket: text.parse().unwrap(), v6_only: false, link: None };
        let ranges = DeliveryRanges::default();
        let (v4, v6) = (ranges.of(Version::V4).network(), ranges.of(Version::V6).network());

        assert!(is_reached(&listener("0.0.0.0:80"), v4, ranges));
        assert!(is_reached(&listener("[::]:80"), v4, ranges) && is_reached(&listener("[::]:80"), v6, ranges));
        assert!(is_reached(&listener("169.254.64.7:80"), v4, ranges));
        assert!(is_reached(&listener("[fd64:7072:4000::7]:80"), v6, ranges));
        assert!(!is_reached(&listener("0.0.0.0:80"), v6, ranges));
        assert!(!is_reached(&listener("192.0.2.11:80"), v4, ranges));
        assert!(!is_reached(&Listener { v6_only: true, ..listener("[::]:80") }, v4, ranges));
    }

    #[test]
    fn with_an_alias_a_server_on_the_service_address_is_reached() {
        let listener = |text: &str| Listener { socket: text.parse().unwrap(), v6_only: false, link: None };
        let (address, ranges) = ("192.0.2.99".parse().unwrap(), DeliveryRanges::default());

        assert!(is_reached(&listener("192.0.2.99:80"), address, ranges));
        assert!(!is_reached(&listener("169.254.64.7:80"), address, ranges));
    }

    #[test]
    fn a_port_listens_as_long_as_its_server_lives() {
        let server = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let service = Service {
            address: "192.0.2.11".parse().unwrap(),
            port,
            ports: PortGroup::NONE,
            protocol: Protocol::Tcp,
            method: ForwardingMethod::Ipip,
            delivery: DeliveryMode::Translate,
            persistence: None,
            sharing: dpr_model::Sharing::Home,
            partition_by: dpr_model::PartitionBy::default(),
            shared_mac: None,
            servers: Vec::new(),
        };
        let mut sockets = Sockets::new(&[service], DeliveryRanges::default());
        let door = Door { protocol: Protocol::Tcp, is_v6: false, port };

        let before = sockets.listening();
        drop(server);
        let after = sockets.listening();

        assert_eq!((before[&door], after[&door]), (true, false));
    }
}
