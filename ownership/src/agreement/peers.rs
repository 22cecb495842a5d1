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
///
/// Something is evaluated whenever anybody says something new, and in a large cluster everybody does after each change of
/// maps: what is asked then must not take a look at all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    by_node: BTreeMap<NodeId, Peer>,
    /// Those that said last that they are able to coordinate: hardly ever others than voters.
    able: BTreeSet<NodeId>,
    /// No later election was ever heard of.
    term_max: u64,
    /// No later map was ever heard of.
    accepted_max: MapVersion,
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
        match statement.standing.able {
            true => self.able.insert(node),
            false => self.able.remove(&node),
        };
        self.term_max = self.term_max.max(statement.standing.term);
        self.accepted_max = self.accepted_max.max(statement.standing.accepted);
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

    /// Those that are able to coordinate, by their own word, by id; heard lately or not.
    pub(crate) fn able(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.able.iter().filter_map(|node| Some((*node, self.get(*node)?)))
    }

    /// What those say that were heard lately, by id.
    pub(crate) fn heard(&self, now: Timestamp) -> impl Iterator<Item = (NodeId, &Standing)> {
        let heard = self.by_node.iter().filter(move |(_, peer)| peer.promised_until >= now);
        heard.map(|(node, peer)| (*node, &peer.standing))
    }

    /// The latest election that a node voted in that was heard lately, if it is later than `term`.
    pub(crate) fn later_term(&self, term: u64, now: Timestamp) -> Option<u64> {
        let later = || self.heard(now).map(|(_, standing)| standing.term).filter(|other| *other > term).max();
        if self.term_max > term { later() } else { None }
    }

    /// False if no node was ever heard that had accepted a later map than `version`.
    pub(crate) fn may_have_later(&self, version: MapVersion) -> bool {
        self.accepted_max > version
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
        self.able.retain(|node| self.by_node.contains_key(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Own =
        Own { node: NodeId(1), incarnation: Incarnation(7), began: Timestamp::from_millis(5_000) };
    const VOTER: NodeId = NodeId(2);
    const TERM: Duration = Duration::from_millis(450);
    const BOUNDS: PromiseBounds = PromiseBounds { min: TERM, max: Duration::from_millis(2500) };

    fn statement(stamp_ms: u64, promises: Vec<Promise>) -> Statement {
        let stamp = Timestamp::from_millis(stamp_ms);
        Statement { stamp, standing: Standing::default(), forgotten: Vec::new(), promises }
    }

    /// A voter in its life `life` is heard.
    fn hear(peers: &mut Peers, life: u64, statement: &Statement, now_ms: u64) -> bool {
        let now = Timestamp::from_millis(now_ms);
        peers.hear((VOTER, Incarnation(life)), statement, OWN, BOUNDS, now)
    }

    /// Until when a voter has promised, which has heard this node's life `life` at its time `stamp_ms`; told at 6 s.
    fn promised(life: u64, stamp_ms: u64) -> Option<Timestamp> {
        let heard = Some((Incarnation(life), Timestamp::from_millis(stamp_ms), TERM));
        let mut peers = Peers::default();
        hear(
            &mut peers,
            1,
            &statement(100, vec![Promise { node: OWN.node, suspected: false, heard }]),
            6_000,
        );
        peers.get(VOTER)?.promised_under(MapVersion::default())
    }

    /// When the voter may consent to the peer's death.
    fn bound_until(peers: &Peers) -> Timestamp {
        peers.get(VOTER).expect("it was heard").promised_until
    }

    #[test]
    fn a_promise_counts_from_the_moment_that_it_echoes() {
        assert_eq!(promised(7, 5_900), Some(Timestamp::from_millis(5_900) + TERM));
    }

    #[test]
    fn a_promise_to_an_earlier_life_or_of_the_future_is_of_no_use() {
        assert_eq!(promised(6, 5_900), None);
        assert_eq!(promised(7, 4_900), None);
        assert_eq!(promised(7, 6_100), None);
    }

    #[test]
    fn a_voter_keeps_its_word_when_it_would_promise_less_by_now() {
        let mut peers = Peers::default();
        hear(&mut peers, 1, &statement(0, vec![]), 10_000);
        hear(&mut peers, 1, &statement(800, vec![]), 10_800);
        assert_eq!(bound_until(&peers), Timestamp::from_millis(10_800 + 2_400));

        // Gaps are forgotten after 20 to 40 s.
        for nth in 1..500 {
            let before = bound_until(&peers);
            hear(&mut peers, 1, &statement(800 + nth * 100, vec![]), 10_800 + nth * 100);
            assert!(bound_until(&peers) >= before, "{nth}");
        }
        assert_eq!(bound_until(&peers), Timestamp::from_millis(10_800 + 49_900) + TERM);
    }

    #[test]
    fn a_voter_keeps_its_word_to_a_node_that_begins_another_life() {
        let mut peers = Peers::default();
        hear(&mut peers, 1, &statement(0, vec![]), 10_000);
        hear(&mut peers, 1, &statement(800, vec![]), 10_800);
        let before = bound_until(&peers);

        hear(&mut peers, 2, &statement(0, vec![]), 10_900);

        assert_eq!(bound_until(&peers), before);
        assert!(!hear(&mut peers, 1, &statement(900, vec![]), 11_000), "that life is over");
    }

    #[test]
    fn who_is_able_and_what_is_the_latest_goes_by_the_last_word_of_those_who_are_heard() {
        let later = MapVersion { term: 4, epoch: 1, coordinator: 2 };
        let standing = Standing { term: 5, accepted: later, able: true, ..Standing::default() };
        let mut peers = Peers::default();
        hear(&mut peers, 1, &Statement { standing, ..statement(0, vec![]) }, 10_000);
        let at = Timestamp::from_millis;

        assert!(peers.able().map(|(node, _)| node).eq([VOTER]));
        assert_eq!([4, 5].map(|term| peers.later_term(term, at(10_100))), [Some(5), None]);
        assert_eq!(peers.later_term(4, at(10_000) + TERM + TERM), None, "it is silent");
        assert!(peers.may_have_later(MapVersion::default()) && !peers.may_have_later(later));

        hear(&mut peers, 1, &statement(100, vec![]), 10_100);
        assert_eq!((peers.able().count(), peers.later_term(4, at(10_100))), (0, None));
        hear(&mut peers, 1, &Statement { standing, ..statement(200, vec![]) }, 10_200);
        peers.retain(|_| false, at(20_000));
        assert_eq!(peers.able().count(), 0, "it is forgotten");
    }
}
