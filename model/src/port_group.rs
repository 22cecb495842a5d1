//! Ports that belong to a service beside the one that it is named by.

use crate::PortRange;

/// Port ranges that one service may have beside its own port.
pub const PORT_RANGES_MAX: usize = 4;

/// Further ports of a service: what a client opens there concerns the same server, as with FTP's data connections.
///
/// Connections to them are decided about as those to the service's own port; only there a server has to listen to count
/// as healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortGroup {
    ranges: [Option<PortRange>; PORT_RANGES_MAX],
}

impl PortGroup {
    /// No further ports.
    pub const NONE: Self = Self { ranges: [None; PORT_RANGES_MAX] };

    /// Adds a range. False, and nothing happens, when there are [`PORT_RANGES_MAX`] already.
    pub fn add(&mut self, range: PortRange) -> bool {
        let free = self.ranges.iter_mut().find(|place| place.is_none());
        free.map(|place| *place = Some(range)).is_some()
    }

    /// The ranges, in the order in which they were added.
    pub fn ranges(&self) -> impl Iterator<Item = PortRange> + use<> {
        self.ranges.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_takes_so_many_ranges_and_no_more() {
        let mut group = PortGroup::NONE;
        let ranges = [20, 2000, 3000, 4000, 5000].map(|first| PortRange::new(first, first + 9).unwrap());

        let added = ranges.map(|range| group.add(range));

        assert_eq!(added, [true, true, true, true, false]);
        assert!(group.ranges().eq(ranges[..PORT_RANGES_MAX].iter().copied()));
        assert_eq!(PortGroup::NONE.ranges().count(), 0);
    }
}
