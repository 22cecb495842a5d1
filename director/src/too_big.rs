//! How many "fragmentation needed" errors a node sends.

use core::time::Duration;
use dpr_model::Timestamp;

/// Errors per second, and at once after a quiet second (RFC 1812, section 4.3.2.8 asks for a limit).
const RATE: u32 = 100;

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorLimit {
    tokens: u32,
    refilled: Timestamp,
}

impl ErrorLimit {
    pub(crate) fn new() -> Self {
        Self { tokens: RATE, refilled: Timestamp::default() }
    }

    /// True when one more error may be sent.
    pub(crate) fn allows(&mut self, now: Timestamp) -> bool {
        let per_token = Duration::from_secs(1) / RATE;
        let due = now.since(self.refilled).as_nanos() / per_token.as_nanos();
        if due > 0 {
            self.tokens = RATE.min(self.tokens.saturating_add(u32::try_from(due).unwrap_or(RATE)));
            self.refilled = now;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_cut_and_time_refills() {
        let mut limit = ErrorLimit::new();
        let now = Timestamp::from_millis(5000);
        let allowed = (0..1000).filter(|_| limit.allows(now)).count();
        assert_eq!(allowed, 100);
        assert!(limit.allows(now + Duration::from_millis(10)));
        assert!(!limit.allows(now + Duration::from_millis(10)));
    }
}
