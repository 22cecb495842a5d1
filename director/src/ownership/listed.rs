//! All that is known of owners, for another data plane that has to know it beforehand.

use super::{Home, OwnershipMap, Service, ServiceKey, SlotOwner};
use dpr_model::{PartitionBy, PortRange, Protocol, ServiceSocket, Sharing, Slot};
use dpr_ownership::SlotCount;
use dpr_ownership::agreement::Duty;
use std::net::IpAddr;

impl OwnershipMap {
    /// Every service with what divides its flows, in order of protocol and socket; the owner of one that is divided is that of its
    /// first slot.
    pub fn services(&self) -> Vec<(Protocol, ServiceSocket, Service, PartitionBy)> {
        let mut services: Vec<_> = self
            .service_by_socket
            .iter()
            .map(|(ServiceKey(protocol, socket), known)| {
                let owner = self.first_owner_of(socket.address, known.service.owner);
                (*protocol, *socket, Service { owner, ..known.service }, known.by)
            })
            .collect();
        services.sort_unstable_by_key(|(protocol, socket, ..)| (*protocol, *socket));
        services
    }

    /// Further ports with the service that has them, in the order in which they are looked at; the same ones once for every node that
    /// reports them.
    pub fn further_ports(&self) -> impl Iterator<Item = (Protocol, ServiceSocket, PortRange)> {
        self.service_by_range.iter().map(|(protocol, address, ports, known)| {
            (*protocol, ServiceSocket { address: *address, port: known.service.port }, *ports)
        })
    }

    /// Service addresses with what holds for all their services, in order of address.
    pub fn homes(&self) -> Vec<(IpAddr, Home)> {
        let mut homes: Vec<_> =
            self.home_by_service_address.iter().map(|(address, home)| (*address, *home)).collect();
        homes.sort_unstable_by_key(|(address, _)| *address);
        homes
    }

    /// True for an address that no node holds: a packet's slot says who decides.
    pub(crate) fn is_by_slot(&self, address: IpAddr, home: &Home) -> bool {
        let is_divided =
            |duty: &Duty| duty.map.right(address, Slot(0)).is_some() && duty.map.holder_of(address).is_none();
        home.sharing != Sharing::Home && self.duty.as_ref().is_some_and(is_divided)
    }

    /// True for an address that is changing hands: this node acts for none of its slots.
    pub(crate) fn is_changing_hands(&self, address: IpAddr) -> bool {
        self.duty.as_ref().is_some_and(|duty| !duty.settled && duty.map.has_moved(address))
    }

    /// Who decides for each slot of the addresses that no node holds; `None` before nodes have agreed.
    pub(crate) fn slot_owners(&self) -> Option<(SlotCount, impl Iterator<Item = (Slot, SlotOwner)>)> {
        let duty = self.duty.as_ref()?;
        let slots = duty.map.slots();
        Some((slots, slots.all().map(|slot| (slot, self.by_right(duty, duty.map.shared_right(slot))))))
    }
}
