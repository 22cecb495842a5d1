//! Agreement: the state machine by which nodes have one ownership map, and the right to act by it.
//!
//! Voters promise each node that they hear not to consent to its death for some time; a node acts as owner while a
//! quorum's promises to it last. One coordinator, named by a quorum, makes maps; a map counts when a quorum accepted
//! it. What a map moves waits until it is *settled*: until a quorum says that no promise under an earlier map binds
//! it any more. `docs/ownership.md` has the argument why no slot ever has two owners who may act.
//!
//! Messages and time go in, messages and changes of duty come out, in the manner of `quinn-proto`. This module refuses
//! to authenticate (load gossip carries its messages), to know what nodes report (the shell tells it who is there),
//! and to trust any clock but this node's own, which must not stop during suspend.

mod config;
mod consent;
mod coordination;
mod election;
mod exchange;
mod message;
mod peers;
mod right;
mod saved;
mod takeover;
mod transfer;
mod witness;

pub use config::{Config, ConfigError, INTERVAL_MAX, INTERVAL_MIN, Quorum};
pub use message::{MESSAGE_MAX, MessageError};
pub use right::Duty;
pub use saved::SavedError;
pub use takeover::{GiveBack, TakeOverError};
pub use witness::ANSWER_COUNTS;

use crate::map::{OwnershipMap, ServiceAddress, VOTERS_MAX};
use crate::shares::{Director, Shares};
use consent::Consent;
use dpr_model::{Incarnation, MapVersion, NodeId, Timestamp};
use message::{Message, Standing, Statement};
use peers::{Own, Peers, PromiseBounds};
use right::Rights;
use saved::Saved;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use transfer::{Assembly, EncodedMap};
use witness::Witness;

/// What clocks that run at different speeds, and the time between a check and the packet after it, may amount to
/// within the longest promise. Crystals differ by less than 0.01 %, virtual clocks by less than 0.1 %.
pub const MARGIN: Duration = Duration::from_millis(50);

/// Statements per interval, at most. A move takes six of them, one after the other, and may take half an interval.
const STATEMENTS_MAX: u32 = 20;
/// Looks at the clock per interval.
const TICKS: u32 = 5;
/// Timers more than this many intervals late mean that this node was stopped or starved.
const PAUSE_INTERVALS: u32 = 2;

/// What the shell is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Keep this over a restart; it has to be on the disk before what follows is sent.
    Persist(Vec<u8>),
    /// Send a message by load gossip.
    Send {
        /// One node, or all.
        to: Option<NodeId>,
        /// At most [`MESSAGE_MAX`] bytes.
        bytes: Vec<u8>,
    },
    /// [`Agreement::duty`] changed: tell the data plane, and when it acts by it, [`Agreement::confirm`].
    DutyChanged,
}

/// A node that the shell knows from load reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applicant {
    /// Who, what it is worth, how hot it is as a director.
    pub director: Director,
    /// It takes leave: it is no member of the next map.
    pub leaving: bool,
}

/// Agreement of one node with the others.
#[derive(Debug)]
pub struct Agreement {
    config: Config,
    own: Own,
    /// Latest election that this node voted in, and for whom.
    term: u64,
    vote: Option<NodeId>,
    /// For whom this node voted last, or whose map it accepted last, and when.
    leader: Option<(NodeId, Timestamp)>,
    /// A quorum has elected this node, and names it.
    coordinating: bool,
    stood_at: Option<Timestamp>,
    accepted: Arc<EncodedMap>,
    proposed_at: Option<Timestamp>,
    rights: Rights,
    /// Nodes to which promises were made under earlier maps than the accepted one, and when those end.
    earlier_promises: BTreeMap<NodeId, Timestamp>,
    /// Promises of this node's earlier lives end by then.
    memory_from: Timestamp,
    peers: Peers,
    forgotten: BTreeSet<NodeId>,
    witness: Witness,
    leaving: bool,
    applicants: Vec<Applicant>,
    addresses: Vec<ServiceAddress>,
    /// Addresses that only their homes can have while those live.
    bound: BTreeSet<IpAddr>,
    /// Moves that an operator wants and that no map has begun.
    requests: BTreeMap<IpAddr, Option<NodeId>>,
    /// The map by which heirs have copies of everything.
    handed_by: Option<MapVersion>,
    /// Clients cannot reach this node.
    cut_off: bool,
    shares: Shares,
    assembly: Option<Assembly>,
    said: Option<(Standing, Timestamp)>,
    next_send: Timestamp,
    called_at: Timestamp,
    actions: VecDeque<Action>,
}

impl Agreement {
    /// Begins a life, with what an earlier one asked to [`Action::Persist`].
    ///
    /// # Errors
    ///
    /// [`SavedError`] if that cannot be read. To go on without it is safe if the voters have not changed since the
    /// cluster was founded.
    pub fn new(config: Config, saved: Option<&[u8]>, now: Timestamp) -> Result<Self, SavedError> {
        let founding = || Saved { term: 0, vote: None, map: config.genesis.clone() };
        let saved = saved.map_or_else(|| Ok(founding()), Saved::from_bytes)?;
        let own = Own { node: config.node, incarnation: config.incarnation, began: now };
        Ok(Self {
            own,
            term: saved.term,
            vote: saved.vote,
            leader: None,
            coordinating: false,
            stood_at: None,
            rights: Rights::new(saved.map.version()),
            accepted: Arc::new(EncodedMap::new(saved.map)),
            proposed_at: None,
            earlier_promises: BTreeMap::new(),
            memory_from: now + config.promise_max() + MARGIN,
            peers: Peers::default(),
            forgotten: BTreeSet::new(),
            witness: Witness::default(),
            leaving: false,
            applicants: Vec::new(),
            addresses: Vec::new(),
            bound: BTreeSet::new(),
            requests: BTreeMap::new(),
            handed_by: None,
            cut_off: false,
            shares: Shares::default(),
            assembly: None,
            said: None,
            next_send: now,
            called_at: now,
            actions: VecDeque::from([Action::DutyChanged]),
            config,
        })
    }

    /// Takes in a message of another node in its life `incarnation`.
    ///
    /// # Errors
    ///
    /// [`MessageError`], of which the shell counts the label.
    pub fn handle_message(
        &mut self,
        from: (NodeId, Incarnation),
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<(), MessageError> {
        self.notice_pause(now);
        if from.0 == self.own.node {
            return Ok(());
        }
        let news = match Message::from_bytes(bytes)? {
            Message::Statement(statement) => self.hear(from, &statement, now),
            Message::Request(request) => {
                self.serve(from.0, &request);
                false
            }
            Message::Chunk(chunk) => self.receive(chunk, now),
        };
        // What is heard every time can wait for the next look at the clock.
        if news {
            self.evaluate(now);
        }
        Ok(())
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.notice_pause(now);
        self.evaluate(now);
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Timestamp {
        self.next_send.min(self.called_at + self.config.interval / TICKS)
    }

    /// The next thing to do. To be called until it returns `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Who is there, and which service addresses there are, by load reports. Counts if this node is coordinator.
    pub fn set_cluster(&mut self, applicants: Vec<Applicant>, addresses: Vec<ServiceAddress>) {
        self.applicants = applicants;
        self.addresses = addresses;
    }

    /// Whether clients cannot reach this node, by what it sees of their network: then it owns nothing as long as they reach
    /// another one.
    pub fn set_cut_off(&mut self, cut_off: bool) {
        self.cut_off = cut_off;
    }

    /// This node takes leave: it will not be coordinator any more.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// An operator declares a silent node dead, so that its vote is not needed. False if it is not silent.
    pub fn forget(&mut self, node: NodeId, now: Timestamp) -> bool {
        if node == self.own.node || self.peers.is_heard(node, now) || self.forgotten.len() == VOTERS_MAX {
            return false;
        }
        self.forgotten.insert(node);
        self.evaluate(now);
        true
    }

    /// What the data plane may do.
    pub fn duty(&self) -> Duty {
        self.rights.duty(Arc::clone(&self.accepted.map))
    }

    /// The data plane acts by the duty of this serial, and by no earlier one.
    pub fn confirm(&mut self, serial: u64, now: Timestamp) {
        self.rights.confirm(serial, self.accepted.map.version());
        self.evaluate(now);
    }

    /// The map that this node has accepted.
    pub fn map(&self) -> &OwnershipMap {
        &self.accepted.map
    }

    /// The coordinator that this node follows, which may be itself.
    pub fn coordinator(&self) -> Option<NodeId> {
        self.leader.map(|(leader, _)| leader)
    }

    /// Latest election that this node voted in.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Takes in a statement. True if it says anything new but that its sender is there.
    fn hear(&mut self, from: (NodeId, Incarnation), statement: &Statement, now: Timestamp) -> bool {
        let before = self
            .peers
            .get(from.0)
            .map(|peer| (peer.standing, peer.promised_under(statement.standing.accepted)));
        if !self.peers.hear(from, statement, self.own, self.promise_bounds(), now) {
            return false;
        }
        let changed =
            before.is_none_or(|(standing, promise)| standing != statement.standing || promise.is_none());
        self.forgotten.remove(&from.0);
        for node in &statement.forgotten {
            let is_silent = *node != self.own.node && !self.peers.is_heard(*node, now);
            if is_silent && self.forgotten.len() < VOTERS_MAX {
                self.forgotten.insert(*node);
            }
        }
        self.consider_vote(from.0, now);
        changed
    }

    /// Brings everything up to date, in an order in which nothing is said that is not so yet.
    fn evaluate(&mut self, now: Timestamp) {
        self.called_at = self.called_at.max(now);
        let version = self.accepted.map.version();
        let peers = &self.peers;
        self.earlier_promises.retain(|node, until| {
            now <= *until + MARGIN && peers.get(*node).is_none_or(|peer| peer.standing.acting < version)
        });
        self.renew_right(now);
        self.stand(now);
        self.coordinate(now);
        self.fetch(now);
        self.speak(now);
    }

    /// Takes over a newer map, unless a later election makes it void. True if it did.
    fn accept(&mut self, map: EncodedMap, now: Timestamp) -> bool {
        let version = map.map.version();
        if version <= self.accepted.map.version() || version.term < self.term {
            return false;
        }
        // Who acts by the map before and is no member of it, as one that has taken leave, acts on nothing.
        let before = &self.accepted.map;
        let may_act = |node: NodeId, peer: &peers::Peer| {
            before.has_member(node) || peer.standing.acting != before.version()
        };
        let bound = |(node, peer): &(NodeId, &peers::Peer)| {
            peer.promised_until + MARGIN >= now && may_act(*node, peer)
        };
        for (node, peer) in self.peers.iter().filter(bound) {
            let until = self.earlier_promises.entry(node).or_default();
            *until = (*until).max(peer.promised_until);
        }
        if version.term > self.term {
            self.term = version.term;
            self.vote = Some(NodeId(version.coordinator));
        }
        self.leader = Some((NodeId(version.coordinator), now));
        self.accepted = Arc::new(map);
        self.rights.begin_map();
        self.persist();
        self.actions.push_back(Action::DutyChanged);
        self.assembly = None;
        let map = &self.accepted.map;
        self.forgotten.retain(|node| map.has_member(*node) || is_voter(map, *node));
        self.peers.retain(|node| map.has_member(node) || is_voter(map, node), now);
        true
    }

    fn persist(&mut self) {
        let saved = Saved { term: self.term, vote: self.vote, map: OwnershipMap::clone(&self.accepted.map) };
        self.actions.push_back(Action::Persist(saved.to_bytes()));
    }

    fn consent(&self, now: Timestamp) -> Consent<'_> {
        Consent {
            quorum: self.config.quorum,
            voters: self.accepted.map.voters(),
            forgotten: &self.forgotten,
            witness_backs: self.witness_until(now).is_some(),
        }
    }

    /// True if those nodes for which `agrees` holds, and this one, are enough.
    fn have_consent(&self, agrees: impl Fn(&peers::Peer) -> bool, now: Timestamp) -> bool {
        self.consent(now).is_given(
            |node| node == self.own.node || self.peers.get(node).is_some_and(&agrees),
            |node| self.is_suspected(node, now),
        )
    }

    fn is_suspected(&self, node: NodeId, now: Timestamp) -> bool {
        node != self.own.node && self.peers.is_suspected(node, self.memory_from, now)
    }

    fn promise_bounds(&self) -> PromiseBounds {
        PromiseBounds { min: self.config.promise_min(), max: self.config.promise_max() }
    }

    fn notice_pause(&mut self, now: Timestamp) {
        let expected = self.poll_timeout();
        if now.since(expected) > self.config.interval * PAUSE_INTERVALS {
            self.peers.forgive(expected, self.promise_bounds(), now);
        }
        self.called_at = self.called_at.max(now);
    }
}

fn is_voter(map: &OwnershipMap, node: NodeId) -> bool {
    let is_in = |group: &[NodeId]| group.binary_search(&node).is_ok();
    is_in(&map.voters().before) || is_in(&map.voters().now)
}

/// The version after `version`, for a coordinator of `term`.
fn version_after(version: MapVersion, term: u64, coordinator: NodeId) -> MapVersion {
    let epoch = if version.term == term { version.epoch.saturating_add(1) } else { 1 };
    MapVersion { term, epoch, coordinator: coordinator.0 }
}
