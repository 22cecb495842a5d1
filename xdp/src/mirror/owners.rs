//! Who owns addresses and their slots, and in which terms this node does.

use super::{Content, Host, Mirror};
use crate::abi::{self, Home, Partition, SELF, Service, sharing_flag, unmapped};
use crate::terms::Hold;
use dpr_director::{HomeView, SlotOwner, Tenure, View};
use dpr_model::{Ingress, PartitionBy, Protocol, ServiceSocket, Sharing, Timestamp};
use dpr_ownership::SlotCount;

impl Mirror {
    /// Goes on with the terms that an earlier life of the daemon has written.
    pub(super) fn restore_owners(&mut self, content: &Content) {
        let lasts = |owner: u16, tenure: u8| owner == SELF && tenure == abi::Tenure::Leased as u8;
        let may_move = |home: &&Home| home.service.tenure != abi::Tenure::Home as u8;
        for (address, Home { service, .. }) in content.addresses.iter().filter(|(_, home)| may_move(home)) {
            let is_whole = lasts(service.owner, service.tenure);
            let is_by_slot = service.tenure == abi::Tenure::BySlot as u8
                && service.sharing & sharing_flag::CHANGES_HANDS == 0;
            let hold = match (is_whole, is_by_slot) {
                (true, _) => Hold::Whole,
                (false, true) => Hold::BySlot,
                (false, false) => Hold::Nothing,
            };
            self.terms.restore(unmapped(*address), service.term, hold);
            if service.sharing & sharing_flag::REMEMBERS_KEPT != 0 {
                self.remember_kept.insert(unmapped(*address));
            }
        }
        let slots = u16::try_from(content.slots.len()).ok().and_then(SlotCount::new);
        if let Some(count) = slots {
            let terms = content.slots.iter().map(|slot| (slot.term, lasts(slot.owner, slot.tenure)));
            self.terms.restore_slots(count, terms);
        }
        self.terms.begin_dividing(&content.further_ports);
        for (key, service) in &content.services {
            let by = PartitionBy::ALL.into_iter().find(|by| partition_of(*by) as u8 == service.partition);
            if let (Some(protocol), Some(by)) = (Protocol::from_number(key.protocol), by) {
                let socket =
                    ServiceSocket { address: unmapped(key.address), port: u16::from_be_bytes(key.port) };
                self.terms.divide((protocol, socket), by);
            }
        }
    }

    /// Takes note of what this node owns now. Before it knows what nodes have agreed on, it owns what it did: nobody acts.
    /// `content` has the further ports of services.
    pub(super) fn follow_owners(&mut self, view: &View<'_>, content: &Content) {
        let may_move = || view.homes.iter().filter(|its| its.home.sharing != Sharing::Home);
        self.remember_kept = may_move().filter(|its| its.remembers_kept).map(|its| its.address).collect();
        for its in view.homes.iter().filter(|its| its.home.sharing == Sharing::Home) {
            self.terms.forget(its.address);
        }
        self.terms.begin_dividing(&content.further_ports);
        for service in &view.services {
            self.terms.divide((service.protocol, service.socket), service.partition_by);
        }
        let Some(slots) = &view.slots else { return };
        // An owner of which nobody has heard yet has a number too: its packets find no way, and others are not its.
        let owners = slots.slots.iter().map(|slot| slot.owner.node);
        for owner in owners.chain(may_move().map(|its| its.home.owner.node)) {
            let _ = self.numbers.assign(owner);
        }
        for its in may_move() {
            self.terms.follow(its.address, hold_of(its, view));
        }
        let is_own = |owner: SlotOwner| owner.node == view.node && owner.tenure == Tenure::Leased;
        self.terms.follow_slots(slots.count, slots.slots.iter().map(|slot| is_own(slot.owner)));
    }

    /// Slots of the addresses that no node holds.
    pub(super) fn add_slots(&self, content: &mut Content, view: &View<'_>, host: &Host<'_>) {
        let Some(slots) = &view.slots else { return };
        for (slot, its) in slots.count.all().zip(&slots.slots) {
            let Some(owner) = self.numbers.of(its.owner.node) else {
                content.left_out += 1;
                continue;
            };
            content.slots.push(abi::Slot {
                owner,
                tenure: tenure_of(its.owner.tenure) as u8,
                term: self.terms.of_slot(slot),
                is_recent: u8::from(is_recent(its.since, host)),
                zero: [0; 3],
            });
        }
    }

    /// What a service has of how its address is owned.
    pub(super) fn owned(&self, home: Option<&HomeView>, tenure: Tenure, host: &Host<'_>) -> Service {
        let home = home.filter(|_| tenure != Tenure::Home);
        let Some(its) = home else {
            return Service { tenure: abi::Tenure::Home as u8, ..Service::default() };
        };
        let mut sharing = 0;
        if its.remembers_kept {
            sharing |= sharing_flag::REMEMBERS_KEPT;
        }
        if its.is_changing_hands {
            sharing |= sharing_flag::CHANGES_HANDS;
        }
        if its.home.sharing == Sharing::Shared(Ingress::SharedMac) {
            sharing |= sharing_flag::ALL_SEE;
        }
        let tenure = if its.is_by_slot { abi::Tenure::BySlot } else { tenure_of(tenure) };
        Service {
            tenure: tenure as u8,
            term: self.terms.of_address(its.address),
            is_recent: u8::from(is_recent(its.held_since, host)),
            sharing,
            ..Service::default()
        }
    }
}

/// The number that programs know a choice by.
pub(super) fn partition_of(by: PartitionBy) -> Partition {
    match by {
        PartitionBy::SourceAddressAndPort => Partition::SourceAddressAndPort,
        PartitionBy::SourceAddress => Partition::SourceAddress,
        PartitionBy::DestinationAddress => Partition::DestinationAddress,
        PartitionBy::SourcePort => Partition::SourcePort,
        PartitionBy::DestinationPort => Partition::DestinationPort,
        PartitionBy::All => Partition::All,
    }
}

fn tenure_of(tenure: Tenure) -> abi::Tenure {
    match tenure {
        Tenure::Home => abi::Tenure::Home,
        Tenure::Leased => abi::Tenure::Leased,
        Tenure::Pending => abi::Tenure::Pending,
    }
}

fn hold_of(its: &HomeView, view: &View<'_>) -> Hold {
    let owner = its.home.owner;
    match its.is_by_slot {
        true if its.is_changing_hands => Hold::Nothing,
        true => Hold::BySlot,
        false if owner.node == view.node && owner.tenure == Tenure::Leased => Hold::Whole,
        false => Hold::Nothing,
    }
}

/// Whether connections may have begun while another node decided.
fn is_recent(since: Option<Timestamp>, host: &Host<'_>) -> bool {
    since.is_some_and(|since| host.now.since(since) <= host.timeouts.established)
}
