//! What operators want done: here, or on another node by way of load gossip.

use super::EventLoop;
use super::departure::FAREWELL_INTERVALS;
use crate::clock;
use crate::control::protocol::Response;
use crate::orders::{Judgement, Message, Order, Progress};
use dpr_load_gossip::Cargo;
use dpr_model::{NodeId, NodeState, Timestamp};
use tokio::sync::oneshot;

impl EventLoop {
    /// Does what an operator wants of this node, or has another node do it.
    pub(super) fn tell(&mut self, node: NodeId, order: Order, reply: oneshot::Sender<Response>) {
        let now = clock::now();
        if node == self.view.config().node.id {
            return finish(reply, self.obey(&order));
        }
        let peer = self.cluster.gossip.peer(node, now).filter(|peer| peer.alive);
        let Some(life) = peer.map(|peer| peer.report.incarnation) else {
            return finish(reply, Err(format!("{node} is silent: it cannot be told anything")));
        };
        if let Err(reply) = self.ledger.tell((node, life), order, reply, now) {
            return finish(reply, Err("too many orders wait for answers; try again".to_owned()));
        }
        self.send_orders(now);
    }

    /// Tells again what was not answered, and gives up what never will be.
    pub(super) fn send_orders(&mut self, now: Timestamp) {
        for (node, reply) in self.ledger.take_overdue(now) {
            finish(reply, Err(format!("{node} does not answer; whether it did as it was told is not known")));
        }
        while let Some((node, bytes)) = self.ledger.poll_send(now) {
            self.send_order_message(node, &bytes, now);
        }
    }

    /// An order of another node, or its answer to one.
    pub(super) fn hear_order(&mut self, cargo: &Cargo, now: Timestamp) {
        match Message::from_bytes(&cargo.bytes) {
            Some(Message::Answer { to, number, outcome }) => {
                if let Some((reply, outcome)) = self.ledger.take_answer(cargo.from, (to, number), outcome) {
                    finish(reply, outcome);
                }
            }
            Some(Message::Order { to, number, order }) => {
                let from = (cargo.from, cargo.incarnation);
                let answer = match self.ledger.judge(from, to, number) {
                    Judgement::CarryOut => {
                        if order != Order::Report {
                            tracing::warn!(by = %cargo.from, ?order, "an operator on another node orders");
                        }
                        let outcome = self.obey(&order);
                        self.ledger.close(from, number, outcome)
                    }
                    Judgement::Repeat(answer) => answer,
                    Judgement::Ignore => return,
                };
                self.send_order_message(cargo.from, &answer, now);
            }
            None => tracing::debug!(peer = %cargo.from, "an order makes no sense"),
        }
    }

    fn send_order_message(&mut self, node: NodeId, bytes: &[u8], now: Timestamp) {
        if let Err(error) = self.cluster.gossip.carry(Some(node), bytes, now) {
            tracing::debug!(%error, "a message about an order is not sent");
        }
    }

    /// Does as it is told, or says why not.
    fn obey(&mut self, order: &Order) -> Result<Progress, String> {
        match order {
            Order::Report => {}
            Order::Drain => self.drain(true)?,
            Order::Undrain => self.drain(false)?,
            Order::Forget(node) => self.forget(*node)?,
            Order::TakeOver { addresses, to } => {
                let ownership = self.ownership.as_mut();
                let ownership = ownership.ok_or("without [ownership] every address is its node's alone")?;
                ownership.take_over(addresses, *to, clock::now()).map_err(|error| error.to_string())?;
            }
        }
        Ok(Progress {
            state: self.view.state,
            open_connections: self.view.observation.open_connections(),
            is_current: self.observation_began >= self.entered_at + self.interval * FAREWELL_INTERVALS,
        })
    }

    /// Takes no new connections, or takes them again; nothing else changes.
    fn drain(&mut self, draining: bool) -> Result<(), String> {
        if self.departure.is_some() {
            return Err("the node is about to end".to_owned());
        }
        self.wants_to_drain = draining;
        match (self.view.state, draining) {
            (NodeState::Active, true) => self.enter(NodeState::Draining),
            (NodeState::Draining, false) => self.enter(NodeState::Active),
            // One that joins does as it is told when it has joined.
            _ => {}
        }
        Ok(())
    }

    /// Stops to count on a node that is gone for good.
    fn forget(&mut self, node: NodeId) -> Result<(), String> {
        let now = clock::now();
        if self.cluster.gossip.peer(node, now).is_some_and(|peer| peer.alive) {
            return Err(format!("{node} speaks; end its daemon first"));
        }
        let agreed = self.ownership.as_mut().is_none_or(|ownership| ownership.forget(node, now));
        if !agreed {
            return Err(format!("{node} is this node, or speaks, or too many are forgotten already"));
        }
        let known = self.cluster.gossip.forget(node);
        tracing::warn!(%node, known, "an operator declares a node gone for good");
        self.want_update();
        Ok(())
    }
}

fn finish(reply: oneshot::Sender<Response>, outcome: Result<Progress, String>) {
    // Who does not wait any more has no use for it.
    let _ = reply.send(outcome.map_or_else(Response::Error, Response::Told));
}
