//! Orders under way: each is carried out once, however often its datagram comes, and told again until it is answered.
//!
//! A recorded order is of no use to a stranger: it names the life of its receiver, and within that life only orders with
//! a higher number than all before from the same sender are carried out.

use super::message::{Message, Order, Progress};
use dpr_model::{Incarnation, NodeId, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// Time after which an unanswered order is told again: a datagram may be lost.
const AGAIN_AFTER: Duration = Duration::from_millis(150);
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_millis(2000);
/// Orders that wait for their answers at most.
const WAITING_MAX: usize = 64;
/// Nodes whose orders are remembered at most: as many as a cluster can have.
const SENDERS_MAX: usize = dpr_ownership::MEMBERS_MAX;

/// What this node ordered, and what it was ordered. `R` is where answers go.
#[derive(Debug)]
pub(crate) struct Ledger<R> {
    own: Incarnation,
    number: u64,
    waiting: Vec<Waiting<R>>,
    last_by_sender: BTreeMap<NodeId, Last>,
}

#[derive(Debug)]
struct Waiting<R> {
    node: NodeId,
    number: u64,
    bytes: Vec<u8>,
    again_at: Timestamp,
    until: Timestamp,
    reply: R,
}

/// The last order of a node that was carried out.
#[derive(Debug)]
struct Last {
    incarnation: Incarnation,
    number: u64,
    answer: Vec<u8>,
}

/// What is to be done about an order that came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Carry it out, and [`Ledger::close`] it.
    CarryOut,
    /// It was carried out: send this answer, once more.
    Repeat(Vec<u8>),
    /// It is old, of another life, or of one node too many.
    Ignore,
}

impl<R> Ledger<R> {
    /// Of a node in its life `own`.
    pub(crate) fn new(own: Incarnation) -> Self {
        Self { own, number: 0, waiting: Vec::new(), last_by_sender: BTreeMap::new() }
    }

    /// Begins to tell a node something. Gives `reply` back if too many orders wait already.
    pub(crate) fn tell(
        &mut self,
        (node, life): (NodeId, Incarnation),
        order: Order,
        reply: R,
        now: Timestamp,
    ) -> Result<(), R> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(reply);
        }
        self.number += 1;
        let number = self.number;
        let bytes = Message::Order { to: life, number, order }.to_bytes();
        self.waiting.push(Waiting { node, number, bytes, again_at: now, until: now + PATIENCE, reply });
        Ok(())
    }

    /// The next order to send. To be called until it returns `None`.
    pub(crate) fn poll_send(&mut self, now: Timestamp) -> Option<(NodeId, Vec<u8>)> {
        let due = self.waiting.iter_mut().find(|waiting| waiting.again_at <= now && now < waiting.until)?;
        due.again_at = now + AGAIN_AFTER;
        Some((due.node, due.bytes.clone()))
    }

    /// Orders that nobody answered in time.
    pub(crate) fn take_overdue(&mut self, now: Timestamp) -> Vec<(NodeId, R)> {
        let overdue = self.waiting.extract_if(.., |waiting| waiting.until <= now);
        overdue.map(|waiting| (waiting.node, waiting.reply)).collect()
    }

    /// When there is something to send again or to give up.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.waiting.iter().map(|waiting| waiting.again_at.min(waiting.until)).min()
    }

    /// An answer: where it goes, if this node waits for it.
    pub(crate) fn take_answer(
        &mut self,
        from: NodeId,
        (to, number): (Incarnation, u64),
        outcome: Result<Progress, String>,
    ) -> Option<(R, Result<Progress, String>)> {
        let is_its = |waiting: &Waiting<R>| (waiting.node, waiting.number) == (from, number);
        let position = self.waiting.iter().position(is_its).filter(|_| to == self.own)?;
        Some((self.waiting.swap_remove(position).reply, outcome))
    }

    /// What is to be done about an order of the node `from.0` in its life `from.1`.
    pub(crate) fn judge(&self, from: (NodeId, Incarnation), to: Incarnation, number: u64) -> Judgement {
        if to != self.own {
            return Judgement::Ignore;
        }
        match self.last_by_sender.get(&from.0) {
            Some(last) if (last.incarnation, last.number) == (from.1, number) => {
                Judgement::Repeat(last.answer.clone())
            }
            Some(last) if (last.incarnation, last.number) > (from.1, number) => Judgement::Ignore,
            None if self.last_by_sender.len() >= SENDERS_MAX => Judgement::Ignore,
            Some(_) | None => Judgement::CarryOut,
        }
    }

    /// An order was carried out or refused. Returns the answer to send.
    pub(crate) fn close(
        &mut self,
        from: (NodeId, Incarnation),
        number: u64,
        outcome: Result<Progress, String>,
    ) -> Vec<u8> {
        let answer = Message::Answer { to: from.1, number, outcome }.to_bytes();
        let last = Last { incarnation: from.1, number, answer: answer.clone() };
        self.last_by_sender.insert(from.0, last);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::NodeState;

    const A: (NodeId, Incarnation) = (NodeId(1), Incarnation(5));
    const B: (NodeId, Incarnation) = (NodeId(2), Incarnation(9));
    const DONE: Result<Progress, String> =
        Ok(Progress { state: NodeState::Active, open_connections: 0, is_current: true });

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn parts(bytes: &[u8]) -> (Incarnation, u64) {
        match Message::from_bytes(bytes) {
            Some(Message::Order { to, number, .. } | Message::Answer { to, number, .. }) => (to, number),
            None => panic!("{bytes:?}"),
        }
    }

    #[test]
    fn an_order_is_told_until_it_is_answered_and_carried_out_once() {
        let (mut a, mut b) = (Ledger::new(A.1), Ledger::<()>::new(B.1));
        a.tell(B, Order::Drain, "reply", at(0)).unwrap();

        let (to, bytes) = a.poll_send(at(0)).unwrap();
        assert_eq!((to, a.poll_send(at(0))), (B.0, None));
        let (life, number) = parts(&bytes);
        assert_eq!(b.judge(A, life, number), Judgement::CarryOut);
        let answer = b.close(A, number, DONE);
        // The answer is lost.
        assert_eq!(a.poll_send(at(150)), Some((B.0, bytes)));
        assert_eq!(b.judge(A, life, number), Judgement::Repeat(answer.clone()));

        assert_eq!(a.take_answer(NodeId(3), parts(&answer), DONE), None, "somebody else's");
        assert_eq!(a.take_answer(B.0, parts(&answer), DONE), Some(("reply", DONE)));
        assert_eq!((a.poll_send(at(300)), a.deadline()), (None, None));
    }

    #[test]
    fn a_recorded_order_is_not_carried_out_again() {
        let mut b = Ledger::<()>::new(B.1);
        for number in [1, 2] {
            assert_eq!(b.judge(A, B.1, number), Judgement::CarryOut);
            b.close(A, number, DONE);
        }

        assert_eq!(b.judge(A, B.1, 1), Judgement::Ignore);
        assert_eq!(b.judge((A.0, Incarnation(4)), B.1, 3), Judgement::Ignore, "of an earlier life");
        assert_eq!(
            Ledger::<()>::new(Incarnation(10)).judge(A, B.1, 2),
            Judgement::Ignore,
            "for another life"
        );
        assert_eq!(b.judge((A.0, Incarnation(6)), B.1, 1), Judgement::CarryOut, "of a new life");
    }

    #[test]
    fn who_does_not_answer_is_named_and_orders_do_not_pile_up() {
        let mut a = Ledger::new(A.1);
        for _ in 0..WAITING_MAX {
            a.tell(B, Order::Report, (), at(0)).unwrap();
        }

        assert_eq!(a.tell(B, Order::Report, (), at(0)), Err(()));
        assert!(a.take_overdue(at(1999)).is_empty());
        assert_eq!(a.take_overdue(at(2000)).len(), WAITING_MAX);
        assert_eq!(a.take_overdue(at(2000)), []);
    }
}
