//! How a node goes: it takes no new connections, lets open ones finish, has others decide in its place, and gives the
//! host back.

use super::EventLoop;
use super::ownership::Ownership;
use crate::clock;
use crate::service_manager::{Announcement, announce};
use anyhow::bail;
use dpr_model::{NodeState, Timestamp};

/// Intervals for which a node that drains stays at least, as peers have to hear of it before it may go; and for which it stays
/// when it owns nothing any more, as it takes clients a moment to send elsewhere: until then it hands on what still comes to it.
pub(super) const FAREWELL_INTERVALS: u32 = 2;

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

    /// Open connections get no more time.
    pub(super) fn hasten_departure(&mut self) {
        let now = clock::now();
        if let Some(departure) = self.departure.as_mut().filter(|_| self.view.state != NodeState::Leaving) {
            *departure = Departure { earliest: now, latest: now };
        }
    }

    /// True when a node that departs has nothing left to do. What it owns it gives away when its connections are over:
    /// until then its clients' packets need it.
    pub(super) fn may_go(&mut self) -> bool {
        let Some(departure) = self.departure else { return false };
        let now = clock::now();
        if self.view.state == NodeState::Leaving {
            let latest = match self.ownership.as_ref().is_some_and(Ownership::is_needed) {
                true => departure.latest,
                false => departure.latest.min(now + self.interval * FAREWELL_INTERVALS),
            };
            self.departure = Some(Departure { latest, ..departure });
            return now >= latest;
        }
        let is_late = now >= departure.latest;
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
