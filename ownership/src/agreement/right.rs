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
        let (version, voters) = (self.accepted.map.version(), self.accepted.map.voters());
        let promises = |node: NodeId| self.peers.get(node).and_then(|peer| peer.promised_under(version));
        let asked = voters.before.iter().chain(&voters.now);
        let mut ends: Vec<Timestamp> = asked.filter_map(|node| promises(*node)).collect();
        // Where this node's own consent is enough.
        ends.push(now + self.config.promise_max());
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let latest_end = |consent: &Consent<'_>| {
            let agrees_until = |end: Timestamp| {
                consent.is_given(
                    |node| node == self.own.node || promises(node).is_some_and(|until| until >= end),
                    |node| self.is_suspected(node, now),
                )
            };
            ends.iter().copied().find(|end| agrees_until(*end))
        };
        let consent = self.consent(now);
        let by_voters = latest_end(&Consent { witness_backs: false, ..consent.clone() });
        // What rests on the witness lasts as long as its last answer counts, even if the daemon is stopped.
        let by_witness = self.witness_until(now).and_then(|until| Some(until.min(latest_end(&consent)?)));
        by_voters.max(by_witness)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{MapDraft, Member, ServiceAddress};
    use crate::partition::SlotCount;
    use crate::shares::Share;
    use std::collections::BTreeMap;

    const FIRST: MapVersion = MapVersion { term: 1, epoch: 1, coordinator: 1 };
    const NEXT: MapVersion = MapVersion { term: 1, epoch: 2, coordinator: 1 };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn duty(rights: &Rights) -> Duty {
        rights.duty(Arc::new(OwnershipMap::genesis(SlotCount::MIN, &[NodeId(1)])))
    }

    /// Of a node that acts by the first map until 500 ms, and has accepted the next one.
    fn between_maps() -> Rights {
        let mut rights = Rights::new(FIRST);
        rights.update(Some(at(500)), true, at(100));
        rights.confirm(rights.serial, FIRST);
        rights.begin_map();
        rights
    }

    #[test]
    fn a_duty_allows_what_is_owned_and_has_not_moved_until_it_ends() {
        let (node, address) = (NodeId(1), IpAddr::from([192, 0, 2, 1]));
        let draft = MapDraft {
            version: FIRST,
            members: vec![Member { node, share: Share(1) }],
            addresses: vec![ServiceAddress { address, home: Some(node) }],
            voters: vec![node],
            wishes: BTreeMap::new(),
        };
        let map = Arc::new(OwnershipMap::genesis(SlotCount::MIN, &[node]).next(draft, true));
        let duty = Duty { serial: 1, map, settled: true, until: Some(at(500)) };

        assert!(duty.allows(node, address, Slot(0), at(500)));
        assert!(!duty.allows(node, address, Slot(0), at(501)));
        assert!(!duty.allows(NodeId(2), address, Slot(0), at(500)));
        let moved = Duty { settled: false, ..duty };
        assert!(!moved.allows(node, address, Slot(0), at(500)));
    }

    #[test]
    fn a_right_goes_on_under_the_next_map_for_what_has_not_moved_and_no_longer_than_promised() {
        let mut rights = between_maps();
        // Others need less than this node to see that the map is settled.
        rights.update(None, true, at(200));

        assert_eq!((duty(&rights).until, duty(&rights).settled), (Some(at(500)), false));
        rights.update(None, true, at(501));
        assert_eq!(duty(&rights).until, None);
    }

    #[test]
    fn a_node_acts_by_a_map_when_its_data_plane_does_and_without_promises_under_the_one_before() {
        let mut rights = between_maps();
        let carried = rights.serial;
        rights.confirm(carried, NEXT);
        assert_eq!(rights.acting(), FIRST, "by promises of the map before");

        rights.update(Some(at(700)), false, at(300));
        rights.confirm(carried, NEXT);
        assert_eq!(rights.acting(), FIRST, "its data plane has another duty still");
        rights.confirm(rights.serial, NEXT);

        assert_eq!(rights.acting(), NEXT);
        assert_eq!(duty(&rights).until, Some(at(700)));
    }
}
