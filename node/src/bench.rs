//! `dpr bench`: what forwarding costs on this machine, next to what the kernel's own ways cost.
//!
//! Data planes are measured in networks of their own, the kernel's programs (`xdp`) also without any; the host's is never
//! touched. `userspace` is about processor time per packet and not speed: source, director and sink share the machine's
//! processors, so packets per second would say how they were scheduled. The figures of one run can be compared with each
//! other; those of two runs only as far as the machine was quiet.

mod director;
mod http;
mod lane;
mod processor_time;
mod result;
mod rivals;
mod source;
mod spread;
mod xdp;

use crate::cli::{BenchCommand, UserspaceBenchArgs};
use anyhow::{Context as _, bail};
use lane::{Lane, Way};
use processor_time::Meter;
use result::{Conditions, Outcome, Sample};
use source::Source;
use std::fs;
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

/// Time for what is under way to arrive.
const SETTLE: Duration = Duration::from_millis(30);
/// Packets sent before anything is measured: caches are filled, routes and flows known.
const WARM_UP: Duration = Duration::from_millis(200);
/// Share of packets, in permille, that must arrive while warming up; with fewer there is nothing to measure.
const ARRIVALS_MIN_PERMILLE: u64 = 900;

/// Runs a benchmark.
///
/// # Errors
/// The host forbids namespaces or packet sockets, or packets do not arrive.
pub(crate) fn run(command: &BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Userspace(args) => userspace(args),
        BenchCommand::Xdp(args) => xdp::run(args),
        BenchCommand::Http(args) => http::run(args),
    }
}

fn userspace(args: &UserspaceBenchArgs) -> anyhow::Result<()> {
    // Before anything starts a thread.
    dpr_lab::enter().context("the benchmark needs network namespaces of its own")?;
    let mut ways = vec![Way::Wire, Way::Userspace];
    let mut left_out = Vec::new();
    if director::programs_can_be_loaded() {
        ways.push(Way::Programs);
    } else {
        left_out.push("the kernel's programs are left out: only root may load some".to_owned());
    }
    ways.push(Way::KernelRouting);
    match rivals::nft_is_missing() {
        None => ways.push(Way::NftablesDnat),
        Some(reason) => left_out.push(reason),
    }
    let (mut lanes, mut sources) = (Vec::new(), Vec::new());
    for way in &ways {
        let lane = Lane::build(*way)?;
        // At once: a data plane that hears nothing more decides for a quarter of a second only.
        sources.push(Source::connect(&lane, args.payload_len)?);
        lanes.push(lane);
    }
    for (lane, source) in lanes.iter().zip(&sources) {
        warm_up(lane, source, args.rate)?;
    }
    let meter = Meter::new()?;
    let rounds = (0..usize::from(args.rounds))
        .map(|round| in_turn(round, lanes.len(), |nth| measure(&lanes[nth], &sources[nth], &meter, args)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for lane in lanes {
        lane.end()?;
    }
    let conditions = Conditions {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim_end().to_owned(),
        processors: available_parallelism().map_or(1, usize::from),
        counted: meter.describe(),
        rate: args.rate,
        payload_len: args.payload_len,
        left_out,
    };
    let outcome = Outcome::new(&ways, &rounds, conditions);
    match args.json {
        true => println!("{}", serde_json::to_string(&outcome).context("writing the result as JSON")?),
        false => print!("{outcome}"),
    }
    Ok(())
}

/// One round: each of `count` ways is measured once; answers what came of it, in their order. Each round begins with another
/// one, so that none always follows the same.
fn in_turn<T>(
    round: usize,
    count: usize,
    mut measure: impl FnMut(usize) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    let begin = round.checked_rem(count).unwrap_or(0);
    let mut samples = (begin..count).chain(0..begin).map(&mut measure).collect::<anyhow::Result<Vec<T>>>()?;
    samples.rotate_right(begin);
    Ok(samples)
}

fn measure(lane: &Lane, source: &Source, meter: &Meter, args: &UserspaceBenchArgs) -> anyhow::Result<Sample> {
    let received_before = lane.received()?;
    let before = meter.read(&[])?;
    let sent = source.send_for(Duration::from_millis(args.slice_ms.into()), args.rate)?;
    sleep(SETTLE);
    let after = meter.read(&[])?;
    let received = lane.received()? - received_before;
    if received == 0 {
        bail!("no packet came through by {}", lane.way.label());
    }
    let per_packet = |time: Duration| time.as_nanos() as f64 / received as f64;
    Ok(Sample {
        sent,
        received,
        total_ns: per_packet(after.total.saturating_sub(before.total)),
        data_plane_ns: per_packet(after.data_plane.saturating_sub(before.data_plane)),
    })
}

fn warm_up(lane: &Lane, source: &Source, rate: u32) -> anyhow::Result<()> {
    let before = lane.received()?;
    let sent = source.send_for(WARM_UP, rate)?;
    sleep(SETTLE);
    let received = lane.received()? - before;
    if received * 1000 < sent * ARRIVALS_MIN_PERMILLE {
        bail!("only {received} of {sent} packets came through by {}; try a lower --rate", lane.way.label());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_begins_with_another_way_and_answers_in_their_order() {
        for (round, order) in [(0, [0, 1, 2]), (1, [1, 2, 0]), (5, [2, 0, 1])] {
            let mut measured = Vec::new();
            let answers = in_turn(round, 3, |nth| {
                measured.push(nth);
                Ok(nth * 10)
            });
            assert_eq!((measured.as_slice(), answers.unwrap()), (order.as_slice(), vec![0, 10, 20]));
        }
        assert!(in_turn(1, 0, Ok).unwrap().is_empty());
    }
}
