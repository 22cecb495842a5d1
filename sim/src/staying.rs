//! Clients that stay with their real server, by the naive rule: whoever a director gave a client to gets its next connection.
//!
//! The rule is held against one director at a time, as long as nothing happens to it, to the real server, or to who owns
//! what. That clients stay beyond that is for stories.

use crate::fault::Fault;
use crate::invariants::Broken;
use crate::names::address_of;
use crate::node::{Daemon, Node};
use crate::packets::{Packet, Received};
use crate::sim::Sim;
use dpr_model::{FlowKey, ForwardingMethod, MapVersion, NodeId, NodeState, Timestamp, Verdict};
use dpr_ownership::OwnershipMap;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// How long a client without packets stays with its real server.
pub const STAY: Duration = Duration::from_secs(30);
/// Clients that a node remembers: more than come.
pub(crate) const CLIENTS_MAX: usize = 8192;

/// Who a client's real server is, by director, service address and client.
#[derive(Debug, Default)]
pub(crate) struct Staying {
    server_by_client: BTreeMap<(NodeId, IpAddr, IpAddr), Stay>,
}

#[derive(Clone, Copy, Debug)]
struct Stay {
    server: NodeId,
    /// When it was given a connection last.
    at: Timestamp,
    /// The map by which its director decided.
    by: MapVersion,
}

impl Staying {
    /// A director may give those clients to others that it gave to `server`.
    pub(crate) fn release(&mut self, director: NodeId, server: NodeId) {
        self.server_by_client.retain(|(by, ..), stay| *by != director || stay.server != server);
    }

    /// Who may have lost clients, or may not get any, by what is done to a node; or all, if it is done to the network.
    pub(crate) fn note_fault(&mut self, fault: &Fault) {
        match fault {
            Fault::KillDaemon(node)
            | Fault::StartDaemon(node)
            | Fault::KillNode(node)
            | Fault::StartNode(node)
            | Fault::Pause(node)
            | Fault::Resume(node)
            | Fault::StepClock(node, _)
            | Fault::Drain(node, _)
            | Fault::Stop(node)
            | Fault::Forget(node) => {
                self.server_by_client.retain(|(director, ..), stay| director != node && stay.server != *node);
            }
            Fault::Cut(..) | Fault::Mend(..) | Fault::Partition(_) | Fault::Heal => {
                self.server_by_client.clear();
            }
            Fault::SetBackWallClock(..)
            | Fault::Flood(..)
            | Fault::TakeOver(..)
            | Fault::Late(..)
            | Fault::CutOff(..)
            | Fault::ReportLoad(..) => {}
        }
    }
}

impl Sim {
    /// A director that gives a connection away gives it to whom its client stays with.
    pub(crate) fn check_staying(
        &mut self,
        id: NodeId,
        packet: &Packet,
        verdict: Verdict,
    ) -> Result<(), Broken> {
        let (Some(bits), true) = (self.settings.persistence, packet.opens) else { return Ok(()) };
        let (now, flow) = (self.now, packet.flow);
        let Some(node) = self.nodes.get(&id).filter(|node| self.is_director(node, packet)) else {
            return Ok(());
        };
        let is_handed_on = matches!(verdict, Verdict::Forward(forward) if !forward.hops.is_spent());
        let given_to = match verdict {
            Verdict::Deliver(_) => Some(id),
            _ if is_handed_on => None,
            verdict => Received { verdict: Some(verdict) }.egress(),
        };
        // Without a port to translate to, a connection stays.
        let has_no_port = |to: &NodeId| *to == id && self.settings.method == ForwardingMethod::Nat;
        let Some(given_to) = given_to.filter(|to| !has_no_port(to)) else { return Ok(()) };
        // Who seems dead, or is not known yet, may get something by what the data plane was told last, and nothing after that.
        let is_there = self.is_fit(given_to) && (given_to == id || self.alive_for(id).contains(&given_to));
        let by = node.map().map(OwnershipMap::version).unwrap_or_default();
        let client = network_of(flow.client.address, bits);
        let key = (id, flow.service.address, client);
        let before = self.staying.server_by_client.remove(&key);
        if is_there {
            self.staying.server_by_client.insert(key, Stay { server: given_to, at: now, by });
        }
        let stays = before.filter(|before| before.by == by && now.since(before.at) < STAY);
        let stays = stays.filter(|before| self.is_fit(before.server));
        match stays.map(|before| before.server) {
            Some(stays_with) if stays_with != given_to => {
                Err(Broken::Strayed { director: id, flow, given_to, stays_with })
            }
            _ => Ok(()),
        }
    }

    /// True for a node that may get connections, whether its peers know it already or not.
    fn is_fit(&self, id: NodeId) -> bool {
        let is_active = |node: &&Node| {
            let state = node.daemon.as_ref().map(|daemon| daemon.state);
            node.is_running() && !node.drained && state == Some(NodeState::Active)
        };
        self.nodes.get(&id).as_ref().is_some_and(is_active)
    }

    /// True for the node that decides about a packet, if it is told often enough what goes on.
    fn is_director(&self, node: &Node, packet: &Packet) -> bool {
        let is_informed = |daemon: &Daemon| daemon.director.lease_is_valid(node.local(self.now));
        let decides = if self.is_shared() {
            node.decides_for(&packet.flow, self.now)
        } else {
            packet.flow.service.address == address_of(node.id, self.settings.services)
        };
        decides && node.daemon.as_ref().is_some_and(is_informed)
    }
}

/// True where a node has nothing to decide about a flow: it has an entry, or no room for one, and keeps what it cannot remember;
/// or its own stack has a socket for it.
pub(crate) fn is_known(node: &Node, flow: &FlowKey) -> bool {
    let client = SocketAddr::new(flow.client.address, flow.client.port);
    let is_known = |daemon: &Daemon| {
        let (status, deliveries) = (daemon.director.conntrack_status(), daemon.director.delivery_addresses());
        let mut own = deliveries.iter().filter(|one| one.service == flow.service.address);
        daemon.director.real_server_of(flow).is_some()
            || status.entries == status.capacity
            || own.any(|one| node.stack.has_socket(SocketAddr::new(one.delivery, flow.service.port), client))
    };
    node.daemon.as_ref().is_none_or(is_known)
}

/// Bits of addresses that say who is one client, where addresses within the last `bits` of each other are one.
pub(crate) fn prefix_len(address: IpAddr, bits: u8) -> u8 {
    if address.is_ipv4() { 32 - bits } else { 128 - bits }
}

fn network_of(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) >> bits << bits).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> bits << bits).into(),
    }
}
