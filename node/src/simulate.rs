//! `dpr simulate`: which policy for which cluster, answered in seconds and without one.
//!
//! It turns the command line into experiments (crate `sim`), runs them on all cores and shows the figures as a table,
//! as CSV and as a chart. It claims nothing about the speed of real servers: it tells policies apart.

mod arguments;
mod chart;
mod table;

pub(crate) use arguments::SimulateArgs;

use anyhow::Context as _;
use dpr_sim::balance::{Experiment, Figures};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

/// The figures of one experiment.
#[derive(Clone, Debug)]
struct Run {
    experiment: Experiment,
    figures: Figures,
}

/// Runs all experiments that `args` ask for, and returns the table for people.
///
/// # Errors
/// A file could not be written.
pub(crate) fn run(args: &SimulateArgs) -> anyhow::Result<String> {
    let runs = run_all(&args.experiments());
    if let Some(path) = &args.csv {
        std::fs::write(path, table::csv(&runs)).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, chart::svg(&runs)).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(table::text(&runs))
}

/// Runs experiments on all cores; the results are in their order.
fn run_all(experiments: &[Experiment]) -> Vec<Run> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let (finished, results) = channel();
    thread::scope(|scope| {
        for _ in 0..workers.min(experiments.len()) {
            let (finished, next) = (finished.clone(), &next);
            scope.spawn(move || {
                while let Some((nth, experiment)) = take(experiments, next) {
                    let run = Run { experiment: experiment.clone(), figures: experiment.run() };
                    finished.send((nth, run)).expect("the receiver outlives the scope");
                }
            });
        }
    });
    drop(finished);
    let mut runs: Vec<(usize, Run)> = results.into_iter().collect();
    runs.sort_by_key(|(nth, _)| *nth);
    runs.into_iter().map(|(_, run)| run).collect()
}

fn take<'a>(experiments: &'a [Experiment], next: &AtomicUsize) -> Option<(usize, &'a Experiment)> {
    let nth = next.fetch_add(1, Ordering::Relaxed);
    Some((nth, experiments.get(nth)?))
}
