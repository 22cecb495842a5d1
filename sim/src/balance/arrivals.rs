//! When connections arrive.

use fastrand::Rng;
use std::time::Duration;

/// An arrival process of a given mean rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ArrivalProcess {
    /// Independent clients.
    Poisson,
    /// Poisson in bursts, and nothing between them (an interrupted Poisson process).
    Bursty {
        /// Rate within a burst, as a multiple of the mean rate; above 1.
        factor: f64,
        /// Mean length of a burst; exponential.
        length: Duration,
    },
}

/// The arrivals of one run.
#[derive(Debug)]
pub(super) struct Arrivals {
    process: ArrivalProcess,
    /// Mean time between two arrivals while they arrive, seconds.
    gap_mean_s: f64,
    /// What is left of the burst, seconds.
    burst_left_s: f64,
}

impl Arrivals {
    pub(super) fn new(process: ArrivalProcess, per_s: f64) -> Self {
        let within_bursts = match process {
            ArrivalProcess::Poisson => 1.0,
            ArrivalProcess::Bursty { factor, .. } => factor.max(1.0),
        };
        Self { process, gap_mean_s: 1.0 / (per_s * within_bursts), burst_left_s: 0.0 }
    }

    /// Time until the next arrival.
    pub(super) fn next(&mut self, rng: &mut Rng) -> Duration {
        let mut gap_s = exponential(self.gap_mean_s, rng);
        if let ArrivalProcess::Bursty { factor, length } = self.process {
            let mut silence_s = 0.0;
            let mut within_s = gap_s;
            while within_s > self.burst_left_s {
                within_s -= self.burst_left_s;
                silence_s += exponential(length.as_secs_f64() * (factor.max(1.0) - 1.0), rng);
                self.burst_left_s = exponential(length.as_secs_f64(), rng);
            }
            self.burst_left_s -= within_s;
            gap_s += silence_s;
        }
        Duration::from_secs_f64(gap_s)
    }
}

/// An exponentially distributed number, by inversion.
pub(super) fn exponential(mean: f64, rng: &mut Rng) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

/// Cumulative shares in proportion to 1, 1/2^skew, 1/3^skew and so on.
pub(super) fn zipf(count: usize, skew: f64) -> Vec<f64> {
    let shares: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-skew)).collect();
    let total: f64 = shares.iter().sum();
    let mut sum = 0.0;
    shares
        .into_iter()
        .map(|share| {
            sum += share / total;
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and squared coefficient of variation of a thousand gaps at 1000 a second.
    fn mean_and_variation(process: ArrivalProcess) -> (f64, f64) {
        let (mut arrivals, mut rng) = (Arrivals::new(process, 1000.0), Rng::with_seed(7));
        let gaps: Vec<f64> = (0..200_000).map(|_| arrivals.next(&mut rng).as_secs_f64() * 1000.0).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, variance / mean.powi(2))
    }

    #[test]
    fn both_processes_keep_the_rate_and_only_one_has_bursts() {
        let (poisson_mean, poisson_variation) = mean_and_variation(ArrivalProcess::Poisson);
        let bursty = ArrivalProcess::Bursty { factor: 4.0, length: Duration::from_millis(10) };
        let (bursty_mean, bursty_variation) = mean_and_variation(bursty);

        assert!((poisson_mean - 1.0).abs() < 0.02 && (poisson_variation - 1.0).abs() < 0.05);
        assert!((bursty_mean - 1.0).abs() < 0.05, "{bursty_mean}");
        assert!(bursty_variation > 10.0, "{bursty_variation}");
    }
}
