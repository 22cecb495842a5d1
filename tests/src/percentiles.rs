//! How long something took, of so many.

use std::fmt;
use std::time::Duration;

/// Of a number of durations.
#[derive(Clone, Copy, Debug)]
pub struct Percentiles {
    /// How many.
    pub count: usize,
    /// Half of them took no longer.
    pub half: Duration,
    /// Nor did 99 of 100.
    pub most: Duration,
    /// Nor did any.
    pub longest: Duration,
}

impl Percentiles {
    /// Of these; all zero if there are none.
    pub fn of(samples: impl IntoIterator<Item = Duration>) -> Self {
        let mut samples: Vec<Duration> = samples.into_iter().collect();
        samples.sort_unstable();
        let at = |permille: usize| {
            let position = (samples.len() * permille / 1000).min(samples.len().saturating_sub(1));
            samples.get(position).copied().unwrap_or_default()
        };
        Self { count: samples.len(), half: at(500), most: at(990), longest: at(1000) }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, half, most, longest } = self;
        write!(f, "{count}, half within {half:.0?}, 99 % within {most:.0?}, longest {longest:.0?}")
    }
}
