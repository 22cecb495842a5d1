//! Copies of other directors' connections, one replica for each of them.

use dpr_conntrack::sync::{Copied, Message, Replica};
use dpr_model::{Incarnation, NodeId, Timestamp};
use std::collections::BTreeMap;

/// What other directors have said.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    by_director: BTreeMap<NodeId, (Incarnation, Replica)>,
    /// When the first acknowledgement is due, or earlier; `None` while there is none to send.
    acknowledge_at: Option<Timestamp>,
}

impl Replicas {
    /// Takes in a batch of a director in its life `incarnation`; `enter` as for [`Replica::handle`].
    pub(crate) fn handle(
        &mut self,
        (from, incarnation): (NodeId, Incarnation),
        batch: Message,
        enter: impl FnMut(&Copied) -> bool,
        now: Timestamp,
    ) {
        let known = self.by_director.entry(from).or_insert_with(|| (incarnation, Replica::new()));
        if known.0 < incarnation {
            *known = (incarnation, Replica::new());
        }
        if known.0 == incarnation {
            known.1.handle(batch, enter, now);
            self.acknowledge_at = self.acknowledge_at.into_iter().chain(known.1.next_ack()).min();
        }
    }

    /// The next acknowledgement, and for whom.
    pub(crate) fn poll_ack(&mut self, now: Timestamp) -> Option<(NodeId, Vec<u8>)> {
        self.acknowledge_at.filter(|at| *at <= now)?;
        let mut replicas = self.by_director.iter_mut();
        let said = replicas.find_map(|(node, (_, replica))| Some((*node, replica.poll_ack(now)?)));
        if said.is_none() {
            self.acknowledge_at = self.by_director.values().filter_map(|(_, one)| one.next_ack()).min();
        }
        said
    }

    /// Forgets what nodes have said whom nobody knows any more.
    pub(crate) fn retain(&mut self, is_known: impl Fn(NodeId) -> bool) {
        self.by_director.retain(|director, _| is_known(*director));
    }

    pub(crate) fn get(&self, director: NodeId) -> Option<&Replica> {
        self.by_director.get(&director).map(|(_, replica)| replica)
    }

    /// Directors that have said something, in order.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.by_director.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(replicas: &mut Replicas, from: u32, sequence: u64, now: Timestamp) {
        let batch = Message::Batch { sequence, oldest: sequence, snapshot_began: None, records: Vec::new() };
        replicas.handle((NodeId(from), Incarnation(1)), batch, |_| true, now);
    }

    #[test]
    fn each_director_hears_what_has_come_when_that_is_due() {
        let mut replicas = Replicas::default();
        let at = Timestamp::from_millis;
        let told = |replicas: &mut Replicas, ms| {
            std::iter::from_fn(|| replicas.poll_ack(at(ms))).map(|(node, _)| node.0).collect::<Vec<_>>()
        };
        hear(&mut replicas, 3, 0, at(100));
        hear(&mut replicas, 2, 0, at(110));
        assert_eq!(told(&mut replicas, 119), []);

        assert_eq!(told(&mut replicas, 120), [3]);
        hear(&mut replicas, 3, 1, at(125));
        assert_eq!(told(&mut replicas, 130), [2]);
        assert_eq!(told(&mut replicas, 144), []);
        assert_eq!(told(&mut replicas, 145), [3]);
        assert_eq!(told(&mut replicas, 1000), []);
        hear(&mut replicas, 2, 1, at(1000));
        assert_eq!(told(&mut replicas, 1020), [2]);
    }
}
