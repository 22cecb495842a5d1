//! Who may act on which slot, seen by somebody who sees all nodes at once: never two, and in planned moves hardly ever nobody.

use crate::invariants::{Broken, Violation};
use crate::node::Node;
use crate::sim::Sim;
use dpr_director::LEASE_MAX;
use dpr_model::{MapVersion, NodeId, Slot, Timestamp};
use dpr_ownership::OwnershipMap;
use dpr_ownership::agreement::Duty;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long a planned move may leave a slot without owner where nodes speak ten times a second or more often.
const VACANT_MAX: Duration = Duration::from_millis(50);
/// Time between two looks at all slots.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Nodes that may act by one map.
struct Acting<'a> {
    map: &'a OwnershipMap,
    settled_by_node: BTreeMap<NodeId, bool>,
}

impl Acting<'_> {
    /// The node that acts on a slot by this map.
    fn owner(&self, address: IpAddr, slot: Slot) -> Option<NodeId> {
        let right = self.map.right(address, slot)?;
        let is_settled = *self.settled_by_node.get(&right.owner)?;
        (is_settled || !right.moved).then_some(right.owner)
    }

    /// A slot that nodes act on by this map and by another one.
    fn conflict(&self, other: &Self) -> Option<Broken> {
        let addresses = self.map.addresses().map(|service| service.address);
        addresses.flat_map(|address| slots_of(&[self, other], address)).find_map(|(address, slot)| {
            let (first, second) = (self.owner(address, slot)?, other.owner(address, slot)?);
            (first != second).then_some(Broken::TwoRights { address, slot, first, second })
        })
    }
}

/// Slots of an address that may have different owners: where each map gives it to one node, the first stands for all.
fn slots_of(all: &[&Acting<'_>], address: IpAddr) -> impl Iterator<Item = (IpAddr, Slot)> + use<> {
    let is_whole = all.iter().all(|acting| acting.map.holder_of(address).is_some());
    let count = all.iter().map(|acting| acting.map.slots().get()).max().unwrap_or(0);
    (0..if is_whole { 1 } else { count }).map(move |slot| (address, Slot(slot)))
}

impl Node {
    /// What this node's data plane may do now, if it may act at all.
    pub(crate) fn acts_by(&self, now: Timestamp) -> Option<&Duty> {
        let daemon = self.daemon.as_ref().filter(|_| self.is_running())?;
        daemon.duty.as_ref().filter(|_| daemon.director.may_own(self.local(now)))
    }
}

impl Sim {
    /// Takes note of what a node may do. Where it may do more than before, no other node may do the same.
    pub(crate) fn note_right(&mut self, id: NodeId) -> Result<(), Broken> {
        let now = self.now;
        let Some(node) = self.nodes.get(&id).filter(|_| self.is_shared()) else { return Ok(()) };
        let local = node.local(now);
        let right = node.acts_by(now).map(|duty| {
            let end = duty.until.unwrap_or(local).min(local + LEASE_MAX);
            (duty.serial, end)
        });
        let Some(right) = right else {
            self.sharing.right_by_node.remove(&id);
            return Ok(());
        };
        let before = self.sharing.right_by_node.insert(id, right);
        let goes_on = before.is_some_and(|(serial, end)| serial == right.0 && end >= local);
        if goes_on { Ok(()) } else { self.check_rights() }
    }

    /// No slot of any address has two owners who may act.
    fn check_rights(&self) -> Result<(), Broken> {
        let acting = self.acting();
        let pairs = acting.iter().enumerate().flat_map(|(nth, one)| {
            let others = acting.iter().skip(nth + 1);
            others.map(move |other| (one, other))
        });
        pairs.into_iter().find_map(|(one, other)| one.conflict(other)).map_or(Ok(()), Err)
    }

    /// Lets time pass in which only what was planned happens: no slot may be without owner for long.
    ///
    /// # Errors
    /// As [`Sim::try_run_for`], and [`Broken::Vacant`].
    pub fn try_run_as_planned(&mut self, duration: Duration) -> Result<(), Box<Violation>> {
        let most = VACANT_MAX.max(self.settings.interval / 2);
        let end = self.now + duration;
        let mut vacant_since: BTreeMap<(IpAddr, Slot), Timestamp> = BTreeMap::new();
        while self.now < end {
            self.try_run_for(LOOK_EVERY)?;
            let now = self.now;
            let vacant = self.vacant();
            vacant_since = vacant.map(|one| (one, vacant_since.get(&one).copied().unwrap_or(now))).collect();
            let longest = vacant_since.iter().min_by_key(|(_, since)| **since);
            if let Some((&(address, slot), since)) = longest.filter(|(_, since)| now.since(**since) > most) {
                let vacant = now.since(*since);
                return Err(Box::new(self.violation(Broken::Vacant { address, slot, vacant })));
            }
        }
        Ok(())
    }

    /// Slots of all addresses of the newest map that nobody may act on.
    pub(crate) fn vacant(&self) -> impl Iterator<Item = (IpAddr, Slot)> {
        let acting = self.acting();
        let maps = self.nodes.values().filter_map(Node::map);
        let newest = maps.max_by_key(|map| map.version());
        let addresses = newest.into_iter().flat_map(OwnershipMap::addresses).map(|service| service.address);
        let all: Vec<(IpAddr, Slot)> = {
            let acting: Vec<&Acting<'_>> = acting.iter().collect();
            addresses.flat_map(|address| slots_of(&acting, address)).collect()
        };
        all.into_iter().filter(move |(address, slot)| {
            acting.iter().all(|acting| acting.owner(*address, *slot).is_none())
        })
    }

    /// Who may act, by the map that they act by.
    fn acting(&self) -> Vec<Acting<'_>> {
        let mut by_version: BTreeMap<MapVersion, Acting<'_>> = BTreeMap::new();
        for (id, duty) in self.nodes.iter().filter_map(|(id, node)| Some((*id, node.acts_by(self.now)?))) {
            let acting = by_version
                .entry(duty.map.version())
                .or_insert_with(|| Acting { map: &duty.map, settled_by_node: BTreeMap::new() });
            acting.settled_by_node.insert(id, duty.settled);
        }
        by_version.into_values().collect()
    }
}
