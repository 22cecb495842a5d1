//! `dpr bench xdp`: what a packet costs in the kernel's programs.

mod case;
mod outcome;
mod path;
mod road;
mod throughput;

use super::in_turn;
use crate::cli::XdpBenchArgs;
use anyhow::{Context as _, bail};
use case::{Case, FLOWS, FLOWS_BY_OTHERS, NEW_FLOWS_TABLE, OTHER_METHODS, TABLE, TRANSLATED_FLOWS};
use dpr_director::PolicyKind;
use dpr_xdp::{Connections, Sizes, Subject, Yardsticks};
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
    let bytes_per_entry = bench.bytes_per_entry()?;
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
    lookups: Yardsticks,
    inserts: Yardsticks,
}

impl Bench {
    fn prepare() -> anyhow::Result<Self> {
        let most = *FLOWS.last().context("flows are measured")?;
        let sizes = Sizes { flows: TABLE, half_open: NEW_FLOWS_TABLE };
        let mut path = Path::prepare(sizes, Path::IN_TEST_RUNS)?;
        // An LRU hash evicts before it is full.
        let mut lookups = Yardsticks::load(2 * most)?;
        path.fill(&Case::known_flows(most))?;
        for method in OTHER_METHODS {
            path.fill(&Case::known_flows_by(method, FLOWS_BY_OTHERS[FLOWS_BY_OTHERS.len() - 1]))?;
        }
        path.fill_translated(&Case::translated_flows(TRANSLATED_FLOWS[TRANSLATED_FLOWS.len() - 1]))?;
        lookups.fill(&Case::known_flows(most))?;
        Ok(Self { path, lookups, inserts: Yardsticks::load(NEW_FLOWS_TABLE)? })
    }

    /// Every case once, in the order of [`Case::all`]; nanoseconds.
    fn round(&mut self, round: usize, packets: u32) -> anyhow::Result<Vec<u32>> {
        let cases = Case::all();
        in_turn(round, cases.len(), |nth| {
            self.measure(cases[nth], packets).with_context(|| format!("measuring {}", cases[nth]))
        })
    }

    fn measure(&mut self, case: Case, packets: u32) -> anyhow::Result<u32> {
        let walk = case.walk();
        let nanos = match case {
            Case::Empty => self.lookups.measure(Subject::Empty, &walk, packets),
            Case::LookUp { .. } => self.lookups.measure(Subject::LookUp, &walk, packets),
            Case::Insert => self.inserts.measure(Subject::Insert, &walk, packets),
            Case::Known { .. }
            | Case::Translated { .. }
            | Case::Flood
            | Case::OtherService
            | Case::OtherHost => {
                self.path.choose_by(PolicyKind::LocalEstimates, Floods::Recognised)?;
                self.lookups.measure(Subject::Path(&mut self.path.programs), &walk, packets)
            }
            Case::New { policy } => {
                self.path.choose_by(policy, Floods::Overlooked)?;
                self.lookups.measure(Subject::Path(&mut self.path.programs), &walk, packets)
            }
        };
        Ok(nanos?)
    }

    /// Memory of the table of established connections over IPv4 by the entries that it has room for.
    fn bytes_per_entry(&self) -> anyhow::Result<Option<u64>> {
        let [of_ipv4, _] = self.path.tables.memory_bytes(Connections::Flows)?;
        Ok(of_ipv4.map(|bytes| bytes / u64::from(TABLE)))
    }
}
