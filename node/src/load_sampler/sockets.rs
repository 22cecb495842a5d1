//! Sockets of the services, as the kernel lists them.

use crate::config::Service;
use dpr_director::{DeliveryRange, DeliveryRanges};
use dpr_host::IpPrefix;
use dpr_host::sock_diag::{InetSockets, Listener};
use dpr_model::{DeliveryMode, Protocol, ServiceSocket};
use dpr_rewrite::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

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
    forwarded_in: Option<(Instant, u64)>,
}

/// How long a count of forwarded connections is good for: it takes more than one look at the kernel's table.
const FORWARDED_IN_AGE_MAX: Duration = Duration::from_secs(1);

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
            forwarded_in: None,
        }
    }

    /// Established connections to the service ports.
    pub(super) fn established(&mut self) -> Option<u64> {
        let (kernel, ports) = (self.tcp.as_mut()?, &self.tcp_ports);
        let v4 = kernel.count_established(IpPrefix::ALL_IPV4, ports).ok()?;
        Some(v4 + kernel.count_established(IpPrefix::ALL_IPV6, ports).unwrap_or(0))
    }

    /// Established connections through delivery addresses other than `own`: their directors are other nodes.
    pub(super) fn forwarded_in(&mut self, own: &[IpAddr], now: Instant) -> u64 {
        match self.forwarded_in {
            Some((counted, count)) if now.duration_since(counted) < FORWARDED_IN_AGE_MAX => count,
            _ => {
                let count = self.count_forwarded_in(own).unwrap_or(0);
                self.forwarded_in = Some((now, count));
                count
            }
        }
    }

    fn count_forwarded_in(&mut self, own: &[IpAddr]) -> Option<u64> {
        let (kernel, ports) = (self.tcp.as_mut()?, &self.tcp_ports);
        let mut count = 0;
        for version in [Version::V4, Version::V6] {
            let range = self.ranges.of(version);
            let range = IpPrefix::new(range.network(), range.prefix_len()).ok()?;
            count += kernel.count_established(range, ports).ok()?;
        }
        for address in own {
            count = count.saturating_sub(kernel.count_established(IpPrefix::host(*address), ports).ok()?);
        }
        Some(count)
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
