//! Random clusters, random faults: no slot has two owners at any instant, and peace brings one map.

use crate::network::{Network, Setup, home_address, shared_address};
use dpr_model::NodeId;
use dpr_ownership::agreement::GiveBack;
use fastrand::Rng;
use std::time::Duration;

/// How long faults go on.
const TROUBLE: Duration = Duration::from_secs(25);
/// And in small clusters where everything overlaps.
const SHARP_TROUBLE: Duration = Duration::from_secs(10);
/// How long peace has to last before there must be one map again.
const PEACE: Duration = Duration::from_secs(8);

#[test]
fn no_slot_ever_has_two_owners_whatever_fails() {
    for seed in seeds(15) {
        trial(seed);
    }
}

/// Moves that overlap, among nodes of which some do not hear others: what the argument's steps are for.
#[test]
fn no_slot_has_two_owners_however_plans_and_failures_overlap() {
    for seed in seeds(80) {
        sharp_trial(seed);
    }
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    let of = |name| std::env::var(name).ok().and_then(|value: String| value.parse().ok());
    let first = of("AGREEMENT_SEED").unwrap_or(1);
    first..first + of("AGREEMENT_SEEDS").unwrap_or(count)
}

fn trial(seed: u64) {
    let mut draw = Rng::with_seed(seed);
    let nodes = draw.u32(2..=9);
    let give_back = if draw.bool() { GiveBack::Manual } else { GiveBack::Auto };
    let setup = Setup { seed, voters: draw.u32(1..=nodes.min(5)), give_back, ..Setup::of(nodes) };
    let mut network = Network::new(setup);
    network.run_for(Duration::from_millis(draw.u64(0..6000)));
    let end = network.now + TROUBLE;
    while network.now < end {
        disturb(&mut network, &mut draw);
        network.run_for(Duration::from_millis(draw.u64(1..1500)));
    }
    make_peace(&mut network);
    network.run_for(PEACE);
    network.check_converged();
}

/// Few nodes, three of which vote; clocks as far apart as the margin allows for the longest promise.
fn sharp_trial(seed: u64) {
    let mut draw = Rng::with_seed(seed);
    let nodes = draw.u32(3..=5);
    let setup = Setup { seed, voters: 3, speed_max_ppm: 8000, ..Setup::of(nodes) };
    let mut network = Network::founded(setup);
    let end = network.now + SHARP_TROUBLE;
    while network.now < end {
        part_some(&mut network, &mut draw);
        plan(&mut network, &mut draw);
        network.run_for(Duration::from_millis(draw.u64(1..700)));
    }
    make_peace(&mut network);
    network.run_for(PEACE);
    network.check_converged();
}

/// Mostly one way, so that a node that is heard does not hear, or one that hears is not heard.
fn part_some(network: &mut Network, draw: &mut Rng) {
    let ids: Vec<NodeId> = network.nodes.keys().copied().collect();
    let [one, other] = [ids[draw.usize(0..ids.len())], ids[draw.usize(0..ids.len())]];
    match draw.u32(0..8) {
        0..=2 => drop(network.cut.insert((one, other))),
        3 => network.cut.extend([(one, other), (other, one)]),
        4 => network.cut.extend(ids.iter().map(|heard_by| (one, *heard_by))),
        5 | 6 => network.cut.clear(),
        _ => network.delay_max = Duration::from_millis(draw.u64(1..60)),
    }
}

fn plan(network: &mut Network, draw: &mut Rng) {
    let ids: Vec<NodeId> = network.nodes.keys().copied().collect();
    let one = ids[draw.usize(0..ids.len())];
    match draw.u32(0..8) {
        0 | 1 => network.take_leave(one),
        2 => network.node(one).cut_off ^= true,
        3 => {
            let to = draw.bool().then_some(one);
            for at in &ids {
                // Whoever does not coordinate refuses.
                let _ = network.take_over(*at, shared_address(), to);
            }
        }
        // At once, before anybody misses it; with what it had kept, and without what it had said.
        4 => {
            network.kill(one);
            network.start(one);
        }
        5 if network.nodes[&one].paused => network.resume(one),
        5 => network.node(one).paused = true,
        6 => network.node(one).update_every = Duration::from_millis(draw.u64(5..240)),
        _ => ids.iter().for_each(|id| network.resume(*id)),
    }
}

fn disturb(network: &mut Network, draw: &mut Rng) {
    let ids: Vec<NodeId> = network.nodes.keys().copied().collect();
    let one = ids[draw.usize(0..ids.len())];
    let other = ids[draw.usize(0..ids.len())];
    match draw.u32(0..13) {
        0 => network.kill(one),
        1 | 2 => network.start(one),
        3 => network.node(one).paused = true,
        4 | 5 => network.resume(one),
        6 => drop(network.cut.insert((one, other))),
        7 => network.partition(&ids.iter().filter(|_| draw.bool()).map(|id| id.0).collect::<Vec<_>>()),
        8 | 9 => network.cut.clear(),
        10 => network.node(one).update_every = Duration::from_millis(draw.u64(5..240)),
        11 => network.loss_permille = draw.u32(0..400),
        _ => network.delay_max = Duration::from_millis(draw.u64(1..200)),
    }
    if draw.u32(0..4) == 0 {
        let address = [shared_address(), home_address(1), home_address(2)][draw.usize(0..3)];
        let to = draw.bool().then_some(one);
        for at in &ids {
            // Whoever does not coordinate refuses.
            let _ = network.take_over(*at, address, to);
        }
        network.node(other).has_copied = draw.bool();
        network.node(one).cut_off = draw.u32(0..3) == 0;
        network.node(other).leaving = draw.u32(0..3) == 0;
    }
    if draw.u32(0..30) == 0 && ids.len() < 12 {
        network.add(NodeId(ids.len() as u32 + 1));
    }
}

fn make_peace(network: &mut Network) {
    network.cut.clear();
    network.loss_permille = 0;
    network.delay_max = Duration::from_millis(1);
    let ids: Vec<NodeId> = network.nodes.keys().copied().collect();
    for id in ids {
        network.resume(id);
        network.node(id).has_copied = true;
        network.node(id).cut_off = false;
        // Who takes leave does so for the rest of its life.
        if network.node(id).leaving || network.node(id).daemon.is_none() {
            network.start(id);
        }
    }
}
