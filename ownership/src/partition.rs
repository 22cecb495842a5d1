//! Into which slot a flow falls.
//!
//! Saru divided by source address or port, Linux's CLUSTERIP by `sourceip`, `sourceip-sourceport` and all; here it is
//! the operator's choice for each service, and all nodes must have made the same. Strangers choose what is hashed and
//! can aim at a slot; then its owner is as loaded as a single server would be, and load-proportional shares take other
//! slots from it. A secret seed would prevent that and would have to be shared by all nodes.

use crate::hash::Hash;
use dpr_model::{FlowKey, PartitionBy, SLOTS_DEFAULT, Slot};
use std::net::IpAddr;

/// Seed of the hash; any number that all nodes have.
const SEED: u64 = 0x6470_7220_736c_6f74;

/// The slot of what has no ports: fragments (the first one too, or they would part) and echo requests.
pub fn slot_without_ports(source: IpAddr, destination: IpAddr, slots: SlotCount) -> Slot {
    slots.pick(address(address(Hash::seeded(SEED), source), destination))
}

/// How many slots there are: a power of two from 16 to 32,768, the same on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotCount(u16);

impl SlotCount {
    /// Fewest.
    pub const MIN: Self = Self(16);
    /// Most.
    pub const MAX: Self = Self(1 << 15);

    /// That many slots; `None` if it is no power of two or out of range.
    pub const fn new(count: u16) -> Option<Self> {
        if count.is_power_of_two() && count >= Self::MIN.0 { Some(Self(count)) } else { None }
    }

    /// How many.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Every slot.
    pub fn all(self) -> impl Iterator<Item = Slot> {
        (0..self.0).map(Slot)
    }

    /// The slot of a flow.
    pub fn slot_of(self, flow: &FlowKey, by: PartitionBy) -> Slot {
        let hash = Hash::seeded(SEED);
        let (client, service) = (flow.client, flow.service);
        let hash = match by {
            PartitionBy::SourceAddress => address(hash, client.address),
            PartitionBy::DestinationAddress => address(hash, service.address),
            PartitionBy::SourcePort => hash.word(client.port.into()),
            PartitionBy::DestinationPort => hash.word(service.port.into()),
            PartitionBy::SourceAddressAndPort => address(hash, client.address).word(client.port.into()),
            PartitionBy::All => {
                let ports = u64::from(client.port) << 16 | u64::from(service.port);
                address(address(hash, client.address), service.address).word(ports)
            }
        };
        self.pick(hash)
    }

    /// The hash's highest bits, which its last multiplication has mixed best.
    fn pick(self, hash: Hash) -> Slot {
        #[expect(clippy::cast_possible_truncation, reason = "at most 15 bits are left")]
        Slot((hash.get() >> (64 - self.0.trailing_zeros())) as u16)
    }
}

impl Default for SlotCount {
    fn default() -> Self {
        Self(SLOTS_DEFAULT)
    }
}

fn address(hash: Hash, address: IpAddr) -> Hash {
    match address {
        IpAddr::V4(v4) => hash.word(u32::from(v4).into()),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            #[expect(clippy::cast_possible_truncation, reason = "one half, then the other")]
            hash.word((bits >> 64) as u64).word(bits as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::{ClientSocket, Protocol, ServiceSocket};
    use std::collections::BTreeMap;

    const SLOTS: SlotCount = SlotCount::MIN;

    fn flow(client: (u32, u16), service: (u32, u16)) -> FlowKey {
        let ip = |address: u32| IpAddr::V4(address.into());
        FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address: ip(client.0), port: client.1 },
            service: ServiceSocket { address: ip(service.0), port: service.1 },
        }
    }

    #[test]
    fn only_what_the_operator_chose_decides_about_the_slot() {
        use PartitionBy::{
            All, DestinationAddress, DestinationPort, SourceAddress, SourceAddressAndPort, SourcePort,
        };
        type Vary = fn(u16) -> FlowKey;
        let vary: [(Vary, &[PartitionBy]); 4] = [
            (|n| flow((n.into(), 1), (1, 1)), &[SourceAddress, SourceAddressAndPort, All]),
            (|n| flow((1, n), (1, 1)), &[SourcePort, SourceAddressAndPort, All]),
            (|n| flow((1, 1), (n.into(), 1)), &[DestinationAddress, All]),
            (|n| flow((1, 1), (1, n)), &[DestinationPort, All]),
        ];

        for (flow_of, deciding) in vary {
            for by in PartitionBy::ALL {
                let slots: std::collections::BTreeSet<Slot> =
                    (0..200).map(|n| SLOTS.slot_of(&flow_of(n), by)).collect();
                assert_eq!(slots.len() > 1, deciding.contains(&by), "{by:?}");
            }
        }
    }

    #[test]
    fn flows_spread_evenly_over_slots() {
        for by in [PartitionBy::SourceAddress, PartitionBy::SourceAddressAndPort, PartitionBy::All] {
            let mut flows_by_slot = BTreeMap::<Slot, u32>::new();
            for n in 0..16_000_u32 {
                let slot = SLOTS.slot_of(&flow((0xc633_6400 + n, 1024 + n as u16), (1, 80)), by);
                *flows_by_slot.entry(slot).or_default() += 1;
            }
            assert_eq!(flows_by_slot.len(), 16);
            assert!(flows_by_slot.values().all(|flows| (850..1150).contains(flows)), "{flows_by_slot:?}");
        }
    }

    #[test]
    fn the_hash_is_what_it_was() {
        let slots = SlotCount::default();
        let v6 = "2001:db8::7".parse().unwrap();

        let found = [
            slots.slot_of(&flow((0xc000_0201, 40_000), (0xc000_0264, 80)), PartitionBy::SourceAddress),
            slots.slot_of(&flow((0xc000_0201, 40_000), (0xc000_0264, 80)), PartitionBy::All),
            slot_without_ports(v6, v6, slots),
        ];

        // Nodes of different versions share slots: whoever changes this has changed the protocol.
        assert_eq!(found, [Slot(3510), Slot(2138), Slot(525)]);
    }

    #[test]
    fn slots_are_a_power_of_two() {
        let counts = [0, 8, 16, 17, 4096, 32_768, u16::MAX].map(SlotCount::new);

        assert_eq!(counts.map(|count| count.map_or(0, SlotCount::get)), [0, 0, 16, 0, 4096, 32_768, 0]);
        assert_eq!(SlotCount::MIN.all().count(), 16);
    }
}
