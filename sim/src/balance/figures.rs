//! What a run is judged by.

use dpr_model::Capacity;
use std::time::Duration;

/// The figures of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Connections that were counted.
    pub connections: u64,
    /// Mean time from a connection's arrival at its director to its end.
    pub mean: Duration,
    /// Median of it.
    pub p50: Duration,
    /// Its 99th percentile.
    pub p99: Duration,
    /// Load of the most loaded node over the mean load of all, averaged over moments; 1 is perfect.
    pub max_over_mean: f64,
    /// Jain's index of fairness of the nodes' loads (Jain, Chiu, Hawe 1984), averaged over moments; 1 is perfect,
    /// 1/n is one node with everything.
    pub jain: f64,
    /// Share of connections that their director gave to another node.
    pub forwarded: f64,
}

/// Collects what [`Figures`] are made of.
#[derive(Debug, Default)]
pub(super) struct Observations {
    times: Vec<Duration>,
    decided: u64,
    forwarded: u64,
    moments: u64,
    max_over_mean_sum: f64,
    jain_sum: f64,
}

impl Observations {
    /// A connection's director has decided.
    pub(super) fn count_decision(&mut self, forwarded: bool) {
        self.decided += 1;
        self.forwarded += u64::from(forwarded);
    }

    /// A connection has ended.
    pub(super) fn count_end(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// How many connections every node has at this moment. A moment in which nobody has any says nothing.
    pub(super) fn count_moment(&mut self, nodes: impl Iterator<Item = (u64, Capacity)>) {
        let loads: Vec<f64> = nodes.map(|(open, capacity)| open as f64 / f64::from(capacity.get())).collect();
        let sum: f64 = loads.iter().sum();
        if sum == 0.0 {
            return;
        }
        let count = loads.len() as f64;
        let most = loads.iter().copied().fold(0.0, f64::max);
        self.moments += 1;
        self.max_over_mean_sum += most * count / sum;
        self.jain_sum += sum * sum / (count * loads.iter().map(|load| load * load).sum::<f64>());
    }

    pub(super) fn figures(mut self) -> Figures {
        self.times.sort_unstable();
        let count = self.times.len();
        let percentile = |percent: usize| match count {
            0 => Duration::ZERO,
            _ => self.times[(count * percent / 100).min(count - 1)],
        };
        let total: Duration = self.times.iter().sum();
        let moments = self.moments.max(1) as f64;
        Figures {
            connections: count as u64,
            mean: total.div_f64(count.max(1) as f64),
            p50: percentile(50),
            p99: percentile(99),
            max_over_mean: self.max_over_mean_sum / moments,
            jain: self.jain_sum / moments,
            forwarded: self.forwarded as f64 / self.decided.max(1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_with_everything_is_as_unfair_as_it_gets() {
        let mut observations = Observations::default();
        let capacity = Capacity::new(10);
        observations.count_moment([(40, capacity), (0, capacity), (0, capacity), (0, capacity)].into_iter());
        observations.count_moment([(0, capacity); 4].into_iter());

        let figures = observations.figures();

        assert_eq!((figures.max_over_mean, figures.jain), (4.0, 0.25));
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let mut observations = Observations::default();
        for ms in (1..=200).rev() {
            observations.count_end(Duration::from_millis(ms));
        }

        let figures = observations.figures();

        assert_eq!((figures.p50.as_millis(), figures.p99.as_millis()), (101, 199));
        assert_eq!(figures.mean, Duration::from_micros(100_500));
    }
}
