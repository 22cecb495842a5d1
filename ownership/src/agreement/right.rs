//! The right to act: how long promises last, and for what.

use crate::agreement::Agreement;
use crate::agreement::consent::Consent;
use crate::map::OwnershipMap;
use dpr_model::{MapVersion, NodeId, Slot, Timestamp};
use std::net::IpAddr;
use std::sync::Arc;

/// What a node's data plane may do until it is told otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duty {
    /// Grows with everything in it but `until`.
    pub serial: u64,
    /// Who owns what.
    pub map: Arc<OwnershipMap>,
    /// What moved since the map's base may be acted on.
    pub settled: bool,
    /// The end of every right; `None` while there is none.
    pub until: Option<Timestamp>,
}

impl Duty {
    /// True if `node` may act as the owner of a slot of a service address.
    pub fn allows(&self, node: NodeId, address: IpAddr, slot: Slot, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now <= until)
            && self
                .map
                .right(address, slot)
                .is_some_and(|right| right.owner == node && (self.settled || !right.moved))
    }
}

/// This node's rights under the accepted map.
#[derive(Debug)]
pub(crate) struct Rights {
    serial: u64,
    settled: bool,
    /// By promises under the accepted map.
    until: Option<Timestamp>,
    /// By promises under the map before: for what has not moved, until there are some under this one.
    carried_until: Option<Timestamp>,
    /// The map that the data plane acts by, without carried rights.
    acting: MapVersion,
}

impl Rights {
    /// Of a node that begins with a map of this version. The first map of all is settled: nobody acted before.
    pub(crate) fn new(version: MapVersion) -> Self {
        let founding = version == MapVersion::default();
        Self { serial: 1, settled: founding, until: None, carried_until: None, acting: MapVersion::default() }
    }

    pub(crate) fn duty(&self, map: Arc<OwnershipMap>) -> Duty {
        let settled = self.settled && self.carried_until.is_none();
        Duty { serial: self.serial, map, settled, until: self.until.max(self.carried_until) }
    }

    pub(crate) fn acting(&self) -> MapVersion {
        self.acting
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    /// True while there is any right at all.
    pub(crate) fn is_entitled(&self) -> bool {
        self.until.is_some() || self.carried_until.is_some()
    }

    /// Another map was accepted.
    pub(crate) fn begin_map(&mut self) {
        self.carried_until = self.until.max(self.carried_until);
        self.until = None;
        self.settled = false;
        self.serial += 1;
    }

    pub(crate) fn confirm(&mut self, serial: u64, accepted: MapVersion) {
        if serial == self.serial && self.carried_until.is_none() {
            self.acting = accepted;
        }
    }

    /// True if the data plane has to be told.
    fn update(&mut self, until: Option<Timestamp>, settled: bool, now: Timestamp) -> bool {
        let before = (self.settled, self.carried_until.is_some());
        self.until = until.filter(|until| *until >= now);
        // What is said of this map must not rest on promises under another one.
        self.carried_until = self.carried_until.filter(|until| self.until.is_none() && *until >= now);
        self.settled |= settled;
        let changed = before != (self.settled, self.carried_until.is_some());
        self.serial += u64::from(changed);
        changed
    }
}

impl Agreement {
    /// Finds out how long promises last now, and whether what moved may be acted on.
    pub(super) fn renew_right(&mut self, now: Timestamp) {
        let (until, settled) = (self.promised_until(now), self.is_settled(now));
        if self.rights.update(until, settled, now) {
            self.actions.push_back(super::Action::DutyChanged);
        }
    }

    /// Until when a quorum has promised, under the accepted map, not to consent to this node's death.
    fn promised_until(&self, now: Timestamp) -> Option<Timestamp> {
        let version = self.accepted.map.version();
        let mut ends: Vec<Timestamp> =
            self.peers.iter().filter_map(|(_, peer)| peer.promised_under(version)).collect();
        // Where this node's own consent is enough.
        ends.push(now + self.config.promise_max());
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let agrees_until = |consent: &Consent<'_>, end: Timestamp| {
            let promises = |node: NodeId| self.peers.get(node).and_then(|peer| peer.promised_under(version));
            consent.is_given(
                |node| node == self.own.node || promises(node).is_some_and(|until| until >= end),
                |node| self.is_suspected(node, now),
            )
        };
        let consent = self.consent(now);
        let without = Consent { witness_backs: false, ..consent.clone() };
        let by_voters = ends.iter().copied().find(|end| agrees_until(&without, *end));
        // What rests on the witness lasts as long as its last answer counts, even if the daemon is stopped.
        let with = ends.iter().copied().find(|end| agrees_until(&consent, *end));
        by_voters.max(with.min(self.witness_until(now)))
    }

    /// True if a quorum says that no promise under an earlier map binds it.
    fn is_settled(&self, now: Timestamp) -> bool {
        let version = self.accepted.map.version();
        let own = self.is_cleared(now);
        self.consent(now).is_given(
            |node| match self.peers.get(node) {
                _ if node == self.own.node => own,
                Some(peer) => peer.standing.accepted == version && peer.standing.cleared,
                None => false,
            },
            |node| self.is_suspected(node, now),
        )
    }

    /// True if no promise that this node made under an earlier map than the accepted one binds it any more, be it to
    /// others or, as long as its own data plane acts by an earlier map, to itself.
    pub(super) fn is_cleared(&self, now: Timestamp) -> bool {
        now >= self.memory_from
            && self.earlier_promises.is_empty()
            && self.rights.acting() == self.accepted.map.version()
    }
}
