//! Gossip on the wire: the state machine of `load-gossip` joined with its socket, and what it notices in the log.

use crate::clock;
use crate::foreign_sockets::ForeignSockets;
use crate::gossip_socket::{DATAGRAM_MAX, GossipSocket};
use crate::source_probes::{self, SourceProbes};
use dpr_host::foreign_source;
use dpr_load_gossip::{Action, Cargo, Destination, Gossip};
use dpr_model::{NodeId, Timestamp};
use std::io;
use std::net::SocketAddr;

/// Datagrams taken in before anything else gets its turn.
const BATCH_MAX: usize = 64;

/// The node's view of the cluster, and its voice in it.
#[derive(Debug)]
pub(super) struct Cluster {
    /// The state machine.
    pub(super) gossip: Gossip,
    socket: GossipSocket,
    foreign: Option<ForeignSockets>,
    buffer: Box<[u8]>,
    is_cut_off: bool,
    was_frozen: bool,
}

impl Cluster {
    pub(super) fn new(gossip: Gossip, socket: GossipSocket, foreign: Option<ForeignSockets>) -> Self {
        let buffer = vec![0; DATAGRAM_MAX].into_boxed_slice();
        Self { gossip, socket, foreign, buffer, is_cut_off: false, was_frozen: false }
    }

    /// Speaks and hears by other sockets from now on.
    pub(super) fn speak_by(&mut self, socket: GossipSocket, foreign: Option<ForeignSockets>) {
        self.socket = socket;
        self.foreign = foreign;
    }

    /// Waits for a datagram and takes it in, and up to [`BATCH_MAX`] that came with it.
    pub(super) async fn receive(&mut self) -> io::Result<()> {
        let (length, from) = self.socket.receive(&mut self.buffer).await?;
        self.take_in(length, from);
        for _ in 1..BATCH_MAX {
            let Some((length, from)) = self.socket.try_receive(&mut self.buffer) else { break };
            self.take_in(length, from);
        }
        Ok(())
    }

    fn take_in(&mut self, length: usize, from: SocketAddr) {
        // Heard elsewhere, whatever the kernel here thinks of its source.
        if self.foreign.is_some() && from.ip() == foreign_source(from.is_ipv6()) {
            return;
        }
        let bytes = std::mem::take(&mut self.buffer);
        self.take(from, &bytes[..length]);
        self.buffer = bytes;
    }

    fn take(&mut self, from: SocketAddr, bytes: &[u8]) {
        if let Err(error) = self.gossip.handle_datagram(from, bytes, clock::now()) {
            tracing::debug!(%from, reason = error.label(), %error, "a datagram is ignored");
        }
    }

    /// Takes in probes from foreign sources, and sends some to the peers that they are due to: each from the node's own address and from a foreign one.
    pub(super) fn probe_sources(&mut self, sources: &mut SourceProbes, now: Timestamp) {
        let Some(foreign) = &self.foreign else { return };
        for (from, bytes) in foreign.receive(BATCH_MAX) {
            self.take(from, &bytes);
        }
        let alive = self.gossip.peers(now).filter(|view| view.alive).map(|view| view.report.node);
        let due = sources.due(alive.collect(), now);
        for peer in due {
            match self.send_from_elsewhere(peer) {
                Ok(()) => self.carry_probe(peer, &source_probes::OWN, now),
                // Without this one the other would accuse the network.
                Err(error) => tracing::debug!(%peer, %error, "a probe from a foreign source is not sent"),
            }
        }
    }

    fn send_from_elsewhere(&mut self, peer: NodeId) -> io::Result<()> {
        let Some(foreign) = &self.foreign else { return Ok(()) };
        let (to, bytes) = self.gossip.pack(peer, &source_probes::FOREIGN).map_err(io::Error::other)?;
        foreign.send(&bytes, to)
    }

    /// Takes in a probe, or what a peer says of this node's.
    pub(super) fn hear_probe(&mut self, cargo: &Cargo, sources: &mut SourceProbes, now: Timestamp) {
        if let Some(answer) = sources.handle(cargo.from, cargo.incarnation, &cargo.bytes) {
            self.carry_probe(cargo.from, answer, now);
        }
    }

    fn carry_probe(&mut self, peer: NodeId, probe: &[u8], now: Timestamp) {
        if let Err(error) = self.gossip.carry(Some(peer), probe, now) {
            tracing::debug!(%peer, %error, "a probe is not sent");
        }
    }

    /// Does everything that gossip wants done. Returns whether the membership changed.
    pub(super) fn carry_out_actions(&mut self) -> bool {
        let (mut changed, mut sent) = (false, None);
        while let Some(action) = self.gossip.poll_action() {
            changed |= !matches!(action, Action::Send { .. } | Action::Conflict { .. });
            match action {
                Action::Send { to, bytes } => {
                    let result = self.send(to, &bytes);
                    sent = Some(sent.unwrap_or(Ok(())).and(result));
                }
                Action::PeerUp(node) => tracing::info!(peer = %node, "a peer is up"),
                Action::PeerDown { node, reason } => tracing::info!(peer = %node, ?reason, "a peer is down"),
                Action::PeerRestarted(node) => tracing::info!(peer = %node, "a peer speaks from a new life"),
                Action::PeerForgotten(node) => tracing::info!(peer = %node, "a peer is forgotten"),
                Action::Excluded(exclusion) => tracing::warn!(
                    address = %exclusion.address, excluded = exclusion.excluded, by = %exclusion.by,
                    "an operator decided which addresses DNS names"
                ),
                Action::Conflict { from, address, incarnation } => {
                    tracing::error!(%from, %address, incarnation = incarnation.0, "another node has this node's id; set node.id");
                }
            }
        }
        if let Some(result) = sent {
            self.note_reachability(result);
        }
        self.note_freeze();
        changed
    }

    fn send(&self, to: Destination, bytes: &[u8]) -> io::Result<()> {
        match to {
            Destination::Groups => self.socket.send_to_groups(bytes),
            Destination::Peer(peer) => self.socket.send_to(bytes, peer),
        }
    }

    /// Logs when sending begins to fail and when it works again, not every report.
    fn note_reachability(&mut self, result: io::Result<()>) {
        match (result, self.is_cut_off) {
            (Err(error), false) => tracing::warn!(%error, "load reports cannot be sent"),
            (Ok(()), true) => tracing::info!("load reports can be sent again"),
            (Err(_), true) => return,
            (Ok(()), false) => return,
        }
        self.is_cut_off = !self.is_cut_off;
    }

    fn note_freeze(&mut self) {
        let frozen = self.gossip.frozen();
        if frozen != self.was_frozen {
            self.was_frozen = frozen;
            match frozen {
                true => tracing::warn!("most peers look bad: new connections stay where they arrive"),
                false => tracing::info!("most peers look well again: new connections are balanced"),
            }
        }
    }
}
