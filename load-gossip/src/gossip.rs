//! The state machine: reports in, reports out, membership changes.

mod carrying;
mod sending;

use crate::acknowledgements::Acknowledgements;
use crate::auth::Keyring;
use crate::cargo::{Cargo, Waiting};
use crate::config::Config;
use crate::error::DatagramError;
use crate::exclusions::{DECIDED_MS_MAX, Exclusions, TooManyExclusions};
use crate::gossip::sending::OwnReport;
use crate::jitter::Jitter;
use crate::membership::{Changes, DownReason, Heard, Observer, Told};
use crate::message::{self, Datagram, Header, MessageType, Opened};
use crate::table::{Expiry, PeerTable, PeerView, candidate, view};
use dpr_model::status::GossipCounters;
use dpr_model::{Candidate, Exclusion, Incarnation, NodeId, Timestamp};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Timers more than this many intervals late mean that this node was stopped or starved.
const PAUSE_INTERVALS: u32 = 2;

/// Addresses of other nodes with this node's id that are surfaced, once each; more are only counted.
const CONFLICTS_MAX: usize = 16;

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a datagram.
    Send {
        /// Where to.
        to: Destination,
        /// UDP payload.
        bytes: Arc<[u8]>,
    },
    /// A peer is there that was not before.
    PeerUp(NodeId),
    /// A peer is not to be chosen any more.
    PeerDown {
        /// Which.
        node: NodeId,
        /// Why.
        reason: DownReason,
    },
    /// A peer speaks from a new life, whether it was up or down: its acknowledgements start anew.
    PeerRestarted(NodeId),
    /// A peer is no longer in the table.
    PeerForgotten(NodeId),
    /// An operator on another node took an address out of DNS, or back.
    Excluded(Exclusion),
    /// Another node uses this node's id, or an unknown later life of this node speaks; an operator must
    /// help. Told once per address.
    Conflict {
        /// Where it came from.
        from: SocketAddr,
        /// Node address that the other one reports.
        address: IpAddr,
        /// Its incarnation.
        incarnation: Incarnation,
    },
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To every configured group on every cluster interface.
    Groups,
    /// To one peer.
    Peer(SocketAddr),
}

/// Load gossip of one node.
///
/// The shell gives it what came in and the time ([`Self::handle_datagram`], [`Self::handle_timeout`]), then
/// does all that [`Self::poll_action`] returns and sleeps until [`Self::poll_timeout`]. Datagrams that have
/// arrived go before a timeout, or a busy shell takes its own delay for silence. `now` must not go back.
#[derive(Debug)]
pub struct Gossip {
    config: Config,
    report: Option<OwnReport>,
    acknowledgements: Acknowledgements,
    exclusions: Exclusions,
    /// Sequence of the last report sent; the first one is 1.
    sequence: u64,
    next_send: Timestamp,
    jitter: Jitter,
    table: PeerTable,
    /// The datagram that came last, for the sake of its memory.
    heard: Datagram,
    /// Last time that the shell called.
    called_at: Timestamp,
    /// Time in which this node did not listen, in all.
    deaf_for: Duration,
    events: VecDeque<Action>,
    /// Datagrams of the last report; one that was not picked up before the next is obsolete.
    outbox: VecDeque<Action>,
    /// Messages carried for others, on their way out and in.
    cargo_out: Waiting<Action>,
    cargo_in: Waiting<Cargo>,
    /// Count of messages carried in this life.
    carried: u64,
    conflicts: BTreeSet<IpAddr>,
    accepted: u64,
    rejected: BTreeMap<&'static str, u64>,
}

impl Gossip {
    /// Starts to listen; the first report goes out as soon as there is one.
    pub fn new(config: Config, now: Timestamp) -> Self {
        Self {
            jitter: Jitter::seeded(config.seed),
            config,
            report: None,
            acknowledgements: Acknowledgements::new(),
            exclusions: Exclusions::default(),
            sequence: 0,
            next_send: now,
            table: PeerTable::default(),
            heard: Datagram::blank(),
            called_at: now,
            deaf_for: Duration::ZERO,
            events: VecDeque::new(),
            outbox: VecDeque::new(),
            cargo_out: Waiting::default(),
            cargo_in: Waiting::default(),
            carried: 0,
            conflicts: BTreeSet::new(),
            accepted: 0,
            rejected: DatagramError::LABELS.into_iter().map(|label| (label, 0)).collect(),
        }
    }

    /// Takes in a datagram. An error is already counted; the shell may log it.
    pub fn handle_datagram(
        &mut self,
        from: SocketAddr,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<(), DatagramError> {
        self.notice_pause(now);
        let result = self.take_in(from, bytes, now);
        if let Err(error) = result {
            *self.rejected.entry(error.label()).or_default() += 1;
        }
        result
    }

    /// Suspects and forgets the silent, and sends the report if it is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.notice_pause(now);
        while let Some(expiry) = self.table.expire(self.deaf_for, now) {
            self.events.push_back(match expiry {
                Expiry::Suspected(node) => Action::PeerDown { node, reason: DownReason::Silent },
                Expiry::Forgotten(node) => Action::PeerForgotten(node),
            });
        }
        if now >= self.next_send {
            self.send_now(now);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next; cheap, `None` while there is nothing to do.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let next_send = self.report.as_ref().map(|_| self.next_send);
        next_send.into_iter().chain(self.table.next_deadline()).min()
    }

    /// The next thing to do; membership before datagrams. To be called until it returns `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.events.pop_front().or_else(|| self.outbox.pop_front()).or_else(|| self.cargo_out.pop())
    }

    /// Replaces the keys: for their rotation without a restart.
    pub fn set_keyring(&mut self, keyring: Keyring) {
        self.config.keyring = keyring;
    }

    /// Takes a service address out of DNS on all nodes, or back, at an operator's word; `unix_ms` is the time, in
    /// milliseconds since 1970. Others hear of it with the next reports.
    ///
    /// # Errors
    /// [`TooManyExclusions`]: there is no room for another one.
    pub fn exclude(
        &mut self,
        address: IpAddr,
        excluded: bool,
        unix_ms: u64,
    ) -> Result<(), TooManyExclusions> {
        self.exclusions.decide(address, excluded, self.config.node, unix_ms)
    }

    /// Takes in a decision that an earlier life of this node knew, and tells it again. Returns false if a later one is
    /// known, if there is no room, or if it is from beyond the year 10,000.
    pub fn remember(&mut self, exclusion: Exclusion) -> bool {
        exclusion.decided_ms < DECIDED_MS_MAX && self.exclusions.learn(exclusion)
    }

    /// What operators decided about service addresses, also those that are back, by address.
    pub fn exclusions(&self) -> impl Iterator<Item = &Exclusion> {
        self.exclusions.iter()
    }

    /// Forgets a peer at an operator's word; says whether it was known. One that still speaks comes back.
    pub fn forget(&mut self, node: NodeId) -> bool {
        let known = self.table.forget(node);
        if known {
            self.events.push_back(Action::PeerForgotten(node));
        }
        known
    }

    /// All known peers by id: alive, silent, and those that left; each until an hour after its last word.
    pub fn peers(&self, now: Timestamp) -> impl Iterator<Item = PeerView<'_>> {
        self.table.peers().map(move |peer| view(peer, self.config.slow_start, now))
    }

    /// One peer, if it is known.
    pub fn peer(&self, node: NodeId, now: Timestamp) -> Option<PeerView<'_>> {
        self.table.get(node).map(|peer| view(peer, self.config.slow_start, now))
    }

    /// How many connections of this node's present life `peer` says that it received; `None` before it
    /// says so. It never falls while the peer lives on, whatever order datagrams arrive in; a restarted peer
    /// starts anew ([`Action::PeerRestarted`]).
    pub fn acknowledged_by(&self, peer: NodeId) -> Option<u64> {
        self.table.get(peer)?.acknowledged
    }

    /// Peers that may be given new connections, in the order of their ids: alive, active, of positive
    /// weight. Weights are lowered during slow start; `outstanding` is 0, for the director to fill in.
    pub fn candidates(&self, now: Timestamp) -> Vec<Candidate> {
        self.table.peers().filter_map(|peer| candidate(peer, self.config.slow_start, now)).collect()
    }

    /// Panic freeze: fewer than half of the known peers are alive, and at least three are known.
    ///
    /// It is then likelier that this node is cut off than that most of the cluster died, and the few that
    /// look well would drown in what is moved to them. After Envoy's panic threshold of 50 %. Peers that
    /// left in good order do not count; silent ones do until they are forgotten, after an hour or by
    /// [`Self::forget`]. With one or two peers there is no majority that could look bad.
    pub fn frozen(&self) -> bool {
        self.table.is_frozen()
    }

    /// Reports sent (their copies not counted) and accepted (each once), datagrams rejected by reason.
    pub fn counters(&self) -> GossipCounters {
        GossipCounters {
            sent: self.sequence,
            accepted: self.accepted,
            rejected: self.rejected.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect(),
        }
    }

    fn take_in(&mut self, from: SocketAddr, bytes: &[u8], now: Timestamp) -> Result<(), DatagramError> {
        let opened = message::open(bytes, &self.config.keyring)?;
        match opened.message_type {
            MessageType::Report => self.take_report(&opened, from, now),
            MessageType::BriefReport => self.take_brief(&opened, from, now),
            MessageType::Cargo => self.take_cargo(&opened.header, opened.content),
        }
    }

    fn take_report(
        &mut self,
        opened: &Opened<'_>,
        from: SocketAddr,
        now: Timestamp,
    ) -> Result<(), DatagramError> {
        opened.read_into(&mut self.heard)?;
        let header = opened.header;
        if header.sender == self.config.node {
            return self.meet_own_id(&header, self.heard.report.address, from);
        }
        let observer = self.observer();
        let acknowledged = self.heard.acknowledged(observer.node, observer.incarnation);
        let told = Told::All(&mut self.heard);
        let heard = Heard { header, from, reads_brief: opened.reads_brief, acknowledged, told };
        let changes = self.table.hear(heard, &observer, now)?;
        self.tell(header.sender, changes);
        let exclusions = std::mem::take(&mut self.heard.exclusions);
        self.learn(&exclusions);
        Ok(())
    }

    fn take_brief(
        &mut self,
        opened: &Opened<'_>,
        from: SocketAddr,
        now: Timestamp,
    ) -> Result<(), DatagramError> {
        let observer = self.observer();
        let header = opened.header;
        if header.sender == self.config.node {
            return self.meet_own_life(header.incarnation);
        }
        let brief = opened.read_brief(observer.node, observer.incarnation)?;
        let told = Told::News(brief.moment);
        let heard =
            Heard { header, from, reads_brief: opened.reads_brief, acknowledged: brief.acknowledged, told };
        let changes = self.table.hear(heard, &observer, now)?;
        self.tell(header.sender, changes);
        self.learn(&brief.exclusions);
        Ok(())
    }

    fn observer(&self) -> Observer {
        Observer {
            node: self.config.node,
            incarnation: self.config.incarnation,
            interval: self.config.interval,
            deaf_for: self.deaf_for,
        }
    }

    fn tell(&mut self, node: NodeId, changes: Changes) {
        let Changes { fresh, restarted, up, left } = changes;
        self.accepted += u64::from(fresh);
        if restarted {
            self.events.push_back(Action::PeerRestarted(node));
        }
        if up {
            self.events.push_back(Action::PeerUp(node));
        }
        if left {
            self.events.push_back(Action::PeerDown { node, reason: DownReason::Left });
        }
        if (restarted || up)
            && let Some(own) = &mut self.report
        {
            own.introduce();
        }
    }

    fn learn(&mut self, exclusions: &[Exclusion]) {
        if exclusions.is_empty() {
            return;
        }
        let news = exclusions.iter().filter(|exclusion| self.exclusions.learn(**exclusion));
        self.events.extend(news.copied().map(Action::Excluded));
    }

    /// A brief report with this node's id. Who else uses it, a full one will tell.
    fn meet_own_life(&self, incarnation: Incarnation) -> Result<(), DatagramError> {
        let known = self.config.incarnation;
        match incarnation.cmp(&known) {
            Ordering::Equal => Ok(()),
            Ordering::Less => Err(DatagramError::StaleIncarnation { incarnation, known }),
            Ordering::Greater => Err(DatagramError::NotIntroduced),
        }
    }

    /// A full report with this node's id: its own come back by multicast loop, anything else is wrong.
    fn meet_own_id(
        &mut self,
        header: &Header,
        address: IpAddr,
        from: SocketAddr,
    ) -> Result<(), DatagramError> {
        let Header { incarnation, sequence, .. } = *header;
        let known = self.config.incarnation;
        if self.report.as_ref().is_none_or(|own| own.address == address) {
            if incarnation == known && sequence <= self.sequence {
                return Ok(());
            }
            if incarnation < known {
                return Err(DatagramError::StaleIncarnation { incarnation, known });
            }
        }
        if self.conflicts.len() < CONFLICTS_MAX && self.conflicts.insert(address) {
            self.events.push_back(Action::Conflict { from, address, incarnation });
        }
        Err(DatagramError::IdConflict { address, incarnation })
    }

    /// If timers are far too late, this node did not listen either, and that is nobody's silence.
    ///
    /// Only the lateness is forgiven, so that a node that is always late becomes slow to suspect and not
    /// unable to.
    fn notice_pause(&mut self, now: Timestamp) {
        let pause = self.config.interval * PAUSE_INTERVALS;
        // Nothing is later than the last call is ago, and while datagrams come that is not long.
        if now.since(self.called_at) > pause {
            let expected = self.poll_timeout().unwrap_or(now).max(self.called_at);
            let late = now.since(expected);
            if late > pause {
                self.deaf_for += late;
            }
        }
        self.called_at = now;
    }
}
