//! Data planes that are late: packets wait for them, and are handled before another duty takes effect, as in the daemon.

use crate::invariants::Broken;
use crate::node::Node;
use crate::packets::Packet;
use crate::sim::{Event, Sim};
use dpr_model::NodeId;
use std::time::Duration;

impl Sim {
    /// From now on the data plane of a node looks at packets so long after they came in.
    pub(crate) fn set_lateness(&mut self, id: NodeId, lateness: Duration) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.lateness = lateness;
        }
    }

    /// A packet comes in at a node that runs.
    pub(crate) fn take_in(&mut self, id: NodeId, packet: Packet) -> Result<(), Broken> {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.lateness.is_zero() && node.waiting.is_empty() {
            return self.handle_packet(id, packet).map(|_| ());
        }
        node.waiting.push_back(packet);
        let at = self.now + node.lateness;
        self.queue.push(at, Event::Look(id));
        Ok(())
    }

    /// A data plane that stood still gets to what had waited for it.
    pub(crate) fn look_at_all(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id) else { return };
        let at = self.now + node.lateness;
        for _ in 0..node.waiting.len() {
            self.queue.push(at, Event::Look(id));
        }
    }

    /// The data plane of a node gets to the packet that has waited longest.
    pub(crate) fn look(&mut self, id: NodeId) -> Result<(), Broken> {
        let node = self.nodes.get_mut(&id).filter(|node| node.is_running());
        let Some(packet) = node.and_then(|node| node.waiting.pop_front()) else { return Ok(()) };
        self.handle_packet(id, packet).map(|_| ())
    }

    /// Has the data plane of a node act by the duty that it was told of, after it has handled what came in before. True if
    /// there was one.
    pub(crate) fn follow_duty(&mut self, id: NodeId) -> bool {
        let now = self.now;
        if !self.nodes.get(&id).is_some_and(Node::has_another_duty) {
            return false;
        }
        while let Some(packet) = self.nodes.get_mut(&id).and_then(|node| node.waiting.pop_front()) {
            let handled = self.handle_packet(id, packet);
            self.note(handled.map(|_| ()));
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.tell_duty(node.local(now));
        }
        true
    }
}
