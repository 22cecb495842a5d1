//! `dpr bench http`: what connections, requests and downloads cost by a director, beside other ways to the same server.
//!
//! Clients, server and what stands between share the machine's processors, and whatever a way costs more, it does less
//! of: figures can be compared within a run only. Processor time is that of this process, which has clients and server,
//! and of the programs between.

mod client;
mod load;
mod outcome;
mod road;

use super::processor_time::Meter;
use super::{in_turn, rivals};
use crate::cli::HttpBenchArgs;
use anyhow::{Context as _, bail};
use client::Crowd;
use dpr_lab::Plane;
use load::Load;
use outcome::{Conditions, Outcome, Sample};
use road::{Road, Way};
use std::fs;
use std::thread::available_parallelism;
use std::time::Duration;

/// Before anything is measured: caches are filled, routes known, connections of the lab forgotten.
const WARM_UP: Duration = Duration::from_millis(200);

/// Runs the benchmark.
///
/// # Errors
/// The host forbids namespaces, a cluster does not come up, or a request fails: then there is nothing to compare.
pub(super) fn run(args: &HttpBenchArgs) -> anyhow::Result<()> {
    // Before anything starts a thread.
    dpr_lab::enter().context("the benchmark needs network namespaces of its own")?;
    let (ways, left_out) = ways();
    let roads = ways.iter().map(|way| Road::build(*way)).collect::<anyhow::Result<Vec<_>>>()?;
    let meter = Meter::new()?;
    for road in &roads {
        for load in Load::ALL {
            crowd(load, args, WARM_UP).run(road)?;
        }
    }
    let mut rounds = Vec::new();
    for round in 0..usize::from(args.rounds) {
        rounds.push(measure_all(round, &roads, &meter, args)?);
    }
    let conditions = Conditions {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim_end().to_owned(),
        processors: available_parallelism().map_or(1, usize::from),
        counted: meter.describe(),
        connections: args.connections,
        left_out,
    };
    let outcome = Outcome::new(&ways, &rounds, conditions);
    match args.json {
        true => println!("{}", serde_json::to_string(&outcome).context("writing the result as JSON")?),
        false => print!("{outcome}"),
    }
    Ok(())
}

/// The ways that there are here, the straight one first, and why others are not.
fn ways() -> (Vec<Way>, Vec<String>) {
    let mut left_out = Vec::new();
    let programs_missing = (!super::director::programs_can_be_loaded())
        .then(|| "the kernel's programs are left out: only root may load some".to_owned());
    let candidates = [
        (Way::Direct, None),
        (Way::Hop, programs_missing.clone()),
        (Way::Dpr(Plane::Xdp), programs_missing),
        (Way::Dpr(Plane::Userspace), None),
        (Way::Nftables, rivals::nft_is_missing()),
        (Way::Proxy(rivals::Proxy::Haproxy), rivals::Proxy::Haproxy.missing()),
        (Way::Proxy(rivals::Proxy::Nginx), rivals::Proxy::Nginx.missing()),
    ];
    let mut ways = Vec::new();
    for (way, missing) in candidates {
        match missing {
            None => ways.push(way),
            Some(reason) => left_out.push(reason),
        }
    }
    left_out.dedup();
    (ways, left_out)
}

/// One round: every load, and for each every way once; by way and load. Each round begins with another way.
fn measure_all(
    round: usize,
    roads: &[Road],
    meter: &Meter,
    args: &HttpBenchArgs,
) -> anyhow::Result<Vec<[Sample; Load::ALL.len()]>> {
    let mut samples = vec![[Sample::default(); Load::ALL.len()]; roads.len()];
    for load in Load::ALL {
        let crowd = crowd(load, args, Duration::from_millis(args.slice_ms.into()));
        let of_load = in_turn(round, roads.len(), |nth| measure(&roads[nth], &crowd, meter))?;
        for (samples, sample) in samples.iter_mut().zip(of_load) {
            samples[load as usize] = sample;
        }
    }
    Ok(samples)
}

fn measure(road: &Road, crowd: &Crowd, meter: &Meter) -> anyhow::Result<Sample> {
    let before = meter.read(road.processes())?;
    let measured = crowd.run(road)?;
    let after = meter.read(road.processes())?;
    if measured.times.is_empty() {
        bail!("nothing was answered by {}", road.way().label());
    }
    Ok(Sample::new(measured, after.total.saturating_sub(before.total)))
}

fn crowd(load: Load, args: &HttpBenchArgs, time: Duration) -> Crowd {
    Crowd { load, connections: args.connections, time }
}
