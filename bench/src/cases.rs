//! What is counted.

mod gossip;
mod packets;
mod sync;

use crate::callgrind::measured;
use anyhow::Context as _;
use std::time::{Duration, Instant};

/// One thing that is done many times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// As in the table and in the baseline.
    pub(crate) name: &'static str,
    /// What one turn should cost at most, instructions; see `docs/performance.md`.
    pub(crate) goal: Option<u64>,
    /// How often it is done.
    pub(crate) turns: usize,
    /// Makes what is needed and returns one turn, which is told its number.
    prepare: fn(turns: usize) -> Turn,
}

/// Half of 2 % of a core, 10 ms, at 5 instructions a nanosecond: the kernel may have the other half for 5,000 datagrams.
const SECOND_MAX: u64 = 50_000_000;

type Turn = Box<dyn FnMut(usize)>;

/// Every case, in the order of a packet's journey, then of a connection's copies, then of a report's.
pub(crate) const ALL: [Case; 13] = [
    Case { name: "parse", goal: Some(100), turns: 1000, prepare: packets::parse_plain },
    Case { name: "parse-tunnelled", goal: None, turns: 1000, prepare: packets::parse_tunnelled },
    Case { name: "forward-known", goal: Some(400), turns: 10_000, prepare: packets::forward_known },
    Case { name: "forward-known-1k", goal: Some(400), turns: 10_000, prepare: packets::forward_known_1k },
    Case { name: "deliver-received", goal: None, turns: 10_000, prepare: packets::deliver_received },
    Case { name: "reply", goal: None, turns: 1000, prepare: packets::reply },
    Case { name: "syn-8", goal: None, turns: 1000, prepare: packets::syn_among_8 },
    Case { name: "syn-1000", goal: None, turns: 1000, prepare: packets::syn_among_1000 },
    Case { name: "sync-send", goal: Some(3000), turns: 20_000, prepare: sync::send },
    Case { name: "sync-apply", goal: Some(4500), turns: 20_000, prepare: sync::apply },
    Case { name: "report", goal: Some(2000), turns: 5000, prepare: gossip::hear_reports },
    Case { name: "update-500", goal: None, turns: 20, prepare: gossip::update_data_plane },
    Case { name: "second-500", goal: Some(SECOND_MAX), turns: 3, prepare: gossip::second_among_500 },
];

impl Case {
    /// The case of a name.
    pub(crate) fn named(name: &str) -> anyhow::Result<&'static Self> {
        ALL.iter().find(|case| case.name == name).with_context(|| format!("there is no case {name}"))
    }

    /// Does it, as often as it says, where callgrind counts. Returns what a turn took, which means nothing under
    /// callgrind and little elsewhere.
    pub(crate) fn work(&self) -> Duration {
        let mut turn = (self.prepare)(self.turns);
        let began = Instant::now();
        measured(self.turns, &mut *turn);
        began.elapsed() / u32::try_from(self.turns).unwrap_or(u32::MAX)
    }
}
