//! What several rounds say of one figure.

use serde::Serialize;

/// Median and extremes over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Spread {
    pub(super) median: u64,
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Spread {
    /// Rounded; what is below nothing is noise, and shown as nothing. All zero without values.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |position: usize| sorted.get(position).map_or(0, |value| value.max(0.0).round() as u64);
        Self { median: at(sorted.len() / 2), least: at(0), most: at(sorted.len().saturating_sub(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_rounds_is_what_counts() {
        let spread = Spread::of([7.4, -3.0, 900.0].into_iter());

        assert_eq!(spread, Spread { median: 7, least: 0, most: 900 });
        assert_eq!(Spread::of([].into_iter()), Spread { median: 0, least: 0, most: 0 });
    }
}
