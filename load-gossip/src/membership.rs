//! One peer's life as this node sees it: its freshest report, whether it is alive, when to suspect it.

use crate::message::{Datagram, Header, Moment};
use crate::paths::Paths;
use crate::replay::{Admission, ReplayWindow};
use crate::slow_start::SlowStart;
use crate::suspicion::ArrivalTimes;
use crate::{DatagramError, INTERVAL_MAX, INTERVAL_MIN};
use dpr_model::{Incarnation, LoadReport, NodeId, NodeState, ServiceReport, Timestamp, Weight};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Silence after which a peer is forgotten.
pub(crate) const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// How long a peer that fell silent gets a unicast copy of every report.
const UNICAST_PROBES_FOR: Duration = Duration::from_secs(3);
/// After that it gets every tenth.
const UNICAST_PROBE_EVERY: u64 = 10;
/// A peer that was silent for less than this in the same life went on working, unheard: it need not start slowly. As
/// long as the slow start itself takes by default.
const COLD_AFTER: Duration = Duration::from_secs(3);

/// Why a peer is not to be chosen any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// Nothing was heard of it for longer than its arrival times explain.
    Silent,
    /// It said that it leaves.
    Left,
}

/// Whether a peer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Liveness {
    Alive,
    Silent { since: Timestamp },
    Left,
}

/// What a datagram changed about a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// It had not been heard before, not even as another copy.
    pub(crate) fresh: bool,
    /// It speaks from a new life.
    pub(crate) restarted: bool,
    /// It is there now and was not before.
    pub(crate) up: bool,
    /// It said goodbye.
    pub(crate) left: bool,
}

/// A datagram's say about its sender.
#[derive(Debug)]
pub(crate) struct Heard<'a> {
    pub(crate) header: Header,
    /// Where it came from.
    pub(crate) from: SocketAddr,
    /// The sender understands brief reports.
    pub(crate) reads_brief: bool,
    /// Connections of this node's present life that it acknowledges.
    pub(crate) acknowledged: Option<u64>,
    pub(crate) told: Told<'a>,
}

/// How much of its sender a datagram tells.
#[derive(Debug)]
pub(crate) enum Told<'a> {
    /// Everything; what was heard before may be put in its place.
    All(&'a mut Datagram),
    /// What may be new since it told everything.
    News(Moment),
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The freshest report, without acknowledgements: those for this node are in `acknowledged`.
    pub(crate) report: LoadReport,
    /// The services of its report, for directors: replaced only by others.
    pub(crate) services: Arc<[ServiceReport]>,
    /// Where its freshest report came from.
    pub(crate) from: SocketAddr,
    /// When its freshest report came.
    pub(crate) heard_at: Timestamp,
    /// [`Observer::deaf_for`] at that time.
    deaf_for: Duration,
    /// Largest count of connections from this node that it acknowledged in its present life.
    pub(crate) acknowledged: Option<u64>,
    /// Time between its reports.
    pub(crate) interval: Duration,
    /// It understands brief reports.
    pub(crate) reads_brief: bool,
    window: ReplayWindow,
    arrivals: ArrivalTimes,
    paths: Paths,
    liveness: Liveness,
    slow_start: Option<SlowStart>,
}

/// What a peer needs to know about this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observer {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    /// Interval of peers that do not announce theirs.
    pub(crate) interval: Duration,
    /// Time in which it did not listen because it was stopped or starved, in all.
    pub(crate) deaf_for: Duration,
}

impl Peer {
    /// A peer heard for the first time, or for the first time in a new life; an error if it does not introduce itself.
    pub(crate) fn new(heard: &Heard<'_>, observer: &Observer, now: Timestamp) -> Result<Self, DatagramError> {
        let Heard { header, from, reads_brief, acknowledged, .. } = *heard;
        let Told::All(Datagram { interval, report, .. }) = &heard.told else {
            return Err(DatagramError::NotIntroduced);
        };
        let interval = known_interval(*interval, observer);
        let mut peer = Self {
            acknowledged,
            liveness: liveness_by(report.state),
            report: LoadReport { received: Vec::new(), ..report.clone() },
            services: report.services.as_slice().into(),
            from,
            heard_at: now,
            deaf_for: observer.deaf_for,
            interval,
            reads_brief,
            window: ReplayWindow::starting_at(header.sequence, header.via),
            arrivals: ArrivalTimes::expecting(interval),
            paths: Paths::default(),
            slow_start: None,
        };
        peer.paths.record(header.via, header.sequence, now);
        if peer.may_be_chosen() {
            // Its sequence tells how long it has been up, so that a node that has just started itself does
            // not take all the others for newcomers.
            let reports = u32::try_from(header.sequence).unwrap_or(u32::MAX);
            peer.slow_start = Some(SlowStart::beginning(now, interval.saturating_mul(reports)));
        }
        Ok(peer)
    }

    /// Another datagram of the same life. A full report, if it is the freshest, changes places with the one before.
    pub(crate) fn hear(
        &mut self,
        heard: Heard<'_>,
        observer: &Observer,
        now: Timestamp,
    ) -> Result<Changes, DatagramError> {
        let Header { via, sequence, .. } = heard.header;
        let admission = self.window.admit(sequence, via)?;
        self.paths.record(via, sequence, now);
        self.acknowledged = self.acknowledged.max(heard.acknowledged);
        match admission {
            Admission::Newest => Ok(self.renew(heard, observer, now)),
            Admission::Late => Ok(Changes { fresh: true, ..Changes::default() }),
            Admission::SecondCopy => Ok(Changes::default()),
        }
    }

    fn renew(&mut self, heard: Heard<'_>, observer: &Observer, now: Timestamp) -> Changes {
        let (was_alive, was_choosable, had_left) = (self.is_alive(), self.may_be_chosen(), self.has_left());
        if let Told::All(datagram) = &heard.told {
            self.interval = known_interval(datagram.interval, observer);
        }
        let silence = now.since(self.heard_at);
        if self.deaf_for == observer.deaf_for {
            self.arrivals.record(silence, self.interval);
        }
        self.heard_at = now;
        self.deaf_for = observer.deaf_for;
        self.from = heard.from;
        self.reads_brief = heard.reads_brief;
        self.take(heard.told);
        self.liveness = liveness_by(self.report.state);
        let only_unheard = !was_alive && !had_left && silence < COLD_AFTER;
        if !was_choosable && self.may_be_chosen() && !only_unheard {
            self.slow_start = Some(SlowStart::beginning(now, Duration::ZERO));
        }
        Changes {
            fresh: true,
            restarted: false,
            up: !was_alive && self.is_alive(),
            left: !had_left && self.has_left(),
        }
    }

    fn take(&mut self, told: Told<'_>) {
        match told {
            Told::All(datagram) => {
                std::mem::swap(&mut self.report, &mut datagram.report);
                std::mem::swap(&mut self.report.received, &mut datagram.report.received);
                if self.services[..] != self.report.services[..] {
                    self.services = self.report.services.as_slice().into();
                }
            }
            Told::News(Moment { state, load }) => {
                self.report.state = state;
                self.report.load = load;
            }
        }
    }

    /// When silence means something: suspicion of a live peer, oblivion of any other.
    ///
    /// Time in which this node did not listen is not the peer's silence.
    pub(crate) fn deadline(&self, deaf_for: Duration) -> Timestamp {
        match self.liveness {
            Liveness::Alive => {
                let deaf_since = deaf_for.saturating_sub(self.deaf_for);
                self.heard_at + self.arrivals.patience(self.interval) + deaf_since
            }
            Liveness::Silent { .. } | Liveness::Left => self.heard_at + FORGOTTEN_AFTER,
        }
    }

    /// What [`Self::deadline`] is at least, at a glance.
    #[inline]
    pub(crate) fn deadline_min(&self) -> Timestamp {
        self.heard_at + ArrivalTimes::patience_min(self.interval)
    }

    pub(crate) fn suspect(&mut self, now: Timestamp) {
        self.liveness = Liveness::Silent { since: now };
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.liveness == Liveness::Alive
    }

    pub(crate) fn has_left(&self) -> bool {
        self.liveness == Liveness::Left
    }

    /// Alive and active; its weight may still be zero.
    pub(crate) fn may_be_chosen(&self) -> bool {
        self.is_alive() && self.report.state == NodeState::Active
    }

    /// Newest sequence of its present life.
    pub(crate) fn newest_sequence(&self) -> u64 {
        self.window.newest()
    }

    /// Whether report `sequence` goes to it by unicast as well.
    ///
    /// A peer heard by unicast only will not hear multicast either. One that fell silent gets copies too:
    /// where multicast has stopped working both sides fall silent at once, and this is how they find each
    /// other again.
    pub(crate) fn wants_unicast(&self, sequence: u64, now: Timestamp) -> bool {
        match self.liveness {
            Liveness::Alive => self.paths.is_unicast_only(),
            Liveness::Silent { since } => {
                now.since(since) < UNICAST_PROBES_FOR
                    || sequence.wrapping_add(self.report.node.0.into()).is_multiple_of(UNICAST_PROBE_EVERY)
            }
            Liveness::Left => false,
        }
    }

    pub(crate) fn is_heard_by_multicast(&self) -> bool {
        self.paths.is_heard_by_multicast()
    }

    pub(crate) fn is_multicast_blocked(&self, now: Timestamp) -> bool {
        self.is_alive() && self.paths.is_multicast_blocked(self.interval, now)
    }

    /// Its weight, lowered while it starts slowly over `length`.
    pub(crate) fn weight(&self, length: Duration, now: Timestamp) -> Weight {
        let full = self.report.weight;
        self.slow_start.map_or(full, |start| start.weight(full, length, now))
    }
}

/// A peer cannot announce an interval that this node would not accept for itself.
fn known_interval(announced: Option<Duration>, observer: &Observer) -> Duration {
    announced.unwrap_or(observer.interval).clamp(INTERVAL_MIN, INTERVAL_MAX)
}

fn liveness_by(state: NodeState) -> Liveness {
    match state {
        NodeState::Joining | NodeState::Active | NodeState::Draining => Liveness::Alive,
        NodeState::Leaving => Liveness::Left,
    }
}
