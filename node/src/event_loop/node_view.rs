//! This node as it presents itself: its load report, what its data plane is told, what `dpr status` shows.

use super::claims;
use super::observation::Observation;
use crate::config::{Balance, Config, Service};
use crate::dataplane::{ExternalServer, ThisNode, Update};
use crate::http::Deliveries;
use crate::load_sampler::{Door, default_weights};
use crate::path_mtu::PathMtus;
use crate::server_probes::ServerProbes;
use crate::source_probes::SourceProbes;
use dpr_load_gossip::{Gossip, MetricWeights, PeerView, load_index};
use dpr_model::status::{
    AddressClaim, BalanceStatus, DataplaneStatus, NodeStatus, PeerStatus, PersistenceStatus, ServiceStatus,
    Status,
};
use dpr_model::{
    Incarnation, LoadPermille, LoadReport, MapVersion, MetricSample, NodeId, NodeState, Peer, Protocol,
    ServiceReport, ServiceSocket, Timestamp,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is known about this node.
#[derive(Debug)]
pub(crate) struct NodeView {
    config: Config,
    incarnation: Incarnation,
    interface: String,
    started: Timestamp,
    weights: MetricWeights,
    load_override: Option<LoadPermille>,
    server_probes: ServerProbes,
    path_mtus: PathMtus,
    /// What becomes of foreign sources on the way to and from peers.
    pub(super) sources: SourceProbes,
    /// Joining, active, draining, leaving.
    pub(super) state: NodeState,
    /// The freshest observation.
    pub(super) observation: Observation,
    /// The ownership map that this node goes by.
    pub(super) map_version: MapVersion,
    metrics: Vec<MetricSample>,
    load: LoadPermille,
}

impl NodeView {
    /// A node that has just started.
    pub(crate) fn new(
        config: Config,
        incarnation: Incarnation,
        interface: String,
        server_probes: ServerProbes,
        path_mtus: PathMtus,
        now: Timestamp,
    ) -> Self {
        Self {
            server_probes,
            path_mtus,
            weights: weights_of(&config.balance),
            config,
            incarnation,
            interface,
            started: now,
            load_override: None,
            sources: SourceProbes::default(),
            state: NodeState::Joining,
            observation: Observation::default(),
            map_version: MapVersion::default(),
            metrics: Vec::new(),
            load: LoadPermille(0),
        }
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Puts the keys into force that need no restart.
    pub(super) fn reconfigure(&mut self, new: &Config) {
        self.config.node.weight = new.node.weight;
        self.config.node.capacity = new.node.capacity;
        self.config.balance = new.balance.clone();
        self.config.gossip.key_file.clone_from(&new.gossip.key_file);
        self.weights = weights_of(&new.balance);
    }

    /// Replaces the measured load, or goes back to it.
    pub(super) fn override_load(&mut self, load: Option<LoadPermille>) {
        self.load_override = load;
        self.judge_load();
    }

    /// Takes in what was observed.
    pub(super) fn observe(&mut self, observation: Observation) {
        for service in self.services_changed(&observation) {
            tracing::info!(service = %service.socket, healthy = service.healthy, "a service's server changed");
        }
        self.observation = observation;
        let forwarded_out = self.observation.snapshot.forwarded_out;
        self.metrics = self.observation.readings.metrics(self.config.node.capacity, forwarded_out);
        self.judge_load();
    }

    fn judge_load(&mut self) {
        self.load = self.load_override.unwrap_or_else(|| load_index(&self.metrics, &self.weights));
    }

    fn services_changed(&self, observation: &Observation) -> Vec<ServiceReport> {
        let is_first = self.observation.readings.listening.is_empty();
        let before = self.services_by(&self.observation);
        let after = self.services_by(observation).into_iter();
        after.filter(|service| if is_first { !service.healthy } else { !before.contains(service) }).collect()
    }

    fn services_by(&self, observation: &Observation) -> Vec<ServiceReport> {
        let report = |service: &Service| ServiceReport {
            healthy: listens(observation, service.protocol, service.socket()),
            ..service.report()
        };
        self.config.services.iter().map(report).collect()
    }

    /// Own services, and whether their servers answer.
    fn services(&self) -> Vec<ServiceReport> {
        self.services_by(&self.observation)
    }

    /// Delivery addresses, for the built-in server.
    pub(super) fn deliveries(&self) -> Deliveries {
        Deliveries::new(&self.observation.snapshot.deliveries)
    }

    /// What the node says about itself.
    pub(crate) fn report(&self) -> LoadReport {
        LoadReport {
            node: self.config.node.id,
            incarnation: self.incarnation,
            name: self.config.node.name.clone(),
            state: self.state,
            address: self.config.node.address,
            capacity: self.config.node.capacity,
            weight: self.config.node.weight,
            load: self.load,
            metrics: self.metrics.clone(),
            services: self.services(),
            received: self.observation.snapshot.received.clone(),
            content_version: 0,
            nat_ports: self.config.nat_ports,
            map_version: self.map_version,
        }
    }

    /// The interface that service packets come in on.
    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    /// Finds out path MTUs by another prober from now on.
    pub(super) fn measure_by(&mut self, path_mtus: PathMtus) {
        self.path_mtus = path_mtus;
    }

    /// Has the ways to all living peers probed.
    pub(super) fn probe_paths(&mut self, gossip: &Gossip, now: Timestamp) {
        let alive = gossip.peers(now).filter(|view| view.alive);
        self.path_mtus.follow(alive.map(|view| view.report.address).collect());
    }

    /// What the data plane is told.
    pub(super) fn update(&self, gossip: &Gossip, now: Timestamp) -> Update {
        Update {
            this: ThisNode {
                state: self.state,
                load: self.load,
                capacity: self.config.node.capacity,
                weight: self.config.node.weight,
                services: self.services(),
            },
            peers: gossip
                .peers(now)
                .map(|view| Peer {
                    source_filters: self.sources.filters(view.report.node),
                    ..view.to_peer(self.path_mtus.to(view.report.address))
                })
                .collect(),
            external: self.external_servers(),
            frozen: gossip.frozen(),
            policy: self.config.balance.policy,
            maxload: self.config.balance.maxload,
        }
    }

    /// Servers without `dpr` behind own services, and whether they answer.
    fn external_servers(&self) -> Vec<ExternalServer> {
        let services = self.config.services.iter();
        let of_service = |service: &Service| {
            let (socket, protocol) = (service.socket(), service.protocol);
            service
                .servers
                .iter()
                .map(move |server| ExternalServer {
                    protocol,
                    service: socket,
                    socket: server.socket,
                    weight: server.weight,
                    capacity: server.capacity.unwrap_or(self.config.node.capacity),
                    healthy: self.server_probes.is_healthy(protocol, server.socket),
                })
                .collect::<Vec<_>>()
        };
        services.flat_map(of_service).collect()
    }

    /// What `dpr status` shows.
    pub(super) fn status(&self, gossip: &Gossip, now: Timestamp) -> Status {
        let snapshot = &self.observation.snapshot;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node_status(),
            uptime_s: now.since(self.started).as_secs(),
            open_connections: self.observation.open_connections(),
            dataplane: DataplaneStatus {
                kind: snapshot.plane.kind.to_owned(),
                interface: self.interface.clone(),
                lease_valid: snapshot.lease_valid,
                programs: snapshot.plane.programs.clone(),
                reason: snapshot.plane.reason.clone(),
            },
            services: self.service_statuses(gossip, now),
            claims: self.contested(gossip, now),
            peers: gossip.peers(now).map(|view| self.peer_status(&view)).collect(),
            balance: BalanceStatus {
                policy: self.config.balance.policy.label().to_owned(),
                maxload: self.config.balance.maxload,
                frozen: gossip.frozen(),
            },
            conntrack: snapshot.conntrack,
            clients: snapshot.clients,
            counters: snapshot.counters.clone(),
            gossip: gossip.counters(),
            dns: None,
            exclusions: gossip.exclusions().copied().collect(),
            ownership: None,
        }
    }

    /// Service addresses that this node or a living peer claims, and another one too.
    pub(super) fn contested(&self, gossip: &Gossip, now: Timestamp) -> Vec<AddressClaim> {
        let own = self.config.services.iter().map(|service| (service.address, service.sharing));
        claims::contested(self.config.node.id, own, gossip, now)
    }

    fn node_status(&self) -> NodeStatus {
        NodeStatus {
            id: self.config.node.id,
            name: self.config.node.name.clone(),
            address: self.config.node.address,
            incarnation: self.incarnation,
            state: self.state,
            load: self.load,
            capacity: self.config.node.capacity.get(),
            weight: self.config.node.weight,
            metrics: self.metrics.clone(),
            map_version: self.map_version,
        }
    }

    /// Own services first, then those that living peers are home to; each with its delivery address here.
    fn service_statuses(&self, gossip: &Gossip, now: Timestamp) -> Vec<ServiceStatus> {
        let own = self.services().into_iter().map(|service| (self.config.node.id, service));
        let of_peers = gossip.peers(now).filter(|view| view.alive).flat_map(|view| {
            let node = view.report.node;
            view.report.services.iter().map(move |service| (node, *service)).collect::<Vec<_>>()
        });
        own.chain(of_peers).map(|(owner, service)| self.service_status(owner, service)).collect()
    }

    fn service_status(&self, owner: NodeId, service: ServiceReport) -> ServiceStatus {
        let deliveries = &self.observation.snapshot.deliveries;
        let delivery = deliveries.iter().find(|delivery| delivery.service == service.socket.address);
        // A peer's server is not this node's: what counts is whether connections find one here.
        let listening = listens(&self.observation, service.protocol, service.socket);
        ServiceStatus {
            protocol: service.protocol.label().to_owned(),
            address: service.socket.address,
            port: service.socket.port,
            owner,
            delivery: delivery.map_or(unspecified(service.socket.address), |delivery| delivery.delivery),
            healthy: listening,
            ports: service.ports.ranges().map(|range| range.to_string()).collect(),
            persistence: self.persistence_of(owner, &service),
        }
    }

    fn persistence_of(&self, owner: NodeId, service: &ServiceReport) -> Option<PersistenceStatus> {
        let is_it = |own: &&Service| (own.protocol, own.socket()) == (service.protocol, service.socket);
        let own = self.config.services.iter().find(|own| owner == self.config.node.id && is_it(own))?;
        own.persistence.map(|persistence| PersistenceStatus {
            prefix_len: persistence.prefix_len,
            timeout_s: u32::try_from(persistence.timeout.as_secs()).unwrap_or(u32::MAX),
        })
    }

    fn peer_status(&self, view: &PeerView<'_>) -> PeerStatus {
        let report = view.report;
        let snapshot = &self.observation.snapshot;
        let sent = snapshot.sent.iter().find(|sent| sent.node == report.node);
        let received = snapshot
            .received
            .iter()
            .find(|received| (received.director, received.incarnation) == (report.node, report.incarnation));
        PeerStatus {
            node: NodeStatus {
                id: report.node,
                name: report.name.clone(),
                address: report.address,
                incarnation: report.incarnation,
                state: report.state,
                load: report.load,
                capacity: report.capacity.get(),
                weight: report.weight,
                metrics: report.metrics.clone(),
                map_version: report.map_version,
            },
            alive: view.alive,
            path_mtu: self.path_mtus.to(report.address),
            mac: self.path_mtus.mac_of(report.address).map(|mac| mac.to_string()),
            direct_replies: self.sources.arrive_from(report.node),
            own_direct_replies: self.sources.arrive_at(report.node),
            multicast_blocked: view.multicast_blocked,
            report_age_ms: u64::try_from(view.report_age.as_millis()).unwrap_or(u64::MAX),
            sent: sent.map_or(0, |sent| sent.connections),
            outstanding: sent.map_or(0, |sent| sent.outstanding),
            received: received.map_or(0, |received| received.connections),
        }
    }
}

/// Whether a server listens where packets of a service are delivered.
fn listens(observation: &Observation, protocol: Protocol, service: ServiceSocket) -> bool {
    observation.readings.listening.get(&Door::of(protocol, service)).copied().unwrap_or(false)
}

/// What stands for an address that is not known yet.
fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn weights_of(balance: &Balance) -> MetricWeights {
    MetricWeights::new(balance.metrics.clone().unwrap_or_else(default_weights))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Defaults;
    use crate::dataplane::{DeliveryAddress, Snapshot};
    use crate::load_sampler::Readings;
    use dpr_host::LinkIndex;
    use dpr_model::Metric;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn config(extra: &str) -> Config {
        let text = format!("[node]\naddress = \"192.0.2.11\"\ncapacity = 100\n[[service]]\n{extra}");
        let defaults = Defaults { host_name: "a".to_owned(), processors: 1 };
        Config::parse(Path::new("a.toml"), &text, &defaults).unwrap()
    }

    fn view(extra: &str) -> NodeView {
        // Without servers there is nothing to probe.
        let probes = ServerProbes::start(&[]);
        let paths = PathMtus::start("192.0.2.11".parse().unwrap(), LinkIndex(1), 1500);
        NodeView::new(config(extra), Incarnation(1), "eth0".to_owned(), probes, paths, Timestamp::default())
    }

    fn gossip() -> Gossip {
        Gossip::new(dpr_load_gossip::Config::new(NodeId(1), Incarnation(1)), Timestamp::default())
    }

    fn observation(connections: u64, listening: bool) -> Observation {
        let delivery = DeliveryAddress {
            delivery: Ipv4Addr::new(169, 254, 64, 1).into(),
            mode: dpr_model::DeliveryMode::Translate,
            service: Ipv4Addr::new(192, 0, 2, 11).into(),
            owner: NodeId(0xc000_020b),
        };
        Observation {
            snapshot: Snapshot { deliveries: vec![delivery], forwarded_out: 3, ..Snapshot::default() },
            readings: Readings {
                connections,
                listening: BTreeMap::from([(
                    Door { protocol: Protocol::Tcp, is_v6: false, port: 80 },
                    listening,
                )]),
                ..Readings::default()
            },
        }
    }

    #[test]
    fn the_report_shows_load_and_health_as_observed() {
        let mut view = view("[balance]\nmetrics = { connections = 1 }\n");

        view.observe(observation(40, true));
        let report = view.report();

        assert_eq!(report.load, LoadPermille(400));
        assert!(report.services[0].healthy);
        let forwarded_out =
            report.metrics.iter().find(|sample| sample.metric == Metric::ForwardedOut).unwrap();
        assert_eq!(forwarded_out.load, LoadPermille(30));
        assert_eq!(view.observation.open_connections(), 43);
    }

    #[test]
    fn a_service_without_a_server_is_reported_as_such() {
        let mut view = view("");
        assert!(!view.report().services[0].healthy, "nothing is known before the first observation");

        view.observe(observation(0, true));
        view.observe(observation(0, false));

        assert!(!view.report().services[0].healthy);
    }

    #[test]
    fn an_override_replaces_the_measured_load_until_it_is_taken_back() {
        let mut view = view("[balance]\nmetrics = { connections = 1 }\n");
        view.observe(observation(40, true));

        view.override_load(Some(LoadPermille(950)));
        view.observe(observation(50, true));
        let overridden = view.report().load;
        view.override_load(None);

        assert_eq!(overridden, LoadPermille(950));
        assert_eq!(view.report().load, LoadPermille(500));
    }

    #[test]
    fn a_reload_changes_what_needs_no_restart_and_nothing_else() {
        let mut view = view("");
        let new = config("port = 81\n[balance]\npolicy = \"lightest\"\nmaxload = 0\n");

        view.reconfigure(&new);
        let update = view.update(&gossip(), Timestamp::default());

        assert_eq!((update.policy.label(), update.maxload), ("lightest", LoadPermille(0)));
        assert_eq!(update.this.services[0].socket.port, 80);
    }

    #[test]
    fn status_shows_the_delivery_address_of_a_service() {
        let mut view = view("");
        view.observe(observation(0, true));

        let status = view.status(&gossip(), Timestamp::from_millis(2500));

        assert_eq!(status.uptime_s, 2);
        assert_eq!(status.services[0].delivery, IpAddr::V4(Ipv4Addr::new(169, 254, 64, 1)));
        assert!(status.services[0].healthy);
    }
}
