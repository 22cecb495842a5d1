//! `cargo xtask bench`: what the pure crates cost in instructions, against committed baselines.

use crate::command::{cargo, run as run_command};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Write what was counted to bench/baseline.json.
    #[arg(long)]
    save_baseline: bool,
}

impl Arguments {
    /// What CI runs.
    pub(crate) fn of_ci() -> Self {
        Self { save_baseline: false }
    }
}

/// Counts, in the build that users get.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut bench = cargo(&["run", "--quiet", "--release", "--package", "dpr-bench"]);
    if arguments.save_baseline {
        bench.args(["--", "--save-baseline"]);
    }
    run_command(&mut bench)
}
