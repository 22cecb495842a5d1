//! How many packets go through a director between network namespaces, beside those through an empty program.

use super::outcome::word;
use super::road::{FLOWS, Road, Way};
use crate::bench::in_turn;
use crate::bench::processor_time::Meter;
use crate::bench::rivals;
use crate::bench::spread::Spread;
use crate::cli::XdpBenchArgs;
use anyhow::bail;
use serde::Serialize;
use std::fmt;

/// Promised: packets through the programs, of those through an empty one, permille.
const OF_EMPTY_MIN_PERMILLE: u64 = 700;
/// Promised: what the programs add to a packet, of what nftables adds, permille.
const OF_NFTABLES_MAX_PERMILLE: u64 = 200;
/// Packets of every flow before anything is measured: connection tracking knows them then.
const WARM_UP: u32 = 64 * FLOWS;

/// One way in one round: processor time of everything for a packet that reached the sink, nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Sample(f64);

impl Sample {
    /// All of it happens on one processor: other programs there, which make it take longer, are not counted.
    fn packets_per_s(self) -> f64 {
        1e9 / self.0
    }
}

/// All ways.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Forwarding {
    /// Connections that the packets were of.
    flows: u32,
    ways: Vec<WayResult>,
    /// Packets through the programs, of those through the empty one, permille of pairs.
    of_empty_permille: Spread,
    of_empty_min_permille: u64,
    /// What the programs add to a packet, of what nftables adds, permille of pairs; `None` without nftables.
    of_nftables_permille: Option<Spread>,
    of_nftables_max_permille: u64,
    /// What was left out, and why.
    left_out: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct WayResult {
    way: Way,
    /// Packets in a second of a processor that does everything.
    packets_per_s: Spread,
    /// Processor time for a packet (user, system and softirq) beyond that of source and sink in the same round,
    /// nanoseconds.
    cost_ns: Spread,
}

/// Sends packets by every way, half of `args.packets` in each of `args.rounds` turns: the kernel's own ways are slow.
pub(super) fn measure(args: &XdpBenchArgs) -> anyhow::Result<Forwarding> {
    let mut ways = vec![Way::Nobody, Way::Empty, Way::Programs, Way::KernelRouting];
    let mut left_out = Vec::new();
    match rivals::nft_is_missing() {
        None => ways.push(Way::NftablesDnat),
        Some(reason) => left_out.push(reason),
    }
    let mut roads = ways.iter().map(|way| Road::build(*way)).collect::<anyhow::Result<Vec<_>>>()?;
    for road in &mut roads {
        road.send(WARM_UP)?;
    }
    let meter = Meter::new()?;
    let rounds = (0..usize::from(args.rounds))
        .map(|round| in_turn(round, ways.len(), |nth| sample(&mut roads[nth], &meter, args.packets / 2)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Forwarding::new(&ways, &rounds, left_out))
}

fn sample(road: &mut Road, meter: &Meter, packets: u32) -> anyhow::Result<Sample> {
    let received_before = road.received()?;
    let before = meter.read(&[])?;
    road.send(packets)?;
    let spent = meter.read(&[])?.total.saturating_sub(before.total);
    let received = (road.received()? - received_before) as f64;
    if received == 0.0 {
        bail!("no packet came back by {}", road.way.label());
    }
    Ok(Sample(spent.as_nanos() as f64 / received))
}

impl Forwarding {
    fn new(ways: &[Way], rounds: &[Vec<Sample>], left_out: Vec<String>) -> Self {
        let column = |nth: usize| rounds.iter().map(move |round| round[nth]);
        let beyond = |nth: usize| column(0).zip(column(nth)).map(|(nobody, sample)| sample.0 - nobody.0);
        let position = |wanted| ways.iter().position(|way| *way == wanted);
        let (empty, programs) = (position(Way::Empty).unwrap_or(0), position(Way::Programs).unwrap_or(0));
        let rates = column(empty).zip(column(programs));
        let of_empty = rates.map(|(empty, programs)| empty.0 * 1000.0 / programs.0);
        let of_nftables = position(Way::NftablesDnat).map(|nftables| {
            let costs = beyond(nftables).zip(beyond(programs));
            Spread::of(costs.map(|(nftables, programs)| programs * 1000.0 / nftables.max(1.0)))
        });
        Self {
            flows: FLOWS,
            ways: ways
                .iter()
                .enumerate()
                .map(|(nth, way)| WayResult {
                    way: *way,
                    packets_per_s: Spread::of(column(nth).map(Sample::packets_per_s)),
                    cost_ns: Spread::of(beyond(nth)),
                })
                .collect(),
            of_empty_permille: Spread::of(of_empty),
            of_empty_min_permille: OF_EMPTY_MIN_PERMILLE,
            of_nftables_permille: of_nftables,
            of_nftables_max_permille: OF_NFTABLES_MAX_PERMILLE,
            left_out,
        }
    }
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Between namespaces, {} flows, everything on one processor:\n", self.flows)?;
        writeln!(
            f,
            "{:<26} {:>10} {:>22} {:>10} {:>14}",
            "way", "packets/s", "least - most", "added ns", "least - most"
        )?;
        for WayResult { way, packets_per_s: rate, cost_ns: cost } in &self.ways {
            let (rates, costs) =
                (format!("{} - {}", rate.least, rate.most), format!("{} - {}", cost.least, cost.most));
            writeln!(
                f,
                "{:<26} {:>10} {rates:>22} {:>10} {costs:>14}",
                way.label(),
                rate.median,
                cost.median
            )?;
        }
        let of_empty = self.of_empty_permille.median;
        writeln!(
            f,
            "\nPackets through the programs, of those through the empty one: {of_empty} \u{2030}; promised are {}: {}.",
            self.of_empty_min_permille,
            word(of_empty >= self.of_empty_min_permille)
        )?;
        if let Some(Spread { median, .. }) = self.of_nftables_permille {
            writeln!(
                f,
                "What they add to a packet, of what nftables adds: {median} \u{2030}; promised are at most {}: {}.",
                self.of_nftables_max_permille,
                word(median <= self.of_nftables_max_permille)
            )?;
        }
        self.left_out.iter().try_for_each(|reason| writeln!(f, "{reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_compared_with_the_empty_one_and_with_nftables_of_their_round() {
        let ways = [Way::Nobody, Way::Empty, Way::Programs, Way::KernelRouting, Way::NftablesDnat];
        let rounds: Vec<Vec<Sample>> = [1.0, 2.0, 4.0]
            .map(|slow| [500.0, 600.0, 800.0, 1500.0, 2500.0].map(|ns| Sample(ns * slow)).to_vec())
            .to_vec();

        let forwarding = Forwarding::new(&ways, &rounds, Vec::new());

        assert_eq!(forwarding.of_empty_permille, Spread { median: 750, least: 750, most: 750 });
        assert_eq!(forwarding.of_nftables_permille, Some(Spread { median: 150, least: 150, most: 150 }));
        assert_eq!(forwarding.ways[2].cost_ns, Spread { median: 600, least: 300, most: 1200 });
    }
}
