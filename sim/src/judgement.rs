//! What of all that happens is a broken promise, and what has an excuse.

use crate::client::Connection;
use crate::invariants::{Broken, check_entry};
use crate::node::Node;
use crate::packets::{Packet, Received};
use crate::segment::Segment;
use crate::sim::Sim;
use dpr_model::{FlowKey, NodeId, Verdict};

impl Sim {
    /// A director may change its mind about a handshake, when its first choice seems to have died. The first choice's
    /// answer may come all the same, and then the client is lost. So is one that uses its port again while a SYN of
    /// its connection before is still on the way: a director cannot tell which of two SYNs is the older one.
    pub(crate) fn note_decision(&mut self, id: NodeId, packet: &Packet, verdict: Verdict) {
        if !packet.opens {
            return;
        }
        let is_handed_on = matches!(verdict, Verdict::Forward(forward) if !forward.hops.is_spent());
        let is_shared = self.is_shared();
        let Some(connection) = self.clients.on(&packet.flow) else { return };
        // A new owner does not know of connections so young that nobody has copies, and takes a late SYN of one for another.
        let is_over = connection.real_server.is_some() && !is_shared;
        if connection.home != id && !is_shared || is_over || is_handed_on {
            return;
        }
        let chosen = match verdict {
            Verdict::Deliver(_) => Some(id),
            verdict => Received { verdict: Some(verdict) }.egress(),
        };
        if let Some(chosen) = chosen {
            let before = connection.real_server.or(connection.chosen.replace(chosen));
            connection.excused |= before.is_some_and(|before| before != chosen);
        }
    }

    /// What a client sends on an established connection goes to where it is established.
    pub(crate) fn check_place(
        &mut self,
        id: NodeId,
        packet: &Packet,
        segment: &Segment,
    ) -> Result<(), Broken> {
        let connection = packet.connection.and_then(|id| self.clients.get(id));
        let may_move = connection
            .is_none_or(|one| one.outcome.is_some() || one.excused || self.may_be_refused(one))
            || self.is_shared() && self.has_remains(id, segment);
        match packet.bound_to {
            Some(real_server) if real_server != id && !may_move => {
                Err(Broken::Moved { flow: packet.flow, real_server, delivered_to: id })
            }
            Some(real_server) if real_server != id => {
                let connection = packet.connection.and_then(|id| self.clients.get_mut(id));
                connection.into_iter().for_each(|one| one.excused = true);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// True if a node still has a socket of an earlier connection with these ends: whoever takes over cannot tell it from one
    /// of this connection. So does a kernel without a daemon take all packets for an address that others have taken over.
    pub(crate) fn has_remains(&self, id: NodeId, segment: &Segment) -> bool {
        let has_socket = |node: &Node| node.stack.has_socket(segment.destination, segment.source);
        self.nodes.get(&id).is_some_and(|node| node.daemon.is_none() || has_socket(node))
    }

    /// The table of `id` is within its bounds, and may have the entry of `flow` if it has one.
    pub(crate) fn check_table(&self, id: NodeId, flow: &FlowKey) -> Result<(), Broken> {
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        let Some(daemon) = node.daemon.as_ref().filter(|_| !self.is_shared()) else { return Ok(()) };
        let entry = daemon.director.real_server_of(flow);
        entry.map_or(Ok(()), |real_server| check_entry(id, flow, real_server))
    }

    /// A table without room displaces handshakes, and which ones is its own affair.
    pub(crate) fn excuse_displaced(&mut self, id: NodeId) {
        let Some(daemon) = self.nodes.get_mut(&id).and_then(|node| node.daemon.as_mut()) else { return };
        let displaced = daemon.director.conntrack_status().half_open_evicted;
        if displaced == daemon.displaced {
            return;
        }
        daemon.displaced = displaced;
        let is_shared = self.is_shared();
        let may_be_its = |one: &&mut Connection| one.home == id || is_shared;
        let unfinished = self.clients.unfinished().filter(may_be_its);
        let handshakes = unfinished.filter(|one| one.real_server.is_none());
        handshakes.for_each(|connection| connection.excused = true);
    }

    /// A real server gave a connection up: the loss of its packets is reason enough, but the only one.
    pub(crate) fn excuse_if_lost(&mut self, flow: &FlowKey) {
        if let Some(connection) = self.clients.on(flow)
            && connection.lost > 0
        {
            connection.excused = true;
        }
    }
}
