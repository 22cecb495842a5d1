//! Ports and addresses that the data plane needs for itself: those of `nat.ports`, and aliases.

use super::finding::Finding;
use crate::config::{Config, Service};
use dpr_host::sock_diag::InetSockets;
use dpr_host::{Netlink, Sysctl};
use dpr_model::{DeliveryMode, PortRange, Protocol};

/// Ports that a host should have left for connections of its own; fewer are soon used up by those in TIME-WAIT.
const OWN_PORTS_MIN: u32 = 1024;

/// Looks for others who use them.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = aliases(config);
    if let Some(ports) = config.nat_ports {
        findings.extend(services_within(config, ports));
        findings.extend(listeners(ports));
        let drawn = Sysctl::local_port_range().read().ok();
        findings.extend(drawn.and_then(|drawn| left_for_the_host(ports, &drawn)));
    }
    findings
}

/// A port cannot be a service's and that of translated connections.
fn services_within(config: &Config, ports: PortRange) -> Vec<Finding> {
    let within = |service: &&Service| {
        ports.contains(service.port) || service.ports.ranges().any(|range| range.overlaps(ports))
    };
    let finding = |service: &Service| {
        let problem = format!("ports of the service {} are in it", service.socket());
        Finding::error(subject(ports), problem, "choose another nat.ports")
    };
    config.services.iter().filter(within).map(finding).collect()
}

/// What comes to these ports is taken for replies to translated connections.
fn listeners(ports: PortRange) -> Vec<Finding> {
    let mut findings = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let listening = InetSockets::open(protocol)
            .and_then(|mut sockets| sockets.listeners_within(ports.first()..=ports.last()));
        for listener in listening.unwrap_or_default() {
            let problem = format!(
                "{} {} is in it: whoever listens there gets nothing while the node runs",
                protocol.label(),
                listener.socket
            );
            let mend = "choose another nat.ports, or move that server: `ss -lntup` names it";
            // Of UDP it may be somebody who asks a question, and is gone soon.
            findings.push(match protocol {
                Protocol::Tcp => Finding::error(subject(ports), problem, mend),
                Protocol::Udp => Finding::warning(subject(ports), problem, mend),
            });
        }
    }
    findings
}

/// While the node runs, the kernel draws no ports from the range. `drawn` is what it draws from otherwise.
fn left_for_the_host(ports: PortRange, drawn: &str) -> Option<Finding> {
    let mut numbers = drawn.split_whitespace().filter_map(|number| number.parse().ok());
    let drawn = PortRange::new(numbers.next()?, numbers.next()?)?;
    if !drawn.overlaps(ports) {
        return None;
    }
    let (first, last) = (drawn.first().max(ports.first()), drawn.last().min(ports.last()));
    let left = u32::from(drawn.count()) - u32::from(last - first) - 1;
    let problem = format!("of the ports {drawn} that the kernel draws for connections, {left} are left");
    if left >= OWN_PORTS_MIN {
        return Some(Finding::info(subject(ports), problem));
    }
    let mend = "choose another nat.ports, or: sysctl net.ipv4.ip_local_port_range=\"32768 60999\"";
    Some(Finding::error(subject(ports), problem, mend))
}

fn subject(ports: PortRange) -> String {
    format!("nat.ports {ports}")
}

/// An alias belongs on the loopback interface, where no neighbour finds it.
fn aliases(config: &Config) -> Vec<Finding> {
    let aliases: Vec<_> = config
        .services
        .iter()
        .filter(|service| service.delivery == DeliveryMode::Alias)
        .map(|service| service.address)
        .collect();
    if aliases.is_empty() {
        return vec![];
    }
    let held = Netlink::open().and_then(|mut netlink| Ok((netlink.links()?, netlink.addresses()?)));
    let Ok((links, addresses)) = held else { return vec![] };
    let mut findings = Vec::new();
    for held in addresses.iter().filter(|held| aliases.contains(&held.prefix.address())) {
        let Some(link) = links.iter().find(|link| link.index == held.link && !link.loopback) else {
            continue;
        };
        let address = held.prefix.address();
        let problem = format!("the host holds it on {}, where the network finds it", link.name);
        let mend = format!(
            "leave it to dpr, which puts it on the loopback interface: ip address del {} dev {}",
            held.prefix, link.name
        );
        findings.push(Finding::error(format!("alias {address}"), problem, mend));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Defaults;
    use std::path::Path;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange::new(first, last).unwrap()
    }

    #[test]
    fn a_range_apart_from_what_the_kernel_draws_is_fine() {
        assert_eq!(left_for_the_host(range(61_000, 65_535), "32768\t60999\n"), None);
        assert_eq!(left_for_the_host(range(61_000, 65_535), "nonsense"), None);
    }

    #[test]
    fn what_the_kernel_has_left_is_told_and_too_little_is_an_error() {
        let some = left_for_the_host(range(50_000, 54_999), "32768 60999").unwrap();
        assert!(some.problem.ends_with("23232 are left") && some.mend.is_none(), "{some:?}");
        let few = left_for_the_host(range(32_768, 60_000), "32768 60999").unwrap();
        assert!(few.problem.ends_with("999 are left") && few.mend.is_some(), "{few:?}");
    }

    #[test]
    fn a_service_s_port_in_the_range_and_a_listener_there_are_errors() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let text = format!(
            "[node]\naddress = \"192.0.2.11\"\n[[service]]\nport = {port}\nmethod = \"nat\"\n[nat]\nports = \"1024-65535\"\n"
        );
        let defaults = Defaults { host_name: "a".to_owned(), processors: 1 };
        let config = Config::parse(Path::new("a.toml"), &text, &defaults).unwrap();

        let findings = check(&config);

        let of = |what: &str| findings.iter().filter(|finding| finding.problem.contains(what)).count();
        assert_eq!(of(&format!("ports of the service 192.0.2.11:{port} are in it")), 1, "{findings:?}");
        assert_eq!(of(&format!("tcp 127.0.0.1:{port} is in it")), 1, "{findings:?}");
    }
}
