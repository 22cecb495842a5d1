//! How a node goes: it takes no new connections, lets open ones finish, has others decide in its place, and gives the
//! host back.

use super::EventLoop;
use crate::clock;
use crate::control::protocol::Response;
use crate::service_manager::{Announcement, announce};
use anyhow::bail;
use dpr_model::{NodeId, NodeState, Timestamp};

/// Intervals for which a node that drains stays at least: peers have to hear of it before it may go.
const FAREWELL_INTERVALS: u32 = 2;

/// Intervals in which others have to agree that this node owns nothing any more: with all of them there it takes about
/// five.
const HAND_OVER_INTERVALS: u32 = 20;

/// A departure in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    /// Not before.
    earliest: Timestamp,
    /// Not after: open connections have to be over by then, and after that everything handed over.
    latest: Timestamp,
}

impl Departure {
    /// When there may be something to do.
    pub(super) fn next_deadline(self, now: Timestamp) -> Timestamp {
        if now < self.earliest { self.earliest } else { self.latest }
    }
}

impl EventLoop {
    /// Takes no new connections, or takes them again; nothing else changes.
    pub(super) fn drain(&mut self, draining: bool) -> Response {
        if self.departure.is_some() {
            return Response::Error("the node is about to end".to_owned());
        }
        self.wants_to_drain = draining;
        match (self.view.state, draining) {
            (NodeState::Active, true) => self.enter(NodeState::Draining),
            (NodeState::Draining, false) => self.enter(NodeState::Active),
            // One that joins does as it is told when it has joined.
            _ => {}
        }
        Response::Done
    }

    /// Stops to count on a node that is gone for good.
    pub(super) fn forget(&mut self, node: NodeId) -> Response {
        let now = clock::now();
        if self.cluster.gossip.peer(node, now).is_some_and(|peer| peer.alive) {
            return Response::Error(format!("{node} speaks; end its daemon first"));
        }
        let agreed = self.ownership.as_mut().is_none_or(|ownership| ownership.forget(node, now));
        if !agreed {
            return Response::Error(format!(
                "{node} is this node, or speaks, or too many are forgotten already"
            ));
        }
        let known = self.cluster.gossip.forget(node);
        tracing::warn!(%node, known, "an operator declares a node gone for good");
        self.want_update();
        Response::Done
    }

    pub(super) fn begin_departure(&mut self) {
        let now = clock::now();
        let farewell = (self.interval * FAREWELL_INTERVALS).min(self.drain_timeout);
        self.departure = Some(Departure { earliest: now + farewell, latest: now + self.drain_timeout });
        self.enter(NodeState::Draining);
        announce(Announcement::Stopping);
        if let Some(server) = &self.server {
            server.drain();
        }
        if let Some(ownership) = &mut self.ownership {
            ownership.leave();
        }
    }

    /// True when a node that departs has nothing left to do. What it owns it gives away when its connections are over:
    /// until then its clients' packets need it.
    pub(super) fn may_go(&mut self) -> bool {
        let Some(departure) = self.departure else { return false };
        let now = clock::now();
        let is_late = now >= departure.latest;
        if self.view.state == NodeState::Leaving {
            return is_late || self.ownership.as_ref().is_none_or(|ownership| !ownership.is_member());
        }
        let is_drained = now >= departure.earliest && self.view.observation.open_connections() == 0;
        if !is_late && !is_drained {
            return false;
        }
        if self.ownership.is_none() {
            return true;
        }
        let latest = now + self.interval * HAND_OVER_INTERVALS;
        self.departure = Some(Departure { earliest: now, latest });
        self.enter(NodeState::Leaving);
        false
    }

    /// Says goodbye, ends the server, then the data plane: its last answers still need it.
    pub(super) async fn leave(mut self) -> anyhow::Result<()> {
        let open = self.view.observation.open_connections();
        tracing::info!(open_connections = open, "the node leaves");
        if self.view.state != NodeState::Leaving {
            self.enter(NodeState::Leaving);
        }
        self.carry_out_actions();
        self.update_plane(clock::now());
        if let Some(server) = self.server.take() {
            server.close().await;
        }
        drop(self.dns.take());
        // Once more, as a datagram may be lost.
        self.cluster.gossip.send_now(clock::now());
        self.cluster.carry_out_actions();
        let ended_by_itself = self.plane.has_ended();
        self.plane.stop().await?;
        if ended_by_itself {
            bail!("the data plane ended by itself");
        }
        tracing::info!("the host is as it was before");
        Ok(())
    }
}
