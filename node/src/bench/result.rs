//! What was measured: a table for people or one JSON object for programs.

use super::lane::Way;
use super::spread::Spread;
use serde::Serialize;
use std::fmt;

/// Promised for the user-space plane, nanoseconds of processor time per forwarded packet (`docs/performance.md`).
pub(super) const PROMISE_NS: u64 = 3000;

/// One lane in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Processor time of everything per packet that reached the sink, nanoseconds.
    pub(super) total_ns: f64,
    /// Of that, the data plane's thread.
    pub(super) data_plane_ns: f64,
}

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) kernel: String,
    pub(super) processors: usize,
    /// Whose processor time was counted.
    pub(super) counted: &'static str,
    /// Packets per second that the source sent.
    pub(super) rate: u32,
    /// Bytes of data in each.
    pub(super) payload_len: u16,
    pub(super) rounds: usize,
    /// What source, one cable and sink cost; taken off below.
    wire_ns: Spread,
    pub(super) ways: Vec<WayResult>,
    promise_ns: u64,
    /// Whether the user-space plane keeps it.
    promise_kept: bool,
    /// What was left out, and why.
    pub(super) left_out: Vec<String>,
}

/// The figures of one way.
#[derive(Clone, Debug, Serialize)]
pub(super) struct WayResult {
    way: Way,
    /// Processor time per forwarded packet (user, system and softirq) beyond the wire's, nanoseconds.
    cost_ns: Spread,
    /// Of that, on the data plane's thread, nanoseconds; for the user-space plane only.
    data_plane_ns: Option<u64>,
    /// Packets that the source sent and the sink did not get, permille.
    lost_permille: f64,
}

impl Outcome {
    /// Judges `rounds`: in each, the wire first and then every other way, in the order of `ways`.
    pub(super) fn new(ways: &[Way], rounds: &[Vec<Sample>], conditions: Conditions) -> Self {
        let column = |nth: usize| rounds.iter().map(move |round| round[nth]);
        let wire_ns = Spread::of(column(0).map(|sample| sample.total_ns));
        let results: Vec<WayResult> = ways
            .iter()
            .enumerate()
            .skip(1)
            .map(|(nth, way)| {
                let pairs = column(0).zip(column(nth));
                let (sent, received) =
                    column(nth).fold((0, 0), |sum, sample| (sum.0 + sample.sent, sum.1 + sample.received));
                let data_plane = Spread::of(column(nth).map(|sample| sample.data_plane_ns)).median;
                WayResult {
                    way: *way,
                    cost_ns: Spread::of(pairs.map(|(wire, sample)| sample.total_ns - wire.total_ns)),
                    data_plane_ns: (*way == Way::Userspace).then_some(data_plane),
                    lost_permille: (sent.saturating_sub(received)) as f64 * 1000.0 / sent.max(1) as f64,
                }
            })
            .collect();
        let promise_kept =
            results.iter().any(|result| result.way == Way::Userspace && result.cost_ns.median <= PROMISE_NS);
        Self {
            kernel: conditions.kernel,
            processors: conditions.processors,
            counted: conditions.counted,
            rate: conditions.rate,
            payload_len: conditions.payload_len,
            rounds: rounds.len(),
            wire_ns,
            ways: results,
            promise_ns: PROMISE_NS,
            promise_kept,
            left_out: conditions.left_out,
        }
    }
}

/// Under which a run took place.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    pub(super) kernel: String,
    pub(super) processors: usize,
    pub(super) counted: &'static str,
    pub(super) rate: u32,
    pub(super) payload_len: u16,
    pub(super) left_out: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Linux {}, {} processors; {} rounds, {} packets/s with {} bytes of data",
            self.kernel, self.processors, self.rounds, self.rate, self.payload_len
        )?;
        writeln!(f, "Processor time counted: {}.\n", self.counted)?;
        writeln!(
            f,
            "{:<18} {:>10} {:>18} {:>12} {:>9}",
            "way", "ns/packet", "least - most", "data plane", "lost"
        )?;
        let row = |f: &mut fmt::Formatter<'_>,
                   name: &str,
                   spread: Spread,
                   plane: Option<u64>,
                   lost: Option<f64>| {
            writeln!(
                f,
                "{name:<18} {:>10} {:>18} {:>12} {:>9}",
                spread.median,
                format!("{} - {}", spread.least, spread.most),
                plane.map_or_else(String::new, |plane| plane.to_string()),
                lost.map_or_else(String::new, |lost| format!("{lost:.1} ‰")),
            )
        };
        row(f, "source and sink", self.wire_ns, None, None)?;
        for result in &self.ways {
            row(f, result.way.label(), result.cost_ns, result.data_plane_ns, Some(result.lost_permille))?;
        }
        for reason in &self.left_out {
            writeln!(f, "{reason}")?;
        }
        let verdict = if self.promise_kept { "kept" } else { "broken" };
        writeln!(f, "\nPromise of the user-space plane, at most {} ns: {verdict}.", self.promise_ns)
    }
}
