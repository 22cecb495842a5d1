//! Which acknowledgements ("so many connections received from that director") go into the next datagram.
//!
//! Every byte of a report costs all of its receivers, and most counts are known to those whom they are for. So a datagram
//! carries counts that changed, each three times, as datagrams get lost, and a few of the others in turn. Where more
//! change than there is room for (a datagram has room for some dozens, a cluster may have thousands of directors), half
//! of it goes to the freshest changes, as their directors wait for them; the other half to whoever waited longest. So
//! every count is repeated within `ceil(count / 4)` datagrams, however many others change, and a lost datagram only
//! delays.

use dpr_model::{Incarnation, NodeId, ReceivedFrom};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Datagrams in a row that carry a count which changed.
const REPEATS: u8 = 3;
/// Counts beside them that a datagram carries because it is their turn.
const IN_TURN: usize = 4;

type Director = (NodeId, Incarnation);

#[derive(Clone, Debug)]
pub(crate) struct Acknowledgements {
    by_director: BTreeMap<Director, Entry>,
    /// Number of the next datagram, from 1.
    round: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    connections: u64,
    /// First round that can carry the present count.
    changed: u64,
    /// Datagrams that have to carry it before its turn.
    repeats: u8,
    /// Last round that carried this entry; 0 for none.
    sent: u64,
}

impl Acknowledgements {
    pub(crate) fn new() -> Self {
        Self { by_director: BTreeMap::new(), round: 1 }
    }

    /// Takes over the counts of a new report; directors that it no longer names are dropped.
    pub(crate) fn update(&mut self, received: &[ReceivedFrom]) {
        let round = self.round;
        self.by_director = received
            .iter()
            .map(|count| {
                let director = (count.director, count.incarnation);
                let entry = match self.by_director.get(&director) {
                    Some(known) if known.connections == count.connections => *known,
                    known => Entry {
                        connections: count.connections,
                        changed: round,
                        repeats: REPEATS,
                        sent: known.map_or(0, |known| known.sent),
                    },
                };
                (director, entry)
            })
            .collect();
    }

    /// The acknowledgements for the next datagram, at most `room`.
    pub(crate) fn take(&mut self, room: usize) -> Vec<ReceivedFrom> {
        let changed = self.changed().count();
        let (of_changed, in_turn) =
            if changed + IN_TURN <= room { (changed, IN_TURN) } else { (room.div_ceil(2), room / 2) };
        let mut chosen = self.freshest(of_changed);
        self.mark_sent(&chosen);
        let waiting = self.longest_waiting(in_turn);
        self.mark_sent(&waiting);
        chosen.extend(waiting);
        self.round += 1;
        chosen.iter().map(|director| self.acknowledgement(director)).collect()
    }

    fn changed(&self) -> impl Iterator<Item = (&Director, &Entry)> {
        self.by_director.iter().filter(|(_, entry)| entry.repeats > 0)
    }

    fn freshest(&self, room: usize) -> Vec<Director> {
        first_by(self.changed(), room, |entry| (Reverse(entry.changed), entry.sent))
    }

    fn longest_waiting(&self, room: usize) -> Vec<Director> {
        let waiting = self.by_director.iter().filter(|(_, entry)| entry.sent != self.round);
        first_by(waiting, room, |entry| entry.sent)
    }

    fn mark_sent(&mut self, directors: &[Director]) {
        for director in directors {
            if let Some(entry) = self.by_director.get_mut(director) {
                entry.sent = self.round;
                entry.repeats = entry.repeats.saturating_sub(1);
            }
        }
    }

    fn acknowledgement(&self, director: &Director) -> ReceivedFrom {
        let connections = self.by_director.get(director).map_or(0, |entry| entry.connections);
        ReceivedFrom { director: director.0, incarnation: director.1, connections }
    }
}

/// The first `room` directors in the order of `rank`, then of their ids.
fn first_by<'a, R: Ord>(
    entries: impl Iterator<Item = (&'a Director, &'a Entry)>,
    room: usize,
    rank: impl Fn(&Entry) -> R,
) -> Vec<Director> {
    if room == 0 {
        return Vec::new();
    }
    let mut ranked: Vec<(R, Director)> = entries.map(|(director, entry)| (rank(entry), *director)).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(room).map(|(_, director)| director).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn count(director: u32, connections: u64) -> ReceivedFrom {
        ReceivedFrom { director: NodeId(director), incarnation: Incarnation(1), connections }
    }

    fn directors(taken: &[ReceivedFrom]) -> BTreeSet<u32> {
        taken.iter().map(|count| count.director.0).collect()
    }

    #[test]
    fn a_few_counts_are_in_every_datagram() {
        let mut queue = Acknowledgements::new();
        queue.update(&[count(1, 5), count(2, 6)]);

        for _ in 0..10 {
            assert_eq!(directors(&queue.take(10)), BTreeSet::from([1, 2]));
        }
    }

    #[test]
    fn what_did_not_change_is_told_in_turn_by_datagrams_that_stay_short() {
        let mut queue = Acknowledgements::new();
        let counts: Vec<ReceivedFrom> = (0..40).map(|director| count(director, 1)).collect();
        queue.update(&counts);
        for _ in 0..3 {
            assert_eq!(queue.take(50).len(), 40, "news");
        }

        let mut seen = BTreeSet::new();
        for _ in 0..10 {
            let taken = queue.take(50);
            assert_eq!(taken.len(), 4);
            seen.extend(directors(&taken));
        }

        assert_eq!(seen.len(), 40);
    }

    #[test]
    fn a_count_that_changed_goes_first() {
        let mut queue = Acknowledgements::new();
        let mut counts: Vec<ReceivedFrom> = (0..100).map(|director| count(director, 1)).collect();
        queue.update(&counts);
        for _ in 0..30 {
            queue.take(10);
        }

        counts[77].connections = 2;
        queue.update(&counts);

        assert_eq!(queue.take(10)[0], count(77, 2));
    }

    #[test]
    fn unchanged_counts_get_through_while_all_others_change() {
        let mut queue = Acknowledgements::new();
        let mut seen = BTreeSet::new();
        for round in 0..20 {
            let counts: Vec<ReceivedFrom> =
                (0..100).map(|director| count(director, if director < 50 { round } else { 7 })).collect();
            queue.update(&counts);

            let taken = queue.take(10);

            assert_eq!(directors(&taken).len(), 10);
            seen.extend(directors(&taken));
        }
        assert_eq!(seen.len(), 100);
    }

    #[test]
    fn directors_that_a_report_no_longer_names_are_dropped() {
        let mut queue = Acknowledgements::new();
        queue.update(&[count(1, 5), count(2, 6)]);
        queue.update(&[count(2, 6)]);

        assert_eq!(queue.take(10), [count(2, 6)]);
    }
}
