//! What other nodes said, and what this node has promised them.

use crate::agreement::message::{Promise, Standing, Statement};
use crate::map::MEMBERS_MAX;
use dpr_model::{Incarnation, MapVersion, NodeId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A promise lasts this many times the longest gap between two statements.
const GAPS: u32 = 3;
/// Gaps are remembered for one to two of these: loss comes in bursts, and a lucky minute proves nothing.
const GAP_WINDOW: Duration = Duration::from_secs(20);

/// Most nodes that are listened to: all members of a large cluster, and as many who want to be.
const PEERS_MAX: usize = 2 * MEMBERS_MAX;

/// Bounds of promises.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PromiseBounds {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

/// One node, as it is heard.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    incarnation: Incarnation,
    /// Its clock in its last statement.
    stamp: Timestamp,
    heard_at: Timestamp,
    /// The last promise, from its stamp on.
    term: Duration,
    /// Until then this node does not consent to the peer's death.
    pub(crate) promised_until: Timestamp,
    gaps: Gaps,
    pub(crate) standing: Standing,
    pub(crate) suspects: BTreeSet<NodeId>,
    /// Since when it says that it may not act, although it is heard.
    powerless_since: Option<Timestamp>,
    /// Its last promise to this node, and the map under which it was made.
    promise: Option<(MapVersion, Timestamp)>,
}

/// The longest gap between two statements, lately.
#[derive(Clone, Copy, Debug, Default)]
struct Gaps {
    longest: Duration,
    longest_before: Duration,
    since: Timestamp,
}

impl Gaps {
    fn record(&mut self, gap: Duration, now: Timestamp) {
        if now.since(self.since) > GAP_WINDOW {
            *self = Self { longest: Duration::ZERO, longest_before: self.longest, since: now };
        }
        self.longest = self.longest.max(gap);
    }

    fn promise(&self, bounds: PromiseBounds) -> Duration {
        (self.longest.max(self.longest_before) * GAPS).clamp(bounds.min, bounds.max)
    }
}

impl Peer {
    /// When a promise of this peer to this node ends, if it was made under the map `version`.
    pub(crate) fn promised_under(&self, version: MapVersion) -> Option<Timestamp> {
        self.promise.filter(|(under, _)| *under == version).map(|(_, until)| until)
    }

    /// When its last statement came.
    pub(crate) fn heard_at(&self) -> Timestamp {
        self.heard_at
    }

    /// For how long it has said that it may not act.
    pub(crate) fn powerless_for(&self, now: Timestamp) -> Duration {
        self.powerless_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    fn new(incarnation: Incarnation, stamp: Timestamp, now: Timestamp, bounds: PromiseBounds) -> Self {
        Self {
            incarnation,
            stamp,
            heard_at: now,
            term: bounds.min,
            promised_until: now + bounds.min,
            gaps: Gaps { since: now, ..Gaps::default() },
            standing: Standing::default(),
            suspects: BTreeSet::new(),
            powerless_since: Some(now),
            promise: None,
        }
    }

    /// A statement that is newer than all before it.
    fn hear(&mut self, stamp: Timestamp, listening: bool, bounds: PromiseBounds, now: Timestamp) {
        let gap = now.since(self.heard_at);
        if listening && gap <= bounds.max {
            self.gaps.record(gap, now);
        }
        self.stamp = stamp;
        self.heard_at = now;
        self.term = self.gaps.promise(bounds);
        self.promised_until = self.promised_until.max(now + self.term);
    }
}

/// This node, for what others promise it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    /// First moment of this life.
    pub(crate) began: Timestamp,
}

/// All nodes that were heard in this life, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    by_node: BTreeMap<NodeId, Peer>,
    /// Gaps that began before this moment are this node's own fault.
    deaf_until: Option<Timestamp>,
}

impl Peers {
    /// Takes in a statement. False if it is older than what is known.
    pub(crate) fn hear(
        &mut self,
        from: (NodeId, Incarnation),
        statement: &Statement,
        own: Own,
        bounds: PromiseBounds,
        now: Timestamp,
    ) -> bool {
        let (node, incarnation) = from;
        if self.by_node.len() >= PEERS_MAX && !self.by_node.contains_key(&node) {
            return false;
        }
        let known = self.by_node.entry(node);
        let peer = known.or_insert_with(|| Peer::new(incarnation, statement.stamp, now, bounds));
        if incarnation < peer.incarnation || incarnation == peer.incarnation && statement.stamp < peer.stamp {
            return false;
        }
        if incarnation > peer.incarnation {
            let promised_until = peer.promised_until;
            *peer = Peer::new(incarnation, statement.stamp, now, bounds);
            peer.promised_until = peer.promised_until.max(promised_until);
        }
        if statement.stamp > peer.stamp {
            let listening = self.deaf_until.is_none_or(|until| peer.heard_at > until);
            peer.hear(statement.stamp, listening, bounds, now);
        }
        peer.standing = statement.standing;
        peer.powerless_since = match statement.standing.entitled {
            true => None,
            false => peer.powerless_since.or(Some(now)),
        };
        for promise in &statement.promises {
            if promise.suspected {
                peer.suspects.insert(promise.node);
            } else {
                peer.suspects.remove(&promise.node);
            }
            let Some((incarnation, stamp, term)) = promise.heard else { continue };
            let is_ours = promise.node == own.node && incarnation == own.incarnation;
            if is_ours && stamp >= own.began && stamp <= now {
                peer.promise = Some((statement.standing.accepted, stamp + term));
            }
        }
        true
    }

    /// This node was stopped, or starved, until now: nobody's silence counts for that time.
    pub(crate) fn forgive(&mut self, was_heard: Timestamp, bounds: PromiseBounds, now: Timestamp) {
        self.deaf_until = Some(now);
        for peer in self.by_node.values_mut().filter(|peer| peer.promised_until >= was_heard) {
            peer.promised_until = peer.promised_until.max(now + bounds.min);
        }
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Peer> {
        self.by_node.get(&node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.by_node.iter().map(|(node, peer)| (*node, peer))
    }

    /// True for a node that was heard lately.
    pub(crate) fn is_heard(&self, node: NodeId, now: Timestamp) -> bool {
        self.get(node).is_some_and(|peer| peer.promised_until >= now)
    }

    /// True for a node that stays silent longer than was promised to it. Of a node that was never heard in this life
    /// nothing is known before `known_from`.
    pub(crate) fn is_suspected(&self, node: NodeId, known_from: Timestamp, now: Timestamp) -> bool {
        match self.get(node) {
            Some(peer) => peer.promised_until < now,
            None => known_from < now,
        }
    }

    /// What a voter tells about a node.
    pub(crate) fn promise(&self, node: NodeId, known_from: Timestamp, now: Timestamp) -> Promise {
        let heard = self.get(node).map(|peer| (peer.incarnation, peer.stamp, peer.term));
        Promise { node, suspected: self.is_suspected(node, known_from, now), heard }
    }

    /// Forgets those who are neither in `keep` nor bound by a promise.
    pub(crate) fn retain(&mut self, keep: impl Fn(NodeId) -> bool, now: Timestamp) {
        self.by_node.retain(|node, peer| keep(*node) || peer.promised_until >= now);
    }
}
