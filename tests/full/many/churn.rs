//! Short connections, a hundred thousand of them, while members of the cluster change all the time.

use super::SLACK;
use dpr_lab::capture::{Capture, Captured, Frame};
use dpr_lab::paired::{ConnectionRecord, ConnectionState, Crowd, CrowdPlan};
use dpr_lab::wait_until;
use dpr_model::NodeId;
use dpr_model::status::Status;
use dpr_tests::order::succeed;
use dpr_tests::owners::{agree, assert_accepted_once, calm_crowd, everybody, owned, plan, start_with};
use dpr_tests::packet::{Packet, complete};
use dpr_tests::punctuality::Punctuality;
use dpr_tests::stage::{PATIENCE, Stage};
use dpr_tests::variant::Variant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// One batch of connections for each change.
const CHANGES: usize = CLIENTS as usize;
const BATCH: u16 = 5000;
const OPENING: Duration = Duration::from_secs(4);
/// One for each batch, so that no connection has the ports of an earlier one.
const CLIENTS: u8 = 20;
/// Of an address.
const SLOTS: f64 = 4096.0;
/// Whose first SYN was lost sends it again after a second (RFC 6298).
const LOST: Duration = Duration::from_millis(900);
/// How long a slot that moves as planned may have no owner.
const UNOWNED: Duration = Duration::from_millis(50);

/// Two of four nodes drain and come back, end and start again, in turn. What a switch shows to all is handled by one: every SYN
/// is answered at most once, every connection is accepted by one server, and none breaks.
pub(crate) fn of_members(variant: Variant) {
    let mut stage = start_with(4, CLIENTS, plan(variant));
    // What comes and goes decides, and serves nothing.
    stage.set_loads(&[900, 100, 100, 900]);
    let punctuality = Punctuality::watch();
    let mut unowned = Unowned::default();
    let mut opened = Vec::new();
    let mut broken = 0;
    for change in 0..CHANGES {
        let syns = Capture::start(&stage.clients[change], is_syn).unwrap();
        let batch = CrowdPlan { opening: OPENING, pause: OPENING * 2, ..calm_crowd(&stage, BATCH) };
        let mut batch = Crowd::open(&stage.clients[change], batch).unwrap();
        std::thread::sleep(OPENING / 4);
        let before = slots_by_node(&stage);
        make(change, &mut stage);
        let moved = moved(&before, &slots_by_node(&stage));
        wait_until("connections to open", OPENING + PATIENCE, || opened_or_broke(batch.records())).unwrap();
        let records = batch.finish();

        let answered_by_two = answered_by_two(&syns.finish().unwrap(), records.len());
        let broken_now = records.iter().filter(|record| record.state != ConnectionState::Finished).count();
        assert!(broken_now <= answered_by_two, "{broken_now} broke, {answered_by_two} had two answers");
        broken += broken_now;
        unowned.add(&records, moved);
        opened.extend(records);
    }
    let (late, slack) = punctuality.finish(SLACK);

    println!(
        "members change [{variant}]: {broken} of {} connections broke, {unowned}; this machine was late by {late:.0?}",
        opened.len()
    );
    let statuses: Vec<Status> = stage.statuses();
    assert!(
        statuses
            .iter()
            .all(|status| status.counters.connections_kept + status.counters.connections_forwarded > 0)
    );
    assert_accepted_once(&mut stage, &opened);
    // Where the machine is late, SYNs are as late for other reasons.
    assert!(slack > Duration::ZERO || unowned.surely() <= UNOWNED, "{unowned}");
    assert!(slack > Duration::ZERO || broken == 0, "{broken} broke on a punctual machine");
}

/// A drain, its end, a departure and a return, of the first node and of the fourth in turn.
fn make(change: usize, stage: &mut Stage) {
    let (name, node, others) = match change / 4 % 2 {
        0 => ("n1", 0, [1, 2, 3]),
        _ => ("n4", 3, [0, 1, 2]),
    };
    match change % 4 {
        0 => drop(succeed(&stage.nodes[1], &["drain", name, "--timeout", "60"])),
        1 => drop(succeed(&stage.nodes[1], &["undrain", name])),
        2 => {
            stage.nodes[node].terminate().unwrap();
            agree(stage, &others, PATIENCE);
        }
        _ => {
            stage.nodes[node].start().unwrap();
            stage.order_loads(&[900, 100, 100, 900]);
            agree(stage, &everybody(stage), PATIENCE);
        }
    }
}

fn is_syn(frame: &Frame) -> bool {
    Packet::of(frame).and_then(|packet| packet.tcp).is_some_and(|segment| segment.syn)
}

fn opened_or_broke(records: &[ConnectionRecord]) -> Result<(), String> {
    let left = records.iter().filter(|record| record.state == ConnectionState::Connecting).count();
    if left == 0 { Ok(()) } else { Err(format!("{left} of {} are not open yet", records.len())) }
}

/// Fails if one SYN got two answers: servers choose their sequence numbers by themselves.
///
/// Where servers are so late that a SYN is sent again, that one may find another owner and another server. Returns how many
/// clients had two answers, of which they may have taken the wrong one.
fn answered_by_two(captured: &Captured, at_least: usize) -> usize {
    let mut sent: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let mut answers: BTreeMap<SocketAddr, BTreeSet<u32>> = BTreeMap::new();
    for segment in complete(captured).into_iter().filter_map(|packet| packet.tcp) {
        match segment.ack {
            false => *sent.entry(segment.from).or_default() += 1,
            true => drop(answers.entry(segment.to).or_default().insert(segment.sequence)),
        }
    }
    assert!(answers.len() >= at_least, "{} of {at_least} were answered", answers.len());
    let more =
        answers.iter().find(|(client, answers)| answers.len() > sent.get(client).copied().unwrap_or(0));
    assert_eq!(more, None, "more answers than SYNs: two nodes handled one");
    answers.values().filter(|answers| answers.len() > 1).count()
}

/// How many slots of the shared address each node has, by the second one.
fn slots_by_node(stage: &Stage) -> BTreeMap<NodeId, u32> {
    owned(&stage.nodes[1]).unwrap().addresses.into_iter().flat_map(|address| address.slots).collect()
}

/// How many slots changed hands, at least.
fn moved(before: &BTreeMap<NodeId, u32>, after: &BTreeMap<NodeId, u32>) -> u32 {
    let of = |slots: &BTreeMap<_, u32>, node| slots.get(node).copied().unwrap_or(0);
    before.iter().map(|(node, slots)| slots.saturating_sub(of(after, node))).sum()
}

/// How long slots that moved had no owner, by the SYNs that were lost: they come evenly, on all slots.
#[derive(Debug, Default)]
struct Unowned {
    lost: usize,
    slots: u32,
    longest: Duration,
}

impl Unowned {
    fn add(&mut self, records: &[ConnectionRecord], moved: u32) {
        let took: Vec<Duration> =
            records.iter().filter_map(|record| Some(record.opened?.duration_since(record.began?))).collect();
        self.lost += took.iter().filter(|took| **took >= LOST).count();
        self.longest = took.into_iter().fold(self.longest, Duration::max);
        self.slots += moved;
    }

    /// For each slot that moved.
    fn mean(&self) -> Duration {
        let rate_by_slot = f64::from(BATCH) / OPENING.as_secs_f64() / SLOTS;
        Duration::from_secs_f64(self.lost as f64 / rate_by_slot / f64::from(self.slots.max(1)))
    }

    /// What it is at least, but for once in a thousand times: SYNs that are lost come by chance, so their number is off by its
    /// root (Poisson), here three times that.
    fn surely(&self) -> Duration {
        let doubt = 3.0 / (self.lost.max(1) as f64).sqrt();
        self.mean().mul_f64((1.0 - doubt).max(0.0))
    }
}

impl std::fmt::Display for Unowned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { lost, slots, longest } = self;
        write!(
            f,
            "{slots} slots moved and had no owner for {:.1?} each: {lost} SYNs were lost; the slowest opened in {longest:.0?}",
            self.mean()
        )
    }
}
