//! What was measured: a table for people or one JSON object for programs.

use super::super::spread::Spread;
use super::client::Measured;
use super::load::Load;
use super::road::Way;
use dpr_lab::Plane;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Promised for the kernel's programs: processor time of a new connection, in percent of a direct one's.
const CONNECTION_COST_MAX_PERCENT: u64 = 110;
/// Promised for the kernel's programs: requests per second on connections that stay, in percent of direct ones.
const REQUEST_RATE_MIN_PERCENT: u64 = 95;

/// One way in one round under one load.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// Done per second.
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Processor time of everything, for each.
    processor_us: f64,
}

impl Sample {
    /// `processor` is what was spent on all of it.
    pub(super) fn new(measured: Measured, processor: Duration) -> Self {
        let Measured { mut times, took } = measured;
        times.sort_unstable();
        let count = times.len().max(1) as f64;
        let quantile = |permille: usize| {
            let position = times.len().saturating_sub(1) * permille / 1000;
            times.get(position).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self {
            per_second: times.len() as f64 / took.as_secs_f64().max(1e-9),
            p50_us: quantile(500),
            p99_us: quantile(990),
            processor_us: processor.as_secs_f64() * 1e6 / count,
        }
    }
}

/// Under which a run took place.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Conditions {
    pub(super) kernel: String,
    pub(super) processors: usize,
    /// Whose processor time was counted.
    pub(super) counted: &'static str,
    /// Connections that clients had open at a time.
    pub(super) connections: u16,
    /// What was left out, and why.
    pub(super) left_out: Vec<String>,
}

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    #[serde(flatten)]
    conditions: Conditions,
    rounds: usize,
    results: Vec<WayResult>,
    promises: Vec<Promise>,
}

/// The figures of one way under one load.
#[derive(Clone, Debug, Serialize)]
struct WayResult {
    load: Load,
    way: Way,
    per_second: Spread,
    p50_us: Spread,
    p99_us: Spread,
    /// Processor time (user, system and softirq) of all that takes part, microseconds for each.
    processor_us: Spread,
    /// Done per second, in percent of the straight way in the same round.
    rate_percent: Spread,
    /// Processor time, in percent of the straight way in the same round.
    processor_percent: Spread,
}

/// What was promised (`docs/performance.md`).
#[derive(Clone, Debug, Serialize)]
struct Promise {
    what: &'static str,
    percent: u64,
    measured_percent: u64,
    kept: bool,
}

impl Outcome {
    /// Judges `rounds`, each by the order of `ways`, the straight one first, and of [`Load::ALL`].
    pub(super) fn new(
        ways: &[Way],
        rounds: &[Vec<[Sample; Load::ALL.len()]>],
        conditions: Conditions,
    ) -> Self {
        let mut results = Vec::new();
        for load in Load::ALL {
            for (nth, way) in ways.iter().enumerate() {
                let of = |figure: fn(&Sample) -> f64| {
                    Spread::of(rounds.iter().map(|round| figure(&round[nth][load as usize])))
                };
                let beside = |figure: fn(&Sample) -> f64| {
                    let in_round = |round: &Vec<[Sample; Load::ALL.len()]>| {
                        let [direct, this] = [0, nth].map(|way| figure(&round[way][load as usize]));
                        this * 100.0 / direct.max(1e-9)
                    };
                    Spread::of(rounds.iter().map(in_round))
                };
                results.push(WayResult {
                    load,
                    way: *way,
                    per_second: of(|sample| sample.per_second),
                    p50_us: of(|sample| sample.p50_us),
                    p99_us: of(|sample| sample.p99_us),
                    processor_us: of(|sample| sample.processor_us),
                    rate_percent: beside(|sample| sample.per_second),
                    processor_percent: beside(|sample| sample.processor_us),
                });
            }
        }
        let promises = promises(&results);
        Self { conditions, rounds: rounds.len(), results, promises }
    }
}

/// Made for the kernel's programs only; none where they were left out.
fn promises(results: &[WayResult]) -> Vec<Promise> {
    let by_programs = |load: Load| {
        results.iter().find(move |result| result.load == load && result.way == Way::Dpr(Plane::Xdp))
    };
    let cost = by_programs(Load::NewConnections).map(|result| {
        let measured_percent = result.processor_percent.median;
        Promise {
            what: "processor time of a new connection, at most",
            percent: CONNECTION_COST_MAX_PERCENT,
            measured_percent,
            kept: measured_percent <= CONNECTION_COST_MAX_PERCENT,
        }
    });
    let rate = by_programs(Load::KeepAlive).map(|result| {
        let measured_percent = result.rate_percent.median;
        Promise {
            what: "requests per second on connections that stay, at least",
            percent: REQUEST_RATE_MIN_PERCENT,
            measured_percent,
            kept: measured_percent >= REQUEST_RATE_MIN_PERCENT,
        }
    });
    cost.into_iter().chain(rate).collect()
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conditions { kernel, processors, counted, connections, left_out } = &self.conditions;
        writeln!(
            f,
            "Linux {kernel}, {processors} processors; {} rounds, {connections} connections at a time",
            self.rounds
        )?;
        writeln!(f, "Processor time counted: {counted}; programs between.")?;
        for load in Load::ALL {
            writeln!(
                f,
                "\n{:<24} {:>8} {:>8} {:>9} {:>9} {:>9} {:>16} {:>9}",
                load.label(),
                "1/s",
                "direct",
                "p50 µs",
                "p99 µs",
                "CPU µs",
                "least - most",
                "direct"
            )?;
            for result in self.results.iter().filter(|result| result.load == load) {
                let spread = format!("{} - {}", result.processor_us.least, result.processor_us.most);
                writeln!(
                    f,
                    "{:<24} {:>8} {:>6} % {:>9} {:>9} {:>9} {spread:>16} {:>7} %",
                    result.way.label(),
                    result.per_second.median,
                    result.rate_percent.median,
                    result.p50_us.median,
                    result.p99_us.median,
                    result.processor_us.median,
                    result.processor_percent.median,
                )?;
            }
        }
        for reason in left_out {
            writeln!(f, "\n{reason}")?;
        }
        for (nth, promise) in self.promises.iter().enumerate() {
            let verdict = if promise.kept { "kept" } else { "BROKEN" };
            let Promise { what, percent, measured_percent, .. } = promise;
            let gap = if nth == 0 { "\n" } else { "" };
            writeln!(f, "{gap}Promise, {what} {percent} % of direct: {measured_percent} %, {verdict}.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_judged_by_the_straight_one_of_the_same_round() {
        let sample = |per_second, processor_us| Sample { per_second, processor_us, ..Sample::default() };
        let round = |direct: f64| vec![[sample(direct, 50.0); 3], [sample(direct * 0.9, 60.0); 3]];
        let conditions = Conditions {
            kernel: String::new(),
            processors: 2,
            counted: "",
            connections: 1,
            left_out: Vec::new(),
        };

        let outcome =
            Outcome::new(&[Way::Direct, Way::Dpr(Plane::Xdp)], &[round(100.0), round(900.0)], conditions);

        let measured: Vec<(u64, bool)> =
            outcome.promises.iter().map(|promise| (promise.measured_percent, promise.kept)).collect();
        assert_eq!(measured, [(120, false), (90, false)]);
    }

    #[test]
    fn a_sample_has_its_median_and_its_slowest_hundredth() {
        let times = (1..=1000).rev().map(Duration::from_micros).collect();

        let sample = Sample::new(Measured { times, took: Duration::from_secs(2) }, Duration::from_millis(50));

        assert_eq!((sample.per_second, sample.processor_us), (500.0, 50.0));
        assert_eq!((sample.p50_us.round(), sample.p99_us.round()), (500.0, 990.0));
    }
}
