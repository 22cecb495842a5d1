//! How many connections the services have: known at every moment, counted seldom.
//!
//! The kernel has no figure for a port. To count, it goes through its table of all connections, those included that only
//! wait for their end (TIME-WAIT): a millisecond on an idle host, many on a busy one. So a count is followed by a pause in
//! proportion. Until the next one, changes are taken from the number of TCP sockets in use, which costs next to nothing but
//! knows no ports.

use std::time::{Duration, Instant};

/// The pause after a count, in times that it took: counting takes a hundredth of a processor at most.
const PAUSE: u32 = 99;

/// Connections of the services at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connections {
    /// Established ones.
    pub(super) established: u64,
    /// Of those, the ones to service addresses that other nodes are home to.
    pub(super) forwarded_in: u64,
}

/// A count, and what its figures are carried on from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    connections: Connections,
    in_use: u64,
    good_until: Instant,
}

impl Counted {
    /// A count that ended at `now` and took `time`. `in_use` TCP sockets were in use when it began.
    pub(super) fn new(connections: Connections, in_use: u64, time: Duration, now: Instant) -> Self {
        let good_until = now.checked_add(time.saturating_mul(PAUSE)).unwrap_or(now);
        Self { connections, in_use, good_until }
    }

    /// What there is now that `in_use` TCP sockets are in use; `None` if it takes another count.
    ///
    /// That no connection is left is never concluded: whoever drains a node relies on it.
    pub(super) fn carried_on(&self, in_use: u64, now: Instant) -> Option<Connections> {
        if now >= self.good_until {
            return None;
        }
        let counted = self.connections;
        let established = counted.established.saturating_add(in_use).saturating_sub(self.in_use);
        if established == 0 && counted.established > 0 {
            return None;
        }
        let share = |part: u64| part.saturating_mul(established).checked_div(counted.established);
        let forwarded_in = share(counted.forwarded_in).unwrap_or(0);
        Some(Connections { established, forwarded_in })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(2);

    fn counted(established: u64, forwarded_in: u64, in_use: u64, now: Instant) -> Counted {
        Counted::new(Connections { established, forwarded_in }, in_use, TOOK, now)
    }

    #[test]
    fn a_count_is_followed_by_a_pause_of_a_hundred_times_what_it_took() {
        let now = Instant::now();
        let counted = counted(5, 0, 7, now);

        assert!(counted.carried_on(7, now + TOOK * 98).is_some());
        assert_eq!(counted.carried_on(7, now + TOOK * 99), None);
    }

    #[test]
    fn between_counts_connections_change_as_sockets_in_use_do() {
        let now = Instant::now();
        let counted = counted(100, 40, 110, now);

        let more = counted.carried_on(160, now);
        let fewer = counted.carried_on(60, now);

        assert_eq!(more, Some(Connections { established: 150, forwarded_in: 60 }));
        assert_eq!(fewer, Some(Connections { established: 50, forwarded_in: 20 }));
    }

    #[test]
    fn that_no_connection_is_left_takes_a_count() {
        let now = Instant::now();

        assert_eq!(counted(2, 2, 10, now).carried_on(8, now), None);
        assert_eq!(counted(2, 2, 10, now).carried_on(0, now), None);
        assert_eq!(counted(0, 0, 10, now).carried_on(8, now), Some(Connections::default()));
    }

    #[test]
    fn the_first_connections_after_an_empty_count_are_seen_at_once() {
        let now = Instant::now();

        let seen = counted(0, 0, 3, now).carried_on(8, now);

        assert_eq!(seen, Some(Connections { established: 5, forwarded_in: 0 }));
    }
}
