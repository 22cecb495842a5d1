//! By which way a peer is heard: multicast, or unicast only because multicast does not get through.
//!
//! Multicast fails in practice in two ways: never there (clouds, other networks), or gone after minutes
//! (IGMP snooping without a querier forgets memberships, RFC 4541). Both look the same here: unicast copies
//! whose multicast copies do not come.

use crate::message::Via;
use dpr_model::Timestamp;
use std::time::Duration;

/// Unicast copies may be this many sequences ahead of multicast ones before that means anything.
const HEAD_START: u64 = 2;
/// Time of unicast without multicast after which multicast counts as blocked.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);
/// The same in intervals, for clusters with long ones.
const BLOCKED_AFTER_INTERVALS: u32 = 10;

/// How one peer, in one life, is heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    multicast_sequence: Option<u64>,
    unicast_only_since: Option<Timestamp>,
}

impl Paths {
    /// Learns that a copy of report `sequence` came.
    pub(crate) fn record(&mut self, via: Via, sequence: u64, now: Timestamp) {
        match via {
            Via::Multicast => {
                self.multicast_sequence = self.multicast_sequence.max(Some(sequence));
                self.unicast_only_since = None;
            }
            Via::Unicast => {
                let is_ahead = |heard: u64| sequence > heard.saturating_add(HEAD_START);
                if self.multicast_sequence.is_none_or(is_ahead) {
                    self.unicast_only_since.get_or_insert(now);
                }
            }
        }
    }

    /// Whether multicast copies come.
    pub(crate) fn is_heard_by_multicast(&self) -> bool {
        self.multicast_sequence.is_some() && self.unicast_only_since.is_none()
    }

    /// Whether the peer is heard, but by unicast only.
    pub(crate) fn is_unicast_only(&self) -> bool {
        self.unicast_only_since.is_some()
    }

    /// Whether it has been so for long enough to call multicast blocked.
    pub(crate) fn is_multicast_blocked(&self, interval: Duration, now: Timestamp) -> bool {
        let after = BLOCKED_AFTER.max(interval * BLOCKED_AFTER_INTERVALS);
        self.unicast_only_since.is_some_and(|since| now.since(since) > after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    #[test]
    fn a_peer_heard_both_ways_is_not_unicast_only_in_whatever_order_copies_come() {
        let mut paths = Paths::default();
        for sequence in 1..50 {
            let now = Timestamp::from_millis(sequence * 100);
            paths.record(Via::Multicast, sequence, now);
            paths.record(Via::Unicast, sequence, now);
            assert!(!paths.is_unicast_only());
        }
        assert!(paths.is_heard_by_multicast());
    }

    #[test]
    fn multicast_that_stops_is_noticed_and_multicast_that_returns_too() {
        let mut paths = Paths::default();
        paths.record(Via::Multicast, 10, Timestamp::from_millis(1000));
        for sequence in 11..=80 {
            paths.record(Via::Unicast, sequence, Timestamp::from_millis(sequence * 100));
        }

        assert!(paths.is_unicast_only());
        assert!(!paths.is_multicast_blocked(INTERVAL, Timestamp::from_millis(6300)));
        assert!(paths.is_multicast_blocked(INTERVAL, Timestamp::from_millis(6301)));

        paths.record(Via::Multicast, 81, Timestamp::from_millis(8100));
        assert!(!paths.is_unicast_only());
    }

    #[test]
    fn long_intervals_need_more_time_to_be_sure() {
        let mut paths = Paths::default();
        paths.record(Via::Unicast, 1, Timestamp::default());

        let interval = Duration::from_secs(2);

        assert!(!paths.is_multicast_blocked(interval, Timestamp::from_millis(19_000)));
        assert!(paths.is_multicast_blocked(interval, Timestamp::from_millis(20_001)));
    }
}
