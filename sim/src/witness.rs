//! Nodes ask the witness, and each other on the clients' network, whether they are there.

use crate::names::Host;
use crate::node::Node;
use crate::sim::{Event, Sim};
use dpr_model::{NodeId, Timestamp};
use dpr_ownership::agreement::Quorum;
use std::time::Duration;

/// How often they ask, as in the daemon.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// What a host answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    by: Host,
    /// When it was asked, on the clock of the node that asked.
    asked_at: Timestamp,
}

impl Sim {
    /// Sends a node's questions, when it is time to and if there is a witness.
    pub(crate) fn ask_around(&mut self, id: NodeId, run: u32) {
        if self.settings.quorum != Quorum::Witness || !self.is_shared() {
            return;
        }
        let now = self.now;
        let Some(node) = self.current(id, run) else { return };
        let asked_at = node.local(now);
        if asked_at < node.ask_at || node.daemon.is_none() {
            return;
        }
        node.ask_at = asked_at + ASK_EVERY;
        let is_there = |other: NodeId| self.nodes.get(&other).is_some_and(Node::is_running);
        let others = self.node_ids().into_iter().filter(|other| *other != id && is_there(*other));
        let hosts: Vec<Host> = others.map(Host::Node).chain([Host::Witness]).collect();
        for by in hosts {
            if let Some(at) = self.network.ask(Host::Node(id), by, now) {
                self.queue.push(at, Event::Answer(id, run, Answer { by, asked_at }));
            }
        }
    }

    /// An answer has come. One for an earlier run of a node's timers finds nobody who waits for it.
    pub(crate) fn hear_answer(&mut self, id: NodeId, run: u32, answer: Answer) {
        let now = self.now;
        let Some(node) = self.current(id, run) else { return };
        let local = node.local(now);
        let Some(agreement) = node.daemon.as_mut().and_then(|daemon| daemon.agreement.as_mut()) else {
            return;
        };
        match answer.by {
            Host::Witness => agreement.hear_witness(answer.asked_at, local),
            Host::Node(voter) => agreement.see_voter(voter, answer.asked_at),
            Host::Outside => {}
        }
    }
}
