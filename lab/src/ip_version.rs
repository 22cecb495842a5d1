//! Which IP versions a lab speaks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpVersion {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl IpVersion {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The version of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The address that means "any".
    pub fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// The address of the machine with this number: 10.77.0.*number*, fd77::*number*, both as people write it.
    pub(crate) fn address_of(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => {
                let [a, b, c, _] = NETWORK.octets();
                Ipv4Addr::new(a, b, c, number).into()
            }
            Self::V6 => {
                let [hundreds, tens, ones] = [number / 100, number / 10 % 10, number % 10].map(u16::from);
                let mut segments = NETWORK_V6.segments();
                segments[7] = hundreds << 8 | tens << 4 | ones;
                Ipv6Addr::from(segments).into()
            }
        }
    }

    /// Length of the network's prefix, bits.
    pub(crate) fn prefix_length(self) -> u8 {
        match self {
            Self::V4 => NETWORK_LENGTH,
            Self::V6 => NETWORK_V6_LENGTH,
        }
    }
}

/// The lab's IPv4 network; machines differ in the last byte.
pub const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 0);
/// Its prefix length.
pub const NETWORK_LENGTH: u8 = 24;
/// The lab's IPv6 network; machines differ in the last group.
pub const NETWORK_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0);
/// Its prefix length.
pub const NETWORK_V6_LENGTH: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_number_is_legible_in_both_addresses() {
        assert_eq!(IpVersion::V4.address_of(101).to_string(), "10.77.0.101");
        assert_eq!(IpVersion::V6.address_of(101).to_string(), "fd77::101");
        assert_eq!(IpVersion::V6.address_of(11).to_string(), "fd77::11");
    }
}
