//! The figures: a table for people or one JSON object for programs.

use super::case::Case;
use super::throughput::Forwarding;
use dpr_model::ForwardingMethod;
use serde::Serialize;
use std::fmt;
use std::fs;

/// Promised: bytes of kernel memory for an established connection.
const BYTES_PER_ENTRY_MAX: u64 = 128;

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    kernel: String,
    /// Packets in a run.
    packets: u32,
    rounds: usize,
    cases: Vec<CaseResult>,
    /// Bytes of kernel memory for each connection that the table has room for.
    bytes_per_entry: Option<u64>,
    bytes_per_entry_max: u64,
    /// What goes through a director between namespaces.
    forwarding: Forwarding,
}

/// One case over all rounds.
#[derive(Clone, Debug, Serialize)]
struct CaseResult {
    case: String,
    /// Per packet beyond the empty program of the same round, nanoseconds.
    median_ns: u32,
    least_ns: u32,
    most_ns: u32,
    /// Promised for the median.
    promise_ns: Option<u32>,
}

impl Outcome {
    /// Judges rounds, each with the cost of every case in the order of [`Case::all`].
    pub(super) fn new(
        rounds: &[Vec<u32>],
        packets: u32,
        bytes_per_entry: Option<u64>,
        forwarding: Forwarding,
    ) -> Self {
        let cases = Case::all();
        let medians: Vec<u32> = (0..cases.len()).map(|nth| spread(rounds, nth)[1]).collect();
        let median_of = |wanted: Case| {
            cases.iter().position(|case| *case == wanted).map_or(0, |position| medians[position])
        };
        let results = cases.iter().enumerate().skip(1).map(|(nth, case)| {
            let [least_ns, median_ns, most_ns] = spread(rounds, nth);
            CaseResult {
                case: case.to_string(),
                median_ns,
                least_ns,
                most_ns,
                promise_ns: promise(*case, median_of),
            }
        });
        Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim_end()
                .to_owned(),
            packets,
            rounds: rounds.len(),
            cases: results.collect(),
            bytes_per_entry,
            bytes_per_entry_max: BYTES_PER_ENTRY_MAX,
            forwarding,
        }
    }
}

/// What a case may cost, by what the yardsticks of the same run cost (`docs/performance.md`).
fn promise(case: Case, median_of: impl Fn(Case) -> u32) -> Option<u32> {
    match case {
        Case::Known { method: ForwardingMethod::Ipip, flows: 1 } => {
            Some(median_of(Case::LookUp { flows: 1 }) + 40)
        }
        Case::Known { method: ForwardingMethod::Ipip, flows } => {
            Some(median_of(Case::LookUp { flows }) * 17 / 10)
        }
        Case::New { .. } | Case::Flood => Some(median_of(Case::Insert) * 5 / 2),
        Case::OtherService | Case::OtherHost => Some(10),
        Case::Empty | Case::LookUp { .. } | Case::Known { .. } | Case::Translated { .. } | Case::Insert => {
            None
        }
    }
}

/// Least, median and most of a case beyond the empty program of the same round.
fn spread(rounds: &[Vec<u32>], nth: usize) -> [u32; 3] {
    let mut sorted: Vec<u32> = rounds.iter().map(|round| round[nth].saturating_sub(round[0])).collect();
    sorted.sort_unstable();
    let at = |position: usize| sorted.get(position).copied().unwrap_or_default();
    [at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1))]
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Linux {}; {} rounds of {} packets; beyond an empty program\n",
            self.kernel, self.rounds, self.packets
        )?;
        writeln!(f, "{:<42} {:>10} {:>14} {:>10}", "case", "ns/packet", "least - most", "promise")?;
        for result in &self.cases {
            let spread = format!("{} - {}", result.least_ns, result.most_ns);
            let promise = match result.promise_ns {
                Some(promise) if result.median_ns <= promise => format!("{promise} kept"),
                Some(promise) => format!("{promise} BROKEN"),
                None => String::new(),
            };
            writeln!(f, "{:<42} {:>10} {spread:>14} {promise:>10}", result.case, result.median_ns)?;
        }
        match self.bytes_per_entry {
            Some(bytes) => {
                writeln!(f, "\n{bytes} bytes for a connection; promised are {}.", self.bytes_per_entry_max)
            }
            None => writeln!(f, "\nThis kernel does not say how much memory its maps take."),
        }?;
        write!(f, "\n{}", self.forwarding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_what_a_case_takes_beyond_the_empty_program_of_its_round() {
        let rounds = [vec![10, 30], vec![20, 90], vec![30, 50]];
        assert_eq!(spread(&rounds, 1), [20, 20, 70]);
    }
}
