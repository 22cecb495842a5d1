//! What operators order, beside drains: addresses to nodes, nodes to stop, dead nodes to be given up.

use crate::names::address_of;
use crate::node::{Node, Standing};
use crate::sim::Sim;
use dpr_model::NodeId;

/// Intervals in which others have to agree that a node which takes leave owns nothing any more, as in the daemon.
const HAND_OVER_INTERVALS: u32 = 20;
/// Intervals for which it stays when they have, as in the daemon.
const FAREWELL_INTERVALS: u32 = 2;

impl Sim {
    /// Has the coordinator move an address, if there is one and it is willing to.
    pub(crate) fn order_takeover(&mut self, home: NodeId, to: Option<NodeId>) {
        let (now, address) = (self.now, address_of(home, self.settings.services));
        for id in self.node_ids() {
            let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_running()) else { continue };
            let local = node.local(now);
            let agreement = node.daemon.as_mut().and_then(|daemon| daemon.agreement.as_mut());
            if agreement.is_some_and(|agreement| agreement.take_over(&[address], to, local).is_ok()) {
                let run = node.run;
                self.gossip(id, run);
                return;
            }
        }
    }

    /// Has a node take leave.
    pub(crate) fn order_stop(&mut self, id: NodeId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_running()) else { return };
        let until = node.local(now) + node.settings.interval * HAND_OVER_INTERVALS;
        let Some(daemon) = &mut node.daemon else { return };
        if let Some(agreement) = &mut daemon.agreement {
            agreement.leave();
        }
        node.leaves_until.get_or_insert(until);
    }

    /// Ends a daemon that has taken leave, soon after nobody counts on it any more: until then it hands on what still comes to
    /// it.
    pub(crate) fn finish_leaving(&mut self, id: NodeId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_running()) else { return };
        let duty = node.daemon.as_ref().and_then(|daemon| daemon.duty.as_ref());
        let is_needed = duty.is_some_and(|duty| duty.map.has_member(id) || !duty.settled);
        let local = node.local(now);
        let Some(until) = &mut node.leaves_until else { return };
        if !is_needed {
            *until = (*until).min(local + node.settings.interval * FAREWELL_INTERVALS);
        }
        if local >= *until {
            self.with_running(id, Node::stop_daemon);
        }
    }

    /// Has all nodes that run give up one that is dead.
    pub(crate) fn order_forget(&mut self, dead: NodeId) {
        let now = self.now;
        let is_dead = |node: &&mut Node| node.standing == Standing::Dead;
        let Some(node) = self.nodes.get_mut(&dead).filter(is_dead) else { return };
        node.is_given_up = true;
        for node in self.nodes.values_mut().filter(|node| node.is_running()) {
            let local = node.local(now);
            let Some(daemon) = &mut node.daemon else { continue };
            let agreement = daemon.agreement.as_mut();
            // Whoever heard it a moment ago does not believe it; others tell.
            if agreement.is_none_or(|agreement| agreement.forget(dead, local)) {
                daemon.gossip.forget(dead);
            }
        }
    }
}
