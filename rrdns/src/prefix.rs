//! Networks, as address and length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: an address whose host bits are zero, and how many bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network such as 198.51.100.0/24 or 2001:db8::/32")]
pub struct PrefixError(pub String);

impl Prefix {
    /// The network of `address`; a length beyond the address is its whole length.
    pub fn of(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let length = length.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                Self { address: Ipv4Addr::from(u32::from(v4) & mask).into(), length }
            }
            IpAddr::V6(v6) => {
                let length = length.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                Self { address: Ipv6Addr::from(u128::from(v6) & mask).into(), length }
            }
        }
    }

    /// Bits that count.
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether `address` is within.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Self::of(address, self.length) == self
    }

    /// Leading bits that `address` has in common with the network; `None` for the other family.
    pub(crate) fn common_bits(self, address: IpAddr) -> Option<u8> {
        let (own, other) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (left_aligned(own), left_aligned(other)),
            (IpAddr::V6(own), IpAddr::V6(other)) => (u128::from(own), u128::from(other)),
            _ => return None,
        };
        u8::try_from((own ^ other).leading_zeros()).ok().map(|bits| bits.min(self.length))
    }
}

fn left_aligned(address: Ipv4Addr) -> u128 {
    u128::from(u32::from(address)) << 96
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let wrong = || PrefixError(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().map_err(|_| wrong())?;
        let prefix = Self::of(address, length);
        // Host bits, or a length that the family does not have, are mistakes.
        if prefix.address == address && prefix.length == length { Ok(prefix) } else { Err(wrong()) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        assert!(prefix("192.0.2.0/25").contains("192.0.2.127".parse().unwrap()));
        assert!(!prefix("192.0.2.0/25").contains("192.0.2.128".parse().unwrap()));
        assert!(prefix("0.0.0.0/0").contains("203.0.113.1".parse().unwrap()));
        assert!(!prefix("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(prefix("2001:db8::/32").contains("2001:db8:1::".parse().unwrap()));
    }

    #[test]
    fn host_bits_and_lengths_beyond_the_address_are_mistakes() {
        for text in ["192.0.2.1/24", "192.0.2.0/33", "2001:db8::/129", "192.0.2.0", "x/8", "10.0.0.0/-1"] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError(text.to_owned())));
        }
    }

    #[test]
    fn common_bits_end_with_the_network() {
        assert_eq!(prefix("192.0.2.0/24").common_bits("192.0.3.0".parse().unwrap()), Some(23));
        assert_eq!(prefix("192.0.2.0/24").common_bits("192.0.2.9".parse().unwrap()), Some(24));
        assert_eq!(prefix("192.0.2.0/24").common_bits("::".parse().unwrap()), None);
    }
}
