//! The load index: one number per node, out of weighted metrics.

use dpr_model::{LoadPermille, Metric, MetricSample};
use std::collections::BTreeMap;

/// How much each metric says about load; a metric that is absent or has weight 0 says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricWeights(BTreeMap<Metric, u16>);

impl MetricWeights {
    /// Weights as configured; only their ratios matter, range 0 to 65,535 each.
    pub fn new(weights: BTreeMap<Metric, u16>) -> Self {
        Self(weights)
    }

    /// Weight of one metric.
    pub fn of(&self, metric: Metric) -> u16 {
        self.0.get(&metric).copied().unwrap_or(0)
    }
}

impl Default for MetricWeights {
    /// Connections and requests lead: they answer at once to what directors do, and in a container they
    /// are the node's own, while processor figures lag and may be the whole host's. Memory and disk have
    /// no weight: a full page cache is not load.
    fn default() -> Self {
        Self(BTreeMap::from([
            (Metric::Cpu, 3),
            (Metric::RunQueue, 1),
            (Metric::Connections, 4),
            (Metric::RequestsInFlight, 4),
        ]))
    }
}

/// Weighted mean of those samples that exist, rounded to the nearest permille.
///
/// A metric that could not be measured changes nothing, instead of counting as idle. Without any sample of
/// positive weight the index is 0: directors then balance by what they sent alone.
pub fn load_index(samples: &[MetricSample], weights: &MetricWeights) -> LoadPermille {
    let (mut sum, mut weight_sum) = (0_u64, 0_u64);
    for sample in samples {
        let weight = u64::from(weights.of(sample.metric));
        sum += weight * u64::from(sample.load.0);
        weight_sum += weight;
    }
    if weight_sum == 0 {
        return LoadPermille(0);
    }
    LoadPermille(u16::try_from((sum + weight_sum / 2) / weight_sum).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(metric: Metric, load: u16) -> MetricSample {
        MetricSample { metric, load: LoadPermille(load) }
    }

    #[test]
    fn the_index_is_the_weighted_mean() {
        let weights = MetricWeights::new(BTreeMap::from([(Metric::Cpu, 1), (Metric::Connections, 3)]));

        let index = load_index(&[sample(Metric::Cpu, 1000), sample(Metric::Connections, 200)], &weights);

        assert_eq!(index, LoadPermille(400));
    }

    #[test]
    fn a_metric_that_was_not_measured_changes_nothing() {
        let weights = MetricWeights::default();

        assert_eq!(load_index(&[sample(Metric::Cpu, 700)], &weights), LoadPermille(700));
        assert_eq!(
            load_index(&[sample(Metric::Cpu, 700), sample(Metric::Memory, 10)], &weights),
            LoadPermille(700)
        );
    }

    #[test]
    fn nothing_measured_is_idle_and_overload_is_not_cut_off() {
        let weights = MetricWeights::default();

        assert_eq!(load_index(&[], &weights), LoadPermille(0));
        assert_eq!(load_index(&[sample(Metric::Cpu, u16::MAX)], &weights), LoadPermille(u16::MAX));
    }
}
