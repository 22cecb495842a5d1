//! What the built-in server counts about itself for the load sampler.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counters of the built-in server; written by its connections, read by the load sampler.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    in_flight: AtomicU64,
    answered: AtomicU64,
    busy_us: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FiguresNow {
    /// Requests being worked on.
    pub(crate) in_flight: u64,
    /// Requests answered, cumulative.
    pub(crate) answered: u64,
    /// Time that they took together, cumulative.
    pub(crate) busy: Duration,
}

impl Figures {
    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn begin(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { figures: self, since: Instant::now() }
    }

    /// The counters now.
    pub(crate) fn now(&self) -> FiguresNow {
        FiguresNow {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            answered: self.answered.load(Ordering::Relaxed),
            busy: Duration::from_micros(self.busy_us.load(Ordering::Relaxed)),
        }
    }
}

/// A request being worked on.
#[derive(Debug)]
pub(crate) struct InFlight<'a> {
    figures: &'a Figures,
    since: Instant,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let took_us = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.figures.busy_us.fetch_add(took_us, Ordering::Relaxed);
        self.figures.answered.fetch_add(1, Ordering::Relaxed);
        self.figures.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_in_flight_until_it_is_dropped() {
        let figures = Figures::default();
        let request = figures.begin();

        let during = figures.now();
        drop(request);
        let after = figures.now();

        assert_eq!((during.in_flight, during.answered), (1, 0));
        assert_eq!((after.in_flight, after.answered), (0, 1));
    }
}
