//! `cargo xtask sim`: many random trials of the simulator, on all cores.
//!
//! A trial that breaks a promise ends the task with what happened and the command that repeats it.

use anyhow::{anyhow, bail};
use dpr_sim::{NODES_MAX, Summary, Trial, Violation};
use std::io::{IsTerminal as _, Write as _};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often progress is shown where nobody watches a terminal.
const PROGRESS_IN_LOG: Duration = Duration::from_secs(20);
/// And where somebody does.
const PROGRESS_ON_TERMINAL: Duration = Duration::from_millis(200);

/// Arguments of `cargo xtask sim`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Trials to run.
    #[arg(long, value_name = "N", default_value_t = 200)]
    seeds: u64,
    /// Seed of the first one; the others follow.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first_seed: u64,
    /// Nodes of a cluster, at least and at most; small clusters are tried most.
    #[arg(long, value_name = "A..B", default_value = "2..64", value_parser = node_range)]
    nodes: RangeInclusive<u32>,
}

impl Arguments {
    /// What CI runs.
    pub(crate) fn of_ci() -> Self {
        Self { seeds: 200, first_seed: 0, nodes: 2..=64 }
    }
}

type Finished = (Trial, Result<Summary, Box<Violation>>);

/// Runs the trials.
///
/// # Errors
/// A promise was broken.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let (finished, results) = channel();
    let total = thread::scope(|scope| {
        for _ in 0..workers {
            let (finished, next) = (finished.clone(), &next);
            scope.spawn(move || work(arguments, next, &finished));
        }
        drop(finished);
        let total = collect(arguments.seeds, &results);
        // A broken promise: whoever is still at work need not begin another trial.
        next.store(arguments.seeds, Ordering::Relaxed);
        total
    })?;
    println!(
        "{} trials kept every promise: {} events, {} connections finished, {} ended with an excuse, {:.1} s",
        arguments.seeds,
        total.events,
        total.finished,
        total.excused,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn work(arguments: &Arguments, next: &AtomicU64, finished: &Sender<Finished>) {
    loop {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        if nth >= arguments.seeds {
            return;
        }
        let trial = Trial::of(arguments.first_seed.wrapping_add(nth), &arguments.nodes);
        // Nobody listens any more after a broken promise.
        if finished.send((trial, trial.run())).is_err() {
            return;
        }
    }
}

fn collect(seeds: u64, results: &Receiver<Finished>) -> anyhow::Result<Summary> {
    let on_terminal = std::io::stderr().is_terminal();
    let pause = if on_terminal { PROGRESS_ON_TERMINAL } else { PROGRESS_IN_LOG };
    let mut total = Summary::default();
    let mut shown = Instant::now();
    for done in 1..=seeds {
        let (trial, outcome) = results.recv().map_err(|_| anyhow!("a trial ended without a result"))?;
        let summary = outcome.map_err(|violation| failure(trial, &violation))?;
        total.events += summary.events;
        total.finished += summary.finished;
        total.excused += summary.excused;
        if shown.elapsed() >= pause {
            shown = Instant::now();
            let (start, end) = if on_terminal { ("\r", "") } else { ("", "\n") };
            // Progress that cannot be shown is no reason to stop.
            let _ =
                write!(std::io::stderr(), "{start}{done} of {seeds} trials, {} events{end}", total.events);
        }
    }
    if on_terminal {
        eprintln!();
    }
    Ok(total)
}

fn failure(trial: Trial, violation: &Violation) -> anyhow::Error {
    let Trial { seed, nodes } = trial;
    anyhow!("{violation}\nrepeat it: cargo xtask sim --first-seed {seed} --seeds 1 --nodes {nodes}..{nodes}")
}

fn node_range(text: &str) -> anyhow::Result<RangeInclusive<u32>> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let range = least.trim().parse::<u32>()?..=most.trim().parse::<u32>()?;
    if range.is_empty() || *range.start() < 2 || *range.end() > NODES_MAX {
        bail!("nodes are from 2 to {NODES_MAX}, the smaller number first");
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_nodes_is_two_numbers_or_one() {
        assert_eq!(node_range("2..64").unwrap(), 2..=64);
        assert_eq!(node_range("7").unwrap(), 7..=7);
        for wrong in ["1..3", "9..3", "2..100000", "a..b", ""] {
            assert!(node_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_few_trials_are_run_and_summed_up() {
        run(&Arguments { seeds: 3, first_seed: 1, nodes: 2..=3 }).unwrap();
    }
}
