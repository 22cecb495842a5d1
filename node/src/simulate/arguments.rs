//! The command line of `dpr simulate`, and the experiments that it stands for.

use clap::ValueEnum;
use dpr_model::{Capacity, LoadPermille};
use dpr_sim::NODES_MAX;
use dpr_sim::balance::{ArrivalProcess, Experiment, Method, Resolvers, ServiceTime};
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `dpr simulate`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SimulateArgs {
    /// How connections find their real servers; one run for each. `rr-dns` forwards nothing, `wlc` is least connections
    /// by somebody who knows everything: no cluster has it, it is the reference.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_enum, default_values_t = PolicyName::ALL)]
    policy: Vec<PolicyName>,
    /// Milliseconds between load reports; one run for each and each policy that needs reports.
    #[arg(long, value_name = "MS", value_delimiter = ',', default_value = "100", value_parser = clap::value_parser!(u32).range(10..=10_000))]
    interval_ms: Vec<u32>,
    /// Nodes of the cluster.
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    nodes: u32,
    /// Connections that a node works on at full speed; of several values, nodes take turns.
    #[arg(long, value_name = "CONNECTIONS", value_delimiter = ',', default_value = "20", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    capacities: Vec<u32>,
    /// All work that arrives, in percent of all capacity.
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..=200))]
    load: u32,
    /// How connections arrive.
    #[arg(long, value_enum, default_value_t = ArrivalName::Poisson)]
    arrivals: ArrivalName,
    /// Rate within a burst in multiples of the mean rate, for bursty arrivals.
    #[arg(long, value_name = "TIMES", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=100))]
    burst_factor: u32,
    /// Mean length of a burst.
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    burst_ms: u32,
    /// Distribution of how long connections take.
    #[arg(long, value_enum, default_value_t = ServiceName::Exponential)]
    service: ServiceName,
    /// Mean of it, at full speed.
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    service_ms: u32,
    /// Tail of the Pareto distribution, in hundredths: 150 is an exponent of 1.5.
    #[arg(long, value_name = "HUNDREDTHS", default_value_t = 150, value_parser = clap::value_parser!(u32).range(105..=1000))]
    pareto_shape: u32,
    /// How unevenly clients are spread, in hundredths: node i, or with --dns-ttl-s resolver i, gets a share of
    /// 1/i^(SKEW/100). 0 is even.
    #[arg(long, value_name = "HUNDREDTHS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=300))]
    skew: u32,
    /// Seconds that resolvers remember what the cluster's DNS says; 0 asks for every connection. Without it, clients are
    /// spread over the nodes for good.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    dns_ttl_s: Option<u32>,
    /// The same for answers that name a node above --maxload; at most --dns-ttl-s, and by default the same.
    #[arg(long, value_name = "SECONDS", requires = "dns_ttl_s", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    dns_ttl_hot_s: Option<u32>,
    /// Resolvers of all clients together.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    resolvers: u32,
    /// Load below which a node keeps its own connections, permille; 0 leaves every decision to the policy.
    #[arg(long, value_name = "PERMILLE", default_value_t = 700)]
    maxload: u16,
    /// Seconds that are measured, after ten that are not.
    #[arg(long = "duration", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    duration_s: u32,
    /// All random choices follow from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the figures to this file as comma-separated values.
    #[arg(long, value_name = "FILE")]
    pub(super) csv: Option<PathBuf>,
    /// Draw the 99th percentiles into this file.
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
}

/// The methods by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PolicyName(Method);

impl PolicyName {
    const ALL: [Self; Method::ALL.len()] = {
        let mut all = [Self(Method::RrDns); Method::ALL.len()];
        let mut nth = 0;
        while nth < all.len() {
            all[nth] = Self(Method::ALL[nth]);
            nth += 1;
        }
        all
    };
}

impl ValueEnum for PolicyName {
    fn value_variants<'a>() -> &'a [Self] {
        const { &PolicyName::ALL }
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.label()))
    }
}

/// Arrival processes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ArrivalName {
    /// Independent clients.
    Poisson,
    /// Independent within bursts, and nothing between them.
    Bursty,
}

/// Distributions of service times by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ServiceName {
    /// Memoryless.
    Exponential,
    /// Few connections make up much of the work.
    Pareto,
}

impl SimulateArgs {
    /// One experiment for each policy, and for each interval if the policy needs reports.
    pub(super) fn experiments(&self) -> Vec<Experiment> {
        let mut experiments = Vec::new();
        for PolicyName(method) in &self.policy {
            let count = if method.needs_reports() { self.interval_ms.len() } else { 1 };
            for interval_ms in &self.interval_ms[..count] {
                experiments.push(self.experiment(*method, Duration::from_millis((*interval_ms).into())));
            }
        }
        experiments
    }

    fn experiment(&self, method: Method, interval: Duration) -> Experiment {
        let mean = Duration::from_millis(self.service_ms.into());
        let capacities = self.capacities.iter().cycle().take(self.nodes as usize);
        Experiment {
            seed: self.seed,
            capacities: capacities.map(|capacity| Capacity::new(*capacity)).collect(),
            offered_load: f64::from(self.load) / 100.0,
            arrivals: match self.arrivals {
                ArrivalName::Poisson => ArrivalProcess::Poisson,
                ArrivalName::Bursty => ArrivalProcess::Bursty {
                    factor: self.burst_factor.into(),
                    length: Duration::from_millis(self.burst_ms.into()),
                },
            },
            service: match self.service {
                ServiceName::Exponential => ServiceTime::Exponential { mean },
                ServiceName::Pareto => {
                    ServiceTime::Pareto { mean, shape: f64::from(self.pareto_shape) / 100.0 }
                }
            },
            skew: f64::from(self.skew) / 100.0,
            resolvers: self.dns_ttl_s.map(|ttl_s| self.resolvers(ttl_s)),
            interval,
            maxload: LoadPermille(self.maxload),
            method,
            duration: Duration::from_secs(self.duration_s.into()),
            ..Experiment::default()
        }
    }

    fn resolvers(&self, ttl_s: u32) -> Resolvers {
        let hot_s = self.dns_ttl_hot_s.unwrap_or(ttl_s).min(ttl_s);
        Resolvers {
            count: self.resolvers,
            ttl: Duration::from_secs(ttl_s.into()),
            ttl_hot: Duration::from_secs(hot_s.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use dpr_director::PolicyKind;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn experiments(line: &str) -> Vec<Experiment> {
        Line::try_parse_from(line.split(' ')).unwrap().args.experiments()
    }

    #[test]
    fn policies_that_need_reports_are_run_once_for_each_interval() {
        let experiments = experiments("simulate --policy rr-dns,lightest --interval-ms 10,1000");

        let runs: Vec<_> =
            experiments.iter().map(|one| (one.method.label(), one.interval.as_millis())).collect();
        assert_eq!(runs, [("rr-dns", 10), ("lightest", 10), ("lightest", 1000)]);
    }

    #[test]
    fn every_policy_is_run_by_default_and_nodes_take_turns_with_capacities() {
        let experiments = experiments("simulate --nodes 3 --capacities 10,40");

        assert_eq!(experiments.len(), Method::ALL.len());
        let capacities: Vec<_> = experiments[0].capacities.iter().map(|capacity| capacity.get()).collect();
        assert_eq!(capacities, [10, 40, 10]);
        assert_eq!(experiments[1].method, Method::Policy(PolicyKind::Stateless));
    }
}
