//! Rights, the cluster interface, multicast, kernel settings.

use super::finding::Finding;
use crate::cluster_link::cluster_link;
use crate::config::Config;
use crate::gossip_socket::{Binding, probe};
use dpr_host::{Capabilities, Ipv4Setting, Link, Sysctl};
use dpr_model::status::{AddressClaim, NodeStatus, Status};

/// What the data plane needs to be allowed.
pub(super) fn capabilities() -> Vec<Finding> {
    let held = match Capabilities::current() {
        Ok(held) => held,
        Err(error) => {
            let mend = "run the check as root";
            return vec![Finding::warning("rights", format!("they cannot be read: {error}"), mend)];
        }
    };
    let missing: Vec<&str> = [(held.net_admin, "CAP_NET_ADMIN"), (held.net_raw, "CAP_NET_RAW")]
        .into_iter()
        .filter_map(|(held, name)| (!held).then_some(name))
        .collect();
    if missing.is_empty() {
        return vec![];
    }
    let problem = format!("this user lacks {} on this network", missing.join(" and "));
    let mend = "run as root, or: setcap cap_net_admin,cap_net_raw+ep \"$(command -v dpr)\"";
    vec![Finding::error("rights", problem, mend)]
}

/// The interface with the node address, and whether load reports can use it.
pub(super) fn interface(config: &Config, is_running: bool) -> Vec<Finding> {
    let link = match cluster_link(config) {
        Ok(link) => link,
        Err(error) => {
            let mend = format!(
                "set node.address to an address of this host, or: ip address add {}/24 dev eth0",
                config.node.address
            );
            return vec![Finding::error("node address", format!("{error:#}"), mend)];
        }
    };
    let subject = format!("interface {}", link.name);
    if !link.up {
        return vec![Finding::error(subject, "it is down", format!("ip link set {} up", link.name))];
    }
    let mut findings = Vec::new();
    if !link.running {
        findings.push(Finding::error(
            &*subject,
            "it cannot carry packets",
            "plug the cable in, or choose another node.interface",
        ));
    }
    if link.mac.is_none() {
        findings.push(Finding::error(&*subject, "it has no MAC address", "choose an Ethernet interface"));
    }
    let inner = link.mtu.saturating_sub(20);
    findings.push(Finding::info(
        &*subject,
        format!(
            "MTU {}: forwarded connections use packets of up to {inner} bytes (RFC 2003 adds 20)",
            link.mtu
        ),
    ));
    findings.extend(vlans(config, &link));
    findings.extend(reports(config, &link, is_running));
    findings
}

/// What clients' VLANs need beyond the kernel: that the card and the switch let them through.
fn vlans(config: &Config, link: &Link) -> Option<Finding> {
    let vlans: Vec<String> = config.node.vlans.iter().map(ToString::to_string).collect();
    let fact = format!(
        "clients of VLAN {} are answered under their tags; the switch has to let these through to every node, and a card \
         that sorts out unknown VLANs too (`ethtool -K {} rx-vlan-filter off`)",
        vlans.join(", "),
        link.name
    );
    (!vlans.is_empty()).then(|| Finding::info(format!("interface {}", link.name), fact))
}

fn reports(config: &Config, link: &Link, is_running: bool) -> Vec<Finding> {
    // The port of a running daemon is its own; with port 0 only the groups are tried.
    let port = if is_running { 0 } else { config.gossip.port };
    let binding =
        Binding { interface: &link.name, interface_index: link.index.0, address: config.node.address, port };
    match probe(binding, &config.gossip.groups) {
        Ok(()) => vec![],
        Err(error) => {
            let mend = format!(
                "see who has the port with `ss -lunp 'sport = :{port}'`, and `ip link show {}` for MULTICAST; \
                 or name the other nodes in gossip.peers and set gossip.groups = []",
                link.name
            );
            vec![Finding::error("load reports", format!("{error:#}"), mend)]
        }
    }
}

/// Service addresses that several nodes claim, as the running daemon knows.
pub(super) fn claims(status: &Status) -> Vec<Finding> {
    let finding = |claim: &AddressClaim| {
        let homes: Vec<String> = claim.homes.iter().map(ToString::to_string).collect();
        Finding::error(
            format!("service address {}", claim.address),
            format!("the nodes {} claim it, and each answers for it", homes.join(" and ")),
            "leave its [[service]] in the configuration of one node, and restart the others",
        )
    };
    status.claims.iter().map(finding).collect()
}

/// Filters between nodes that drop what has to come from service addresses, as the running daemon knows.
pub(super) fn source_filters(status: &Status) -> Vec<Finding> {
    let is_seen = |verdict: Option<bool>| verdict == Some(false);
    let filtered = status.peers.iter().filter(|peer| peer.alive);
    let finding = |(from, to): (&NodeStatus, &NodeStatus)| {
        Finding::warning(
            format!("direct replies of {}", from.address),
            format!(
                "the network drops what it sends to {} from other addresses than its own: it gets no connections by ipip, \
                 gue and dr from there",
                to.address
            ),
            "allow foreign sources at its switch port or in its virtual network; or set service.method = \"nat\"",
        )
    };
    let pairs = filtered.flat_map(|peer| {
        let (own, its) = (is_seen(peer.own_direct_replies), is_seen(peer.direct_replies));
        [its.then_some((&peer.node, &status.node)), own.then_some((&status.node, &peer.node))]
    });
    pairs.flatten().map(finding).collect()
}

/// Kernel settings that people ask about first when packets get lost.
pub(super) fn settings(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let interface = cluster_link(config).map(|link| link.name).unwrap_or_else(|_| "all".to_owned());
    let mut fact = |sysctl: Option<Sysctl>, meaning: &str| {
        if let Some((name, value)) = sysctl.and_then(|sysctl| Some((sysctl.name(), sysctl.read().ok()?))) {
            findings.push(Finding::info(name, format!("{value}; {meaning}")));
        }
    };
    fact(
        Sysctl::ipv4(&interface, Ipv4Setting::RpFilter).ok(),
        "any value will do: tunnels are taken before the kernel checks sources",
    );
    fact(Some(Sysctl::ip_forward()), "any value will do: service packets are taken before the kernel routes");
    findings
}
