//! Connections that directors handed to this node, counted for the acknowledgements in its load reports.

use dpr_model::{Incarnation, NodeId, ReceivedFrom};
use std::collections::BTreeMap;

/// Directors that are counted at most; the cluster is not larger than its peer table.
const DIRECTORS_MAX: usize = 4096;

/// Cumulative counts per director and its life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    count_by_director: BTreeMap<NodeId, (Incarnation, u64)>,
    total: u64,
}

impl Received {
    /// New connections from `director` in its life `incarnation`.
    pub(crate) fn record(&mut self, director: NodeId, incarnation: Incarnation, connections: u64) {
        self.total += connections;
        if self.count_by_director.len() >= DIRECTORS_MAX && !self.count_by_director.contains_key(&director) {
            return;
        }
        let (life, count) = self.count_by_director.entry(director).or_insert((incarnation, 0));
        if *life != incarnation {
            *life = incarnation;
            *count = 0;
        }
        *count += connections;
    }

    /// What the next load report acknowledges.
    pub(crate) fn acknowledgements(&self) -> Vec<ReceivedFrom> {
        self.count_by_director
            .iter()
            .map(|(director, (incarnation, connections))| ReceivedFrom {
                director: *director,
                incarnation: *incarnation,
                connections: *connections,
            })
            .collect()
    }

    /// Connections from anybody.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_director_that_restarts_is_counted_from_zero() {
        let mut received = Received::default();
        received.record(NodeId(1), Incarnation(1), 1);
        received.record(NodeId(1), Incarnation(1), 1);
        received.record(NodeId(1), Incarnation(2), 1);

        let expected = ReceivedFrom { director: NodeId(1), incarnation: Incarnation(2), connections: 1 };
        assert_eq!(received.acknowledgements(), [expected]);
        assert_eq!(received.total(), 3);
    }
}
