//! `dpr-bench`: what the pure crates cost, in instructions.
//!
//! Wall-clock figures of code this short change with the machine, its neighbours and its mood; counts of instructions
//! do not, so that a change of a few percent can be seen and a regression can fail CI. Each case runs under callgrind
//! and is held against a committed baseline. Cache misses and system calls have no
//! part in these figures: `dpr bench userspace` measures whole packets, kernel included.

mod baseline;
mod callgrind;
mod cases;
mod fixture;
mod report;

use baseline::Baseline;
use cases::Case;
use clap::{Parser, Subcommand};
use report::Report;
use std::process::ExitCode;

/// Count instructions and compare with the baseline; `cargo xtask bench` builds and runs this.
#[derive(Debug, Parser)]
#[command(name = "dpr-bench")]
struct Arguments {
    /// Write what was counted as the new baseline.
    #[arg(long)]
    save_baseline: bool,
    #[command(subcommand)]
    inner: Option<Inner>,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// Run one case without counting; prints nanoseconds per turn on this machine, now.
    Work {
        /// As in the table.
        case: String,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dpr-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(Inner::Work { case }) = &arguments.inner {
        println!("{} ns", Case::named(case)?.work().as_nanos());
        return Ok(ExitCode::SUCCESS);
    }
    callgrind::require()?;
    let mut baseline = Baseline::read()?;
    let mut report = Report::new();
    for case in &cases::ALL {
        let counted = callgrind::count(case)?;
        report.add(case, counted, baseline.of(case.name));
        baseline.set(case.name, counted);
    }
    if arguments.save_baseline {
        baseline.write()?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(report.verdict())
}
