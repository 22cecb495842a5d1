//! What can be named at this moment.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A service address that can be given to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    /// The address.
    pub address: IpAddr,
    /// Its share of first places in answers, relative to the others'; 0 counts as 1.
    pub weight: u32,
    /// Whether its node has more load than it should: answers that name it are short-lived.
    pub hot: bool,
}

/// The addresses of every service port, in order of the addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressTable {
    by_port: BTreeMap<u16, Vec<ServiceAddress>>,
}

impl AddressTable {
    /// A table of what is given; of one address given twice for a port, the weights are added, and it is hot if all are.
    pub fn new(entries: impl IntoIterator<Item = (u16, ServiceAddress)>) -> Self {
        let mut merged: BTreeMap<(u16, IpAddr), ServiceAddress> = BTreeMap::new();
        for (port, entry) in entries {
            merged
                .entry((port, entry.address))
                .and_modify(|known| {
                    known.weight = known.weight.saturating_add(entry.weight);
                    known.hot &= entry.hot;
                })
                .or_insert(entry);
        }
        let mut by_port: BTreeMap<u16, Vec<ServiceAddress>> = BTreeMap::new();
        for ((port, _), entry) in merged {
            by_port.entry(port).or_default().push(entry);
        }
        Self { by_port }
    }

    /// The addresses of a port.
    pub fn addresses(&self, port: u16) -> &[ServiceAddress] {
        self.by_port.get(&port).map_or(&[], Vec::as_slice)
    }

    /// Every port with its addresses.
    pub fn ports(&self) -> impl Iterator<Item = (u16, &[ServiceAddress])> {
        self.by_port.iter().map(|(port, addresses)| (*port, addresses.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_several_nodes_share_is_one_with_the_weight_of_all() {
        let address = "192.0.2.1".parse().unwrap();
        let entry = |hot| (80, ServiceAddress { address, weight: 100, hot });

        let table = AddressTable::new([entry(true), entry(false)]);

        assert_eq!(table.addresses(80), [ServiceAddress { address, weight: 200, hot: false }]);
        assert!(table.addresses(81).is_empty());
    }
}
