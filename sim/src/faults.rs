//! Doing things to the cluster.

use crate::fault::Fault;
use crate::log::What;
use crate::names::Host;
use crate::node::{Node, Standing};
use crate::sim::{Event, Parcel, Sim};
use dpr_model::NodeId;
use std::time::Duration;

impl Sim {
    /// Does something to the cluster now. What makes no sense, such as to start what runs or to forget what lives, changes
    /// nothing.
    pub fn inject(&mut self, fault: Fault) {
        self.log.record(self.now, What::Fault(fault.clone()));
        self.staying.note_fault(&fault, self.is_shared(), self.now);
        if fault.parts_nodes() {
            self.note_disturbance(Duration::from_secs(4));
        }
        match fault {
            Fault::Pause(id) => self.pause(id),
            Fault::Resume(id) => self.resume(id),
            Fault::KillDaemon(id) => self.with_running(id, Node::stop_daemon),
            Fault::StartDaemon(id) => self.start_daemon(id),
            Fault::KillNode(id) => self.kill_node(id),
            Fault::StartNode(id) => self.start_node(id),
            Fault::Cut(from, to) => self.network.cut(from, to),
            Fault::Mend(from, to) => self.network.mend(from, to),
            Fault::Partition(groups) => self.network.partition(&groups),
            Fault::Heal => self.network.heal(),
            Fault::StepClock(id, ahead) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.step_clock(ahead);
                }
            }
            Fault::SetBackWallClock(id, by) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.set_back_wall_clock(by);
                }
            }
            Fault::Flood(id, count) => self.flood(id, count),
            Fault::Drain(id, drained) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.drained = drained;
                }
            }
            Fault::TakeOver(home, to) => self.order_takeover(home, to),
            Fault::Stop(id) => self.order_stop(id),
            Fault::Forget(id) => self.order_forget(id),
            Fault::Late(id, lateness) => self.set_lateness(id, lateness),
            Fault::CutOff(id, is_cut_off) => self.cut_off(id, is_cut_off),
            Fault::ReportLoad(id, load) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.load_override = load;
                }
            }
        }
    }

    /// Does something to the cluster later.
    pub fn inject_in(&mut self, delay: Duration, fault: Fault) {
        self.queue.push(self.now + delay, Event::Fault(fault));
    }

    fn pause(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_running()) {
            node.standing = Standing::Paused;
            node.begin_run();
        }
    }

    fn resume(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.standing == Standing::Paused) else {
            return;
        };
        node.standing = Standing::Running;
        self.start_timers(id, Duration::ZERO);
        self.look_at_all(id);
        // What has come is found before any timer fires.
        for parcel in self.backlogs.remove(&id).unwrap_or_default() {
            let outcome = self.arrive(id, parcel);
            self.note(outcome);
        }
    }

    fn cut_off(&mut self, id: NodeId, is_cut_off: bool) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.cut_off = is_cut_off;
        for (from, to) in [(Host::Outside, Host::Node(id)), (Host::Node(id), Host::Outside)] {
            if is_cut_off {
                self.network.cut(from, to);
            } else {
                self.network.mend(from, to);
            }
        }
    }

    fn start_daemon(&mut self, id: NodeId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if !node.is_running() || node.daemon.is_some() {
            return;
        }
        node.start_daemon(now);
        self.start_timers(id, Duration::ZERO);
        self.excuse(id, true);
    }

    fn kill_node(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.stop();
        }
        let backlog = self.backlogs.remove(&id).unwrap_or_default().into_iter();
        let of_network = backlog.filter_map(|parcel| match parcel {
            Parcel::Packet(packet) => Some(*packet),
            Parcel::Datagram(..) => None,
        });
        let waiting = self.nodes.get_mut(&id).map(|node| std::mem::take(&mut node.waiting));
        for packet in of_network.chain(waiting.into_iter().flatten()) {
            self.lose(&packet);
        }
        self.excuse(id, false);
    }

    fn start_node(&mut self, id: NodeId) {
        let now = self.now;
        let may_start = |node: &&mut Node| node.standing == Standing::Dead && !node.is_given_up;
        let Some(node) = self.nodes.get_mut(&id).filter(may_start) else { return };
        node.start(now);
        self.start_timers(id, Duration::ZERO);
    }

    /// Does something to a running node that its connections do not survive with the user-space plane.
    pub(crate) fn with_running(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_running()) else { return };
        change(node);
        // Its kernel goes on: sockets have timers.
        self.start_timers(id, Duration::ZERO);
        self.excuse(id, true);
    }

    /// Connections that have `id` as their real server may end in any way from now on, and those that have it as their
    /// director, unless others take over from it: not as long as its kernel refuses what the daemon would have forwarded.
    fn excuse(&mut self, id: NodeId, is_refusing: bool) {
        let is_shared = self.is_shared();
        for connection in self.clients.unfinished() {
            let is_there = connection.real_server.or(connection.chosen) == Some(id);
            let is_its_home = connection.home == id && (!is_shared || is_refusing);
            // Of a handshake nobody has a copy.
            let is_beginning = is_shared && connection.real_server.is_none();
            if is_its_home || is_there || is_beginning {
                connection.excused = true;
            }
        }
    }
}
