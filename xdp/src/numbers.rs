//! Numbers of nodes: what map entries call them.

use crate::abi::{NODES_MAX, SELF};
use dpr_model::NodeId;
use std::collections::BTreeMap;

/// Numbers by id. A number once given is kept, since entries of connections name it.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    number_by_id: BTreeMap<NodeId, u16>,
    next: u16,
}

impl Numbers {
    /// This node has number 0.
    pub(crate) fn new(this: NodeId) -> Self {
        Self { number_by_id: BTreeMap::from([(this, SELF)]), next: SELF + 1 }
    }

    /// The number of a node, given to it now if it has none; `None` when all are taken.
    pub(crate) fn assign(&mut self, node: NodeId) -> Option<u16> {
        if let Some(number) = self.number_by_id.get(&node) {
            return Some(*number);
        }
        let number = self.next;
        if usize::from(number) >= NODES_MAX {
            return None;
        }
        self.next += 1;
        self.number_by_id.insert(node, number);
        Some(number)
    }

    /// Gives a node the number that it had before, which entries of connections name. False when the number or the node
    /// has another one.
    pub(crate) fn restore(&mut self, node: NodeId, number: u16) -> bool {
        let is_free = usize::from(number) < NODES_MAX
            && self.of(node).is_none_or(|its| its == number)
            && self.node(number).is_none_or(|its| its == node);
        if is_free {
            self.number_by_id.insert(node, number);
            self.next = self.next.max(number + 1);
        }
        is_free
    }

    /// The number of a node that has one.
    pub(crate) fn of(&self, node: NodeId) -> Option<u16> {
        self.number_by_id.get(&node).copied()
    }

    /// The node with a number.
    pub(crate) fn node(&self, number: u16) -> Option<NodeId> {
        self.number_by_id.iter().find(|(_, its)| **its == number).map(|(node, _)| *node)
    }

    /// Every node that has a number, in order of id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, u16)> + '_ {
        self.number_by_id.iter().map(|(node, number)| (*node, *number))
    }

    /// One more than the largest number in use.
    pub(crate) fn end(&self) -> u16 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_number_and_nobody_gets_more_than_there_are() {
        let mut numbers = Numbers::new(NodeId(7));
        assert_eq!(numbers.assign(NodeId(7)), Some(SELF));
        let first = numbers.assign(NodeId(1));
        assert_eq!(numbers.assign(NodeId(1)), first);
        let given = (100..100 + NODES_MAX as u32).filter_map(|id| numbers.assign(NodeId(id))).count();
        assert_eq!(given, NODES_MAX - 2);
        assert_eq!(numbers.node(1), Some(NodeId(1)));
    }

    #[test]
    fn a_number_from_before_is_kept_and_given_to_nobody_else() {
        let mut numbers = Numbers::new(NodeId(7));
        assert!(numbers.restore(NodeId(9), 5));
        assert!(!numbers.restore(NodeId(8), 5), "it is another node's");
        assert!(!numbers.restore(NodeId(7), 6), "the node has another one");
        assert_eq!((numbers.assign(NodeId(9)), numbers.assign(NodeId(8))), (Some(5), Some(6)));
    }
}
