//! What is remembered of nodes that are forgotten, so that their recorded datagrams cannot raise them.

use crate::error::DatagramError;
use dpr_model::{Incarnation, NodeId};
use std::collections::{BTreeMap, VecDeque};

/// Tombstones kept; beyond that the oldest goes.
const TOMBSTONES_MAX: usize = 4096;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tombstones {
    by_node: BTreeMap<NodeId, (Incarnation, u64)>,
    /// Oldest first; every node of `by_node` exactly once.
    order: VecDeque<NodeId>,
}

impl Tombstones {
    /// Remembers the newest incarnation and sequence of a node that is forgotten.
    pub(crate) fn bury(&mut self, node: NodeId, incarnation: Incarnation, sequence: u64) {
        self.remove(node);
        if self.order.len() == TOMBSTONES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_node.remove(&oldest);
        }
        self.by_node.insert(node, (incarnation, sequence));
        self.order.push_back(node);
    }

    /// Whether a datagram is newer than all that was heard of its sender before it was forgotten.
    pub(crate) fn admit(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        sequence: u64,
    ) -> Result<(), DatagramError> {
        match self.by_node.get(&node) {
            Some((known, _)) if incarnation < *known => {
                Err(DatagramError::StaleIncarnation { incarnation, known: *known })
            }
            Some((known, newest)) if incarnation == *known && sequence <= *newest => {
                Err(DatagramError::TooOld { sequence, newest: *newest })
            }
            _ => Ok(()),
        }
    }

    /// The node is back.
    pub(crate) fn remove(&mut self, node: NodeId) {
        if self.by_node.remove(&node).is_some() {
            self.order.retain(|other| *other != node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_node_returns_with_something_newer_only() {
        let mut tombstones = Tombstones::default();
        tombstones.bury(NodeId(1), Incarnation(5), 70);

        let admit = |incarnation, sequence| tombstones.admit(NodeId(1), Incarnation(incarnation), sequence);

        assert_eq!(
            admit(4, 99),
            Err(DatagramError::StaleIncarnation { incarnation: Incarnation(4), known: Incarnation(5) })
        );
        assert_eq!(admit(5, 70), Err(DatagramError::TooOld { sequence: 70, newest: 70 }));
        assert_eq!((admit(5, 71), admit(6, 1)), (Ok(()), Ok(())));
    }

    #[test]
    fn the_oldest_tombstone_gives_way() {
        let mut tombstones = Tombstones::default();
        let count = u32::try_from(TOMBSTONES_MAX).unwrap();
        for node in 0..count {
            tombstones.bury(NodeId(node), Incarnation(9), 1);
        }
        tombstones.bury(NodeId(0), Incarnation(9), 2);

        tombstones.bury(NodeId(count), Incarnation(9), 1);

        assert!(tombstones.admit(NodeId(1), Incarnation(1), 1).is_ok());
        assert!(tombstones.admit(NodeId(0), Incarnation(1), 1).is_err());
        assert_eq!(tombstones.order.len(), TOMBSTONES_MAX);
    }
}
