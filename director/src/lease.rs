//! The right to act as an owner, for a short time.

use core::time::Duration;
use dpr_model::Timestamp;

/// Longest time for which the data plane may go on deciding without a word from the daemon.
///
/// A node that lost its cluster must have stopped before another one takes over; takeover waits for this long
/// after a death is agreed upon.
pub const LEASE_MAX: Duration = Duration::from_millis(250);

/// Valid until a point in time; runs out by itself when the daemon is stopped, wedged or dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    valid_until: Option<Timestamp>,
}

impl Lease {
    /// Prolongs the lease from `now` on.
    pub fn renew(&mut self, now: Timestamp) {
        self.valid_until = Some(now + LEASE_MAX);
    }

    /// True while the node may act as an owner.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.valid_until.is_some_and(|until| now <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_runs_out_by_itself() {
        let mut lease = Lease::default();
        let now = Timestamp::from_millis(10_000);
        assert!(!lease.is_valid(now));

        lease.renew(now);

        assert!(lease.is_valid(now + LEASE_MAX));
        assert!(!lease.is_valid(now + LEASE_MAX + Duration::from_millis(1)));
    }
}
