//! How many silent connections are asked about a second while there is time.

use dpr_model::Timestamp;

/// Questions a second that are not urgent: 42 kB a second, and as much for the answers. Of a million idle connections each is
/// asked about once in eight minutes, before it would be forgotten after fifteen.
const PER_SECOND: u64 = 2000;

const NANOS_PER_QUESTION: u64 = 1_000_000_000 / PER_SECOND;

/// A second's worth of questions that fills up again.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// When the last question that was allowed would have been asked at an even pace, nanoseconds.
    paid_until_ns: u64,
}

impl Allowance {
    /// Whether one more may be asked.
    pub(super) fn has_some(&self, now: Timestamp) -> bool {
        self.after_one(now) <= now.as_nanos()
    }

    /// One more is asked.
    pub(super) fn take(&mut self, now: Timestamp) {
        self.paid_until_ns = self.after_one(now);
    }

    fn after_one(&self, now: Timestamp) -> u64 {
        self.paid_until_ns.max(now.as_nanos().saturating_sub(1_000_000_000)) + NANOS_PER_QUESTION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_pause_a_second_s_worth_may_be_asked_and_then_no_more_than_the_rate() {
        let mut allowance = Allowance::default();
        let mut taken = |millis: u64| {
            let now = Timestamp::from_millis(1_000_000 + millis);
            let may = |allowance: &mut Allowance| {
                let has_some = allowance.has_some(now);
                if has_some {
                    allowance.take(now);
                }
                has_some
            };
            (0..10_000).filter(|_| may(&mut allowance)).count()
        };

        assert_eq!(taken(0), 2000);
        assert_eq!(taken(10), 20);
        assert_eq!(taken(60_000), 2000);
    }
}
