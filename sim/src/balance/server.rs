//! A server that works on all its connections at once.

use dpr_model::{Capacity, Timestamp};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Attained service is counted in fractions of a nanosecond, so that sharing by division loses nothing that matters.
const FRACTIONS_PER_NS: u128 = 1024;

/// Processor sharing: up to its capacity, connections are served at full speed; beyond it they share evenly.
///
/// As all of them are served at the same speed, one number, the service that each has attained since the server
/// began, is enough to know who is finished when.
#[derive(Debug)]
pub(super) struct Server {
    capacity: Capacity,
    /// Finishing points on the scale of `attained`, with the connections' names.
    open: BinaryHeap<Reverse<(u128, u64)>>,
    attained: u128,
    as_of: Timestamp,
    /// Departures that were predicted before the latest change are void.
    pub(super) version: u64,
}

impl Server {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self { capacity, open: BinaryHeap::new(), attained: 0, as_of: Timestamp::default(), version: 0 }
    }

    /// Connections that are not finished.
    pub(super) fn open(&self) -> u64 {
        self.open.len() as u64
    }

    /// A connection arrives that would take `work` at full speed.
    pub(super) fn arrive(&mut self, name: u64, work: Duration, now: Timestamp) {
        self.advance(now);
        self.open.push(Reverse((self.attained + work.as_nanos() * FRACTIONS_PER_NS, name)));
        self.version += 1;
    }

    /// When the next connection is finished, if no other arrives.
    pub(super) fn next_departure(&self) -> Option<Timestamp> {
        let Reverse((finish, _)) = self.open.peek()?;
        let (open, speed) = self.sharing();
        let left_ns = ((finish - self.attained) * open).div_ceil(speed * FRACTIONS_PER_NS);
        Some(self.as_of + Duration::from_nanos(u64::try_from(left_ns).unwrap_or(u64::MAX)))
    }

    /// The next connection is finished; to be called at [`Self::next_departure`].
    pub(super) fn depart(&mut self, now: Timestamp) -> Option<u64> {
        self.advance(now);
        let Reverse((_, name)) = self.open.pop()?;
        self.version += 1;
        Some(name)
    }

    /// Open connections, and for how many of them there is full speed.
    fn sharing(&self) -> (u128, u128) {
        let open = self.open.len() as u128;
        (open, open.min(u128::from(self.capacity.get())))
    }

    fn advance(&mut self, now: Timestamp) {
        if let Some(Reverse((finish, _))) = self.open.peek() {
            let passed_ns = now.since(self.as_of).as_nanos();
            let (open, speed) = self.sharing();
            let attained = self.attained + passed_ns * FRACTIONS_PER_NS * speed / open;
            // Rounding must not carry anybody past the end.
            self.attained = attained.min(*finish);
        }
        self.as_of = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_beyond_the_capacity_share_its_speed() {
        let mut server = Server::new(Capacity::new(2));
        let start = Timestamp::from_millis(1000);
        for name in 0..4 {
            server.arrive(name, Duration::from_millis(100), start);
        }

        // Four share the speed of two.
        let departure = server.next_departure().unwrap();
        assert_eq!(departure.since(start), Duration::from_millis(200));
        let departed: Vec<_> = (0..4).filter_map(|_| server.depart(departure)).collect();

        assert_eq!(departed, [0, 1, 2, 3]);
        assert_eq!((server.open(), server.next_departure()), (0, None));
    }

    #[test]
    fn a_short_connection_overtakes_a_long_one() {
        let mut server = Server::new(Capacity::new(1));
        let start = Timestamp::from_millis(0);
        server.arrive(1, Duration::from_millis(100), start);
        server.arrive(2, Duration::from_millis(10), start);

        let first = server.next_departure().unwrap();
        assert_eq!((first.as_millis(), server.depart(first)), (20, Some(2)));
        let second = server.next_departure().unwrap();
        assert_eq!((second.as_millis(), server.depart(second)), (110, Some(1)));
    }
}
