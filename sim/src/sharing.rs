//! Addresses that nodes share or take over: where packets for them come in, and that never two nodes act on one.

use crate::client::Connection;
use crate::invariants::Broken;
use crate::names::{CLIENT, Host, SHARED, address_of, client_address, flow as flow_to};
use crate::network::Quality;
use crate::node::Node;
use crate::packets::Packet;
use crate::sim::Sim;
use dpr_model::{ClientSocket, Ingress, MapVersion, NodeId, Timestamp, Verdict};
use dpr_ownership::OwnershipMap;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Packets that are remembered for having been handled.
const HANDLED_MAX: usize = 10_000;
/// How long after a fault between nodes a question may have gone unanswered because of it: what a director's patience and a
/// client's next retransmission take.
const AFTERMATH: Duration = Duration::from_secs(12);

/// What the network and an observer know about addresses that change hands.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    /// Who has announced an address last: there its packets come in.
    front_by_address: BTreeMap<IpAddr, NodeId>,
    /// What each node announces.
    fronted_by_node: BTreeMap<NodeId, Vec<IpAddr>>,
    /// Who acted on a packet first, and by which map.
    handled: BTreeMap<u64, (NodeId, MapVersion)>,
    packets: u64,
    /// Up to this one, copies of packets may have arrived at different times, however good the network is by now.
    uneven_until: u64,
    /// By which duty each node may act, and until when on its own clock as far as was known when it was looked at last.
    pub(crate) right_by_node: BTreeMap<NodeId, (u64, Timestamp)>,
    /// Until then, nodes may not have reached each other.
    disturbed_until: Timestamp,
}

impl Sharing {
    /// From now on copies of packets arrive at one time.
    pub(crate) fn begin_keeping_pace(&mut self) {
        self.uneven_until = self.packets;
    }

    /// A name for a packet of a client, of which several nodes may get a copy.
    pub(crate) fn next_packet(&mut self) -> u64 {
        self.packets += 1;
        self.packets
    }
}

impl Sim {
    /// True if some addresses may have other owners than their home.
    pub(crate) fn is_shared(&self) -> bool {
        self.settings.ingress.is_some()
    }

    /// Nodes between which something happened may not have answered each other for a while.
    pub(crate) fn note_disturbance(&mut self, lasting: Duration) {
        let until = self.now + lasting + AFTERMATH;
        self.sharing.disturbed_until = self.sharing.disturbed_until.max(until);
    }

    /// True for a connection that may have been refused because the node that knew it could not be asked.
    pub(crate) fn may_be_refused(&self, connection: &Connection) -> bool {
        let inside = self.network.inside;
        let is_bad = inside != Quality { delay: inside.delay, ..Quality::default() };
        // Of a handshake nobody but the chosen one knows.
        let server = connection.real_server.or(connection.chosen).filter(|_| self.is_shared());
        let Some(node) = server.and_then(|id| self.nodes.get(&id)) else { return false };
        is_bad || node.daemon.is_none() || self.now < self.sharing.disturbed_until
    }

    /// Takes note of what a node announces.
    pub(crate) fn note_fronts(&mut self, id: NodeId) {
        if !self.is_shared() {
            return;
        }
        let now = self.now;
        let fronted = self.nodes.get(&id).map_or(Vec::new(), |node| node.fronted(node.local(now)));
        let before = self.sharing.fronted_by_node.entry(id).or_default();
        for address in fronted.iter().filter(|address| before.binary_search(address).is_err()) {
            self.sharing.front_by_address.insert(*address, id);
        }
        *before = fronted;
    }

    /// Where a client's packet arrives: at one node, at all of them, or nowhere.
    pub(crate) fn where_it_arrives(&mut self, address: IpAddr) -> Vec<Host> {
        let ids = self.node_ids();
        let is_shared = address == address_of(SHARED, self.settings.services);
        let ingress = self.settings.ingress.filter(|_| is_shared);
        match ingress {
            Some(Ingress::SharedMac) => ids.into_iter().map(Host::Node).collect(),
            Some(Ingress::Routed) => {
                // The router has noticed who does not announce the address any more.
                let is_there = |id: &NodeId| self.nodes.get(id).is_some_and(|node| node.daemon.is_some());
                let there: Vec<NodeId> = ids.into_iter().filter(is_there).collect();
                let chosen = (!there.is_empty()).then(|| there[self.rng.usize(..there.len())]);
                chosen.map(Host::Node).into_iter().collect()
            }
            Some(Ingress::ArpOwner) => {
                self.sharing.front_by_address.get(&address).copied().map(Host::Node).into_iter().collect()
            }
            None if self.astray_permille > 0 && self.rng.u16(..1000) < self.astray_permille => {
                vec![Host::Node(ids[self.rng.usize(..ids.len())])]
            }
            None => {
                let front = self.sharing.front_by_address.get(&address).copied();
                vec![front.map_or(Host::at(address), Host::Node)]
            }
        }
    }

    /// Never do two nodes decide about a flow, nor act on copies of one packet: not by the same map, and where all copies come
    /// in at one time by no other either.
    pub(crate) fn check_owners(
        &mut self,
        id: NodeId,
        packet: &Packet,
        verdict: Verdict,
    ) -> Result<(), Broken> {
        let acts = !matches!(verdict, Verdict::Drop(_) | Verdict::Pass);
        if !self.is_shared() || !acts {
            return Ok(());
        }
        let flow = packet.flow;
        let now = self.now;
        let deciding = self.nodes.iter().filter(|(_, node)| node.decides_for(&flow, now)).map(|(id, _)| *id);
        if let [first, second, ..] = deciding.collect::<Vec<_>>()[..] {
            return Err(Broken::TwoOwners { flow, first, second });
        }
        let is_copied = self.settings.ingress == Some(Ingress::SharedMac)
            && flow.service.address == address_of(SHARED, self.settings.services);
        if !is_copied || packet.hops > 0 || packet.number == 0 {
            return Ok(());
        }
        let map = self.nodes.get(&id).and_then(Node::map).map(OwnershipMap::version).unwrap_or_default();
        let keeps_pace = self.network.outside.keeps_pace() && packet.number > self.sharing.uneven_until;
        let first = *self.sharing.handled.entry(packet.number).or_insert((id, map));
        if self.sharing.handled.len() > HANDLED_MAX {
            self.sharing.handled.pop_first();
        }
        match first {
            (first, by) if first != id && (by == map || keeps_pace) => {
                Err(Broken::HandledTwice { flow, first, second: id })
            }
            _ => Ok(()),
        }
    }

    /// All running nodes have the same map, byte by byte, and every slot has an owner.
    pub(crate) fn check_maps(&self) -> Result<(), Broken> {
        if !self.is_shared() {
            return Ok(());
        }
        let maps = || self.nodes.values().filter_map(|node| Some((node.id, node.map()?.to_bytes())));
        let first = maps().next().map(|(_, bytes)| bytes);
        if let Some((node, _)) = maps().find(|(_, bytes)| Some(bytes) != first.as_ref()) {
            return Err(Broken::MapsDiffer { node });
        }
        self.vacant().next().map_or(Ok(()), |(address, slot)| Err(Broken::Orphaned { address, slot }))
    }

    /// True when nodes agree on everything, and every slot has an owner that acts.
    pub fn is_agreed(&self) -> bool {
        self.check_maps().is_ok()
    }

    /// A client that is nobody in particular, of the version of services.
    pub(crate) fn a_client(&self) -> ClientSocket {
        let IpAddr::V4(address) = CLIENT.address else { return CLIENT };
        ClientSocket { address: client_address(address, self.settings.services), ..CLIENT }
    }

    /// The node that decides about what a client sends to the address of `home`, if there is one now.
    pub fn owner_of(&self, client: ClientSocket, home: NodeId) -> Option<NodeId> {
        let flow = flow_to(client, home);
        self.nodes.values().find(|node| node.decides_for(&flow, self.now)).map(|node| node.id)
    }
}
