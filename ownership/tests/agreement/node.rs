//! One node: its daemon's agreement, a data plane that outlives it, and a clock of its own.

use crate::network::Flight;
use dpr_model::{NodeId, Timestamp};
use dpr_ownership::agreement::{Agreement, Duty};
use std::collections::VecDeque;
use std::time::Duration;

/// Longest time for which a data plane acts without a word from its daemon.
const LEASE_MAX: Duration = Duration::from_millis(250);
/// How often a daemon tells its data plane what it may do, where nothing holds it up.
const UPDATE_EVERY: Duration = Duration::from_millis(20);

/// A node and all that would survive its daemon.
pub(crate) struct Node {
    pub(crate) daemon: Option<Agreement>,
    pub(crate) incarnation: u64,
    pub(crate) saved: Option<Vec<u8>>,
    pub(crate) plane: Plane,
    pub(crate) offset: Duration,
    pub(crate) speed_ppm: i64,
    pub(crate) paused: bool,
    pub(crate) leaving: bool,
    /// Heirs have copies of all that it has.
    pub(crate) has_copied: bool,
    /// Clients cannot reach it.
    pub(crate) cut_off: bool,
    /// The witness answers it.
    pub(crate) reaches_witness: bool,
    /// When it asks the witness next.
    pub(crate) ask_at: Timestamp,
    /// What came in while it was paused.
    pub(crate) waiting: VecDeque<Flight>,
    /// When the data plane is told next.
    pub(crate) update_at: Timestamp,
    /// How often it is.
    pub(crate) update_every: Duration,
}

/// A data plane: it acts by what it was told until its lease runs out, whatever becomes of the daemon.
pub(crate) struct Plane {
    pub(crate) duty: Option<Duty>,
    pub(crate) until: Timestamp,
}

impl Node {
    /// A node that was never started, whose clock is `offset` ahead.
    pub(crate) fn new(offset: Duration, speed_ppm: i64) -> Self {
        Self {
            daemon: None,
            incarnation: 0,
            saved: None,
            plane: Plane { duty: None, until: Timestamp::default() },
            offset,
            speed_ppm,
            paused: false,
            leaving: false,
            has_copied: true,
            cut_off: false,
            reaches_witness: true,
            ask_at: Timestamp::default(),
            waiting: VecDeque::new(),
            update_at: Timestamp::default(),
            update_every: UPDATE_EVERY,
        }
    }

    /// Tells the data plane what it may do now.
    pub(crate) fn update(&mut self, local: Timestamp) {
        let Some(daemon) = &mut self.daemon else { return };
        let duty = daemon.duty();
        let serial = duty.serial;
        self.plane.until = duty.until.unwrap_or_default().min(local + LEASE_MAX);
        self.plane.duty = Some(duty);
        self.update_at = local + self.update_every;
        daemon.confirm(serial, local);
    }

    pub(crate) fn local(&self, now: Timestamp) -> Timestamp {
        let nanos = i128::from(now.as_nanos()) * (1_000_000 + i128::from(self.speed_ppm)) / 1_000_000;
        Timestamp::from_nanos(nanos as u64) + self.offset
    }

    /// The first moment at which this node's clock is past `local`.
    pub(crate) fn global(&self, local: Timestamp) -> Timestamp {
        let nanos = local.since(Timestamp::default() + self.offset).as_nanos() as i128;
        Timestamp::from_nanos((nanos * 1_000_000 / (1_000_000 + i128::from(self.speed_ppm))) as u64 + 2)
    }
}

/// For people who look for what went wrong.
pub(crate) fn describe(id: NodeId, node: &Node) -> String {
    let Some(daemon) = &node.daemon else { return format!("{id} is dead") };
    let (duty, map) = (daemon.duty(), daemon.map());
    format!(
        "{id}{} term {} follows {:?} map {:?} base {:?} voters {:?} members {:?} settled {} until {:?}",
        if node.paused { " paused" } else { "" },
        daemon.term(),
        daemon.coordinator(),
        map.version(),
        map.base(),
        map.voters(),
        map.members().iter().map(|member| member.node.0).collect::<Vec<_>>(),
        duty.settled,
        duty.until,
    )
}
