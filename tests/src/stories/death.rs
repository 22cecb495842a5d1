//! A director dies, and everything it decided about goes on elsewhere.

use crate::owners::{agree, everybody, start_in};
use crate::packet::{Packet, complete, is_tunnelled};
use crate::percentiles::Percentiles;
use crate::punctuality::Punctuality;
use crate::size::Size;
use crate::stage::{PATIENCE, Stage, assert_carried_by, assert_none_broke, served_by};
use crate::variant::Variant;
use dpr_lab::capture::{Capture, Captured};
use dpr_lab::http_load::Kill;
use dpr_lab::paired::ConnectionRecord;
use dpr_model::MacAddress;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

/// What is quicker was not held up.
const ORDINARY: Duration = Duration::from_millis(150);
/// Of 99 of 100 open connections. One that sends in the first moments of the outage misses the end of it by its second
/// retransmission, and waits for the third (RFC 6298): few do.
const DATA_AGAIN: Duration = Duration::from_millis(900);
/// Of 99 of 100 that are begun meanwhile.
const NEW_AGAIN: Duration = Duration::from_millis(1400);
/// Promises last 4.5 intervals of 100 ms.
const DETECTABLE: Duration = Duration::from_millis(450);
/// From there to the first packet that somebody else sends on.
const MOVED: Duration = Duration::from_millis(400);
/// What a machine that is late may add to each of these.
const SLACK: Duration = Duration::from_millis(1500);

/// What was measured.
struct Outage {
    /// From the cut to the first packet that another node sent on for the dead one.
    moved: Duration,
    /// The longest exchange of each connection.
    all: Percentiles,
    /// Of those that were under way in the outage.
    held_up: Percentiles,
    /// From the first SYN until a new connection was open.
    new: Percentiles,
}

/// Node-kill of a node that decides for a third of all connections and serves none of them: nothing breaks, and the outage is
/// short. The node returns, and is an owner again.
pub fn director_dies(variant: Variant, size: Size) {
    let mut stage = start_in(variant, 3);
    stage.set_loads(&[900, 100, 100]);
    let mut old = size.open(&stage);
    let tunnels = Capture::start(stage.nodes[1].machine(), is_tunnelled).unwrap();
    let new = size.open_for(&stage, Duration::from_secs(6));
    // All that have something to say say it.
    std::thread::sleep(size.pause + Duration::from_secs(1));
    old.measure_anew();
    assert_carried_by(variant, &stage.statuses()[0]);

    let punctuality = Punctuality::watch();
    let kill = stage.nodes[0].node_kill().unwrap();
    agree(&stage, &[1, 2], PATIENCE);
    std::thread::sleep(Duration::from_secs(4) + size.pause);
    let (late, slack) = punctuality.finish(SLACK);
    let slack = if size.beside_others { SLACK } else { slack };
    let meanwhile = old.records().to_vec();
    old.measure_anew();
    stage.nodes[0].revive().unwrap();
    stage.order_loads(&[900, 100, 100]);
    agree(&stage, &everybody(&stage), PATIENCE);
    std::thread::sleep(size.pause);
    let (old, new, tunnels) = (old.finish(), new.finish(), tunnels.finish().unwrap());

    assert_none_broke(&old);
    assert_none_broke(&new);
    assert_eq!(served_by(&old, "n1"), 0, "a director that serves none");
    let outage = Outage::of(&stage, &meanwhile, &new, &tunnels, &kill);
    let back = Percentiles::of(old.iter().filter_map(|record| record.slowest).map(|slowest| slowest.took));
    println!(
        "director dies [{variant}]: {outage}; when it is back: {back}; this machine was late by {late:.0?}"
    );
    outage.assert_short(slack);
}

impl Outage {
    fn of(
        stage: &Stage,
        old: &[ConnectionRecord],
        new: &[ConnectionRecord],
        tunnels: &Captured,
        kill: &Kill,
    ) -> Self {
        let during =
            |began: Instant, took: Duration| began < kill.at + DETECTABLE + MOVED && began + took > kill.at;
        let slowest = || old.iter().filter_map(|record| record.slowest);
        let held_up =
            slowest().filter(|slowest| slowest.took >= ORDINARY && during(slowest.began, slowest.took));
        let opened = |record: &ConnectionRecord| {
            let (began, opened) = (record.began?, record.opened?);
            let took = opened.duration_since(began);
            during(began, took).then_some(took)
        };
        Self {
            moved: first_sent_on(stage, tunnels, kill).expect("somebody else sends on in the end"),
            all: Percentiles::of(slowest().map(|slowest| slowest.took)),
            held_up: Percentiles::of(held_up.map(|slowest| slowest.took)),
            new: Percentiles::of(new.iter().filter_map(opened)),
        }
    }

    fn assert_short(&self, slack: Duration) {
        assert!(self.held_up.count > 20, "too few were held up to prove anything: {self}");
        assert!(self.moved <= DETECTABLE + MOVED + slack, "{self}");
        assert!(self.all.most <= DATA_AGAIN + slack, "{self}");
        assert!(self.new.most <= NEW_AGAIN + slack, "{self}");
    }
}

impl std::fmt::Display for Outage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { moved, all, held_up, new } = self;
        write!(
            f,
            "sent on again {moved:.0?} after the cut; data again: {all}; of those held up: {held_up}; new: {new}"
        )
    }
}

/// When after the cut a node sent on, for the first time, to the second one what the dead node used to send there.
///
/// Only packets on their last hop count: those that are handed to an owner come from whoever received them.
fn first_sent_on(stage: &Stage, tunnels: &Captured, kill: &Kill) -> Option<Duration> {
    let [dead, _, third] = [0, 1, 2].map(|node| stage.nodes[node].machine().mac());
    let cut_at = SystemTime::now() - kill.at.elapsed();
    // The capture has to be whole: what it lost might have been sooner.
    assert!(!complete(tunnels).is_empty(), "nothing went through tunnels");
    let mut known = BTreeSet::new();
    tunnels.frames.iter().find_map(|frame| {
        let (from, client) = last_hop(&Packet::of(frame)?)?;
        match frame.at.duration_since(cut_at) {
            Err(_) if from == dead => {
                known.insert(client);
                None
            }
            Ok(after) if from == third && known.contains(&client) => Some(after),
            _ => None,
        }
    })
}

/// Who has sent a client's packet to its real server.
fn last_hop(packet: &Packet) -> Option<(MacAddress, SocketAddr)> {
    let is_last = packet.tunnels.first()?.hops == Some(0);
    is_last.then_some((MacAddress(packet.macs.0), packet.tcp?.from))
}
