//! A node's own TCP stack, and the server that listens on it: every request gets an answer that names the node.
//!
//! It knows nothing of directors. What it is handed by mistake it refuses, as a kernel would, and that is how mistakes
//! show.

use crate::segment::Segment;
use crate::socket::{End, Reaction, Socket, State, refusal_of};
use dpr_director::LocalSockets;
use dpr_model::{ClientSocket, NodeId, Protocol, ServiceSocket, Timestamp};
use dpr_rewrite::tcp::flag;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Sockets of one node at most; a SYN beyond that is dropped, as with a full backlog.
pub(crate) const SOCKETS_MAX: usize = 16_384;

/// First byte of a request after which the server closes.
pub(crate) const LAST_REQUEST: u8 = b'L';
/// First byte of any other request.
pub(crate) const REQUEST: u8 = b'M';
/// Answers are this long, bytes; the first four are the node's id.
const ANSWER_LEN: usize = 64;

/// A socket's own end and its client's.
pub(crate) type Ends = (SocketAddr, SocketAddr);

/// Sockets by their ends.
#[derive(Debug)]
pub(crate) struct Stack {
    node: NodeId,
    port: u16,
    sockets: BTreeMap<Ends, Socket>,
    /// Sockets that are no more, or only wait for stragglers, since somebody asked.
    ended: Vec<Ends>,
    established: u32,
    rng: Rng,
}

/// What a segment led to.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) reply: Option<Segment>,
    /// A handshake is complete.
    pub(crate) connected: bool,
    /// A socket past its handshake is no more.
    pub(crate) lost: Option<End>,
}

impl Stack {
    pub(crate) fn new(node: NodeId, port: u16, seed: u64) -> Self {
        Self {
            node,
            port,
            sockets: BTreeMap::new(),
            ended: Vec::new(),
            established: 0,
            rng: Rng::with_seed(seed),
        }
    }

    /// Sockets in any state.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Sockets that have ended since the last call, as a kernel tells it.
    pub(crate) fn take_ended(&mut self) -> Vec<Ends> {
        std::mem::take(&mut self.ended)
    }

    /// True if there is a socket with these ends, in any state.
    pub(crate) fn has_socket(&self, local: SocketAddr, client: SocketAddr) -> bool {
        self.sockets.contains_key(&(local, client))
    }

    /// Connections past their handshake that are not closed.
    pub(crate) fn established(&self) -> u32 {
        self.established
    }

    /// Takes in a segment that was delivered to this node.
    pub(crate) fn handle_segment(&mut self, segment: &Segment, now: Timestamp) -> Served {
        let key = (segment.destination, segment.source);
        if self.sockets.get(&key).is_some_and(|socket| socket.gives_way_to(segment)) {
            self.sockets.remove(&key);
        }
        let Some(socket) = self.sockets.get_mut(&key) else {
            return Served { reply: self.welcome(segment, now), ..Served::default() };
        };
        let before = socket.state;
        let mut reaction = socket.handle(segment, now);
        if let Some(request) = reaction.data.take()
            && !socket.is_waiting()
        {
            let last = request.first() == Some(&LAST_REQUEST);
            reaction.reply = Some(socket.send(answer_of(self.node), last, now));
        }
        self.settle(key, before, reaction)
    }

    /// Retransmits and gives up; returns what that led to, by the sockets' own and their clients' ends.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Vec<(Ends, Served)> {
        let due: Vec<_> = self.sockets.iter().filter(|(_, socket)| socket.poll_timeout() <= now).collect();
        let due: Vec<_> = due.into_iter().map(|(key, _)| *key).collect();
        let mut served = Vec::with_capacity(due.len());
        for key in due {
            let Some(socket) = self.sockets.get_mut(&key) else { continue };
            let before = socket.state;
            let reaction = socket.handle_timeout(now);
            served.push((key, self.settle(key, before, reaction)));
        }
        served
    }

    /// An answer to a segment that no socket is for: a new socket's SYN-ACK, or a refusal.
    fn welcome(&mut self, segment: &Segment, now: Timestamp) -> Option<Segment> {
        let opens = segment.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN;
        if !opens || segment.destination.port() != self.port {
            return refusal_of(segment);
        }
        if self.sockets.len() >= SOCKETS_MAX {
            return None;
        }
        let (socket, syn_ack) = Socket::accept(segment, self.rng.u32(..), now);
        self.sockets.insert((segment.destination, segment.source), socket);
        Some(syn_ack)
    }

    /// Keeps the books about a socket whose state was `before`.
    fn settle(&mut self, key: Ends, before: State, reaction: Reaction) -> Served {
        let after = match reaction.end {
            Some(_) => self.sockets.remove(&key).map(|_| None),
            None => self.sockets.get(&key).map(|socket| Some(socket.state)),
        };
        let is_over = |state: Option<State>| state.is_none_or(|state| state == State::TimeWait);
        if before != State::TimeWait && before != State::SynReceived && is_over(after.flatten()) {
            self.ended.push(key);
        }
        let was = u32::from(before == State::Established);
        let is = u32::from(after.flatten() == Some(State::Established));
        self.established = self.established + is - was;
        Served {
            reply: reaction.reply,
            connected: reaction.connected,
            lost: reaction.end.filter(|_| matches!(before, State::Established | State::FinSent)),
        }
    }
}

impl LocalSockets for Stack {
    fn holds(&mut self, _protocol: Protocol, local: ServiceSocket, client: ClientSocket) -> bool {
        let key = (SocketAddr::new(local.address, local.port), SocketAddr::new(client.address, client.port));
        self.sockets.get(&key).is_some_and(|socket| socket.state != State::TimeWait)
    }
}

fn answer_of(node: NodeId) -> Vec<u8> {
    let mut answer = vec![b'.'; ANSWER_LEN];
    answer[..4].copy_from_slice(&node.0.to_be_bytes());
    answer
}

/// The node that an answer names.
pub(crate) fn node_in(answer: &[u8]) -> Option<NodeId> {
    answer.first_chunk().map(|bytes| NodeId(u32::from_be_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    const NOW: Timestamp = Timestamp::from_millis(1000);
    const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 4000);
    const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 64, 1)), 80);

    #[test]
    fn a_server_answers_with_its_name_and_closes_when_it_is_asked_to() {
        let mut stack = Stack::new(NodeId(7), 80, 1);
        let (mut client, syn) = Socket::connect(CLIENT, LOCAL, 1, NOW);
        let mut serve = |segment: &Segment| stack.handle_segment(segment, NOW);

        let syn_ack = serve(&syn).reply.unwrap();
        let ack = client.handle(&syn_ack, NOW).reply.unwrap();
        assert!(serve(&ack).connected);
        let answer = serve(&client.send(vec![LAST_REQUEST], false, NOW)).reply.unwrap();

        assert_eq!(node_in(&answer.data), Some(NodeId(7)));
        assert!(answer.has(flag::FIN));
        assert_eq!(stack.established(), 0);
        let holds = stack.holds(
            Protocol::Tcp,
            ServiceSocket { address: LOCAL.ip(), port: 80 },
            ClientSocket { address: CLIENT.ip(), port: 4000 },
        );
        assert!(holds);
    }

    #[test]
    fn what_no_socket_is_for_is_refused() {
        let mut stack = Stack::new(NodeId(7), 80, 1);
        let (_, mut syn) = Socket::connect(CLIENT, LOCAL, 1, NOW);
        syn.flags = flag::ACK;

        let served = stack.handle_segment(&syn, NOW);

        assert_eq!(served.reply.unwrap().flags, flag::RST);
        assert_eq!(stack.sockets(), 0);
    }
}
