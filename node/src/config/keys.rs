//! Every key of the configuration file, each defined once; `docs/configuration.md` is made from this file.

use super::choice::{DataplaneKind, Method, NatKind, Policy, ProgramMode};
use super::dns_value::{DomainName, Lines, NameServers, NearNetworks, ServiceNames, Sockets};
use super::finding::Finding;
use super::network::{DeliveryPrefix, FurtherPorts, Groups, HostAddress, Peers, Ports, ServerSocket};
use super::ownership::{OwnershipKeys, SharedMac};
use super::schema::Presence::{Default, Otherwise, Required};
use super::schema::{Change, TableDoc, TakesEffect, report_unknown, table};
use super::servers::Servers;
use super::value::{Bounded, InterfaceName, LogFilter, Metrics, Name};
use super::vlans::Vlans;
use dpr_model::{DeliveryMode, Ingress, PartitionBy, Protocol};
use std::ops::Range;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

table! {
    /// This node: who it is and how strong.
    NodeKeys "[node]" {
        /// Node address: an address of this host under which the other nodes reach it. Tunnels between nodes end
        /// here. Clients may use it too: it is the service address of every service that names no other.
        address: HostAddress = "address", Required, OnRestart;
        /// Identity within the cluster. Two nodes with one id disturb each other, so set it only if addresses change
        /// hands.
        id: Bounded<1, 0xefff_ffff> = "id", Otherwise("the node address, read as a number; of IPv6 the last four bytes"), OnRestart;
        /// Name for people, in `dpr status`, logs and `/.dpr/whoami`.
        name: Name = "name", Otherwise("the host's name"), OnRestart;
        /// The operator's preference: twice the weight gets twice the connections at equal load. 0 means that peers
        /// give this node no new connections.
        weight: Bounded<0, 65535> = "weight", Default("100"), OnReload;
        /// Concurrent connections that fill this node: at this number the `connections` metric stands at 1000
        /// permille. Too large and the node takes more than it can serve; too small and it sends work away.
        capacity: Bounded<1, 0xffff_ffff> = "capacity", Otherwise("256 for each available processor"), OnReload;
        /// Network interface that carries the node address; service packets and gossip use it. Clients of one VLAN come in
        /// at that VLAN's own interface: name that one, such as `eth0.100`, or name this VLAN in `vlans`.
        interface: InterfaceName = "interface", Otherwise("the interface that has the node address"), OnRestart;
        /// VLANs on `interface` that clients come from, by one tag (802.1Q) or two (802.1ad, the outer one first): their
        /// frames are treated as if they had none, and answered and forwarded under the same tags. Every node needs the
        /// same list, as real servers answer in the client's VLAN. Frames of all other VLANs are the kernel's. User space
        /// does this, not the kernel's programs.
        vlans: Vlans = "vlans", Default("[]"), OnRestart;
    }
}

table! {
    /// A service that clients connect to; one table for each service socket that this node is home to.
    ServiceKeys "[[service]]" {
        /// Service address: where clients connect to. It need not be of the node address's IP version, but for the
        /// method `nat`.
        address: HostAddress = "address", Otherwise("the node address"), OnRestart;
        /// Service port. Every node has to serve the same thing under it.
        port: Bounded<1, 65535> = "port", Default("80"), OnRestart;
        /// Further ports of the service, for protocols that need several, such as FTP: what a client opens there is the
        /// same server's business. Of connections and health they are part of the service; the server need not listen
        /// there all the time. Not for the method `nat`. With `persistence`, a client has one node for all of them.
        ports: FurtherPorts = "ports", Default("[]"), OnRestart;
        /// Transport protocol. UDP flows are kept together while datagrams come (`udp-timeout-s`); the built-in
        /// server serves TCP only.
        protocol: Protocol = "protocol", Default("\"tcp\""), OnRestart;
        /// Forwarding method: how a director hands packets to a real server. `ipip` wraps them in a second IP header
        /// of 20 (IPv4) or 40 (IPv6) bytes; `gue` adds UDP and 8 more bytes, so that every router and network card
        /// spreads flows and no middlebox minds; `nat` translates addresses, for servers without `dpr` too, and replies
        /// come back through the director; `dr` only changes the MAC address and needs all nodes on one Ethernet.
        method: Method = "method", Default("\"ipip\""), OnRestart;
        /// For the method `nat`. With `full` servers see the director as their client, so anything can be behind it.
        /// With `half` they see the client, and their route to clients has to lead through this host; for
        /// `[[service.server]]` only.
        nat: NatKind = "nat", Default("\"full\""), OnRestart;
        /// How packets reach the server's socket. With `translate` the server sees a delivery address as its own
        /// address and has to listen on `0.0.0.0` or `[::]` (or on the delivery addresses); clients see the service
        /// address. With `alias`, for protocols that tell clients the server's address, every node has the service
        /// address itself, on its loopback interface; needs a service address that is no node's address. All services
        /// of one address do the same.
        delivery: DeliveryMode = "delivery", Default("\"translate\""), OnRestart;
        /// Whether a client's connections all go to one node, as long as that one is alive, not draining, and its
        /// server listens. Every connection of such a service has an entry in the connection-forwarding table. Not for
        /// the policy `stateless`.
        persistence: bool = "persistence", Default("false"), OnRestart;
        /// Seconds that a client stays with its node after its last packet, as `ipvsadm -p`.
        persistence_timeout: Bounded<1, 604_800> = "persistence-timeout-s", Default("360"), OnRestart;
        /// Bits of clients' addresses that say who is one client, as `ipvsadm -M`: with 24, all clients of one
        /// IPv4 /24 network go to one node.
        persistence_prefix: Bounded<1, 128> = "persistence-prefix", Otherwise("the whole address"), OnRestart;
        /// Prefix from which this node takes its delivery addresses, one for each service address of the cluster.
        /// It is used on this host only and must not be used for anything else there. All services of a node share
        /// it.
        delivery_address: DeliveryPrefix<false> = "delivery-address", Default("\"169.254.64.0/20\""), OnRestart;
        /// The same for IPv6.
        delivery_address_v6: DeliveryPrefix<true> = "delivery-address-v6",
            Default("\"fd64:7072:4000::/64\""), OnRestart;
        /// `true` for an address that all nodes carry and share: each decides for its slots. Needs `[ownership]` and an
        /// address that no host holds. All nodes have to say the same of all services of the address.
        shared: bool = "shared", Default("false"), OnRestart;
        /// How packets for a shared address come in. With `arp-owner` one node at a time answers ARP and neighbour
        /// solicitations for it, and hands packets to their owners. With `shared-mac` all nodes have one MAC address for
        /// it, so that the switch gives every packet to every node, and those that do not own it drop it. With `routed`
        /// a router spreads packets over the nodes, which announce the address themselves; nobody answers ARP.
        ingress: Ingress = "ingress", Default("\"arp-owner\""), OnRestart;
        /// For `shared-mac`: the MAC address that all nodes have for the address. A group address, which switches flood,
        /// unless told; routers that follow RFC 1812, section 3.3.2 do not believe it. An ordinary one is never used as a
        /// source, so that switches do not learn where it is. The same on all nodes.
        shared_mac: SharedMac = "shared-mac", Otherwise(
            "`01:00:5e:` and the last 23 bits of an IPv4 address, `33:33:` and the last 32 of an IPv6 address"
        ), OnRestart;
        /// What of a connection decides about its slot. All nodes have to say the same.
        partition_by: PartitionBy = "partition-by", Default("\"source-address-and-port\""), OnRestart;
        /// Whether other nodes take over this service address while this node is dead, so that clients that know it go
        /// on. Needs `[ownership]`; of no meaning for shared addresses.
        takeover: bool = "takeover", Default("true"), OnRestart;
        /// Servers without `dpr` behind this service: see `[[service.server]]`.
        servers: Servers = "server", Otherwise("nodes only"), OnRestart;
    }
}

table! {
    /// A server without `dpr` behind the service above it, any system and any program; for the method `nat`. The node
    /// connects to it once a second and gives it connections only while that works; a UDP server is taken on trust.
    ServerKeys "[[service.server]]" {
        /// Where it listens; of the IP version of the service address.
        address: ServerSocket = "address", Required, OnRestart;
        /// The operator's preference: twice the weight gets twice the connections at equal load.
        weight: Bounded<0, 65535> = "weight", Default("100"), OnRestart;
        /// Concurrent connections that fill it.
        capacity: Bounded<1, 0xffff_ffff> = "capacity", Otherwise("the node's own `capacity`"), OnRestart;
    }
}

table! {
    /// Network address translation, for services with the method `nat`.
    NatKeys "[nat]" {
        /// Ports for the director's end of translated connections; one is in use for each of them, and for a minute
        /// after. Nobody else on this host may use them: while the node runs, they are in
        /// `net.ipv4.ip_local_reserved_ports`, so that the kernel does not draw them.
        ports: Ports = "ports", Default("\"61000-65535\""), OnRestart;
    }
}

table! {
    /// Load reports: how nodes find each other and tell each other how they are.
    GossipKeys "[gossip]" {
        /// Multicast groups that load reports go to and come from, all on one port and of the node address's IP version.
        /// An empty list switches multicast
        /// off; then `peers` has to name the other nodes.
        groups: Groups = "groups", Otherwise(
            "`[\"239.255.77.77:7777\"]`, or `[\"[ff15::7777]:7777\"]` if the node address is IPv6"
        ), OnRestart;
        /// Nodes that get a unicast copy of every report: needed where multicast is blocked, or on other networks.
        /// This node's own address is skipped, so that all nodes can share one list.
        peers: Peers = "peers", Default("[]"), OnRestart;
        /// Milliseconds between reports. Smaller finds a dead node sooner (about 3.5 intervals) and costs more
        /// packets. All nodes should agree.
        interval: Bounded<20, 10_000> = "interval-ms", Default("100"), OnRestart;
        /// File with one or two keys of 64 hexadecimal digits, one on a line. The first signs reports, all are
        /// accepted; so keys rotate without downtime, as a reload reads the file again. Without it anybody on the
        /// network can pretend to be a node.
        key_file: PathBuf = "key-file", Otherwise("reports are not authenticated"), OnReload;
    }
}

table! {
    /// How a new connection finds its real server.
    BalanceKeys "[balance]" {
        /// How a director above `maxload` chooses. `local-estimates` adds what it sent itself to what peers reported
        /// and so does not run after old numbers; `lightest` takes the lowest report; `inverse` draws lots by free
        /// load; `round-robin` goes in turn by weight; `stateless` goes by hash of the connection.
        policy: Policy = "policy", Default("\"local-estimates\""), OnReload;
        /// Load index in permille below which a node keeps the connections that reach it. 0 switches the rule off:
        /// every connection is balanced.
        maxload: Bounded<0, 10_000> = "maxload", Default("700"), OnReload;
        /// How much each metric counts in the load index, a weighted mean. Metrics: `cpu`, `run-queue`, `memory`,
        /// `disk`, `connections`, `active-sockets`, `forwarded-out`, `forwarded-in`, `requests-in-flight`,
        /// `service-time`. Those not named do not count.
        metrics: Metrics = "metrics", Otherwise(
            "`{ cpu = 2, connections = 1, requests-in-flight = 1 }`; in a container or namespace without a processor \
             quota of its own, `cpu` does not count, because it shows the whole host"
        ), OnReload;
    }
}

table! {
    /// The connection-forwarding table.
    ConntrackKeys "[conntrack]" {
        /// Connections that the table can hold, 64 bytes each, reserved at start. When it is full, new connections
        /// are kept by this node.
        capacity: Bounded<1024, 16_777_216> = "capacity", Default("1048576"), OnRestart;
        /// Of those, how many may be half-open. Bounds what a SYN flood can take; at most `capacity`.
        half_open_capacity: Bounded<64, 16_777_216> = "half-open-capacity",
            Otherwise("65536, or `capacity` if that is less"), OnRestart;
        /// Seconds until a connection whose handshake did not finish is forgotten.
        syn_timeout: Bounded<1, 3600> = "syn-timeout-s", Default("60"), OnRestart;
        /// Seconds until an idle established connection is forgotten; its later packets stay on this node, which
        /// resets it.
        established_timeout: Bounded<1, 604_800> = "established-timeout-s", Default("900"), OnRestart;
        /// Seconds until a connection is forgotten whose client has sent FIN.
        fin_timeout: Bounded<1, 86_400> = "fin-timeout-s", Default("120"), OnRestart;
        /// Seconds until a connection is forgotten that was reset.
        close_timeout: Bounded<1, 3600> = "close-timeout-s", Default("10"), OnRestart;
        /// Seconds until a UDP flow is forgotten that is quiet.
        udp_timeout: Bounded<1, 86_400> = "udp-timeout-s", Default("300"), OnRestart;
        /// Clients that services with `persistence` keep with their nodes, 64 bytes each; rounded up to a power of two.
        /// When they are more, those quiet for long are displaced, and balanced anew with their next connection.
        clients: Bounded<8, 16_777_216> = "clients", Default("65536"), OnRestart;
    }
}

table! {
    /// The server behind the services.
    HttpKeys "[http]" {
        /// Directory whose files the built-in server serves; a relative path starts at the configuration file.
        root: PathBuf = "root", Otherwise("a built-in page"), OnRestart;
        /// `true` if nginx or anything else listens on the service ports. The built-in server then stays off and its
        /// metrics (`requests-in-flight`, `service-time`) do not exist. Excludes `root`.
        external: bool = "external", Default("false"), OnRestart;
    }
}

table! {
    /// The DNS server, which names the nodes that can take connections: see docs/dns.md. Every node that serves DNS needs
    /// the same settings, but for `listen`.
    DnsKeys "[dns]" {
        /// The zone that this node answers for.
        zone: DomainName = "zone", Otherwise("this node serves no DNS"), OnRestart;
        /// Where it listens, by UDP and TCP.
        listen: Sockets = "listen", Otherwise("port 53 of the node address"), OnRestart;
        /// Names of services, relative to the zone (`@` is the zone itself), and the service port of the nodes whose
        /// addresses each gives.
        names: ServiceNames = "names", Otherwise("the zone itself and `www`, for the first service's port"), OnRestart;
        /// The zone's name servers, relative to the zone, with the addresses under which they can be asked. The same
        /// has to be in the parent zone; `dpr check` prints it.
        ns: NameServers = "ns", Otherwise("required if there is a zone"), OnRestart;
        /// Mailbox of who is responsible, as a domain name: `hostmaster` is hostmaster@ the zone.
        contact: String = "contact", Otherwise("`hostmaster`"), OnRestart;
        /// Further records, so that a small site needs no other server. Services' names cannot have addresses here.
        records: Lines = "records", Default("[]"), OnRestart;
        /// Seconds that resolvers may keep an answer. Longer means fewer queries, and more clients that still go to a
        /// node that has left.
        ttl: Bounded<1, 86_400> = "ttl-s", Default("60"), OnRestart;
        /// Seconds that they may keep an answer that names a node above `balance.maxload`, or that goes to a network
        /// which asks for more than an eighth of everything.
        ttl_hot: Bounded<0, 86_400> = "ttl-hot-s", Default("10"), OnRestart;
        /// Addresses in one answer at most. Clients try them in turn, mostly.
        addresses: Bounded<1, 32> = "addresses", Default("4"), OnRestart;
        /// Clients of one network (by EDNS client subnet, or else their resolver's address) get addresses of another, if
        /// there are any; others get all.
        near: NearNetworks = "near", Default("{}"), OnRestart;
        /// Whether addresses of nodes that died are still named: where live nodes take them over they still work.
        keep_dead: bool = "keep-dead", Default("false"), OnRestart;
        /// UDP answers per second to one client network (/24, /56) that has not shown a cookie, for each thread; every
        /// second one beyond it asks the client to come by TCP, the others are dropped. 0 sets no limit.
        rate_limit: Bounded<0, 1_000_000> = "rate-limit", Default("200"), OnRestart;
        /// Length of a UDP answer to a client that has not shown a cookie, in percent of its query's. What does not fit
        /// is asked again by TCP; with 150 that is answers that something does not exist, and most with IPv6 addresses.
        amplification: Bounded<100, 10_000> = "amplification-percent", Default("150"), OnRestart;
    }
}

table! {
    /// The packet path.
    DataplaneKeys "[dataplane]" {
        /// `userspace` uses packet sockets and works everywhere. `xdp` puts programs of the kernel in front of them, and is
        /// refused where the kernel or a service does not allow it. `auto` does so where it can be done and all packets have
        /// been on a wire, which is so in drivers, and behind those of hardware; log, `dpr status` and `dpr check` say which.
        kind: DataplaneKind = "kind", Default("\"auto\""), OnRestart;
        /// Where `xdp` runs the program for incoming packets: `native` in the interface's driver, `generic` behind it, which
        /// is slower, and done by every driver. `auto` is `native` where the driver takes it, but on veth pairs: what leaves
        /// there is lost unless the other end has a program or GRO.
        mode: ProgramMode = "mode", Default("\"auto\""), OnRestart;
        /// Directory in a BPF file system for what `xdp` keeps over a crash, a restart or an upgrade of the daemon; made if
        /// needed. No two daemons can share one.
        pin_directory: PathBuf = "pin-directory", Default("\"/sys/fs/bpf/dpr\""), OnRestart;
    }
}

table! {
    /// The socket that `dpr status` and its like talk to.
    ControlKeys "[control]" {
        /// Path of the UNIX socket; its directory is made if needed and also keeps the node's last incarnation. Only
        /// the user that runs the daemon can use it.
        socket: PathBuf = "socket", Default("\"/run/dpr/control.sock\""), OnRestart;
    }
}

table! {
    /// The log, which goes to standard error.
    LogKeys "[log]" {
        /// What is logged: packets at `trace`, the unusual at `debug`, changes of state at `info`. The option
        /// `--log-level` and the environment variable `DPR_LOG` win over it.
        level: LogFilter = "level", Default("\"info\""), OnReload;
    }
}

/// A whole file, key by key; keys that are wrong are empty.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Keys {
    pub(super) node: NodeKeys,
    pub(super) services: Vec<(ServiceKeys, Location)>,
    pub(super) nat: NatKeys,
    pub(super) gossip: GossipKeys,
    pub(super) balance: BalanceKeys,
    pub(super) conntrack: ConntrackKeys,
    pub(super) http: HttpKeys,
    pub(super) dns: DnsKeys,
    pub(super) ownership: OwnershipKeys,
    pub(super) dataplane: DataplaneKeys,
    pub(super) control: ControlKeys,
    pub(super) log: LogKeys,
}

/// Bytes of the file that a table takes; all are equal, as a moved table is not a changed one.
#[derive(Clone, Debug)]
pub(super) struct Location(pub(super) Range<usize>);

impl PartialEq for Location {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Every table, in the order of the documentation.
pub(super) const TABLES: [TableDoc; 13] = [
    NodeKeys::DOC,
    ServiceKeys::DOC,
    ServerKeys::DOC,
    NatKeys::DOC,
    GossipKeys::DOC,
    BalanceKeys::DOC,
    ConntrackKeys::DOC,
    HttpKeys::DOC,
    DnsKeys::DOC,
    OwnershipKeys::DOC,
    DataplaneKeys::DOC,
    ControlKeys::DOC,
    LogKeys::DOC,
];

impl Keys {
    /// Reads a parsed document; what is wrong goes to `findings`.
    pub(super) fn read(document: &Spanned<DeTable<'_>>, findings: &mut Vec<Finding>) -> Self {
        let root = document.get_ref();
        // A table within a table is the outer one's business.
        let names = TABLES
            .iter()
            .map(|table| table.header.trim_matches(['[', ']']))
            .filter(|name| !name.contains('.'));
        report_unknown(root, &names, "the file", findings);
        let empty = DeTable::new();
        let find = |doc: TableDoc, findings: &mut Vec<Finding>| table_named(root, &doc, &empty, findings);
        macro_rules! read {
            ($keys:ident) => {{
                let (table, at) = find($keys::DOC, findings);
                $keys::read(table, at, findings)
            }};
        }
        Self {
            node: read!(NodeKeys),
            services: read_services(root, findings),
            nat: read!(NatKeys),
            gossip: read!(GossipKeys),
            balance: read!(BalanceKeys),
            conntrack: read!(ConntrackKeys),
            http: read!(HttpKeys),
            dns: read!(DnsKeys),
            ownership: read!(OwnershipKeys),
            dataplane: read!(DataplaneKeys),
            control: read!(ControlKeys),
            log: read!(LogKeys),
        }
    }

    /// The keys whose values differ from those of `other`.
    pub(super) fn changes(&self, other: &Self) -> Vec<Change> {
        let mut changes = self.node.changes(&other.node);
        if self.services.len() == other.services.len() {
            let pairs = self.services.iter().zip(&other.services);
            changes.extend(pairs.flat_map(|((own, _), (others, _))| changes_of_service(own, others)));
        } else {
            let key = ServiceKeys::DOC.header.to_owned();
            changes.push(Change { key, takes_effect: TakesEffect::OnRestart });
        }
        macro_rules! compare {
            ($($table:ident)*) => {$( changes.extend(self.$table.changes(&other.$table)); )*};
        }
        compare!(nat gossip balance conntrack http dns ownership dataplane control log);
        changes
    }
}

/// Changes of a service's keys; of its servers each key, as long as there are as many as before.
fn changes_of_service(own: &ServiceKeys, other: &ServiceKeys) -> Vec<Change> {
    let mut changes = own.changes(other);
    let lists = own.servers.as_ref().zip(other.servers.as_ref());
    if let Some((before, after)) = lists.map(|(before, after)| (&before.value.0, &after.value.0))
        && before.len() == after.len()
    {
        changes.retain(|change| change.key != "[[service]] server");
        changes.extend(before.iter().zip(after).flat_map(|(own, other)| own.value.changes(&other.value)));
    }
    changes
}

/// The table of a header, or an empty one at the start of the file.
fn table_named<'a, 'i>(
    root: &'a DeTable<'i>,
    doc: &TableDoc,
    empty: &'a DeTable<'i>,
    findings: &mut Vec<Finding>,
) -> (&'a DeTable<'i>, Range<usize>) {
    let name = doc.header.trim_matches(['[', ']']);
    let Some(value) = root.get(name) else { return (empty, 0..0) };
    match value.get_ref() {
        DeValue::Table(table) => (table, value.span()),
        _ => {
            let problem = format!("`{name}` is not a table");
            findings.push(Finding::new(value.span(), problem, format!("write {}", doc.header)));
            (empty, value.span())
        }
    }
}

fn read_services(root: &DeTable<'_>, findings: &mut Vec<Finding>) -> Vec<(ServiceKeys, Location)> {
    let Some(value) = root.get("service") else {
        let instead = "add `[[service]]`; alone it means TCP port 80 of the node address";
        findings.push(Finding::new(
            0..0,
            "there is no service, so the node would have nothing to do",
            instead,
        ));
        return Vec::new();
    };
    let Some(items) = value.get_ref().as_array() else {
        let instead = "write `[[service]]` with two brackets: there may be several";
        findings.push(Finding::new(value.span(), "`service` is not a list of tables", instead));
        return Vec::new();
    };
    let mut services = Vec::new();
    for item in items {
        match item.get_ref() {
            DeValue::Table(table) => {
                services.push((ServiceKeys::read(table, item.span(), findings), Location(item.span())));
            }
            _ => findings.push(Finding::new(item.span(), "a service is a table", "write `[[service]]`")),
        }
    }
    services
}
