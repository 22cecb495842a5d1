//! Ports that services have beside their own.

use super::Port;

/// Port ranges that the services of one address may have beside their own ports: as many as a load report carries.
pub const FURTHER_MAX: usize = 16;

/// Ports that a service has beside its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FurtherRange {
    /// The first of them.
    pub first: u16,
    /// The last of them.
    pub last: u16,
    /// The port that the service is named by.
    pub port: Port,
    /// IP protocol number; 0 where there is no range, and none behind it.
    pub protocol: u8,
    /// Padding.
    pub zero: u8,
}

/// Those of all services of an address, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FurtherPorts {
    /// As many as there are, then empty ones.
    pub ranges: [FurtherRange; FURTHER_MAX],
}

impl FurtherPorts {
    /// Adds a range behind the others, if it is not there. False, and nothing happens, when there are [`FURTHER_MAX`] already.
    pub(crate) fn add(&mut self, range: FurtherRange) -> bool {
        let free = self.ranges.iter_mut().find(|place| place.protocol == 0 || **place == range);
        free.map(|place| *place = range).is_some()
    }

    /// The ranges that there are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &FurtherRange> {
        self.ranges.iter().take_while(|range| range.protocol != 0)
    }

    /// The port that the service is named by to which a port belongs.
    pub(crate) fn named(&self, protocol: u8, port: u16) -> Option<u16> {
        let has =
            |range: &&FurtherRange| range.protocol == protocol && (range.first..=range.last).contains(&port);
        self.iter().find(has).map(|range| u16::from_be_bytes(range.port))
    }
}
