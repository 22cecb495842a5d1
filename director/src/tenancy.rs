//! What this node has owned since when, and who stands ready for it.

use dpr_model::{NodeId, Slot, Timestamp};
use dpr_ownership::OwnershipMap;
use dpr_ownership::agreement::Duty;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// Two nodes with copies.
type Backups = [Option<NodeId>; 2];

/// Slots and addresses by when this node came to act for them.
#[derive(Debug)]
pub(crate) struct Tenancy {
    this: NodeId,
    /// Of addresses that no home holds.
    since_by_slot: Vec<Option<Timestamp>>,
    /// Who holds an address, and since when this node takes it for so.
    holder_by_address: HashMap<IpAddr, (Option<NodeId>, Timestamp)>,
    /// For the slots that this node owns of addresses that no home holds.
    backups_by_slot: Vec<Backups>,
    /// For all slots of the addresses that this node holds as a whole; none if it holds none.
    backups_at_home: Vec<Backups>,
    /// Who stands on the link for addresses whose home is away, and who is ready to: nobody where none is away.
    fronts: [Option<NodeId>; 3],
    /// Who is to get an address as a whole, and has copies of all of it until then.
    heir_by_address: HashMap<IpAddr, NodeId>,
}

impl Tenancy {
    pub(crate) fn new(this: NodeId) -> Self {
        Self {
            this,
            since_by_slot: Vec::new(),
            holder_by_address: HashMap::new(),
            backups_by_slot: Vec::new(),
            backups_at_home: Vec::new(),
            fronts: [None; 3],
            heir_by_address: HashMap::new(),
        }
    }

    /// Takes note of what has changed hands.
    pub(crate) fn update(&mut self, duty: &Duty, now: Timestamp) {
        let map = &duty.map;
        self.since_by_slot.resize(map.slots().get().into(), None);
        for (slot, since) in map.slots().all().zip(&mut self.since_by_slot) {
            let right = map.shared_right(slot);
            let acts = right.is_some_and(|right| right.owner == self.this && (duty.settled || !right.moved));
            *since = acts.then(|| since.unwrap_or(now));
        }
        self.holder_by_address.retain(|address, _| map.right(*address, Slot(0)).is_some());
        for address in map.addresses().map(|service| service.address) {
            let holder = map.holder_of(address);
            let known = self.holder_by_address.entry(address).or_insert((holder, now));
            if known.0 != holder {
                *known = (holder, now);
            }
        }
    }

    /// Finds out anew who stands ready, after the map has changed. Returns who has copies of anything.
    pub(crate) fn find_backups(&mut self, map: &OwnershipMap) -> BTreeSet<NodeId> {
        let is_held_by = |holder| map.addresses().any(|service| map.holder_of(service.address) == holder);
        let is_own = |slot| map.shared_right(slot).is_some_and(|right| right.owner == self.this);
        let of = |is_any: bool, wanted: &dyn Fn(Slot) -> bool| -> Vec<Backups> {
            let backups = |slot| if wanted(slot) { map.stand_ins(self.this, slot) } else { [None; 2] };
            if is_any { map.slots().all().map(backups).collect() } else { Vec::new() }
        };
        self.backups_by_slot = of(is_held_by(None), &is_own);
        self.backups_at_home = of(is_held_by(Some(self.this)), &|_| true);
        self.heir_by_address = map.heirs().filter(|(_, heir)| *heir != self.this).collect();
        let is_away = |address: dpr_ownership::ServiceAddress| {
            address.home.is_some() && map.holder_of(address.address).is_none()
        };
        let is_any_away = map.addresses().any(is_away) && !self.backups_by_slot.is_empty();
        let front = map.shared_right(Slot(0)).map(|right| right.owner).filter(|_| is_any_away);
        self.fronts = front.map_or([None; 3], |front| {
            let [first, second] = map.stand_ins(front, Slot(0));
            [Some(front), first, second]
        });
        let heirs = self.heir_by_address.iter().filter(|(address, _)| map.owns_any(self.this, **address));
        let heirs = heirs.map(|(_, heir)| *heir);
        let backups = self.backups_by_slot.iter().chain(&self.backups_at_home).flatten();
        let backups = backups.chain(&self.fronts).flatten().copied().chain(heirs);
        backups.filter(|node| *node != self.this).collect()
    }

    /// Who has copies of what this node decides about; nobody for what others decide about. Of a translated connection also
    /// those to whom real servers' answers come, or would.
    pub(crate) fn copied_to(
        &self,
        address: IpAddr,
        slot: Slot,
        is_translated: bool,
    ) -> impl Iterator<Item = NodeId> + use<> {
        let of =
            |backups: &[Backups], slot: Slot| backups.get(usize::from(slot.0)).copied().unwrap_or_default();
        let ([first, second], fronts) = match self.holder_by_address.get(&address) {
            Some((Some(holder), _)) if *holder == self.this => {
                let [first, second] = of(&self.backups_at_home, Slot(0));
                (of(&self.backups_at_home, slot), [first, second, None])
            }
            Some((None, _)) => {
                let backups = of(&self.backups_by_slot, slot);
                (backups, if backups == [None; 2] { [None; 3] } else { self.fronts })
            }
            _ => ([None; 2], [None; 3]),
        };
        let heir = self.heir_by_address.get(&address).filter(|_| first.is_some());
        let [first, second] = match heir {
            Some(heir) => [Some(*heir), [first, second].into_iter().flatten().find(|backup| backup != heir)],
            None => [first, second],
        };
        let is_other = move |node: &NodeId| Some(*node) != first && Some(*node) != second;
        let fronts = fronts.into_iter().flatten().filter(move |node| is_translated && is_other(node));
        [first, second].into_iter().flatten().chain(fronts)
    }

    /// Since when this node takes the holder of an address for so.
    pub(crate) fn held_since(&self, address: IpAddr) -> Option<Timestamp> {
        self.holder_by_address.get(&address).map(|(_, since)| *since)
    }

    /// Since when this node acts for a slot of addresses that no home holds; `None` if it does not.
    pub(crate) fn slot_since(&self, slot: Slot) -> Option<Timestamp> {
        self.since_by_slot.get(usize::from(slot.0)).copied().flatten()
    }

    /// True if this node came to act for a slot of an address no longer ago than `recently`.
    pub(crate) fn is_recent(&self, address: IpAddr, slot: Slot, recently: Duration, now: Timestamp) -> bool {
        let Some((holder, held_since)) = self.holder_by_address.get(&address) else { return false };
        let since = match holder {
            Some(_) => *held_since,
            None => self.slot_since(slot).map_or(*held_since, |since| since.max(*held_since)),
        };
        now.since(since) <= recently
    }
}
