//! `cargo xtask ci`: every check that needs neither root nor programs of the distribution, cheapest first.

use crate::command::{cargo, run as run_command};
use crate::{deny, no_os, sim, test_full, tidy};
use anyhow::Context as _;
use std::time::{Duration, Instant};

/// Arguments of `cargo xtask ci`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Fail when cargo-deny is not installed, instead of saying how to get it.
    #[arg(long)]
    require_deny: bool,
}

/// Runs the checks one after the other and stops at the first that fails.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let deny_arguments = deny::Arguments { require: arguments.require_deny, advisories: false };
    let checks: [(&str, &dyn Fn() -> anyhow::Result<()>); 9] = [
        ("tidy", &tidy::run),
        ("fmt", &fmt),
        ("deny", &|| deny::run(&deny_arguments)),
        ("no-os", &no_os::run),
        ("clippy", &clippy),
        ("doc", &doc),
        ("operations", &operations),
        ("sim", &|| sim::run(&sim::Arguments::of_ci())),
        ("test", &|| run_command(&mut cargo(&["test", "--workspace"]))),
    ];
    let mut times = Vec::with_capacity(checks.len());
    for (name, check) in checks {
        println!("\n=== {name}");
        let started = Instant::now();
        check().with_context(|| format!("the check `{name}` failed"))?;
        times.push((name, started.elapsed()));
    }
    println!("\n{}", summary(&times));
    Ok(())
}

fn fmt() -> anyhow::Result<()> {
    run_command(&mut cargo(&["fmt", "--all", "--", "--check"]))?;
    run_command(&mut cargo(&["fmt", "--manifest-path", no_os::MANIFEST, "--", "--check"]))
}

fn clippy() -> anyhow::Result<()> {
    run_command(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // "All" are those that a plain `cargo test` runs.
    let full = ["clippy", "-p", test_full::PACKAGE, "--test", test_full::TARGET, "--", "-D", "warnings"];
    run_command(&mut cargo(&full))?;
    let mut clippy_no_os = cargo(&["clippy", "--manifest-path", no_os::MANIFEST, "--target-dir"]);
    run_command(clippy_no_os.arg(no_os::target_directory()).args(["--", "-D", "warnings"]))
}

fn doc() -> anyhow::Result<()> {
    run_command(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// The pipeline against its naive model, at length.
fn operations() -> anyhow::Result<()> {
    let mut test = cargo(&["test", "-p", "dpr-vectors", "--test", "reference"]);
    run_command(test.env("DPR_OPERATIONS", "1000000"))
}

fn summary(times: &[(&str, Duration)]) -> String {
    let each = times.iter().map(|(name, time)| format!("{name} {:.1} s", time.as_secs_f64()));
    format!("all checks passed: {}", each.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_each_check_took() {
        let times = [("fmt", Duration::from_millis(1250)), ("test", Duration::from_secs(60))];

        assert_eq!(summary(&times), "all checks passed: fmt 1.2 s, test 60.0 s");
    }
}
