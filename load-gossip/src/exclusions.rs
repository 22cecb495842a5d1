//! Which service addresses are kept out of DNS: known to every node, so that none of them has to remember alone.
//!
//! Every node tells every decision that it knows again and again, its own and others', a few in each datagram. So a
//! decision reaches nodes that restart or were cut off, from whoever is there. The latest decision about an address
//! counts (last writer wins). Those that took an address back are kept as well, or an old one would return.

use dpr_model::{Exclusion, NodeId};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;

/// Decisions that are remembered.
pub const EXCLUSIONS_MAX: usize = 64;

/// Decisions in one datagram.
pub(crate) const EXCLUSIONS_PER_DATAGRAM: usize = 4;

/// Decisions from beyond the year 10,000 are nobody's; with them nothing could ever be decided again.
pub(crate) const DECIDED_MS_MAX: u64 = 253_402_300_800_000;

/// Datagrams in a row that carry a decision which is news; a few of them may get lost.
const REPEATS: u8 = 3;

/// So many addresses are out that another one cannot be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{EXCLUSIONS_MAX} addresses are excluded already")]
pub struct TooManyExclusions;

/// The decisions that a node knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exclusions {
    known: BTreeMap<IpAddr, Known>,
    /// Whose turn was last.
    told: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    exclusion: Exclusion,
    /// Datagrams that have to carry it before its turn.
    repeats: u8,
}

impl Exclusions {
    /// An operator's decision on this node; it counts more than everything known about the address.
    pub(crate) fn decide(
        &mut self,
        address: IpAddr,
        excluded: bool,
        by: NodeId,
        unix_ms: u64,
    ) -> Result<(), TooManyExclusions> {
        let known_ms = self.known.get(&address).map_or(0, |known| known.exclusion.decided_ms);
        let decided_ms = unix_ms.max(known_ms.saturating_add(1));
        let exclusion = Exclusion { address, excluded, decided_ms, by };
        if self.learn(exclusion) || !excluded { Ok(()) } else { Err(TooManyExclusions) }
    }

    /// Takes in what somebody decided; says whether that is news.
    pub(crate) fn learn(&mut self, exclusion: Exclusion) -> bool {
        let is_news = match self.known.get(&exclusion.address) {
            Some(known) => exclusion.supersedes(&known.exclusion),
            None => self.known.len() < EXCLUSIONS_MAX || self.make_room(&exclusion),
        };
        if !is_news {
            return false;
        }
        self.known.insert(exclusion.address, Known { exclusion, repeats: REPEATS });
        true
    }

    /// Forgets the oldest decision that took an address back, unless the new one is no better.
    fn make_room(&mut self, exclusion: &Exclusion) -> bool {
        let lifted = self.known.values().filter(|known| !known.exclusion.excluded);
        let oldest = lifted.map(|known| known.exclusion).min_by_key(|lifted| lifted.decided_ms);
        match oldest {
            Some(oldest) if exclusion.excluded => self.known.remove(&oldest.address).is_some(),
            _ => false,
        }
    }

    /// What the next datagram tells: news first, then whoever waited longest.
    pub(crate) fn take(&mut self) -> Vec<Exclusion> {
        let mut taken: Vec<Exclusion> = Vec::new();
        for known in self.known.values_mut().filter(|known| known.repeats > 0) {
            if taken.len() == EXCLUSIONS_PER_DATAGRAM {
                return taken;
            }
            known.repeats -= 1;
            taken.push(known.exclusion);
        }
        let after = self.told.map_or(Bound::Unbounded, Bound::Excluded);
        let in_turn = self.known.range((after, Bound::Unbounded)).chain(&self.known);
        for (address, known) in in_turn.take(self.known.len()) {
            if taken.len() == EXCLUSIONS_PER_DATAGRAM {
                break;
            }
            self.told = Some(*address);
            if !taken.contains(&known.exclusion) {
                taken.push(known.exclusion);
            }
        }
        taken
    }

    /// Every decision, by address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Exclusion> {
        self.known.values().map(|known| &known.exclusion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn exclusion(last: u8, excluded: bool, decided_ms: u64, by: u32) -> Exclusion {
        Exclusion { address: address(last), excluded, decided_ms, by: NodeId(by) }
    }

    #[test]
    fn the_latest_decision_counts_in_whatever_order_they_arrive() {
        let decisions = [exclusion(1, true, 10, 1), exclusion(1, false, 20, 2), exclusion(1, true, 20, 1)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
            let mut exclusions = Exclusions::default();
            for at in order {
                exclusions.learn(decisions[at]);
            }
            assert_eq!(exclusions.iter().collect::<Vec<_>>(), [&decisions[1]]);
        }
    }

    #[test]
    fn a_decision_here_counts_more_than_one_from_a_clock_that_is_ahead() {
        let mut exclusions = Exclusions::default();
        exclusions.learn(exclusion(1, true, 9000, 2));

        exclusions.decide(address(1), false, NodeId(1), 5000).unwrap();

        assert_eq!(exclusions.iter().collect::<Vec<_>>(), [&exclusion(1, false, 9001, 1)]);
    }

    #[test]
    fn news_is_told_first_and_everything_in_turn() {
        let mut exclusions = Exclusions::default();
        for last in 1..=10 {
            exclusions.learn(exclusion(last, true, 1, 1));
        }
        for _ in 0..10 {
            exclusions.take();
        }

        exclusions.learn(exclusion(10, false, 2, 1));
        let next: Vec<Vec<Exclusion>> = (0..5).map(|_| exclusions.take()).collect();

        assert!(next[..3].iter().all(|told| told[0] == exclusion(10, false, 2, 1)), "{next:?}");
        let mut told: Vec<IpAddr> = next.concat().iter().map(|exclusion| exclusion.address).collect();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 10, "five datagrams have room for all");
    }

    #[test]
    fn when_there_is_no_room_the_oldest_that_is_back_is_forgotten_and_none_that_is_out() {
        let mut exclusions = Exclusions::default();
        for last in 0..64 {
            exclusions.learn(exclusion(last, last > 1, u64::from(last) + 1, 1));
        }

        assert!(exclusions.learn(exclusion(100, true, 500, 1)));
        assert!(exclusions.learn(exclusion(101, true, 500, 1)));
        assert_eq!(exclusions.decide(address(102), true, NodeId(1), 500), Err(TooManyExclusions));
        assert_eq!(exclusions.decide(address(103), false, NodeId(1), 500), Ok(()));
        assert_eq!(exclusions.iter().count(), EXCLUSIONS_MAX);
    }
}
