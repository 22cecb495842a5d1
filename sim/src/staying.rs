//! Clients that stay with their real server, by the naive rule: whoever a director gave a client to gets its next connection.
//!
//! A director knows what it has decided itself, as long as nothing happens to it or to the real server. Where addresses change
//! hands it also knows what others have decided, of clients that have completed a handshake: at once where no message gets lost,
//! and otherwise after a second.

use crate::fault::Fault;
use crate::invariants::Broken;
use crate::names::{SHARED, address_of};
use crate::network::Quality;
use crate::node::{Daemon, Node};
use crate::packets::{Packet, Received};
use crate::sim::Sim;
use dpr_model::{FlowKey, ForwardingMethod, NodeId, NodeState, Timestamp, Verdict};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// How long a client without packets stays with its real server.
pub const STAY: Duration = Duration::from_secs(30);
/// Clients that a node remembers: more than come.
pub(crate) const CLIENTS_MAX: usize = 8192;

/// How long it may take until all nodes have heard where a client stays, if messages get lost: ten times as long as until one is
/// sent again.
const HEARD_AFTER: Duration = Duration::from_secs(1);
/// How long it may take until a node that begins to hear others has heard from all of them where clients stay: a home that returns
/// may own its address sooner.
const MET_AFTER: Duration = Duration::from_millis(500);
/// How long a client stays by what others have heard of it: they are told again when a quarter of its time is over.
const STAY_BY_HEARSAY: Duration = Duration::from_secs(STAY.as_secs() / 2);

/// How long directors may disagree that have chosen differently: until all were told again, and their word has come.
const DISPUTED_FOR: Duration = Duration::from_secs(STAY.as_secs() / 4 + 2);

/// Who a client's real server is, by service address and client.
#[derive(Debug, Default)]
pub(crate) struct Staying {
    server_by_client: BTreeMap<(IpAddr, IpAddr), Stay>,
    /// Since when nodes hear all others, and are heard by them, as far as they noticed.
    hears_since: BTreeMap<NodeId, Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Stay {
    server: NodeId,
    /// Who gave it to it, if that one remembers.
    director: Option<NodeId>,
    /// When it was given a connection last.
    at: Timestamp,
    /// When its director learned that it is a client indeed, and could begin to tell others.
    told_at: Option<Timestamp>,
    /// Until then nodes may have chosen differently, and not have heard of each other's choice.
    disputed_until: Timestamp,
    /// Something has happened for which the client may get another one. Some node may remember this one all the same.
    released: bool,
}

impl Staying {
    /// A director may give those clients to others that it gave to `server`.
    pub(crate) fn release(&mut self, director: NodeId, server: NodeId) {
        self.release_where(|stay| stay.director == Some(director) && stay.server == server);
    }

    /// A client may be `server`'s from now on, or whose it was.
    fn doubt(&mut self, client: (IpAddr, IpAddr), server: NodeId) {
        let stay = self.server_by_client.get_mut(&client).filter(|stay| stay.server != server);
        stay.into_iter().for_each(|stay| stay.released = true);
    }

    /// Two nodes begin to hear each other, or one begins a life.
    pub(crate) fn note_meeting(&mut self, nodes: [NodeId; 2], now: Timestamp) {
        self.hears_since.extend(nodes.map(|node| (node, now)));
    }

    /// Who may have lost clients, or may not get any, by what is done to a node; or all, if it is done to the network.
    pub(crate) fn note_fault(&mut self, fault: &Fault, is_shared: bool, now: Timestamp) {
        match fault {
            Fault::KillDaemon(node)
            | Fault::KillNode(node)
            | Fault::StartDaemon(node)
            | Fault::StartNode(node)
            | Fault::Pause(node) => {
                self.forget_director(*node, is_shared, now);
                self.release_where(|stay| stay.server == *node);
            }
            Fault::Resume(node) | Fault::Drain(node, _) | Fault::Stop(node) | Fault::Forget(node) => {
                self.release_where(|stay| stay.server == *node);
            }
            // By its clock a copy may be over.
            Fault::StepClock(..) | Fault::Cut(..) | Fault::Mend(..) | Fault::Partition(_) | Fault::Heal => {
                self.release_where(|_| true);
            }
            Fault::SetBackWallClock(..)
            | Fault::Flood(..)
            | Fault::TakeOver(..)
            | Fault::Late(..)
            | Fault::CutOff(..)
            | Fault::ReportLoad(..) => {}
        }
    }

    /// What a director knew is known to others only, and not before they have heard of it.
    fn forget_director(&mut self, director: NodeId, is_shared: bool, now: Timestamp) {
        for stay in self.server_by_client.values_mut().filter(|stay| stay.director == Some(director)) {
            let is_known = stay.told_at.is_some_and(|at| now.since(at) >= HEARD_AFTER);
            stay.director = None;
            stay.released |= !(is_shared && is_known);
        }
    }

    fn release_where(&mut self, is_free: impl Fn(&Stay) -> bool) {
        self.server_by_client.values_mut().filter(|stay| is_free(stay)).for_each(|stay| stay.released = true);
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
        if !self.nodes.get(&id).is_some_and(|node| self.is_director(node, packet)) {
            return Ok(());
        }
        let is_handed_on = matches!(verdict, Verdict::Forward(forward) if !forward.hops.is_spent());
        let given_to = match verdict {
            Verdict::Deliver(_) => Some(id),
            _ if is_handed_on => None,
            verdict => Received { verdict: Some(verdict) }.egress(),
        };
        let Some(given_to) = given_to else { return Ok(()) };
        let key = (flow.service.address, network_of(flow.client.address, bits));
        if given_to == id && self.is_translated(&flow) {
            // By choice or for want of a port to translate to: then its client belongs to whom it did.
            self.staying.doubt(key, id);
            return Ok(());
        }
        // Who seems dead, or is not known yet, may get something by what the data plane was told last, and nothing after that.
        let is_there = self.is_fit(given_to) && (given_to == id || self.alive_for(id).contains(&given_to));
        let before = self.staying.server_by_client.remove(&key);
        let same = before.filter(|before| before.server == given_to);
        let disputed_until = match (before, same) {
            (Some(before), None) if self.is_shared() && now.since(before.at) < STAY => now + DISPUTED_FOR,
            (before, _) => before.map(|before| before.disputed_until).unwrap_or_default(),
        };
        let told_at = same.and_then(|before| before.told_at);
        let stay = Stay {
            server: given_to,
            director: Some(id),
            at: now,
            told_at,
            disputed_until,
            released: !is_there,
        };
        self.staying.server_by_client.insert(key, stay);
        match before.filter(|before| self.knows_of(id, before)).map(|before| before.server) {
            Some(stays_with) if stays_with != given_to => {
                Err(Broken::Strayed { director: id, flow, given_to, stays_with })
            }
            _ => Ok(()),
        }
    }

    /// A client has completed a handshake with `server`: its director tells others.
    pub(crate) fn note_client(&mut self, server: NodeId, flow: &FlowKey) {
        let Some(bits) = self.settings.persistence.filter(|_| self.network.is_whole()) else { return };
        let key = (flow.service.address, network_of(flow.client.address, bits));
        let stay = self.staying.server_by_client.get_mut(&key).filter(|stay| stay.server == server);
        stay.into_iter().for_each(|stay| stay.told_at = stay.told_at.or(Some(self.now)));
    }

    /// True if a director has to know where a client stays, and may send it there.
    fn knows_of(&self, director: NodeId, stay: &Stay) -> bool {
        let heard_after =
            if self.network.inside == Quality::default() { Duration::ZERO } else { HEARD_AFTER };
        // Who was chosen meanwhile need not be the one whom all agree on in the end: that the next choice tells.
        if stay.released || stay.at < stay.disputed_until {
            return false;
        }
        let since = self.now.since(stay.at);
        let remembers = stay.director == Some(director) && since < STAY;
        let met_at = self.staying.hears_since.get(&director).copied().unwrap_or_default();
        let has_met = self.now.since(met_at) >= heard_after.max(MET_AFTER);
        let has_heard = has_met && stay.told_at.is_some_and(|at| self.now.since(at) >= heard_after);
        let is_candidate = stay.server == director || self.alive_for(director).contains(&stay.server);
        (remembers || has_heard && since < STAY_BY_HEARSAY) && is_candidate && self.is_fit(stay.server)
    }

    /// True for a connection that goes to others by translation: where all share an address, none does.
    fn is_translated(&self, flow: &FlowKey) -> bool {
        self.settings.method == ForwardingMethod::Nat
            && flow.service.address != address_of(SHARED, self.settings.services)
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
