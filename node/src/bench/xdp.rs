//! `dpr bench xdp`: what a packet costs in the kernel's programs.

mod case;
mod memory;
mod outcome;
mod path;
mod road;
mod throughput;

use super::in_turn;
use crate::cli::XdpBenchArgs;
use anyhow::{Context as _, bail};
use case::{
    Case, FLOWS, FLOWS_BY_OTHERS, Kind, NEW_FLOWS_TABLE, OTHER_METHODS, TABLE, TRANSLATED_FLOWS, known_flows,
};
use dpr_director::PolicyKind;
use dpr_model::ForwardingMethod;
use dpr_rewrite::Version;
use dpr_xdp::{Sizes, Subject, Yardsticks};
use outcome::Outcome;
use path::{Floods, Path};

/// Runs the benchmark.
///
/// # Errors
/// It is not run as root, the kernel refuses the programs, or a program does not do what it is measured at.
pub(super) fn run(args: &XdpBenchArgs) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the kernel lets only root load its programs: run `sudo dpr bench xdp`");
    }
    let mut bench = Bench::prepare()?;
    let mut rounds = Vec::new();
    for round in 0..usize::from(args.rounds) {
        rounds.push(bench.round(round, args.packets)?);
    }
    let bytes_per_entry = bench.bytes_per_entry;
    drop(bench);
    let forwarding = throughput::measure(args)?;
    let outcome = Outcome::new(&rounds, args.packets, bytes_per_entry, forwarding);
    match args.json {
        true => println!("{}", serde_json::to_string(&outcome).context("writing the result as JSON")?),
        false => print!("{outcome}"),
    }
    Ok(())
}

struct Bench {
    path: Path,
    /// The same between nodes with addresses of IPv6, with fewer flows.
    between_v6: Path,
    lookups: Yardsticks,
    inserts: Yardsticks,
    /// Kernel memory for an established connection over IPv4 and over IPv6, if the kernel says so.
    bytes_per_entry: [Option<u64>; 2],
}

impl Bench {
    fn prepare() -> anyhow::Result<Self> {
        let by_ipip = |version, flows| known_flows(version, ForwardingMethod::Ipip, flows);
        let [most, most_by_others, most_translated] = [
            FLOWS[FLOWS.len() - 1],
            FLOWS_BY_OTHERS[FLOWS_BY_OTHERS.len() - 1],
            TRANSLATED_FLOWS[TRANSLATED_FLOWS.len() - 1],
        ];
        let sizes = Sizes { flows: TABLE, half_open: NEW_FLOWS_TABLE };
        let mut path = Path::prepare(Version::V4, sizes, Path::IN_TEST_RUNS)?;
        // Before anything else of that version.
        let bytes_per_entry = memory::bytes_per_entry(&mut path, &by_ipip(Version::V6, most), TABLE)?;
        path.fill(&by_ipip(Version::V4, most))?;
        for method in OTHER_METHODS {
            path.fill(&known_flows(Version::V4, method, most_by_others))?;
        }
        path.fill_translated(&known_flows(Version::V4, ForwardingMethod::Nat, most_translated))?;
        let sizes = Sizes { flows: 2 * most_by_others, half_open: 1 };
        let mut between_v6 = Path::prepare(Version::V6, sizes, Path::IN_TEST_RUNS)?;
        // An LRU hash evicts before it is full.
        let mut lookups = Yardsticks::load(most + most / 8)?;
        // One table for all connections, as a director with nothing else would have it.
        let mut inserts = Yardsticks::load(most)?;
        for version in [Version::V4, Version::V6] {
            between_v6.fill(&by_ipip(version, most_by_others))?;
            lookups.fill(&by_ipip(version, most))?;
            inserts.fill(&by_ipip(version, most))?;
        }
        Ok(Self { path, between_v6, lookups, inserts, bytes_per_entry })
    }

    /// Every case once, in the order of [`Case::all`]; nanoseconds.
    fn round(&mut self, round: usize, packets: u32) -> anyhow::Result<Vec<u32>> {
        let cases = Case::all();
        in_turn(round, cases.len(), |nth| {
            self.measure(cases[nth], packets).with_context(|| format!("measuring {}", cases[nth].kind))
        })
    }

    fn measure(&mut self, case: Case, packets: u32) -> anyhow::Result<u32> {
        let walk = case.walk();
        let subject = match case.kind {
            Kind::Empty => Subject::Empty,
            Kind::LookUp { .. } => Subject::LookUp,
            Kind::Insert => return Ok(self.inserts.measure(Subject::Insert, &walk, packets)?),
            Kind::KnownBetweenV6 { .. } => Subject::Path(&mut self.between_v6.programs),
            Kind::Known { .. }
            | Kind::Translated { .. }
            | Kind::Flood
            | Kind::OtherService
            | Kind::OtherHost => {
                self.path.choose_by(PolicyKind::LocalEstimates, Floods::Recognised)?;
                Subject::Path(&mut self.path.programs)
            }
            Kind::New { policy } => {
                self.path.choose_by(policy, Floods::Overlooked)?;
                Subject::Path(&mut self.path.programs)
            }
        };
        Ok(self.lookups.measure(subject, &walk, packets)?)
    }
}
