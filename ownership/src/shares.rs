//! Load-proportional shares: a node that is hot as a director is given fewer slots.
//!
//! A controller in the manner of feedbackd (Kerr 2003) with what keeps such controllers from swinging: a dead band, a
//! bound on what moves in a period, and rest between two moves, as load follows a move only after connections have
//! come and gone.

use dpr_model::{LoadPermille, NodeId, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// A member's part of all slots, relative to the others'. 0 to [`SHARE_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u16);

/// The share of a node that is not hot, at the greatest weight. An ordinary weight of 100 gives 1000.
pub const SHARE_MAX: u16 = u16::MAX;

/// Loads within this much of their mean, permille, are left alone.
pub const DEAD_BAND: u16 = 100;
/// Largest part of its share that a node gives or gets in a period, permille.
pub const STEP_MAX: u64 = 100;
/// Between two adjustments.
pub const PERIOD: Duration = Duration::from_secs(10);
/// A node keeps at least this part of what its weight is worth, permille: a mistaken figure cannot empty it.
pub const FACTOR_MIN: u64 = 200;

/// A member as the coordinator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Director {
    /// Who.
    pub node: NodeId,
    /// What its weight is worth; 0 for a node that must own nothing.
    pub worth: Share,
    /// How busy it is with deciding and forwarding; not its load as a real server.
    pub load: LoadPermille,
}

/// Adjusts shares to loads, slowly. The coordinator has one; a new coordinator begins anew, from worths.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    /// Part of its worth that a node has, permille; 1000 is not kept.
    factor_by_node: BTreeMap<NodeId, u64>,
    adjusted_at: Option<Timestamp>,
}

impl Shares {
    /// Shares in the order of `directors`; the same until [`PERIOD`] has passed since the last adjustment.
    pub fn update(&mut self, directors: &[Director], now: Timestamp) -> Vec<Share> {
        self.factor_by_node.retain(|node, _| directors.iter().any(|director| director.node == *node));
        let rested = self.adjusted_at.is_none_or(|at| now.since(at) >= PERIOD);
        if rested {
            self.adjusted_at = Some(now);
            self.adjust(directors);
        }
        directors.iter().map(|director| self.share(director)).collect()
    }

    fn adjust(&mut self, directors: &[Director]) {
        let owning = || directors.iter().filter(|director| director.worth.0 > 0);
        let count = owning().count() as u64;
        if count < 2 {
            return;
        }
        let mean = owning().map(|director| u64::from(director.load.0)).sum::<u64>() / count;
        for director in owning() {
            let load = u64::from(director.load.0);
            if load.abs_diff(mean) <= u64::from(DEAD_BAND) {
                continue;
            }
            let factor = self.factor(director.node);
            // The share at which the load would be the mean, if load followed the share.
            let wanted = factor * mean.max(1) / load.max(1);
            let step = factor * STEP_MAX / 1000;
            let factor = wanted.clamp(factor - step, factor + step).clamp(FACTOR_MIN, 1000);
            self.factor_by_node.insert(director.node, factor);
        }
        self.factor_by_node.retain(|_, factor| *factor < 1000);
    }

    fn factor(&self, node: NodeId) -> u64 {
        self.factor_by_node.get(&node).copied().unwrap_or(1000)
    }

    fn share(&self, director: &Director) -> Share {
        let share = u64::from(director.worth.0) * self.factor(director.node) / 1000;
        let least = u16::from(director.worth.0 > 0);
        Share(u16::try_from(share).unwrap_or(SHARE_MAX).max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directors(loads: [u16; 3]) -> Vec<Director> {
        let node =
            |(number, load)| Director { node: NodeId(number), worth: Share(1000), load: LoadPermille(load) };
        (1..).zip(loads).map(node).collect()
    }

    fn at(period: u32) -> Timestamp {
        Timestamp::default() + PERIOD * period
    }

    #[test]
    fn loads_within_the_dead_band_move_nothing() {
        let mut shares = Shares::default();

        assert_eq!(shares.update(&directors([300, 400, 500]), at(1)), [Share(1000); 3]);
    }

    #[test]
    fn a_hot_director_gives_a_tenth_a_period_and_no_more_than_it_must() {
        let mut shares = Shares::default();

        let of_the_hot: Vec<u16> =
            (1..=4).map(|period| shares.update(&directors([900, 300, 300]), at(period))[0].0).collect();

        assert_eq!(of_the_hot, [900, 810, 729, 657]);
        assert_eq!(shares.update(&directors([520, 450, 450]), at(5))[0], Share(657));
    }

    #[test]
    fn nothing_moves_before_the_period_is_over() {
        let mut shares = Shares::default();
        shares.update(&directors([900, 300, 300]), at(1));

        let soon = shares.update(&directors([900, 300, 300]), at(1) + PERIOD / 2);

        assert_eq!(soon[0], Share(900));
    }

    #[test]
    fn a_director_that_has_cooled_down_gets_its_share_back() {
        let mut shares = Shares::default();
        (1..=8).for_each(|period| drop(shares.update(&directors([900, 300, 300]), at(period))));

        let back = (9..=30).map(|period| shares.update(&directors([50, 400, 400]), at(period))[0]);

        assert_eq!(back.last(), Some(Share(1000)));
    }

    #[test]
    fn no_figure_empties_a_node_and_a_node_without_worth_stays_without_slots() {
        let mut shares = Shares::default();
        let mut directors = directors([1000, 0, 0]);
        directors[2].worth = Share(0);

        let last = (1..=100).map(|period| shares.update(&directors, at(period))).last();

        assert_eq!(last, Some(vec![Share(200), Share(1000), Share(0)]));
    }
}
