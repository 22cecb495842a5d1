//! Clients that stay with their real server: services with persistence, as IPVS has them.
//!
//! Persistence comes before every other rule of deciding. A client is given up only when its real server may not get new
//! connections any more: it died, drains, or its server stopped answering. Every packet of a connection renews the
//! client's time, and brings back what was forgotten; so a session that began on one node goes on there.

use crate::director::Director;
use crate::ownership::Service;
use crate::pipeline::Placement;
use crate::subject::Step;
use dpr_conntrack::sync::{ClientRecord, Copied, SNAPSHOT_PAGE};
use dpr_conntrack::{Clients, Segment, Stay, TcpState};
use dpr_model::status::{ClientsStatus, Connection};
use dpr_model::{ClientSocket, FlowKey, NodeId, Protocol, ServiceReport, ServiceSocket, Sharing, Timestamp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// A service of this node whose clients stay with their real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistentService {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The service; its further ports do as its own.
    pub service: ServiceSocket,
    /// So many bits of clients' addresses say who is one client; more than an address has count as all.
    pub prefix_len: u8,
    /// How long a client stays after its last packet.
    pub timeout: Duration,
}

/// Which services of this node keep their clients, and how many of these are remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersistenceSettings {
    /// The services; without any nothing is remembered.
    pub services: Vec<PersistentService>,
    /// Clients at most; see [`Clients::new`].
    pub clients_max: usize,
}

/// Which services, and their clients.
#[derive(Debug, Default)]
pub(crate) struct Persistence {
    services: Vec<PersistentService>,
    /// `None` where no service has persistence.
    clients: Option<Clients>,
}

/// A client of a service with persistence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    key: FlowKey,
    timeout: Duration,
}

impl Persistence {
    pub(crate) fn new(settings: PersistenceSettings, hash_seed: [u64; 2]) -> Self {
        let PersistenceSettings { services, clients_max } = settings;
        let clients = (!services.is_empty()).then(|| Clients::new(clients_max, hash_seed));
        Self { services, clients }
    }

    /// True when clients of a service stay with their real server: of one of this node, or of a peer for which it may stand
    /// in and that has the same port. Nodes of a cluster are configured alike.
    pub(crate) fn has(&self, report: &ServiceReport, is_own: bool) -> bool {
        let ServiceReport { protocol, socket, sharing, .. } = report;
        match is_own {
            true => self.rule_of(*protocol, socket).is_some(),
            false => *sharing == Sharing::Takeover && self.rule(*protocol, socket).is_some(),
        }
    }

    /// True when a service of this node keeps its clients.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.clients.is_some()
    }

    pub(crate) fn expire(&mut self, now: Timestamp, budget: usize) {
        if let Some(clients) = &mut self.clients {
            clients.expire(now, budget);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.clients.as_ref().map_or(0, Clients::memory_bytes)
    }

    /// True where some service has it.
    pub(crate) fn is_used(&self) -> bool {
        self.clients.is_some()
    }

    /// How many places there are for clients.
    pub(crate) fn places(&self) -> usize {
        self.clients.as_ref().map_or(0, Clients::capacity)
    }

    /// Clients in [`SNAPSHOT_PAGE`] places from place `from` on that have established something.
    pub(crate) fn page(&self, from: usize, now: Timestamp, tell: &mut dyn FnMut(ClientRecord)) {
        let Some(clients) = &self.clients else { return };
        for (client, stay) in clients.page(from, SNAPSHOT_PAGE, now).entries {
            tell(ClientRecord { client, stay });
        }
    }

    fn rule(&self, protocol: Protocol, service: &ServiceSocket) -> Option<&PersistentService> {
        let kind = |service: &ServiceSocket| (service.address.is_ipv4(), service.port);
        let mut of_protocol = self.services.iter().filter(|rule| rule.protocol == protocol);
        let own = self.rule_of(protocol, service);
        own.or_else(|| of_protocol.find(|rule| kind(&rule.service) == kind(service)))
    }

    fn rule_of(&self, protocol: Protocol, service: &ServiceSocket) -> Option<&PersistentService> {
        self.services.iter().find(|rule| (rule.protocol, &rule.service) == (protocol, service))
    }

    /// Whose flow it is, by the port that the service is named by; `None` of a service without persistence.
    fn client_of(&self, flow: &FlowKey, service: &Service) -> Option<Client> {
        if !service.is_persistent {
            return None;
        }
        let named = service.named(flow);
        let rule = self.rule(named.protocol, &named.service)?;
        let address = network_of(named.client.address, rule.prefix_len);
        let key = FlowKey { client: ClientSocket { address, port: 0 }, ..named };
        Some(Client { key, timeout: rule.timeout })
    }
}

impl Director {
    /// Who gets a new connection: the client's real server if it has one that may, otherwise whom [`Self::decide`] chooses.
    pub(crate) fn decide_for_client(&mut self, flow: &FlowKey, service: &Service, now: Timestamp) -> NodeId {
        let named = service.named(flow);
        let Some(server) = self.client_server(flow, service, now) else { return self.decide(&named, now) };
        let may_get_it = |candidate: &dpr_model::Candidate| {
            candidate.node == server && candidate.address != flow.client.address
        };
        let is_candidate = self.peers.candidates(&named).iter().any(may_get_it);
        // Without updates nobody knows whether it still is one.
        if is_candidate && self.lease.is_valid(now) { server } else { self.decide(&named, now) }
    }

    /// A new connection went to `server`: so will the client's next one.
    pub(crate) fn give_client(&mut self, flow: &FlowKey, service: &Service, server: NodeId, now: Timestamp) {
        // What stays here for want of updates says nothing about where the client belongs.
        if !self.lease.is_valid(now) {
            return;
        }
        if let (Some(client), Some(clients)) =
            (self.persistence.client_of(flow, service), &mut self.persistence.clients)
        {
            clients.give(&client.key, server, client.timeout, now);
        }
    }

    /// A packet of a flow that its real server has.
    pub(crate) fn renew_client(
        &mut self,
        flow: &FlowKey,
        service: &Service,
        placement: Placement,
        now: Timestamp,
    ) {
        let Placement { server, state } = placement;
        if matches!(state, TcpState::Reset | TcpState::Closed) {
            return;
        }
        if let (Some(client), Some(clients)) =
            (self.persistence.client_of(flow, service), &mut self.persistence.clients)
        {
            let is_established = state != TcpState::HalfOpen;
            let is_news = clients.renew(&client.key, server, is_established, client.timeout, now);
            if is_news
                && service.sharing != Sharing::Home
                && let Some(stay) = clients.stay_of(&client.key, now)
            {
                self.copies.streams.tell_all(&Copied::Client(ClientRecord { client: client.key, stay }), now);
            }
        }
    }

    /// Another node says where a client stays. The later choice counts, as one of its real servers could get no more then; of two
    /// at one time, as by two owners of its connections, all nodes take the first by id that may get it.
    pub(crate) fn take_client(&mut self, record: &ClientRecord, now: Timestamp) {
        let ClientRecord { client, stay } = record;
        let Some(clients) = &mut self.persistence.clients else { return };
        let candidates = self.peers.candidates(client);
        let is_candidate = |known: &Stay| candidates.iter().any(|one| one.node == known.server);
        let is_better = |known: &Stay| match known.age.abs_diff(stay.age) < AT_ONE_TIME {
            true => known.server < stay.server,
            false => known.age < stay.age,
        };
        let known = clients.stay_of(client, now).filter(|known| known.established && is_candidate(known));
        if known.is_some_and(|known| known.server != stay.server && is_better(&known)) {
            clients.tell_again(client, now);
        } else {
            clients.copy(client, *stay, now);
        }
    }

    /// Where the answer to a connection goes that a real server opened from the service address, as FTP's servers do in
    /// active mode: to the client's real server. `None` for everything else.
    pub(crate) fn place_answer(
        &mut self,
        flow: &FlowKey,
        service: &Service,
        step: Step,
        now: Timestamp,
    ) -> Option<Placement> {
        let is_answer = step.segment.syn && step.segment.ack && !step.segment.rst;
        let server = if is_answer { self.client_server(flow, service, now)? } else { return None };
        // From here on it is a connection like any other, half-open until the client sends on.
        let begins = Segment { ack: false, ..step.segment };
        let is_kept = self.table.insert_if_room(flow, begins, server, now);
        is_kept.then_some(Placement { server, state: TcpState::HalfOpen })
    }

    fn client_server(&self, flow: &FlowKey, service: &Service, now: Timestamp) -> Option<NodeId> {
        let client = self.persistence.client_of(flow, service)?;
        self.persistence.clients.as_ref()?.server_of(&client.key, now)
    }

    /// Clients as entries of the table: without a client port, as IPVS shows its templates.
    pub(crate) fn client_entries(&self, now: Timestamp) -> impl Iterator<Item = Connection> + '_ {
        self.persistence.clients.iter().flat_map(move |clients| clients.iter(now)).map(|(flow, stay)| {
            Connection {
                flow,
                state: CLIENT_LABEL.to_owned(),
                real_server: stay.server,
                generation: 0,
                expires_in_s: u32::try_from(stay.left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX),
            }
        })
    }

    /// Clients that stay with their real server; `None` where no service has persistence.
    pub fn clients_status(&self) -> Option<ClientsStatus> {
        self.persistence.clients.as_ref().map(|clients| ClientsStatus {
            capacity: clients.capacity() as u64,
            clients: clients.len() as u64,
            displaced: clients.displaced(),
        })
    }
}

/// Choices less apart than this are of one time: what one node says of its own is on the way for a while.
const AT_ONE_TIME: Duration = Duration::from_millis(500);
/// What stands for a client's state among those of connections.
const CLIENT_LABEL: &str = "client";

/// The first `prefix_len` bits of an address.
fn network_of(address: IpAddr, prefix_len: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let host_bits = 32_u32.saturating_sub(prefix_len.into());
            Ipv4Addr::from(u32::from(address) & u32::MAX.checked_shl(host_bits).unwrap_or(0)).into()
        }
        IpAddr::V6(address) => {
            let host_bits = 128_u32.saturating_sub(prefix_len.into());
            Ipv6Addr::from(u128::from(address) & u128::MAX.checked_shl(host_bits).unwrap_or(0)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_bits_say_who_is_one_client() {
        let network =
            |address: &str, prefix_len| network_of(address.parse().unwrap(), prefix_len).to_string();
        assert_eq!(network("198.51.100.7", 32), "198.51.100.7");
        assert_eq!(network("198.51.100.7", 24), "198.51.100.0");
        assert_eq!(
            (network("198.51.100.7", 0), network("198.51.100.7", 200)),
            ("0.0.0.0".into(), "198.51.100.7".into())
        );
        assert_eq!(network("2001:db8::1:2", 64), "2001:db8::");
        assert_eq!(network("2001:db8::1:2", 0), "::");
    }
}
