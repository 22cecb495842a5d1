//! One after the other, whatever the load.

use super::Policy;
use dpr_model::{Candidate, FlowKey, NodeId};
use fastrand::Rng;
use std::collections::BTreeMap;

/// Smooth weighted round robin, as in nginx: each turn every node gains its weight in credit, the richest one is
/// chosen and pays the total.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    credit_by_node: BTreeMap<NodeId, i64>,
}

impl Policy for RoundRobin {
    fn choose(&mut self, _flow: &FlowKey, candidates: &[Candidate], _rng: &mut Rng) -> Option<usize> {
        self.credit_by_node.retain(|node, _| candidates.iter().any(|candidate| candidate.node == *node));
        let mut total = 0;
        let mut richest: Option<(usize, i64)> = None;
        for (position, candidate) in candidates.iter().enumerate().filter(|(_, c)| c.weight.0 > 0) {
            let weight = i64::from(candidate.weight.0);
            total += weight;
            let credit = self.credit_by_node.entry(candidate.node).or_default();
            *credit += weight;
            if richest.is_none_or(|(_, most)| *credit > most) {
                richest = Some((position, *credit));
            }
        }
        let (position, _) = richest?;
        *self.credit_by_node.entry(candidates[position].node).or_default() -= total;
        Some(position)
    }
}
