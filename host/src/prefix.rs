//! An IP address with a prefix length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IP address and how many of its leading bits name the network.
///
/// The address keeps its host bits, as `10.0.0.7/24` is what an interface has; [`IpPrefix::network`]
/// clears them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpPrefix {
    address: IpAddr,
    length: u8,
}

/// What cannot be a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefix {
    /// More bits than the address has.
    #[error("{address}/{length}: the prefix length is at most {max}")]
    Length {
        /// The address.
        address: IpAddr,
        /// The length asked for, bits.
        length: u8,
        /// The greatest length for this address family, bits.
        max: u8,
    },
    /// Text that is neither `address/length` nor an address.
    #[error("{0:?} is not an IP prefix, as in 10.0.0.0/24 or fd00::/64")]
    Text(String),
}

impl IpPrefix {
    /// The default IPv4 destination, `0.0.0.0/0`.
    pub const ALL_IPV4: Self = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 };

    /// The default IPv6 destination, `::/0`.
    pub const ALL_IPV6: Self = Self { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), length: 0 };

    /// `address/length`; `length` in bits, 0 to 32 for IPv4 and 0 to 128 for IPv6.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, InvalidPrefix> {
        let max = width(address);
        if length > max {
            return Err(InvalidPrefix::Length { address, length, max });
        }
        Ok(Self { address, length })
    }

    /// The prefix that holds nothing but `address`: /32 or /128.
    pub fn host(address: IpAddr) -> Self {
        Self { address, length: width(address) }
    }

    /// The address, with its host bits.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Length in bits.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The same prefix with the host bits cleared.
    pub fn network(self) -> Self {
        let address = match self.address {
            IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) & mask(self.length, 32) as u32).into(),
            IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & mask(self.length, 128)).into(),
        };
        Self { address, length: self.length }
    }

    /// Whether `address` lies in the prefix; never true across address families.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && Self { address, length: self.length }.network() == self.network()
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The `length` leading ones of a number of `width` bits.
fn mask(length: u8, width: u8) -> u128 {
    let ones = if width == 32 { u128::from(u32::MAX) } else { u128::MAX };
    ones.checked_shl(u32::from(width - length)).unwrap_or(0) & ones
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for IpPrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPrefix::Text(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse().map_err(|_| invalid())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        length.map_or_else(|| Ok(Self::host(address)), |length| Self::new(address, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> IpPrefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_is_read_as_it_is_written() {
        for text in ["10.0.0.7/24", "0.0.0.0/0", "fd00::1/64", "::/0", "fe80::/128"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(prefix("10.0.0.7"), IpPrefix::host("10.0.0.7".parse().unwrap()));
    }

    #[test]
    fn host_bits_are_cleared_for_the_network() {
        assert_eq!(prefix("10.1.2.3/20").network(), prefix("10.1.0.0/20"));
        assert_eq!(prefix("fd00::ffff:1/112").network(), prefix("fd00::ffff:0/112"));
        assert_eq!(prefix("10.1.2.3/0").network(), IpPrefix::ALL_IPV4);
        assert_eq!(prefix("fd00::1/0").network(), IpPrefix::ALL_IPV6);
    }

    #[test]
    fn an_address_belongs_to_the_prefix_of_its_family_only() {
        assert!(prefix("169.254.64.0/20").contains("169.254.79.255".parse().unwrap()));
        assert!(!prefix("169.254.64.0/20").contains("169.254.80.0".parse().unwrap()));
        assert!(!IpPrefix::ALL_IPV4.contains("::1".parse().unwrap()));
    }

    #[test]
    fn a_length_beyond_the_address_is_refused() {
        assert!(matches!("10.0.0.0/33".parse::<IpPrefix>(), Err(InvalidPrefix::Length { max: 32, .. })));
        assert!(matches!("10.0.0/24".parse::<IpPrefix>(), Err(InvalidPrefix::Text(_))));
        assert!(matches!("::1/129".parse::<IpPrefix>(), Err(InvalidPrefix::Length { max: 128, .. })));
    }
}
