//! Slow start: a node whose caches are cold gets a tenth of its weight first, then more.

use dpr_model::{Timestamp, Weight};
use std::time::Duration;

/// Since when a peer may be chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlowStart {
    since: Timestamp,
    /// Time that it had been up before this node first heard of it.
    credit: Duration,
}

impl SlowStart {
    pub(crate) fn beginning(now: Timestamp, credit: Duration) -> Self {
        Self { since: now, credit }
    }

    /// `full` lowered to between 10 % and 100 %, linear over `length`; what is not zero stays above zero.
    pub(crate) fn weight(&self, full: Weight, length: Duration, now: Timestamp) -> Weight {
        let elapsed = now.since(self.since).saturating_add(self.credit);
        if elapsed >= length {
            return full;
        }
        let percent = 10 + 90 * elapsed.as_nanos() / length.as_nanos().max(1);
        let lowered = (u128::from(full.0) * percent).div_ceil(100);
        Weight(u16::try_from(lowered).unwrap_or(full.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(3);

    fn weight_after(millis: u64, full: u16) -> u16 {
        let start = SlowStart::beginning(Timestamp::from_millis(1000), Duration::ZERO);
        start.weight(Weight(full), LENGTH, Timestamp::from_millis(1000 + millis)).0
    }

    #[test]
    fn weight_rises_linearly_from_a_tenth() {
        assert_eq!([0, 1000, 1500, 3000, 9000].map(|t| weight_after(t, 100)), [10, 40, 55, 100, 100]);
    }

    #[test]
    fn a_small_weight_does_not_vanish_and_zero_stays_zero() {
        assert_eq!(weight_after(0, 1), 1);
        assert_eq!(weight_after(0, 0), 0);
        assert_eq!(weight_after(0, u16::MAX), 6554);
    }

    #[test]
    fn time_up_before_it_was_heard_counts_and_zero_length_is_off() {
        let start = SlowStart::beginning(Timestamp::default(), Duration::from_secs(2));

        assert_eq!(start.weight(Weight(100), LENGTH, Timestamp::from_millis(1000)), Weight(100));
        let cold = SlowStart::beginning(Timestamp::default(), Duration::ZERO);
        assert_eq!(cold.weight(Weight(100), Duration::ZERO, Timestamp::default()), Weight(100));
    }
}
