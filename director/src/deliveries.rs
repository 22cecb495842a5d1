//! Delivery addresses: one local address for each service address of the cluster.

use hashbrown::HashMap;
use std::net::{IpAddr, Ipv4Addr};

/// The prefix from which delivery addresses are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryRange {
    network: Ipv4Addr,
    prefix_len: u8,
}

/// Why a prefix cannot hold delivery addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryRangeError {
    /// Too narrow for two addresses, or wider than any cluster needs.
    #[error("a delivery range needs a prefix length from 8 to 30, not {0}")]
    PrefixLength(u8),
    /// The address has bits set behind the prefix.
    #[error("{0}/{1} has bits set behind its prefix")]
    HostBits(Ipv4Addr, u8),
}

impl DeliveryRange {
    /// A range; `prefix_len` from 8 to 30.
    ///
    /// # Errors
    /// When the prefix is no network or of no use.
    pub fn new(network: Ipv4Addr, prefix_len: u8) -> Result<Self, DeliveryRangeError> {
        if !(8..=30).contains(&prefix_len) {
            return Err(DeliveryRangeError::PrefixLength(prefix_len));
        }
        let range = Self { network, prefix_len };
        if u32::from(network) & range.host_mask() != 0 {
            return Err(DeliveryRangeError::HostBits(network, prefix_len));
        }
        Ok(range)
    }

    /// First address of the prefix.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// Length of the prefix, bits.
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// True for addresses of the prefix.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & !self.host_mask() == u32::from(self.network)
    }

    fn host_mask(self) -> u32 {
        u32::MAX >> self.prefix_len
    }

    /// The `nth` address that can be delivered to, counted from zero: all but the first and the last of the prefix.
    fn nth(self, nth: u32) -> Option<Ipv4Addr> {
        let host = nth.checked_add(1)?;
        (host < self.host_mask()).then(|| Ipv4Addr::from(u32::from(self.network) + host))
    }
}

/// Which delivery address stands for which service address on this node.
///
/// Addresses are given out in order and kept for the life of the daemon, so that connections keep theirs whatever
/// happens to the cluster.
#[derive(Clone, Debug)]
pub struct Deliveries {
    range: DeliveryRange,
    delivery_by_service: HashMap<IpAddr, Ipv4Addr>,
    service_by_delivery: HashMap<Ipv4Addr, IpAddr>,
}

impl Deliveries {
    /// No addresses given out yet.
    pub fn new(range: DeliveryRange) -> Self {
        Self { range, delivery_by_service: HashMap::new(), service_by_delivery: HashMap::new() }
    }

    /// The range in use.
    pub fn range(&self) -> DeliveryRange {
        self.range
    }

    /// Gives `service` a delivery address unless it has one; `None` when the range is used up.
    pub fn assign(&mut self, service: IpAddr) -> Option<Ipv4Addr> {
        if let Some(delivery) = self.delivery_by_service.get(&service) {
            return Some(*delivery);
        }
        let nth = u32::try_from(self.delivery_by_service.len()).ok()?;
        let delivery = self.range.nth(nth)?;
        self.delivery_by_service.insert(service, delivery);
        self.service_by_delivery.insert(delivery, service);
        Some(delivery)
    }

    /// Where packets for `service` are delivered.
    pub fn delivery_of(&self, service: IpAddr) -> Option<Ipv4Addr> {
        self.delivery_by_service.get(&service).copied()
    }

    /// For which service address a delivery address stands.
    pub fn service_of(&self, delivery: Ipv4Addr) -> Option<IpAddr> {
        self.service_by_delivery.get(&delivery).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    #[test]
    fn every_service_address_keeps_its_delivery_address() {
        let range = DeliveryRange::new(Ipv4Addr::new(169, 254, 64, 0), 20).unwrap();
        let mut deliveries = Deliveries::new(range);

        let first = deliveries.assign(service(1)).unwrap();
        let second = deliveries.assign(service(2)).unwrap();

        assert_eq!(first, Ipv4Addr::new(169, 254, 64, 1));
        assert_ne!(first, second);
        assert_eq!(deliveries.assign(service(1)), Some(first));
        assert_eq!(deliveries.service_of(second), Some(service(2)));
        assert!(range.contains(second) && !range.contains(Ipv4Addr::new(169, 254, 80, 0)));
    }

    #[test]
    fn a_used_up_range_says_so() {
        let mut deliveries = Deliveries::new(DeliveryRange::new(Ipv4Addr::new(10, 9, 8, 4), 30).unwrap());
        assert!(deliveries.assign(service(1)).is_some());
        assert!(deliveries.assign(service(2)).is_some());
        assert_eq!(deliveries.assign(service(3)), None);
    }

    #[test]
    fn useless_ranges_are_refused() {
        let network = Ipv4Addr::new(169, 254, 64, 1);
        assert_eq!(DeliveryRange::new(network, 31), Err(DeliveryRangeError::PrefixLength(31)));
        assert_eq!(DeliveryRange::new(network, 20), Err(DeliveryRangeError::HostBits(network, 20)));
    }
}
