//! Clients: they connect, ask, think, close, and know what became of every connection.

use crate::segment::Segment;
use crate::socket::{End, Socket, State, refusal_of};
use crate::stack::{LAST_REQUEST, REQUEST, node_in};
use dpr_model::{ClientSocket, FlowKey, NodeId, Protocol, ServiceSocket, Timestamp};
use dpr_rewrite::{Kind, Parsed, Quote, Version, parse, tcp};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Offset of the next hop's MTU in an ICMP message (RFC 1191, section 4), and of its lower half in ICMPv6 (RFC 4443,
/// section 3.2).
const MTU_AT: usize = 6;
/// A tick of the clock that initial sequence numbers are taken from (RFC 9293, section 3.4.1), nanoseconds.
const SEQUENCE_TICK_NS: u64 = 4000;

/// Name of a connection that a client opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

/// What a client does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Requests, one after the other; each gets an answer.
    pub requests: u32,
    /// Time between an answer and the next request, or the end.
    pub think: Duration,
    /// Length of a request, bytes; at least 1, and cut to what fits into a segment.
    pub request_len: usize,
    /// The server closes after the last answer; otherwise the client does.
    pub server_closes: bool,
}

impl Plan {
    /// One small request.
    pub const ONE_REQUEST: Self =
        Self { requests: 1, think: Duration::ZERO, request_len: 100, server_closes: false };

    /// A request every `think`, for as long as `requests` of them take.
    pub fn of(requests: u32, think: Duration) -> Self {
        Self { requests, think, ..Self::ONE_REQUEST }
    }
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Every request was answered and both ends have closed.
    Finished,
    /// A reset answered the SYN.
    Refused,
    /// A reset ended it.
    Reset,
    /// No answer came, however often the client asked.
    TimedOut,
}

/// One connection, with what the simulator knows about it and no client could.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) flow: FlowKey,
    /// The node that is home to the service address.
    pub(crate) home: NodeId,
    pub(crate) outcome: Option<Outcome>,
    /// Node on which its handshake was completed.
    pub(crate) real_server: Option<NodeId>,
    /// Node that its director has chosen for it.
    pub(crate) chosen: Option<NodeId>,
    /// Something happened after which it may end in any way.
    pub(crate) excused: bool,
    /// Packets that the network lost since an answer came.
    pub(crate) lost: u32,
    /// When its next event is scheduled.
    pub(crate) armed: Option<Timestamp>,
    socket: Option<Socket>,
    plan: Plan,
    answered: u32,
    act_at: Option<Timestamp>,
    answered_by: Option<NodeId>,
}

/// What an event of a connection led to.
#[derive(Debug, Default)]
pub(crate) struct Doing {
    pub(crate) sends: Vec<Segment>,
    /// The connection, if there is one.
    pub(crate) id: Option<ConnectionId>,
    /// It has just ended in this way.
    pub(crate) ended: Option<Outcome>,
    /// Two nodes answered on it.
    pub(crate) answered_by_two: Option<(NodeId, NodeId)>,
}

/// All clients.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    connections: BTreeMap<ConnectionId, Connection>,
    open: BTreeMap<FlowKey, ConnectionId>,
    opened: u64,
}

impl Clients {
    /// True when a socket of the client's still has this flow.
    pub(crate) fn has_open(&self, flow: &FlowKey) -> bool {
        self.open.contains_key(flow)
    }

    /// Begins a connection on a flow that has none.
    pub(crate) fn connect(&mut self, flow: FlowKey, home: NodeId, plan: Plan, now: Timestamp) -> Doing {
        self.opened += 1;
        let id = ConnectionId(self.opened);
        let local = SocketAddr::new(flow.client.address, flow.client.port);
        let remote = SocketAddr::new(flow.service.address, flow.service.port);
        let (socket, syn) = Socket::connect(local, remote, initial_sequence(&flow, now), now);
        let connection = Connection {
            flow,
            home,
            outcome: None,
            real_server: None,
            chosen: None,
            excused: false,
            lost: 0,
            armed: None,
            socket: Some(socket),
            plan,
            answered: 0,
            act_at: None,
            answered_by: None,
        };
        self.connections.insert(id, connection);
        self.open.insert(flow, id);
        Doing { sends: vec![syn], id: Some(id), ..Doing::default() }
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    /// Name of the connection whose socket is open on this flow.
    pub(crate) fn id_on(&self, flow: &FlowKey) -> Option<ConnectionId> {
        self.open.get(flow).copied()
    }

    /// The connection whose socket is open on this flow.
    pub(crate) fn on(&mut self, flow: &FlowKey) -> Option<&mut Connection> {
        self.connections.get_mut(self.open.get(flow)?)
    }

    /// Connections that have not ended.
    pub(crate) fn unfinished(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.connections.values_mut().filter(|connection| connection.outcome.is_none())
    }

    /// Connections by outcome.
    pub(crate) fn count(&self, outcome: Option<Outcome>) -> usize {
        self.connections.values().filter(|connection| connection.outcome == outcome).count()
    }

    /// Takes in a frame from the cluster.
    pub(crate) fn handle_frame(&mut self, frame: &[u8], now: Timestamp) -> Doing {
        if let Ok(Parsed::Ip(parsed)) = parse(frame)
            && let Kind::IcmpError(quote) = parsed.packet.kind
        {
            let mtu_at = parsed.packet.transport_at() + MTU_AT;
            let mtu = frame.get(mtu_at..).and_then(|bytes| bytes.first_chunk()).copied();
            return self.handle_too_big(
                parsed.packet.ip.destination(),
                &quote,
                mtu.map_or(u16::MAX, u16::from_be_bytes),
            );
        }
        let Ok(segment) = Segment::from_frame(frame) else { return Doing::default() };
        let flow = flow_of_reply(segment.source, segment.destination);
        let Some(id) = self.open.get(&flow).copied() else {
            return Doing { sends: refusal_of(&segment).into_iter().collect(), ..Doing::default() };
        };
        let connection = self.connections.get_mut(&id).expect("an open flow belongs to a connection");
        let doing = connection.handle(&segment, now);
        self.settle(id, doing)
    }

    /// Retransmits, gives up or goes on with the plan.
    pub(crate) fn handle_timeout(&mut self, id: ConnectionId, now: Timestamp) -> Doing {
        let Some(connection) = self.connections.get_mut(&id) else { return Doing::default() };
        let doing = connection.handle_timeout(now);
        self.settle(id, doing)
    }

    fn handle_too_big(&mut self, own: IpAddr, quote: &Quote, mtu: u16) -> Doing {
        let client = SocketAddr::new(own, quote.source_port);
        let service = SocketAddr::new(quote.destination, quote.destination_port);
        let flow = flow_of_reply(service, client);
        let Some(id) = self.open.get(&flow).copied() else { return Doing::default() };
        let mss = tcp::mss_max(mtu, 0, Version::of(own));
        let socket = self.connections.get_mut(&id).and_then(|connection| connection.socket.as_mut());
        let again = socket.and_then(|socket| socket.handle_too_big(mss));
        Doing { sends: again.into_iter().collect(), id: Some(id), ..Doing::default() }
    }

    fn settle(&mut self, id: ConnectionId, doing: Doing) -> Doing {
        let connection = &self.connections[&id];
        if connection.socket.is_none() {
            self.open.remove(&connection.flow);
        }
        Doing { id: Some(id), ..doing }
    }
}

impl Connection {
    /// When [`Clients::handle_timeout`] wants to be called.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let socket = self.socket.as_ref()?;
        Some(self.act_at.map_or(socket.poll_timeout(), |act_at| act_at.min(socket.poll_timeout())))
    }

    fn handle(&mut self, segment: &Segment, now: Timestamp) -> Doing {
        let mut doing = Doing::default();
        let Some(socket) = &mut self.socket else { return doing };
        let reaction = socket.handle(segment, now);
        let state = socket.state;
        doing.sends.extend(reaction.reply);
        if reaction.connected {
            self.act_at = Some(now + self.plan.think);
        }
        if let Some(answer) = reaction.data {
            self.lost = 0;
            self.answered += 1;
            doing.answered_by_two = self.note_answer(node_in(&answer));
            self.act_at = (!self.is_answered() || !self.plan.server_closes).then_some(now + self.plan.think);
        }
        if self.is_answered() && matches!(state, State::TimeWait | State::LastAck) {
            doing.ended = self.end_as(Outcome::Finished);
        }
        if let Some(end) = reaction.end {
            doing.ended = doing.ended.or(self.close(end));
        }
        doing
    }

    fn handle_timeout(&mut self, now: Timestamp) -> Doing {
        let mut doing = Doing::default();
        let Some(socket) = &mut self.socket else { return doing };
        let reaction = socket.handle_timeout(now);
        doing.sends.extend(reaction.reply);
        if let Some(end) = reaction.end {
            doing.ended = self.close(end);
        } else if self.act_at.is_some_and(|at| at <= now) {
            self.act_at = None;
            doing.sends.extend(self.act(now));
        }
        doing
    }

    /// The plan's next step.
    fn act(&mut self, now: Timestamp) -> Option<Segment> {
        let is_last = self.answered + 1 == self.plan.requests;
        let done = self.is_answered();
        let socket = self.socket.as_mut().filter(|socket| !socket.is_waiting())?;
        if socket.state != State::Established {
            return None;
        }
        if done {
            return Some(socket.send(Vec::new(), true, now));
        }
        let mut request = vec![b'.'; self.plan.request_len.clamp(1, usize::from(socket.mss))];
        request[0] = if is_last && self.plan.server_closes { LAST_REQUEST } else { REQUEST };
        Some(socket.send(request, false, now))
    }

    fn is_answered(&self) -> bool {
        self.answered >= self.plan.requests
    }

    fn note_answer(&mut self, node: Option<NodeId>) -> Option<(NodeId, NodeId)> {
        let (node, before) = (node?, self.answered_by.or(node)?);
        self.answered_by = Some(node);
        (node != before).then_some((before, node))
    }

    fn close(&mut self, end: End) -> Option<Outcome> {
        let was_connecting = self.socket.take().is_some_and(|socket| socket.state == State::SynSent);
        self.end_as(match end {
            End::Closed if self.is_answered() => Outcome::Finished,
            End::Closed | End::TimedOut => Outcome::TimedOut,
            End::Reset if was_connecting => Outcome::Refused,
            End::Reset => Outcome::Reset,
        })
    }

    /// Its first outcome is what became of it; what happens to a socket that only waits is of no interest.
    fn end_as(&mut self, outcome: Outcome) -> Option<Outcome> {
        if self.outcome.is_some() {
            return None;
        }
        self.outcome = Some(outcome);
        self.outcome
    }
}

/// The flow of a segment from a service to a client.
pub(crate) fn flow_of_reply(service: SocketAddr, client: SocketAddr) -> FlowKey {
    FlowKey {
        protocol: Protocol::Tcp,
        client: ClientSocket { address: client.ip(), port: client.port() },
        service: ServiceSocket { address: service.ip(), port: service.port() },
    }
}

/// Grows with time for every flow, so that later connections on the same sockets are told from earlier ones.
fn initial_sequence(flow: &FlowKey, now: Timestamp) -> u32 {
    let ticks = (now.as_nanos() / SEQUENCE_TICK_NS) & u64::from(u32::MAX);
    let offset = u32::from(flow.client.port) << 16 | u32::from(flow.service.port);
    u32::try_from(ticks).unwrap_or(0).wrapping_add(offset)
}
