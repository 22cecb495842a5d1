//! `dpr status` and `dpr conns` for people: the same values as their JSON, as text.
//!
//! Names come from other nodes, so nothing that a terminal would act on gets through.

mod dataplane;
mod ownership;

use dpr_model::Exclusion;
use dpr_model::status::{
    AddressClaim, ClientsStatus, Connection, DnsAbsence, DnsStatus, PeerStatus, PersistenceStatus,
    ServiceStatus, Status,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// A node's view of itself and its cluster.
pub(crate) fn status(status: &Status) -> String {
    let mut text = String::new();
    let node = &status.node;
    let _ = writeln!(
        text,
        "node      {} ({}) {}  {}, up {}, dpr {}",
        printable(&node.name),
        node.id,
        node.address,
        node.state.label(),
        duration(status.uptime_s),
        printable(&status.version)
    );
    let metrics: Vec<String> =
        node.metrics.iter().map(|sample| format!("{} {}", sample.metric.label(), sample.load)).collect();
    let _ =
        writeln!(text, "load      {} of {} connections ({})", node.load, node.capacity, metrics.join(", "));
    let _ = writeln!(text, "balance   {}", balance(status));
    text.push_str(&dataplane::lines(&status.dataplane));
    let table = &status.conntrack;
    let _ = writeln!(
        text,
        "conntrack {} of {} entries, {} half-open, {} evicted, {} refused",
        table.entries, table.capacity, table.half_open, table.half_open_evicted, table.refused_full
    );
    if let Some(clients) = &status.clients {
        let ClientsStatus { capacity, clients, displaced } = clients;
        let _ =
            writeln!(text, "clients   {clients} of {capacity} stay with their node, {displaced} displaced");
    }
    if let Some(dns) = &status.dns {
        let _ = writeln!(text, "dns       {}", dns_line(dns));
    }
    let excluded: Vec<String> = excluded(status).map(|exclusion| exclusion.address.to_string()).collect();
    if !excluded.is_empty() {
        let _ = writeln!(text, "excluded  {} (dpr dns include ADDRESS takes one back)", excluded.join(", "));
    }
    if let Some(owned) = &status.ownership {
        let _ = write!(text, "{}", ownership::show(owned, status));
    }
    for AddressClaim { address, homes } in &status.claims {
        let homes: Vec<String> = homes.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "CONTESTED {address} is claimed by {}", homes.join(" and "));
    }
    let _ = writeln!(text, "\n{}\n{}\n{}", services(status), peers(status), counters(status));
    text
}

fn dns_line(dns: &DnsStatus) -> String {
    let listen: Vec<String> = dns.listen.iter().map(ToString::to_string).collect();
    format!(
        "{} on {}, {} queries by UDP, {} by TCP",
        printable(&dns.zone),
        listen.join(", "),
        dns.queries_udp,
        dns.queries_tcp
    )
}

fn excluded(status: &Status) -> impl Iterator<Item = &Exclusion> {
    status.exclusions.iter().filter(|exclusion| exclusion.excluded)
}

/// What DNS names, and what it must not.
pub(crate) fn dns(status: &Status) -> String {
    let mut text = String::new();
    match &status.dns {
        None => text.push_str("this node serves no DNS\n"),
        Some(dns) => {
            let mut rows = vec![["NAME", "PORT", "ADDRESSES"].map(str::to_owned).to_vec()];
            rows.extend(dns.names.iter().map(|name| {
                let addresses: Vec<String> = name.addresses.iter().map(ToString::to_string).collect();
                vec![printable(&name.name), name.port.to_string(), addresses.join(" ")]
            }));
            text.push_str(&columns(&rows));
            for DnsAbsence { address, reason } in &dns.left_out {
                let _ = writeln!(text, "left out  {address}: {}", printable(reason));
            }
        }
    }
    for exclusion in excluded(status) {
        let _ = writeln!(text, "excluded  {} by {}", exclusion.address, exclusion.by);
    }
    text
}

fn balance(status: &Status) -> String {
    let keep = match status.balance.maxload.0 {
        0 => "every connection is balanced".to_owned(),
        _ => format!("keeps its own below {}", status.balance.maxload),
    };
    let frozen = if status.balance.frozen { ", frozen: most peers look bad" } else { "" };
    format!("{}, {keep}{frozen}", printable(&status.balance.policy))
}

fn services(status: &Status) -> String {
    let mut rows = vec![["SERVICE", "HOME", "DELIVERY", "SERVER"].map(str::to_owned).to_vec()];
    for service in &status.services {
        let home = match status.peers.iter().find(|peer| peer.node.id == service.owner) {
            Some(peer) => printable(&peer.node.name),
            None => "this node".to_owned(),
        };
        rows.push(vec![
            service_name(service),
            home,
            service.delivery.to_string(),
            if service.healthy { "listens" } else { "absent" }.to_owned(),
        ]);
    }
    columns(&rows)
}

/// Its socket, its further ports, and how its clients stay with their node.
fn service_name(service: &ServiceStatus) -> String {
    let socket = SocketAddr::new(service.address, service.port);
    let mut name = format!("{} {socket}", printable(&service.protocol));
    for range in &service.ports {
        let _ = write!(name, ",{}", printable(range));
    }
    if let Some(PersistenceStatus { prefix_len, timeout_s }) = service.persistence {
        let _ = write!(name, " persistent {timeout_s} s /{prefix_len}");
    }
    name
}

fn peers(status: &Status) -> String {
    if status.peers.is_empty() {
        return "no peers\n".to_owned();
    }
    let header = [
        "PEER",
        "ADDRESS",
        "MAC ADDRESS",
        "PATH MTU",
        "DIRECT REPLIES",
        "STATE",
        "LOAD",
        "WEIGHT",
        "REPORT",
        "SENT",
        "ON THE WAY",
        "RECEIVED",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(status.peers.iter().map(peer));
    columns(&rows)
}

fn peer(peer: &PeerStatus) -> Vec<String> {
    let node = &peer.node;
    vec![
        printable(&node.name),
        node.address.to_string(),
        peer.mac.as_deref().map_or_else(|| "unknown".to_owned(), printable),
        peer.path_mtu.map_or_else(|| "unknown".to_owned(), |mtu| mtu.to_string()),
        direct_replies(peer).to_owned(),
        if peer.alive { node.state.label() } else { "down" }.to_owned(),
        node.load.to_string(),
        node.weight.0.to_string(),
        format!(
            "{} ms ago{}",
            peer.report_age_ms,
            if peer.multicast_blocked { ", no multicast" } else { "" }
        ),
        peer.sent.to_string(),
        peer.outstanding.to_string(),
        peer.received.to_string(),
    ]
}

/// What becomes of packets from foreign sources, on the way from the peer and on the way to it.
fn direct_replies(peer: &PeerStatus) -> &'static str {
    match (peer.direct_replies, peer.own_direct_replies) {
        (Some(false), Some(false)) => "DROPPED both ways",
        (Some(false), _) => "DROPPED",
        (_, Some(false)) => "OWN DROPPED",
        (Some(true), _) => "arrive",
        (None, _) => "unknown",
    }
}

fn counters(status: &Status) -> String {
    let counters = &status.counters;
    let mut rows = vec![vec!["COUNTER".to_owned(), "SINCE START".to_owned()]];
    let mut add = |name: &str, count: u64| rows.push(vec![printable(name), count.to_string()]);
    add("connections kept", counters.connections_kept);
    add("connections forwarded", counters.connections_forwarded);
    add("connections received", counters.connections_received);
    add("packets delivered", counters.packets_delivered);
    add("packets forwarded", counters.packets_forwarded);
    add("packets received", counters.packets_received);
    add("packets replied", counters.packets_replied);
    add("loops stopped", counters.loops_stopped);
    add("replies translated back", counters.nat_replies);
    add("icmp too big sent", counters.icmp_too_big_sent);
    add("arp answered", counters.arp_answered);
    add("neighbours answered", counters.neighbours_answered);
    add("echo answered", counters.echo_answered);
    add("reports sent", status.gossip.sent);
    add("reports accepted", status.gossip.accepted);
    for (label, count) in nonzero(&counters.drops) {
        add(&format!("dropped: {label}"), count);
    }
    for (label, count) in status.dns.iter().flat_map(|dns| nonzero(&dns.outcomes)) {
        add(&format!("dns {label}"), count);
    }
    for (label, count) in nonzero(&status.gossip.rejected) {
        add(&format!("reports rejected: {label}"), count);
    }
    columns(&rows)
}

fn nonzero(counts: &BTreeMap<String, u64>) -> impl Iterator<Item = (&String, u64)> {
    counts.iter().map(|(label, count)| (label, *count)).filter(|(_, count)| *count > 0)
}

/// The connection-forwarding table.
pub(crate) fn connections(connections: &[Connection]) -> String {
    if connections.is_empty() {
        return "no connections are forwarded\n".to_owned();
    }
    let mut rows = vec![["CLIENT", "SERVICE", "REAL SERVER", "STATE", "EXPIRES"].map(str::to_owned).to_vec()];
    rows.extend(connections.iter().map(|connection| {
        vec![
            connection.flow.client.to_string(),
            format!("{} {}", connection.flow.protocol.label(), connection.flow.service),
            connection.real_server.to_string(),
            printable(&connection.state),
            format!("{} s", connection.expires_in_s),
        ]
    }));
    columns(&rows)
}

/// Rows of cells as text, each column as wide as its widest cell.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Names come from other nodes: nothing in them may command a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dpr_model::status::*;
    use dpr_model::{
        ClientSocket, FlowKey, Incarnation, LoadPermille, MapVersion, NodeId, NodeState, Protocol,
        ServiceSocket, Weight,
    };
    use std::net::{IpAddr, Ipv4Addr};

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn node(id: u32, name: &str) -> NodeStatus {
        NodeStatus {
            id: NodeId(id),
            name: name.to_owned(),
            address: address(11),
            incarnation: Incarnation(1),
            state: NodeState::Active,
            load: LoadPermille(123),
            capacity: 512,
            weight: Weight(100),
            metrics: vec![],
            map_version: MapVersion::default(),
        }
    }

    pub(crate) fn example() -> Status {
        let service = |owner, last| ServiceStatus {
            protocol: "tcp".to_owned(),
            address: address(last),
            port: 80,
            owner: NodeId(owner),
            delivery: Ipv4Addr::new(169, 254, 64, 1).into(),
            healthy: true,
            ports: vec![],
            persistence: None,
        };
        Status {
            version: "0.1.0".to_owned(),
            node: node(1, "web1"),
            uptime_s: 3700,
            open_connections: 0,
            dataplane: DataplaneStatus {
                kind: "userspace".into(),
                interface: "eth0".into(),
                lease_valid: true,
                programs: None,
                reason: None,
            },
            services: vec![service(1, 11), service(2, 12)],
            claims: vec![AddressClaim { address: address(12), homes: vec![NodeId(1), NodeId(2)] }],
            peers: vec![PeerStatus {
                node: node(2, "web2\u{1b}[2J"),
                alive: false,
                report_age_ms: 70,
                path_mtu: None,
                direct_replies: Some(false),
                own_direct_replies: Some(true),
                mac: Some("02:00:5e:10:00:01".into()),
                multicast_blocked: true,
                sent: 5,
                outstanding: 1,
                received: 2,
            }],
            balance: BalanceStatus { policy: "lightest".into(), maxload: LoadPermille(700), frozen: false },
            conntrack: ConntrackStatus::default(),
            clients: None,
            counters: Counters {
                drops: [("truncated".to_owned(), 3), ("fragment".to_owned(), 0)].into(),
                ..Counters::default()
            },
            gossip: GossipCounters::default(),
            dns: None,
            exclusions: vec![],
            ownership: None,
        }
    }

    #[test]
    fn status_shows_services_peers_and_counters() {
        let text = status(&example());

        assert!(
            text.starts_with("node      web1 (n00000001) 192.0.2.11  active, up 1 h 1 min, dpr 0.1.0\n"),
            "{text}"
        );
        assert!(text.contains("lightest, keeps its own below 700‰\n"), "{text}");
        assert!(text.contains("tcp 192.0.2.11:80  this node"), "{text}");
        assert!(
            text.contains("down   123‰  100     70 ms ago, no multicast  5     1           2\n"),
            "{text}"
        );
        assert!(text.contains("unknown   DROPPED         down"), "{text}");
        assert!(text.contains("CONTESTED 192.0.2.12 is claimed by n00000001 and n00000002\n"), "{text}");
        assert!(text.contains("02:00:5e:10:00:01"), "{text}");
        assert!(text.contains("dropped: truncated") && !text.contains("fragment"), "{text}");
    }

    #[test]
    fn persistence_and_further_ports_are_shown_with_their_service() {
        let mut shown = example();
        shown.services[0].ports = vec!["20".to_owned(), "50000-50099".to_owned()];
        shown.services[0].persistence = Some(PersistenceStatus { prefix_len: 24, timeout_s: 360 });
        shown.clients = Some(ClientsStatus { capacity: 65_536, clients: 3, displaced: 1 });

        let text = status(&shown);

        assert!(text.contains("clients   3 of 65536 stay with their node, 1 displaced\n"), "{text}");
        assert!(text.contains("tcp 192.0.2.11:80,20,50000-50099 persistent 360 s /24  this node"), "{text}");
    }

    #[test]
    fn dns_shows_what_names_give_and_what_is_excluded() {
        let exclusion =
            |last, excluded| Exclusion { address: address(last), excluded, decided_ms: 1, by: NodeId(2) };
        let name =
            DnsName { name: "www.example.org".into(), port: 80, addresses: vec![address(11), address(13)] };
        let dns_status = DnsStatus {
            zone: "example.org".into(),
            listen: vec![(address(11), 53).into()],
            names: vec![name],
            left_out: vec![DnsAbsence { address: (address(14), 80).into(), reason: "draining".into() }],
            queries_udp: 7,
            queries_tcp: 1,
            outcomes: [("answered".to_owned(), 8), ("refused".to_owned(), 0)].into(),
        };
        let shown = Status {
            dns: Some(dns_status),
            exclusions: vec![exclusion(12, true), exclusion(13, false)],
            ..example()
        };

        assert_eq!(
            dns(&shown),
            "NAME             PORT  ADDRESSES\n\
             www.example.org  80    192.0.2.11 192.0.2.13\n\
             left out  192.0.2.14:80: draining\n\
             excluded  192.0.2.12 by n00000002\n"
        );
        let text = status(&shown);
        assert!(
            text.contains("dns       example.org on 192.0.2.11:53, 7 queries by UDP, 1 by TCP\n"),
            "{text}"
        );
        assert!(text.contains("excluded  192.0.2.12 ("), "{text}");
        assert!(text.contains("dns answered") && !text.contains("dns refused"), "{text}");
    }

    #[test]
    fn a_peer_cannot_write_to_the_terminal() {
        assert!(!status(&example()).contains('\u{1b}'));
    }

    #[test]
    fn connections_show_who_is_served_where() {
        let connection = Connection {
            flow: FlowKey {
                protocol: Protocol::Tcp,
                client: ClientSocket { address: address(101), port: 40_000 },
                service: ServiceSocket { address: address(11), port: 80 },
            },
            state: "established".to_owned(),
            real_server: NodeId(12),
            generation: 7,
            expires_in_s: 900,
        };

        let text = connections(&[connection]);

        assert_eq!(
            text,
            "CLIENT             SERVICE            REAL SERVER  STATE        EXPIRES\n\
             192.0.2.101:40000  tcp 192.0.2.11:80  n0000000c    established  900 s\n"
        );
        assert_eq!(connections(&[]), "no connections are forwarded\n");
    }
}
