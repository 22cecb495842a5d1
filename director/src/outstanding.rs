//! Connections on their way to a peer: sent, but not in its load report yet.

use core::time::Duration;
use dpr_model::{Incarnation, Timestamp};

/// How long a connection may stay unacknowledged before it counts as lost: that many intervals of the peer's reports,
const MEMORY_INTERVALS: u32 = 20;
/// and never less than this, as reports get lost and handshakes take their time.
const MEMORY_MIN: Duration = Duration::from_secs(2);
const BUCKETS: usize = 8;

/// One peer's account: both sides count cumulatively, so a lost report loses nothing.
#[derive(Clone, Debug)]
pub(crate) struct Outstanding {
    /// Life of the peer that acknowledges; its count starts anew with each.
    incarnation: Incarnation,
    sent: u64,
    acknowledged: u64,
    /// Connections that no acknowledgement will ever cover: sent to an earlier life, or lost on the way.
    forgiven: u64,
    /// Between the peer's reports.
    interval: Duration,
    /// Sent in each of the latest periods, [`Self::bucket_ns`] long; what is older than all of them is forgiven.
    recent: [u32; BUCKETS],
    newest_bucket: u64,
    /// Follows from the interval.
    bucket_ns: u64,
}

impl Default for Outstanding {
    fn default() -> Self {
        Self {
            incarnation: Incarnation::default(),
            sent: 0,
            acknowledged: 0,
            forgiven: 0,
            interval: Duration::ZERO,
            recent: [0; BUCKETS],
            newest_bucket: 0,
            bucket_ns: bucket_ns(Duration::ZERO),
        }
    }
}

impl Outstanding {
    /// The peer reports once in `interval`. If that is news, what was sent lately counts as sent now.
    pub(crate) fn set_interval(&mut self, interval: Duration, now: Timestamp) {
        if interval == self.interval {
            return;
        }
        self.advance(now);
        let recent = u32::try_from(self.recent_total()).unwrap_or(u32::MAX);
        self.interval = interval;
        self.bucket_ns = bucket_ns(interval);
        self.newest_bucket = now.as_nanos() / self.bucket_ns;
        self.recent = [0; BUCKETS];
        self.recent[self.recent_index(self.newest_bucket)] = recent;
    }

    /// That many more connections were sent.
    pub(crate) fn record_sent(&mut self, connections: u32, now: Timestamp) {
        self.advance(now);
        self.sent += u64::from(connections);
        let newest = self.recent_index(self.newest_bucket);
        self.recent[newest] = self.recent[newest].saturating_add(connections);
    }

    /// A report of the peer's life `incarnation` says how many connections have arrived.
    pub(crate) fn record_acknowledged(&mut self, incarnation: Incarnation, count: u64, now: Timestamp) {
        self.advance(now);
        if incarnation != self.incarnation {
            self.incarnation = incarnation;
            self.acknowledged = 0;
            self.forgiven = self.sent;
            self.recent = [0; BUCKETS];
        }
        self.acknowledged = self.acknowledged.max(count);
        let unacknowledged = self.unacknowledged();
        let recent = self.recent_total();
        self.forgiven += unacknowledged.saturating_sub(recent);
    }

    /// Connections that are on their way.
    pub(crate) fn count(&self) -> u32 {
        // Never more than was sent within its memory, which fits.
        u32::try_from(self.unacknowledged().min(self.recent_total())).unwrap_or(u32::MAX)
    }

    /// Cumulative count of connections sent, over all lives of the peer.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    fn unacknowledged(&self) -> u64 {
        self.sent.saturating_sub(self.forgiven).saturating_sub(self.acknowledged)
    }

    fn recent_total(&self) -> u64 {
        self.recent.iter().map(|count| u64::from(*count)).sum()
    }

    fn recent_index(&self, bucket: u64) -> usize {
        (bucket % BUCKETS as u64) as usize
    }

    fn advance(&mut self, now: Timestamp) {
        let bucket = now.as_nanos() / self.bucket_ns;
        let passed = bucket.saturating_sub(self.newest_bucket).min(BUCKETS as u64);
        for step in 1..=passed {
            let stale = self.recent_index(bucket - passed + step);
            self.recent[stale] = 0;
        }
        self.newest_bucket = self.newest_bucket.max(bucket);
    }
}

fn bucket_ns(interval: Duration) -> u64 {
    let memory = interval.saturating_mul(MEMORY_INTERVALS).max(MEMORY_MIN);
    u64::try_from(memory.as_nanos()).unwrap_or(u64::MAX) / BUCKETS as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Incarnation = Incarnation(1);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn sent(count: u32, millis: u64) -> Outstanding {
        let mut account = Outstanding::default();
        account.record_acknowledged(LIFE, 0, at(0));
        for _ in 0..count {
            account.record_sent(1, at(millis));
        }
        account
    }

    #[test]
    fn what_a_report_acknowledges_is_no_longer_on_its_way() {
        let mut account = sent(10, 0);
        assert_eq!(account.count(), 10);
        account.record_acknowledged(LIFE, 7, at(100));
        assert_eq!(account.count(), 3);
        account.record_acknowledged(LIFE, 6, at(120)); // An older report overtaken by a newer one.
        assert_eq!(account.count(), 3);
    }

    #[test]
    fn a_connection_lost_on_the_way_is_forgiven_for_good() {
        let mut account = sent(10, 0);
        account.record_acknowledged(LIFE, 8, at(2500));
        assert_eq!(account.count(), 0);
        account.record_sent(1, at(2600));
        account.record_acknowledged(LIFE, 9, at(2700));
        assert_eq!(account.count(), 0);
    }

    #[test]
    fn whoever_reports_rarely_is_given_twenty_intervals_to_acknowledge() {
        let mut account = sent(10, 0);
        account.set_interval(Duration::from_secs(5), at(0));
        account.record_acknowledged(LIFE, 0, at(80_000));
        assert_eq!(account.count(), 10);
        account.record_acknowledged(LIFE, 0, at(101_000));
        assert_eq!(account.count(), 0);
    }

    #[test]
    fn a_change_of_interval_forgets_nothing_that_is_on_its_way() {
        let mut account = sent(10, 0);
        for interval_ms in [1000, 100, 10_000, 50] {
            account.set_interval(Duration::from_millis(interval_ms), at(500));
            assert_eq!(account.count(), 10);
        }
        account.record_acknowledged(LIFE, 10, at(600));
        assert_eq!(account.count(), 0);
    }

    #[test]
    fn a_restarted_peer_counts_from_zero() {
        let mut account = sent(10, 0);
        account.record_acknowledged(LIFE, 10, at(100));
        account.record_acknowledged(Incarnation(2), 0, at(200));
        account.record_sent(1, at(300));
        assert_eq!(account.count(), 1);
        account.record_acknowledged(Incarnation(2), 1, at(400));
        assert_eq!(account.count(), 0);
    }
}
