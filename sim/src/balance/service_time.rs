//! How long connections take.

use super::arrivals::exponential;
use fastrand::Rng;
use std::time::Duration;

/// The longest connection is this many times as long as the shortest one (bounded Pareto; Harchol-Balter, Crovella,
/// Murta 1999: "On choosing a task assignment policy for a distributed server system").
const PARETO_RATIO: f64 = 10_000.0;

/// A distribution of service times, by its mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ServiceTime {
    /// Memoryless.
    Exponential {
        /// Mean.
        mean: Duration,
    },
    /// Bounded Pareto: many short connections, and a few that make up much of the work.
    Pareto {
        /// Mean.
        mean: Duration,
        /// Exponent of the tail; above 1. Files on web servers have 1.1 to 1.5.
        shape: f64,
    },
}

impl ServiceTime {
    /// Mean.
    pub fn mean(self) -> Duration {
        match self {
            Self::Exponential { mean } | Self::Pareto { mean, .. } => mean,
        }
    }

    /// One service time.
    pub(super) fn draw(self, rng: &mut Rng) -> Duration {
        let drawn_s = match self {
            Self::Exponential { mean } => exponential(mean.as_secs_f64(), rng),
            Self::Pareto { mean, shape } => {
                let tail = PARETO_RATIO.powf(-shape);
                let mean_of_least_one =
                    shape / (shape - 1.0) * (1.0 - PARETO_RATIO.powf(1.0 - shape)) / (1.0 - tail);
                let least_s = mean.as_secs_f64() / mean_of_least_one;
                least_s * (1.0 - rng.f64() * (1.0 - tail)).powf(-1.0 / shape)
            }
        };
        // Nothing takes no time at all.
        Duration::from_secs_f64(drawn_s).max(Duration::from_nanos(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEAN: Duration = Duration::from_millis(100);

    fn drawn(service: ServiceTime) -> Vec<f64> {
        let mut rng = Rng::with_seed(3);
        (0..400_000).map(|_| service.draw(&mut rng).as_secs_f64() * 1000.0).collect()
    }

    #[test]
    fn distributions_have_the_mean_that_was_asked_for() {
        let services =
            [ServiceTime::Exponential { mean: MEAN }, ServiceTime::Pareto { mean: MEAN, shape: 1.5 }];
        for service in services {
            let times = drawn(service);
            let mean = times.iter().sum::<f64>() / times.len() as f64;
            assert!((95.0..105.0).contains(&mean), "{service:?}: {mean}");
        }
    }

    #[test]
    fn a_tenth_of_all_pareto_connections_is_half_of_the_work() {
        let mut times = drawn(ServiceTime::Pareto { mean: MEAN, shape: 1.2 });
        times.sort_by(f64::total_cmp);
        let longest: f64 = times[times.len() * 9 / 10..].iter().sum();
        let share = longest / times.iter().sum::<f64>();
        assert!(share > 0.5, "{share}");
    }
}
