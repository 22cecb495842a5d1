//! Nodes' turns: to measure, to report, to hear reports, and to tell their data planes.

use crate::invariants::Broken;
use crate::log::What;
use crate::names::Host;
use crate::node::{Datagram, Node};
use crate::sim::{Event, Parcel, Sim};
use dpr_load_gossip::{Action, Destination};
use dpr_model::NodeId;
use std::time::Duration;

/// Longest time between two observations of a node, as in the daemon.
const TICK_MAX: Duration = Duration::from_millis(100);
/// Shortest time between two updates of a data plane, as in the daemon.
const UPDATE_PAUSE: Duration = Duration::from_millis(20);
/// Nodes of a cluster in which a data plane hears of every report soon. In larger ones it does so with the next observation: an
/// update costs as much as there are peers, and updates are most of what a large cluster costs.
const SOON_NODES_MAX: u32 = 31;

impl Sim {
    /// Schedules a node's timers in a new run, the first of them within `spread`.
    pub(crate) fn start_timers(&mut self, id: NodeId, spread: Duration) {
        let spread_us = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX);
        let first = self.now + Duration::from_micros(self.rng.u64(..=spread_us));
        if let Some(node) = self.nodes.get(&id) {
            self.queue.push(first, Event::Tick(id, node.run));
        }
    }

    /// A node, if its timers are still in this run.
    pub(crate) fn current(&mut self, id: NodeId, run: u32) -> Option<&mut Node> {
        self.nodes.get_mut(&id).filter(|node| node.is_running() && node.run == run)
    }

    pub(crate) fn handle_datagram(&mut self, id: NodeId, from: NodeId, bytes: &[u8]) {
        self.log.digest(&(id, from, self.now, bytes));
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.handle_datagram(from, bytes, now);
        let run = node.run;
        if !node.update_armed && node.daemon.is_some() && self.settings.count <= SOON_NODES_MAX {
            node.update_armed = true;
            self.queue.push(now + UPDATE_PAUSE, Event::Update(id, run));
        }
        self.gossip(id, run);
    }

    pub(crate) fn tick(&mut self, id: NodeId, run: u32) -> Result<(), Broken> {
        let (now, period) = (self.now, self.settings.interval.min(TICK_MAX));
        self.finish_leaving(id);
        self.ask_around(id, run);
        let Some(node) = self.current(id, run) else { return Ok(()) };
        let served = {
            let local = node.local(now);
            node.stack.handle_timeout(local)
        };
        node.observe(now);
        self.follow_duty(id);
        let Some(node) = self.current(id, run) else { return Ok(()) };
        node.update(now);
        self.note_fronts(id);
        self.queue.push(now + period, Event::Tick(id, run));
        self.gossip(id, run);
        served.into_iter().try_for_each(|(sockets, served)| self.settle_served(id, sockets, served))
    }

    /// Does what gossip wants done, and wakes it when it wants to be woken.
    pub(crate) fn gossip(&mut self, id: NodeId, run: u32) {
        self.gossip_now(id, run, false);
    }

    /// The same, in which what a director asks others does not wait if it `is_urgent`.
    pub(crate) fn gossip_now(&mut self, id: NodeId, run: u32, is_urgent: bool) {
        let now = self.now;
        let Some(node) = self.current(id, run) else { return };
        node.handle_gossip_timeout(now);
        let local = node.local(now);
        node.exchange_cargo(is_urgent, local);
        while self.follow_duty(id) {
            let Some(node) = self.current(id, run) else { return };
            node.exchange_cargo(false, local);
        }
        while let Some(action) = self.nodes.get_mut(&id).and_then(Node::poll_action) {
            self.perform(id, action);
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let wanted = node.gossip_timeout().map(|at| at.max(now + Duration::from_nanos(1)));
        if let Some(at) = wanted
            && node.gossip_armed.is_none_or(|armed| at < armed)
        {
            node.gossip_armed = Some(at);
            self.queue.push(at, Event::Gossip(id, run));
        }
    }

    fn perform(&mut self, observer: NodeId, action: Action) {
        let (peer, change) = match action {
            Action::Send { to: Destination::Groups, bytes } => {
                let others: Vec<_> = self.nodes.keys().copied().filter(|id| *id != observer).collect();
                others.into_iter().for_each(|to| self.send_datagram(observer, to, &bytes));
                return;
            }
            Action::Send { to: Destination::Peer(socket), bytes } => {
                if let Host::Node(to) = Host::at(socket.ip()) {
                    self.send_datagram(observer, to, &bytes);
                }
                return;
            }
            Action::PeerUp(peer) => {
                self.staying.note_meeting([observer, peer], self.now);
                (peer, "is up")
            }
            Action::PeerDown { node, .. } => {
                self.staying.release(observer, node);
                (node, "is down")
            }
            Action::PeerRestarted(peer) => {
                self.staying.release(observer, peer);
                self.staying.note_meeting([observer, peer], self.now);
                (peer, "speaks from a new life")
            }
            Action::PeerForgotten(peer) => (peer, "is forgotten"),
            Action::Excluded(exclusion) => (exclusion.by, "has excluded an address or taken it back"),
            Action::Conflict { .. } => (observer, "has this node's own id"),
        };
        self.log.record(self.now, What::Peer { observer, peer, change });
    }

    fn send_datagram(&mut self, from: NodeId, to: NodeId, bytes: &Datagram) {
        let arrivals = self.network.carry(Host::Node(from), Host::Node(to), self.now);
        for at in arrivals.first.into_iter().chain(arrivals.second) {
            self.queue.push(at, Event::Arrive(Host::Node(to), Parcel::Datagram(from, bytes.clone())));
        }
    }
}
