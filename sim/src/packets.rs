//! Packets on their way: through nodes' data planes and stacks, to clients, and into nothing.

use crate::client::{ConnectionId, Doing, Outcome, Plan, flow_of_reply};
use crate::invariants::{Broken, check_end, check_hops};
use crate::log::What;
use crate::names::{Host, SERVICE_PORT, SHARED, flow, node_at};
use crate::node::Node;
use crate::plane::{self, Exit, Passage};
use crate::segment::{Segment, syn_from};
use crate::sim::{Event, Parcel, Sim};
use crate::socket::End;
use crate::stack::Served;
use crate::staying::is_known;
use crate::workload::{is_nobody, nobody};
use dpr_model::{DropReason, FlowKey, NodeId, Timestamp, Verdict};
use dpr_rewrite::{Kind, ethernet, parse_ip, tcp};
use std::net::SocketAddr;
use std::time::Duration;

/// Time between two SYNs of a flood.
const FLOOD_PAUSE: Duration = Duration::from_micros(50);

/// A packet between a client and the cluster, with what no header says.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) flow: FlowKey,
    /// The client's connection that it belongs to.
    pub(crate) connection: Option<ConnectionId>,
    /// It asks for the connection.
    pub(crate) opens: bool,
    /// Where the connection was established when the client sent it: nowhere else may it be delivered.
    pub(crate) bound_to: Option<NodeId>,
    /// Times that a node forwarded it.
    pub(crate) hops: u8,
    /// Tells packets that clients have sent from each other; 0 for all others.
    pub(crate) number: u64,
    /// It is for the log only that this copy goes to a node that need not care for it.
    pub(crate) is_spare: bool,
    /// An Ethernet frame.
    pub(crate) bytes: Vec<u8>,
}

/// What a node did with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The verdict; `None` when no daemon ran.
    pub verdict: Option<Verdict>,
}

impl Received {
    /// The node that the segment was forwarded to.
    pub fn egress(self) -> Option<NodeId> {
        match self.verdict? {
            Verdict::Forward(forward) => node_at(forward.to),
            Verdict::Direct { to } => node_at(to),
            Verdict::Nat(nat) => node_at(nat.ends.destination?.address),
            _ => None,
        }
    }

    /// True when the segment stayed on the node that received it.
    pub fn is_kept(self) -> bool {
        matches!(self.verdict, Some(Verdict::Deliver(_)))
    }
}

impl Packet {
    /// A packet of no client's connection.
    pub(crate) fn of_nobody(flow: FlowKey, bytes: Vec<u8>) -> Self {
        Self {
            flow,
            connection: None,
            opens: false,
            bound_to: None,
            hops: 0,
            number: 0,
            is_spare: false,
            bytes,
        }
    }
}

impl Sim {
    /// `count` SYNs of nobody for the service address of `node`.
    pub(crate) fn flood(&mut self, node: NodeId, count: u32) {
        let mut at = self.now;
        for _ in 0..count {
            let client = nobody(self.settings.services, &mut self.rng);
            let flow = flow(client, node);
            let bytes = syn_from(client).addressed(&flow).to_frame();
            let packet = Packet::of_nobody(flow, bytes);
            self.queue.push(at, Event::Arrive(Host::Node(node), Parcel::of(packet)));
            at = at + FLOOD_PAUSE;
        }
    }

    pub(crate) fn open(&mut self, flow: FlowKey, home: NodeId, plan: Plan) -> Option<ConnectionId> {
        if self.clients.has_open(&flow) {
            return None;
        }
        let doing = self.clients.connect(flow, home, plan, self.now);
        let id = doing.id;
        let outcome = self.carry_out(doing);
        self.note(outcome);
        id
    }

    pub(crate) fn handle_client_timer(&mut self, id: ConnectionId) -> Result<(), Broken> {
        let Some(connection) = self.clients.get_mut(id) else { return Ok(()) };
        if connection.armed == Some(self.now) {
            connection.armed = None;
        }
        if connection.deadline().is_none_or(|at| at > self.now) {
            self.arm(id);
            return Ok(());
        }
        let doing = self.clients.handle_timeout(id, self.now);
        self.carry_out(doing)
    }

    pub(crate) fn handle_next_connection(&mut self) -> Result<(), Broken> {
        let Some(workload) = self.workload else { return Ok(()) };
        let ids = self.node_ids();
        let shared = self.is_shared().then_some(SHARED);
        let homes: Vec<NodeId> = shared.into_iter().chain(ids).collect();
        let (flow, home, plan) = workload.connection(&homes, self.settings.services, &mut self.rng);
        self.open(flow, home, plan);
        let gap = workload.gap(&mut self.rng);
        self.queue.push(self.now + gap, Event::NextConnection);
        Ok(())
    }

    /// A packet for a client, or for nobody.
    pub(crate) fn arrive_outside(&mut self, packet: &Packet) -> Result<(), Broken> {
        self.log.digest(&(self.now, &packet.bytes));
        if is_nobody(packet.flow.client.address) {
            return Ok(());
        }
        let doing = self.clients.handle_frame(&packet.bytes, self.now);
        self.carry_out(doing)
    }

    /// A packet that has arrived at a running node; says what its director said.
    pub(crate) fn handle_packet(&mut self, id: NodeId, packet: Packet) -> Result<Option<Verdict>, Broken> {
        self.log.digest(&(id, self.now, &packet.bytes));
        let now = self.now;
        let Packet { flow, hops, bytes, .. } = packet;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(None) };
        let local = node.local(now);
        let finds_server = packet.opens && self.settings.persistence.is_some() && !is_known(node, &flow);
        let passage = match &mut node.daemon {
            Some(daemon) => plane::pass(&mut daemon.director, &mut node.stack, id, bytes, local),
            None => plane::pass_to_kernel(id, bytes),
        };
        let verdict = passage.verdict;
        // Where all nodes see all packets, most of what happens is that nothing does.
        if !(packet.is_spare && verdict == Verdict::Drop(DropReason::NotMine)) {
            self.log.record(now, What::Packet { node: id, flow, verdict });
        }
        check_hops(id, &flow, &passage, hops)?;
        self.check_table(id, &flow)?;
        self.excuse_displaced(id);
        let carried = Packet { bytes: Vec::new(), ..packet };
        self.check_owners(id, &carried, verdict)?;
        self.note_decision(id, &carried, verdict);
        if finds_server {
            self.check_staying(id, &carried, verdict)?;
        }
        self.follow(id, &carried, passage)?;
        if verdict == Verdict::Ask
            && let Some(run) = self.nodes.get(&id).map(|node| node.run)
        {
            self.gossip_now(id, run, true);
        }
        Ok(Some(verdict))
    }

    /// A timer of the stack of `id` led to something for the socket with these ends.
    pub(crate) fn settle_served(
        &mut self,
        id: NodeId,
        (local, client): (SocketAddr, SocketAddr),
        served: Served,
    ) -> Result<(), Broken> {
        if served.lost == Some(End::TimedOut)
            && let Some(flow) = self.flow_of_socket(id, local, client)
        {
            self.excuse_if_lost(&flow);
        }
        served.reply.map_or(Ok(()), |segment| self.reply(id, &segment))
    }

    /// The network, or a node that is not there, swallows a packet.
    pub(crate) fn lose(&mut self, packet: &Packet) {
        let connection = packet.connection.filter(|_| !packet.is_spare);
        if let Some(connection) = connection.and_then(|id| self.clients.get_mut(id)) {
            connection.lost += 1;
        }
    }

    /// Where a packet goes after the data plane of `id` is done with it.
    fn follow(&mut self, id: NodeId, packet: &Packet, passage: Passage) -> Result<(), Broken> {
        match (passage.exit, passage.verdict) {
            (Exit::Stack(bytes), _) => self.serve(id, &Packet { bytes, ..*packet }),
            (Exit::Network(to, bytes), Verdict::Forward(_) | Verdict::Direct { .. }) => {
                self.send(Host::Node(id), to, Packet { bytes, hops: packet.hops + 1, ..*packet });
                Ok(())
            }
            (Exit::Network(to, bytes), Verdict::Nat(_)) => {
                if let Some(called) = flow_to_server(&bytes) {
                    self.flow_by_translated.insert(called, packet.flow);
                }
                // For a node that does not know the translator yet, this is a new packet of a new client.
                self.send(Host::Node(id), to, Packet { bytes, hops: 0, ..*packet });
                Ok(())
            }
            (Exit::Network(to, bytes), _) => {
                self.send(Host::Node(id), to, Packet { bytes, ..*packet });
                Ok(())
            }
            // Not for this node, which does not know whose it is: the network has brought it to the wrong place.
            (Exit::Nowhere, Verdict::Pass) => {
                self.lose(packet);
                Ok(())
            }
            (Exit::Nowhere, _) => Ok(()),
        }
    }

    /// A frame for the TCP stack of `id`.
    fn serve(&mut self, id: NodeId, packet: &Packet) -> Result<(), Broken> {
        let broken = Broken::BrokenFrame { node: id, flow: packet.flow };
        let segment = Segment::from_frame(&packet.bytes).map_err(|_| broken)?;
        self.check_place(id, packet, &segment)?;
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let local = node.local(now);
        let served = node.stack.handle_segment(&segment, local);
        if served.connected {
            self.note_connected(id, packet)?;
        }
        served.reply.map_or(Ok(()), |segment| self.reply(id, &segment))
    }

    fn note_connected(&mut self, id: NodeId, packet: &Packet) -> Result<(), Broken> {
        self.log.record(self.now, What::Connected { node: id, flow: packet.flow });
        self.note_client(id, &packet.flow);
        let connection = packet.connection.and_then(|id| self.clients.get_mut(id));
        let Some(connection) = connection else { return Ok(()) };
        match connection.real_server.replace(id) {
            Some(first) if first != id && !connection.excused => {
                Err(Broken::TwoRealServers { flow: packet.flow, first, second: id })
            }
            _ => Ok(()),
        }
    }

    /// A segment of the TCP stack of `id` leaves the node.
    fn reply(&mut self, id: NodeId, segment: &Segment) -> Result<(), Broken> {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let director = node.daemon.as_mut().map(|daemon| &mut daemon.director);
        let passage = plane::pass_reply(director, segment.to_frame());
        let Exit::Network(to, bytes) = passage.exit else { return Ok(()) };
        let Some(flow) = flow_to_client(&bytes).map(|flow| self.flow_called(flow)) else {
            let flow = flow_of_reply(segment.source, segment.destination);
            return Err(Broken::BrokenFrame { node: id, flow });
        };
        let connection = self.clients.id_on(&flow);
        self.send(Host::Node(id), to, Packet { connection, ..Packet::of_nobody(flow, bytes) });
        Ok(())
    }

    /// Sends what a client wants sent, judges its connection if it has ended, and sets its timer.
    fn carry_out(&mut self, doing: Doing) -> Result<(), Broken> {
        for segment in doing.sends {
            let flow = flow_of_reply(segment.destination, segment.source);
            let targets = self.where_it_arrives(segment.destination.ip());
            let bound_to = doing.id.and_then(|id| self.clients.get(id)?.real_server);
            let connection = doing.id;
            let opens = segment.has(tcp::flag::SYN);
            let number = self.sharing.next_packet();
            let packet =
                Packet { connection, opens, bound_to, number, ..Packet::of_nobody(flow, segment.to_frame()) };
            self.send_in(&targets, &packet);
        }
        let Some(id) = doing.id else { return Ok(()) };
        self.arm(id);
        let Some(connection) = self.clients.get(id) else { return Ok(()) };
        let flow = connection.flow;
        if let Some((first, second)) = doing.answered_by_two
            && !connection.excused
        {
            return Err(Broken::TwoRealServers { flow, first, second });
        }
        let Some(outcome) = doing.ended else { return Ok(()) };
        let is_excused = outcome == Outcome::Reset && self.may_be_refused(connection);
        let judged = if is_excused { Ok(()) } else { check_end(connection, outcome) };
        self.log.record(self.now, What::Ended { flow, outcome });
        judged
    }

    /// A client's packet comes in: at one node, or where all nodes have one MAC address, at each. Lost is what does not reach
    /// the one that would act on it.
    fn send_in(&mut self, targets: &[Host], packet: &Packet) {
        if targets.is_empty() {
            self.lose(packet);
        }
        let (now, several) = (self.now, targets.len() > 1);
        for to in targets.iter().copied() {
            let acts = |node: &Node| node.decides_for(&packet.flow, now);
            let is_for = |id| self.nodes.get(&id).is_some_and(acts);
            let is_spare = several && !matches!(to, Host::Node(id) if is_for(id));
            self.send(Host::Outside, to, Packet { is_spare, ..packet.clone() });
        }
    }

    fn send(&mut self, from: Host, to: Host, packet: Packet) {
        let arrivals = self.network.carry(from, to, self.now);
        let Some(first) = arrivals.first else { return self.lose(&packet) };
        if let Some(second) = arrivals.second {
            self.queue.push(second, Event::Arrive(to, Parcel::of(packet.clone())));
        }
        self.queue.push(first, Event::Arrive(to, Parcel::of(packet)));
    }

    fn arm(&mut self, id: ConnectionId) {
        let Some(connection) = self.clients.get_mut(id) else { return };
        let deadline: Option<Timestamp> = connection.deadline();
        if let Some(at) = deadline.map(|at| at.max(self.now))
            && connection.armed.is_none_or(|armed| at < armed)
        {
            connection.armed = Some(at);
            self.queue.push(at, Event::Client(id));
        }
    }

    /// What the client calls a flow that a real server calls `flow`.
    fn flow_called(&self, flow: FlowKey) -> FlowKey {
        self.flow_by_translated.get(&flow).copied().unwrap_or(flow)
    }

    /// The flow of a socket in the stack of `id`.
    fn flow_of_socket(&self, id: NodeId, local: SocketAddr, client: SocketAddr) -> Option<FlowKey> {
        let daemon = self.nodes.get(&id)?.daemon.as_ref();
        let deliveries = daemon.map_or(Vec::new(), |daemon| daemon.director.delivery_addresses());
        let service = deliveries.iter().find(|one| one.delivery == local.ip()).map(|one| one.service);
        let service = SocketAddr::new(service.unwrap_or(local.ip()), SERVICE_PORT);
        Some(self.flow_called(flow_of_reply(service, client)))
    }
}

/// The flow of a segment that a node sends to a client, as the client calls it or whoever translates for it.
fn flow_to_client(frame: &[u8]) -> Option<FlowKey> {
    let (source, destination) = ends_of(frame)?;
    Some(flow_of_reply(source, destination))
}

/// The flow of a segment that a node has translated, as its real server calls it.
fn flow_to_server(frame: &[u8]) -> Option<FlowKey> {
    let (source, destination) = ends_of(frame)?;
    Some(flow_of_reply(destination, source))
}

fn ends_of(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let packet = parse_ip(frame, ethernet::HEADER_LEN).ok()?.packet;
    let Kind::Tcp(header) = packet.kind else { return None };
    let source = SocketAddr::new(packet.ip.source(), header.source_port());
    Some((source, SocketAddr::new(packet.ip.destination(), header.destination_port())))
}
