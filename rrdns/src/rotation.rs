//! In which order addresses are named: by weight over time, exactly.

use crate::table::ServiceAddress;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;

/// What an address of weight 1 pays for being named first.
const STRIDE: u64 = 1 << 32;

/// From here on the accounts are reduced by what all have paid.
const PAID_MAX: u64 = 1 << 63;

/// Stride scheduling (Waldspurger and Weihl 1995, "Stride scheduling: deterministic proportional-share resource
/// management"): who has paid least is named next, and pays in inverse proportion to its weight.
///
/// Only the first address of an answer pays, as it is the one that most clients use. So first places are in proportion
/// to weights, with an error of at most one answer for each address; those that follow are the next in turn.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    addresses: Vec<ServiceAddress>,
    /// What each has paid, and its position in `addresses`.
    turns: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Rotation {
    /// Takes over a new set. Who was there keeps what it has paid; who is new begins with those that are next.
    pub fn replace(&mut self, addresses: Vec<ServiceAddress>) {
        let paid: BTreeMap<IpAddr, u64> = self
            .turns
            .iter()
            .map(|Reverse((paid, position))| (self.addresses[*position].address, *paid))
            .collect();
        let least = paid.values().copied().min().unwrap_or(0);
        let turn = |(position, entry): (usize, &ServiceAddress)| {
            // Relative to the least, so that nothing ever overflows.
            Reverse((paid.get(&entry.address).map_or(0, |own| own - least), position))
        };
        self.turns = addresses.iter().enumerate().map(turn).collect();
        self.addresses = addresses;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The next answer: up to `count` addresses into `answer`, the first of which has had its turn.
    pub fn take(&mut self, count: usize, answer: &mut Vec<ServiceAddress>) {
        answer.clear();
        let mut taken: Vec<Reverse<(u64, usize)>> = Vec::with_capacity(count.min(self.turns.len()));
        while taken.len() < count
            && let Some(turn) = self.turns.pop()
        {
            taken.push(turn);
        }
        if let Some(Reverse((paid, position))) = taken.first_mut() {
            *paid += STRIDE / u64::from(self.addresses[*position].weight.max(1));
        }
        for Reverse((_, position)) in &taken {
            answer.push(self.addresses[*position]);
        }
        let rebase = taken.first().is_some_and(|Reverse((paid, _))| *paid > PAID_MAX);
        self.turns.extend(taken);
        if rebase {
            self.replace(self.addresses.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(last: u8, weight: u32) -> ServiceAddress {
        ServiceAddress { address: Ipv4Addr::new(192, 0, 2, last).into(), weight, hot: false }
    }

    fn firsts(rotation: &mut Rotation, answers: u32, count: usize) -> BTreeMap<IpAddr, u32> {
        let (mut firsts, mut answer) = (BTreeMap::new(), Vec::new());
        for _ in 0..answers {
            rotation.take(count, &mut answer);
            *firsts.entry(answer[0].address).or_default() += 1;
        }
        firsts
    }

    #[test]
    fn weights_hold_within_two_percent_over_a_hundred_thousand_answers() {
        let weights = [1, 7, 100, 100, 100, 250, 3];
        for count in [1, 2, 5, 7] {
            let mut rotation = Rotation::default();
            rotation.replace(weights.iter().zip(1..).map(|(weight, last)| address(last, *weight)).collect());

            let firsts = firsts(&mut rotation, 100_000, count);

            let sum: u32 = weights.iter().sum();
            for (weight, last) in weights.iter().zip(1..) {
                let expected = 100_000.0 * f64::from(*weight) / f64::from(sum);
                let error = f64::from(firsts[&address(last, 0).address]) / expected - 1.0;
                assert!(error.abs() < 0.02, "weight {weight} of {count} addresses is off by {error}");
            }
        }
    }

    #[test]
    fn accounts_do_not_overflow() {
        let mut rotation = Rotation::default();
        rotation.replace(vec![address(1, 1), address(2, 1)]);
        rotation.turns = [Reverse((u64::MAX - 1, 0)), Reverse((PAID_MAX - STRIDE / 2, 1))].into();
        let mut answer = Vec::new();

        for _ in 0..4 {
            rotation.take(1, &mut answer);
        }

        assert!(rotation.turns.iter().all(|Reverse((paid, _))| *paid < PAID_MAX), "{:?}", rotation.turns);
    }

    #[test]
    fn a_weight_of_zero_counts_as_one() {
        let mut rotation = Rotation::default();
        rotation.replace(vec![address(1, 0), address(2, 1)]);

        let firsts = firsts(&mut rotation, 10, 1);

        assert_eq!(firsts.into_values().collect::<Vec<_>>(), [5, 5]);
    }

    #[test]
    fn an_answer_names_no_address_twice() {
        let mut rotation = Rotation::default();
        rotation.replace((1..=3).map(|last| address(last, 1)).collect());
        let mut answer = Vec::new();

        for _ in 0..100 {
            rotation.take(5, &mut answer);
            let mut named: Vec<IpAddr> = answer.iter().map(|entry| entry.address).collect();
            named.sort_unstable();
            named.dedup();
            assert_eq!(named.len(), 3);
        }
    }

    #[test]
    fn a_change_of_the_set_neither_floods_the_new_nor_starves_the_old() {
        let mut rotation = Rotation::default();
        rotation.replace(vec![address(1, 1), address(2, 1)]);
        firsts(&mut rotation, 100_000, 1);

        rotation.replace(vec![address(1, 1), address(2, 1), address(3, 1)]);
        let firsts = firsts(&mut rotation, 300, 1);

        assert!(firsts.values().all(|count| (99..=101).contains(count)), "{firsts:?}");
    }
}
