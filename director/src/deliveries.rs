//! Delivery addresses: one local address for each service address of the cluster.

use dpr_rewrite::Version;
use hashbrown::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A prefix from which delivery addresses are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryRange {
    network: IpAddr,
    prefix_len: u8,
}

/// Why a prefix cannot hold delivery addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryRangeError {
    /// Too narrow for two addresses, or wider than any cluster needs.
    #[error("a delivery range needs a prefix length from {min} to {max}, not {prefix_len}")]
    PrefixLength {
        /// The length, bits.
        prefix_len: u8,
        /// Widest that is accepted, bits.
        min: u8,
        /// Narrowest that is accepted, bits.
        max: u8,
    },
    /// The address has bits set behind the prefix.
    #[error("{0}/{1} has bits set behind its prefix")]
    HostBits(IpAddr, u8),
}

impl DeliveryRange {
    /// 169.254.64.0/20: link-local (RFC 3927), so never routed, and rarely used on servers.
    pub const DEFAULT_V4: Self = Self { network: IpAddr::V4(Ipv4Addr::new(169, 254, 64, 0)), prefix_len: 20 };
    /// fd64:7072:4000::/64: a unique local prefix (RFC 4193) that never leaves the node. Its global id is not random,
    /// so that every node and every document has the same one.
    pub const DEFAULT_V6: Self =
        Self { network: IpAddr::V6(Ipv6Addr::new(0xfd64, 0x7072, 0x4000, 0, 0, 0, 0, 0)), prefix_len: 64 };

    /// A range; `prefix_len` from 8 to 30 for IPv4 and from 8 to 126 for IPv6.
    ///
    /// # Errors
    /// When the prefix is no network or of no use.
    pub fn new(network: IpAddr, prefix_len: u8) -> Result<Self, DeliveryRangeError> {
        let (min, max) = (8, address_bits(network) - 2);
        if !(min..=max).contains(&prefix_len) {
            return Err(DeliveryRangeError::PrefixLength { prefix_len, min, max });
        }
        let range = Self { network, prefix_len };
        if number_of(network) & range.host_mask() != 0 {
            return Err(DeliveryRangeError::HostBits(network, prefix_len));
        }
        Ok(range)
    }

    /// First address of the prefix.
    pub fn network(self) -> IpAddr {
        self.network
    }

    /// Length of the prefix, bits.
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// True for addresses of the prefix.
    #[inline]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (u32::from(network) ^ u32::from(address)) >> (32 - u32::from(self.prefix_len)) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (u128::from(network) ^ u128::from(address)) >> (128 - u32::from(self.prefix_len)) == 0
            }
            _ => false,
        }
    }

    /// Bits of an address that are not the prefix's.
    fn host_mask(self) -> u128 {
        (1 << (address_bits(self.network) - self.prefix_len)) - 1
    }

    /// The `nth` address that can be delivered to, counted from zero: all but the first and the last of the prefix.
    fn nth(self, nth: u32) -> Option<IpAddr> {
        let host = u128::from(nth) + 1;
        (host < self.host_mask()).then(|| address_after(self.network, host))
    }
}

fn address_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address that is `host` after `network`, where that is within the range.
fn address_after(network: IpAddr, host: u128) -> IpAddr {
    match network {
        IpAddr::V4(network) => Ipv4Addr::from(u32::from(network) + host as u32).into(),
        IpAddr::V6(network) => Ipv6Addr::from(u128::from(network) + host).into(),
    }
}

/// Where delivery addresses come from, for each IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryRanges {
    v4: DeliveryRange,
    v6: DeliveryRange,
}

impl Default for DeliveryRanges {
    fn default() -> Self {
        Self { v4: DeliveryRange::DEFAULT_V4, v6: DeliveryRange::DEFAULT_V6 }
    }
}

impl DeliveryRanges {
    /// The default ranges, of which `range` replaces the one of its version.
    #[must_use]
    pub fn with(mut self, range: DeliveryRange) -> Self {
        *match Version::of(range.network) {
            Version::V4 => &mut self.v4,
            Version::V6 => &mut self.v6,
        } = range;
        self
    }

    /// The range of an IP version.
    pub fn of(self, version: Version) -> DeliveryRange {
        match version {
            Version::V4 => self.v4,
            Version::V6 => self.v6,
        }
    }

    /// True for addresses of either range.
    #[inline]
    pub fn contains(self, address: IpAddr) -> bool {
        self.of(Version::of(address)).contains(address)
    }
}

/// Which delivery address stands for which service address on this node.
///
/// Addresses are given out in order and kept for the life of the daemon, so that connections keep theirs whatever
/// happens to the cluster. Delivery and service address are of the same version.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    ranges: DeliveryRanges,
    assigned_v4: u32,
    assigned_v6: u32,
    delivery_by_service: HashMap<IpAddr, IpAddr>,
    service_by_delivery: HashMap<IpAddr, IpAddr>,
}

impl Deliveries {
    /// No addresses given out yet.
    pub fn new(ranges: DeliveryRanges) -> Self {
        Self { ranges, ..Self::default() }
    }

    /// The ranges in use.
    pub fn ranges(&self) -> DeliveryRanges {
        self.ranges
    }

    /// Gives `service` a delivery address unless it has one; `None` when the range is used up.
    pub fn assign(&mut self, service: IpAddr) -> Option<IpAddr> {
        if let Some(delivery) = self.delivery_by_service.get(&service) {
            return Some(*delivery);
        }
        let version = Version::of(service);
        let assigned = match version {
            Version::V4 => &mut self.assigned_v4,
            Version::V6 => &mut self.assigned_v6,
        };
        let delivery = loop {
            let next = self.ranges.of(version).nth(*assigned)?;
            *assigned += 1;
            if !self.service_by_delivery.contains_key(&next) {
                break next;
            }
        };
        self.insert(service, delivery);
        Some(delivery)
    }

    /// Gives `service` the delivery address that it had in an earlier life of the daemon. False when that cannot be: it is
    /// in no range, or one of the two is taken.
    pub fn restore(&mut self, service: IpAddr, delivery: IpAddr) -> bool {
        let is_free = Version::of(service) == Version::of(delivery)
            && self.ranges.contains(delivery)
            && !self.delivery_by_service.contains_key(&service)
            && !self.service_by_delivery.contains_key(&delivery);
        if is_free {
            self.insert(service, delivery);
        }
        is_free
    }

    fn insert(&mut self, service: IpAddr, delivery: IpAddr) {
        self.delivery_by_service.insert(service, delivery);
        self.service_by_delivery.insert(delivery, service);
    }

    /// Where packets for `service` are delivered.
    pub fn delivery_of(&self, service: IpAddr) -> Option<IpAddr> {
        self.delivery_by_service.get(&service).copied()
    }

    /// For which service address a delivery address stands.
    pub fn service_of(&self, delivery: IpAddr) -> Option<IpAddr> {
        self.service_by_delivery.get(&delivery).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_service_address_keeps_its_delivery_address() {
        let mut deliveries = Deliveries::new(DeliveryRanges::default());

        let first = deliveries.assign(address("192.0.2.1")).unwrap();
        let second = deliveries.assign(address("192.0.2.2")).unwrap();
        let third = deliveries.assign(address("2001:db8::1")).unwrap();

        assert_eq!(first, address("169.254.64.1"));
        assert_eq!((second, third), (address("169.254.64.2"), address("fd64:7072:4000::1")));
        assert_eq!(deliveries.assign(address("192.0.2.1")), Some(first));
        assert_eq!(deliveries.service_of(third), Some(address("2001:db8::1")));
        let ranges = deliveries.ranges();
        assert!(ranges.contains(second) && ranges.contains(third));
        assert!(
            !ranges.contains(address("169.254.80.0")) && !ranges.contains(address("fd64:7072:4000:1::1"))
        );
    }

    #[test]
    fn what_had_a_delivery_address_before_keeps_it_and_nobody_else_gets_it() {
        let mut deliveries = Deliveries::new(DeliveryRanges::default());

        assert!(deliveries.restore(address("192.0.2.9"), address("169.254.64.1")));
        assert!(!deliveries.restore(address("192.0.2.8"), address("169.254.64.1")), "it is taken");
        assert!(!deliveries.restore(address("192.0.2.8"), address("10.0.0.1")), "it is in no range");

        assert_eq!(deliveries.assign(address("192.0.2.1")), Some(address("169.254.64.2")));
        assert_eq!(deliveries.assign(address("192.0.2.9")), Some(address("169.254.64.1")));
    }

    #[test]
    fn a_used_up_range_says_so() {
        let range = DeliveryRange::new(address("10.9.8.4"), 30).unwrap();
        let mut deliveries = Deliveries::new(DeliveryRanges::default().with(range));
        assert!(deliveries.assign(address("192.0.2.1")).is_some());
        assert!(deliveries.assign(address("192.0.2.2")).is_some());
        assert_eq!(deliveries.assign(address("192.0.2.3")), None);
        assert!(deliveries.assign(address("2001:db8::1")).is_some());
    }

    #[test]
    fn useless_ranges_are_refused() {
        let network = address("169.254.64.1");
        let too_narrow = DeliveryRangeError::PrefixLength { prefix_len: 31, min: 8, max: 30 };
        assert_eq!(DeliveryRange::new(network, 31), Err(too_narrow));
        assert_eq!(DeliveryRange::new(network, 20), Err(DeliveryRangeError::HostBits(network, 20)));
        let too_narrow = DeliveryRangeError::PrefixLength { prefix_len: 127, min: 8, max: 126 };
        assert_eq!(DeliveryRange::new(address("fd00::"), 127), Err(too_narrow));
        assert_eq!(
            DeliveryRange::new(address("fd00::1"), 64),
            Err(DeliveryRangeError::HostBits(address("fd00::1"), 64))
        );
    }
}
