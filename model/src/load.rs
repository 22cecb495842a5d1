//! Load as numbers that can be compared between unlike machines.

use core::fmt;

/// Load in permille of a node's capacity: 0 is idle, 1000 is full, more is overload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct LoadPermille(pub u16);

impl LoadPermille {
    /// The share `used / capacity`, saturating at 65,535 permille; a capacity of zero counts as one.
    pub fn of(used: u64, capacity: u64) -> Self {
        let permille = u128::from(used) * 1000 / u128::from(capacity.max(1));
        Self(u16::try_from(permille).unwrap_or(u16::MAX))
    }
}

impl fmt::Display for LoadPermille {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}‰", self.0)
    }
}

/// What can be measured about a node; the load index is their weighted mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "alloc", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[repr(u8)]
pub enum Metric {
    /// Processor time used, of the cgroup's quota or the host.
    Cpu = 1,
    /// Runnable tasks against processors.
    RunQueue = 2,
    /// Memory that is not available, of the cgroup's limit or the host.
    Memory = 3,
    /// Share of time in which some task waited for I/O (pressure stall information).
    Disk = 4,
    /// Established TCP connections of the services against `node.capacity`.
    Connections = 5,
    /// TCP sockets of the host in use.
    ActiveSockets = 6,
    /// Connections that this node forwards to others at the moment.
    ForwardedOut = 7,
    /// Connections that others forward to this node at the moment.
    ForwardedIn = 8,
    /// Requests that the built-in server works on at the moment.
    RequestsInFlight = 9,
    /// Mean time that the built-in server needs for a request.
    ServiceTime = 10,
}

impl Metric {
    /// Every metric, in the order of their numbers on the wire.
    pub const ALL: [Self; 10] = [
        Self::Cpu,
        Self::RunQueue,
        Self::Memory,
        Self::Disk,
        Self::Connections,
        Self::ActiveSockets,
        Self::ForwardedOut,
        Self::ForwardedIn,
        Self::RequestsInFlight,
        Self::ServiceTime,
    ];

    /// The number on the wire.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The metric of a number on the wire, if this version knows it.
    pub fn from_number(number: u8) -> Option<Self> {
        // Numbers are positions in the list, counted from 1.
        Self::ALL.get(usize::from(number.checked_sub(1)?)).copied()
    }

    /// The word for it in configuration, status and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::RunQueue => "run-queue",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Connections => "connections",
            Self::ActiveSockets => "active-sockets",
            Self::ForwardedOut => "forwarded-out",
            Self::ForwardedIn => "forwarded-in",
            Self::RequestsInFlight => "requests-in-flight",
            Self::ServiceTime => "service-time",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_saturates_instead_of_wrapping() {
        assert_eq!(LoadPermille::of(1, 2), LoadPermille(500));
        assert_eq!(LoadPermille::of(u64::MAX, 1), LoadPermille(u16::MAX));
        assert_eq!(LoadPermille::of(3, 0), LoadPermille(3000));
    }

    #[test]
    fn every_metric_comes_back_from_its_number() {
        for metric in Metric::ALL {
            assert_eq!(Metric::from_number(metric.number()), Some(metric));
        }
        assert_eq!(Metric::from_number(0), None);
    }
}
