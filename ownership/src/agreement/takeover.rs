//! Moves of whole addresses at an operator's word: the new owner has the connections first, then the map changes.

use crate::agreement::Agreement;
use crate::held::Wish;
use crate::map::{OwnershipMap, ServiceAddress};
use dpr_model::{MapVersion, NodeId, Timestamp};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Intervals that owners get to copy their connections to the heir. After that the address moves all the same: what was not
/// copied is asked for.
const COPYING_INTERVALS: u32 = 100;

/// Whether a home that returns gets its addresses back by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GiveBack {
    /// As soon as it is a member.
    #[default]
    Auto,
    /// When an operator says so.
    Manual,
}

/// Why an address cannot be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeOverError {
    /// Only the coordinator makes maps.
    #[error("it is not the coordinator")]
    NotCoordinator,
    /// Nobody has such an address, or its home alone may own it.
    #[error("{0} is no address that several nodes may own")]
    UnknownAddress(IpAddr),
    /// The node does not live, drains or has no weight.
    #[error("{0} cannot own anything: it is no member, drains or has no weight")]
    UnfitOwner(NodeId),
    /// Others would get what is meant for the node itself.
    #[error("{0} is the node address of {1}, which lives: others cannot have it; drain that node instead")]
    NodeAddress(IpAddr, NodeId),
}

impl Agreement {
    /// Has `to` own all slots of these addresses: when it has copies of their connections, in one map; or with `None` gives
    /// them back to their homes, and what is shared to all members. Later orders replace earlier ones. Progress is in the map.
    ///
    /// # Errors
    ///
    /// [`TakeOverError`]; then nothing changes.
    pub fn take_over(
        &mut self,
        addresses: &[IpAddr],
        to: Option<NodeId>,
        now: Timestamp,
    ) -> Result<(), TakeOverError> {
        if !self.coordinating {
            return Err(TakeOverError::NotCoordinator);
        }
        let map = &self.accepted.map;
        for address in addresses {
            let known = map.addresses().find(|service| service.address == *address);
            let service = known.ok_or(TakeOverError::UnknownAddress(*address))?;
            let Some(to) = to else { continue };
            if !map.may_hold(to, service.home) {
                return Err(TakeOverError::UnfitOwner(to));
            }
            let lives = |home: &NodeId| *home != to && self.bound.contains(address) && map.has_member(*home);
            if let Some(home) = service.home.filter(lives) {
                return Err(TakeOverError::NodeAddress(*address, home));
            }
        }
        // A home gets copies first, as any other node would.
        let home_of = |address: IpAddr| {
            let service = map.addresses().find(|service| service.address == address)?;
            service.home.filter(|home| map.has_member(*home))
        };
        let requests = addresses.iter().map(|address| (*address, to.or_else(|| home_of(*address))));
        self.requests.extend(requests.collect::<Vec<_>>());
        self.evaluate(now);
        Ok(())
    }

    /// By which map everybody who is to get an address has copies of all that this node has of it; none if that is not so.
    pub fn set_handed(&mut self, by: Option<MapVersion>) {
        self.handed_by = by;
    }

    /// True if heirs by the accepted map have copies of all that this node has.
    pub(super) fn has_handed(&self) -> bool {
        self.handed_by == Some(self.accepted.map.version())
    }

    /// Addresses that only their homes can have while those live, as they are their node addresses.
    pub fn set_bound(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.bound = addresses.into_iter().collect();
    }

    /// What the next map is to do about addresses, and whether that is a reason for one.
    pub(super) fn wishes(&mut self, settled: bool, now: Timestamp) -> (BTreeMap<IpAddr, Wish>, bool) {
        let map = &self.accepted.map;
        let mut wishes = BTreeMap::new();
        if self.config.give_back == GiveBack::Manual {
            let free = map.addresses().filter(|service| !self.bound.contains(&service.address));
            wishes.extend(free.map(|service| (service.address, Wish::StayAway)));
        }
        self.requests.retain(|address, to| is_left_to_do(map, *address, *to));
        let asked =
            self.requests.iter().map(|(address, to)| (*address, to.map_or(Wish::GiveBack, Wish::Prepare)));
        let asked: BTreeMap<IpAddr, Wish> = asked.collect();
        let mut urgent = !asked.is_empty();
        // Its home has returned meanwhile, and needs its node address.
        let is_needed = |service: &ServiceAddress| {
            self.bound.contains(&service.address)
                && map.is_lent(service.address)
                && service.home.is_some_and(|home| map.has_member(home))
        };
        for service in map.addresses().filter(is_needed) {
            wishes.insert(service.address, Wish::GiveBack);
            urgent = true;
        }
        if settled && self.is_handed_over(now) {
            let ready = map.heirs().filter(|(address, _)| !asked.contains_key(address));
            wishes.extend(ready.map(|(address, heir)| (address, Wish::Hold(heir))));
            urgent |= map.heirs().next().is_some();
        }
        wishes.extend(asked);
        (wishes, urgent)
    }

    /// True if all who own something of an address with an heir say that the heir has copies, or had time enough.
    fn is_handed_over(&self, now: Timestamp) -> bool {
        let patience = self.config.interval * COPYING_INTERVALS;
        if self.proposed_at.is_some_and(|at| now.since(at) >= patience) {
            return true;
        }
        let map = &self.accepted.map;
        let owners = map.members().iter().map(|member| member.node);
        let mut owners = owners.filter(|node| map.heirs().any(|(address, _)| map.owns_any(*node, address)));
        owners.all(|node| match self.peers.get(node) {
            _ if node == self.own.node => self.has_handed(),
            Some(peer) => peer.standing.accepted == map.version() && peer.standing.handed,
            None => false,
        })
    }
}

/// True until the map does as it was asked to.
fn is_left_to_do(map: &OwnershipMap, address: IpAddr, to: Option<NodeId>) -> bool {
    let service = map.addresses().find(|service| service.address == address);
    let Some(service) = service else { return false };
    match to {
        Some(to) => {
            map.heir_of(address) != Some(to)
                && map.holder_of(address) != Some(to)
                && map.may_hold(to, service.home)
        }
        None => map.is_lent(address) || map.heir_of(address).is_some(),
    }
}
