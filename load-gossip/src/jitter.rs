//! Jitter of the sending interval, so that nodes started together do not speak in chorus.

use std::time::Duration;

/// Seeded source of jitter: SplitMix64 (Steele, Lea, Flood 2014), good enough to spread datagrams and
/// never used for anything secret.
#[derive(Clone, Debug)]
pub(crate) struct Jitter {
    state: u64,
}

impl Jitter {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A duration between 90 % and 110 % of `interval`, evenly spread.
    pub(crate) fn around(&mut self, interval: Duration) -> Duration {
        let tenth_ns = u64::try_from(interval.as_nanos() / 10).unwrap_or(u64::MAX / 4);
        let offset_ns = self.next() % (2 * tenth_ns + 1);
        interval.saturating_sub(Duration::from_nanos(tenth_ns)) + Duration::from_nanos(offset_ns)
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_tenth_and_is_centred() {
        let mut jitter = Jitter::seeded(7);
        let interval = Duration::from_millis(100);

        let drawn: Vec<Duration> = (0..1000).map(|_| jitter.around(interval)).collect();

        assert!(drawn.iter().all(|d| (90..=110).contains(&d.as_millis())));
        let mean = drawn.iter().sum::<Duration>() / 1000;
        assert!((99..=101).contains(&mean.as_millis()));
    }
}
