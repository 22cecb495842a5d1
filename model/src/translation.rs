//! The ends that network address translation gives to a packet.

use core::fmt;
use core::net::IpAddr;

/// A new end for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct End {
    /// Address, of the packet's version.
    pub address: IpAddr,
    /// Port; `None` keeps the packet's.
    pub port: Option<u16>,
}

/// The ends that a packet gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Translation {
    /// `None` keeps the packet's.
    pub source: Option<End>,
    /// `None` keeps the packet's.
    pub destination: Option<End>,
}

/// A range of ports, both ends included; never empty and never with port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`; `None` unless 0 < `first` ≤ `last`.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || last < first { None } else { Some(Self { first, last }) }
    }

    /// Lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are, 1 to 65,535.
    pub const fn count(self) -> u16 {
        self.last - self.first + 1
    }

    /// True for a port of the range.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// True when some port is in both ranges.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            1 => write!(f, "{}", self.first),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_that_have_a_port_in_common() {
        let range = |first, last| PortRange::new(first, last).unwrap();
        assert!(range(1, 9).overlaps(range(9, 12)) && range(5, 5).overlaps(range(1, 9)));
        assert!(!range(1, 9).overlaps(range(10, 12)) && !range(10, 12).overlaps(range(1, 9)));
    }

    #[test]
    fn a_range_has_both_of_its_ends_and_is_never_empty() {
        let range = PortRange::new(61_000, 61_001).unwrap();
        assert_eq!((range.count(), PortRange::new(1, u16::MAX).unwrap().count()), (2, u16::MAX));
        assert_eq!(
            [60_999, 61_000, 61_001, 61_002].map(|port| range.contains(port)),
            [false, true, true, false]
        );
        assert_eq!((PortRange::new(0, 9), PortRange::new(2, 1)), (None, None));
    }
}
