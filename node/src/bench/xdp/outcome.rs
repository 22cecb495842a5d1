//! The figures: a table for people or one JSON object for programs.

use super::case::{Case, Kind};
use super::throughput::Forwarding;
use dpr_model::ForwardingMethod;
use dpr_rewrite::Version;
use serde::Serialize;
use std::fmt;
use std::fs;

/// Promised: bytes of kernel memory for an established connection over IPv4, and over IPv6.
const BYTES_PER_ENTRY_MAX: [u64; 2] = [128, 160];

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    kernel: String,
    /// Packets in a run.
    packets: u32,
    rounds: usize,
    cases: Vec<CaseResult>,
    /// What an established connection takes, over IPv4 and over IPv6.
    entries: [EntryResult; 2],
    /// What goes through a director between namespaces.
    forwarding: Forwarding,
}

/// One case over all rounds.
#[derive(Clone, Debug, Serialize)]
struct CaseResult {
    /// 4 or 6.
    ip_version: u8,
    case: String,
    /// Per packet beyond the empty program of the same round, nanoseconds.
    median_ns: u32,
    least_ns: u32,
    most_ns: u32,
    /// Promised for the median.
    promise_ns: Option<u32>,
}

/// Kernel memory of one entry.
#[derive(Clone, Debug, Serialize)]
struct EntryResult {
    /// 4 or 6.
    ip_version: u8,
    /// `None` where the kernel does not say.
    bytes: Option<u64>,
    /// Promised.
    bytes_max: u64,
}

impl Outcome {
    /// Judges rounds, each with the cost of every case in the order of [`Case::all`].
    pub(super) fn new(
        rounds: &[Vec<u32>],
        packets: u32,
        bytes_per_entry: [Option<u64>; 2],
        forwarding: Forwarding,
    ) -> Self {
        let cases = Case::all();
        let spreads: Vec<[u32; 3]> = (0..cases.len()).map(|nth| spread(rounds, &cases, nth)).collect();
        let median_of = |wanted: Case| {
            cases.iter().position(|case| *case == wanted).map_or(0, |position| spreads[position][1])
        };
        let results = cases.iter().zip(&spreads).filter(|(case, _)| case.kind != Kind::Empty);
        let results = results.map(|(case, [least_ns, median_ns, most_ns])| CaseResult {
            ip_version: number_of(case.version),
            case: case.kind.to_string(),
            median_ns: *median_ns,
            least_ns: *least_ns,
            most_ns: *most_ns,
            promise_ns: promise(*case, median_of),
        });
        let entry = |nth: usize| EntryResult {
            ip_version: number_of([Version::V4, Version::V6][nth]),
            bytes: bytes_per_entry[nth],
            bytes_max: BYTES_PER_ENTRY_MAX[nth],
        };
        Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim_end()
                .to_owned(),
            packets,
            rounds: rounds.len(),
            cases: results.collect(),
            entries: [entry(0), entry(1)],
            forwarding,
        }
    }
}

/// What is said of a promise.
pub(super) fn word(is_kept: bool) -> &'static str {
    if is_kept { "kept" } else { "BROKEN" }
}

fn number_of(version: Version) -> u8 {
    match version {
        Version::V4 => 4,
        Version::V6 => 6,
    }
}

/// What a case may cost, by what the yardsticks of the same version cost in the same run (`docs/performance.md`).
fn promise(case: Case, median_of: impl Fn(Case) -> u32) -> Option<u32> {
    let beside = |kind| median_of(Case { kind, ..case });
    match case.kind {
        Kind::Known { method: ForwardingMethod::Ipip, flows: 1 } | Kind::KnownBetweenV6 { flows: 1 } => {
            Some(beside(Kind::LookUp { flows: 1 }) + 40)
        }
        Kind::Known { method: ForwardingMethod::Ipip, flows } => {
            Some(beside(Kind::LookUp { flows }) * 17 / 10)
        }
        Kind::New { .. } | Kind::Flood => Some(beside(Kind::Insert) * 5 / 2),
        Kind::OtherService | Kind::OtherHost => Some(10),
        // Between nodes of IPv6 the table is smaller than the yardstick's.
        Kind::Empty
        | Kind::LookUp { .. }
        | Kind::Known { .. }
        | Kind::KnownBetweenV6 { .. }
        | Kind::Translated { .. }
        | Kind::Insert => None,
    }
}

/// Least, median and most of a case beyond the empty program about the same packets in the same round.
fn spread(rounds: &[Vec<u32>], cases: &[Case], nth: usize) -> [u32; 3] {
    let empty = cases.iter().position(|case| *case == cases[nth].empty()).unwrap_or(nth);
    let mut sorted: Vec<u32> = rounds.iter().map(|round| round[nth].saturating_sub(round[empty])).collect();
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
        writeln!(
            f,
            "{:<42} {:>4} {:>10} {:>14} {:>10}",
            "case", "IP", "ns/packet", "least - most", "promise"
        )?;
        for result in &self.cases {
            let spread = format!("{} - {}", result.least_ns, result.most_ns);
            let promise =
                result.promise_ns.map(|promise| format!("{promise} {}", word(result.median_ns <= promise)));
            let promise = promise.unwrap_or_default();
            let CaseResult { case, ip_version, median_ns, .. } = result;
            writeln!(f, "{case:<42} {ip_version:>4} {median_ns:>10} {spread:>14} {promise:>10}")?;
        }
        f.write_str("\n")?;
        for EntryResult { ip_version, bytes, bytes_max } in &self.entries {
            match bytes {
                Some(bytes) => writeln!(
                    f,
                    "{bytes} bytes for a connection over IPv{ip_version}; promised are {bytes_max} at most: {}.",
                    word(*bytes <= *bytes_max)
                ),
                None => {
                    writeln!(f, "This kernel does not say how much memory its maps of IPv{ip_version} take.")
                }
            }?;
        }
        write!(f, "\n{}", self.forwarding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_what_a_case_takes_beyond_the_empty_program_about_its_packets_in_its_round() {
        let case = |version, kind| Case { version, kind };
        let cases = [
            case(Version::V4, Kind::Empty),
            case(Version::V4, Kind::Insert),
            case(Version::V6, Kind::Empty),
            case(Version::V6, Kind::Insert),
        ];
        let rounds = [vec![10, 30, 20, 30], vec![20, 90, 20, 35], vec![30, 50, 20, 45]];
        assert_eq!(spread(&rounds, &cases, 1), [20, 20, 70]);
        assert_eq!(spread(&rounds, &cases, 3), [10, 15, 25]);
    }
}
