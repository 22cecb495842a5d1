//! Development tasks: `cargo xtask <task>`.
//!
//! Every check of CI is one of these tasks, so that whatever fails there can be run by hand. Tasks start other
//! programs and read the checkout; only `config-doc`, `bench` and `bpf` write into it. Installing software is left to `.ci/run` and to
//! people.

mod bench;
mod bpf;
mod ci;
mod command;
mod config_doc;
mod deny;
mod dns_bench;
mod no_os;
mod sim;
mod test_full;
mod tidy;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Development tasks of dpr.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    /// What to do.
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Everything that has to hold before a change goes in, without root.
    Ci(ci::Arguments),
    /// All tests, also those that take long, need root or programs of the distribution.
    TestFull(test_full::Arguments),
    /// Prove that `model` and `rewrite` need no operating system.
    NoOs,
    /// Random clusters on a virtual clock, with random faults, whose promises are checked after every event.
    Sim(sim::Arguments),
    /// Instructions that packets and reports cost, against committed baselines (valgrind).
    Bench(bench::Arguments),
    /// What a DNS answer costs, beside Knot DNS (root, knotd, dnsperf).
    DnsBench(dns_bench::Arguments),
    /// Build the kernel's programs from C into the object that is committed (clang-14).
    Bpf(bpf::Arguments),
    /// Limits and words that the compiler does not check.
    Tidy,
    /// Licences, origins and, if asked for, advisories of dependencies (cargo-deny).
    Deny(deny::Arguments),
    /// Write docs/configuration.md from the definition of the configuration.
    ConfigDoc(config_doc::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Ci(arguments) => ci::run(&arguments),
        Task::TestFull(arguments) => test_full::run(&arguments),
        Task::NoOs => no_os::run(),
        Task::Sim(arguments) => sim::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::DnsBench(arguments) => dns_bench::run(&arguments),
        Task::Bpf(arguments) => bpf::run(&arguments),
        Task::Tidy => tidy::run(),
        Task::Deny(arguments) => deny::run(&arguments),
        Task::ConfigDoc(arguments) => config_doc::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
