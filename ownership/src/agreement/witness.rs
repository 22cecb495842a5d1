//! A witness that is no node: something that only answers, such as the clients' gateway. It tips the scales between two
//! voters, and remembers nothing.
//!
//! As it cannot promise anything to one that it would have to refuse to the other, time has to keep the two apart, and an
//! order: the voter with the lowest id may count on the witness while it hears it; the other one when, beside that, it has had
//! no sign of the first for longer than that one's answers from the witness can still be good for. It is safe as long as two
//! voters that both reach the witness reach each other as well: `docs/decisions/0038-witness.md` says why, and when not.

use crate::agreement::Agreement;
use crate::agreement::config::Quorum;
use crate::agreement::peers::Peer;
use dpr_model::{NodeId, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// For how long an answer of the witness counts, from the moment on at which it was asked for: four questions at a fifth
/// of a second.
pub const ANSWER_COUNTS: Duration = Duration::from_millis(800);
/// How long the first voter has to be silent until the other one may count on the witness: as long as the first one's last
/// answer counts, and a second for signs that were lost before.
const YIELD_FOR: Duration = Duration::from_millis(2500);
/// Who hears the witness again does not count on it at once: it may be that the other voter does, and is heard next.
const RETURN_AFTER: Duration = Duration::from_millis(1500);

const _: () = assert!(
    YIELD_FOR.as_millis() >= ANSWER_COUNTS.as_millis() + 1000 && RETURN_AFTER.as_millis() >= 1000,
    "signs of the other voter come five times a second, and some are lost"
);

/// What this node heard of the witness, and of voters by other ways than their messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witness {
    /// When the latest question was asked that was answered.
    asked_at: Option<Timestamp>,
    /// Since when answers have come without a gap.
    steady_since: Timestamp,
    /// When voters last answered on the clients' network.
    seen_at: BTreeMap<NodeId, Timestamp>,
}

impl Agreement {
    /// The witness has answered a question of the moment `asked_at`, on this node's clock.
    pub fn hear_witness(&mut self, asked_at: Timestamp, now: Timestamp) {
        let witness = &mut self.witness;
        if witness.asked_at.is_none_or(|before| before + ANSWER_COUNTS < now) {
            witness.steady_since = now;
        }
        witness.asked_at = witness.asked_at.max(Some(asked_at));
    }

    /// A voter has answered on the clients' network: it lives, whatever becomes of its messages.
    pub fn see_voter(&mut self, node: NodeId, now: Timestamp) {
        if super::is_voter(&self.accepted.map, node) {
            self.witness.seen_at.insert(node, now);
        }
    }

    /// Until when this node may count on the witness; `None` while it may not.
    pub(super) fn witness_until(&self, now: Timestamp) -> Option<Timestamp> {
        if self.config.quorum != Quorum::Witness || now < self.witness.steady_since + RETURN_AFTER {
            return None;
        }
        let until = self.witness.asked_at.map(|at| at + ANSWER_COUNTS).filter(|until| now <= *until)?;
        let voters = self.accepted.map.voters();
        let counted = voters.before.iter().chain(&voters.now).filter(|node| !self.forgotten.contains(node));
        let first = *counted.min()?;
        let is_free = first == self.own.node || now.since(self.last_sign_of(first)) >= YIELD_FOR;
        is_free.then_some(until)
    }

    /// When anything was last heard of a voter; the beginning of this life, if nothing was.
    fn last_sign_of(&self, node: NodeId) -> Timestamp {
        let heard = self.peers.get(node).map_or(self.own.began, Peer::heard_at);
        heard.max(self.witness.seen_at.get(&node).copied().unwrap_or_default())
    }
}
