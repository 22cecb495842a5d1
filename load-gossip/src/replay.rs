//! Replay protection: which sequences of one sender's life were seen, in a window of 64.
//!
//! The window of RFC 4303 (section 3.4.3), kept twice: a report legitimately comes once by multicast and
//! once by unicast, so each kind of copy may be seen once.

use crate::error::DatagramError;
use crate::message::Via;

/// Sequences of one sender and incarnation.
#[derive(Clone, Debug)]
pub(crate) struct ReplayWindow {
    newest: u64,
    /// Bit n stands for sequence `newest - n`.
    seen_by_multicast: u64,
    seen_by_unicast: u64,
}

/// What a datagram is that was not seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Newer than all before it.
    Newest,
    /// Overtaken by a newer one on its way.
    Late,
    /// The same report was seen before as the other kind of copy.
    SecondCopy,
}

impl ReplayWindow {
    /// Sequences that the window reaches back, itself included.
    pub(crate) const LENGTH: u64 = 64;

    /// The window of a sender whose first datagram came just now.
    pub(crate) fn starting_at(sequence: u64, via: Via) -> Self {
        let mut window = Self { newest: sequence, seen_by_multicast: 0, seen_by_unicast: 0 };
        *window.seen_mut(via) = 1;
        window
    }

    /// Newest sequence seen.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Marks a copy as seen and says what it is; an error if it was seen before or is too old to tell.
    pub(crate) fn admit(&mut self, sequence: u64, via: Via) -> Result<Admission, DatagramError> {
        if sequence > self.newest {
            self.advance_to(sequence);
            *self.seen_mut(via) |= 1;
            return Ok(Admission::Newest);
        }
        let age = self.newest - sequence;
        if age >= Self::LENGTH {
            return Err(DatagramError::TooOld { sequence, newest: self.newest });
        }
        let bit = 1 << age;
        let seen_before = (self.seen_by_multicast | self.seen_by_unicast) & bit != 0;
        let seen = self.seen_mut(via);
        if *seen & bit != 0 {
            return Err(DatagramError::Replayed { sequence });
        }
        *seen |= bit;
        Ok(if seen_before { Admission::SecondCopy } else { Admission::Late })
    }

    fn advance_to(&mut self, sequence: u64) {
        let distance = u32::try_from(sequence - self.newest).unwrap_or(u32::MAX);
        self.seen_by_multicast = self.seen_by_multicast.checked_shl(distance).unwrap_or(0);
        self.seen_by_unicast = self.seen_by_unicast.checked_shl(distance).unwrap_or(0);
        self.newest = sequence;
    }

    fn seen_mut(&mut self, via: Via) -> &mut u64 {
        match via {
            Via::Multicast => &mut self.seen_by_multicast,
            Via::Unicast => &mut self.seen_by_unicast,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_copy_is_admitted_once() {
        let mut window = ReplayWindow::starting_at(10, Via::Multicast);

        assert_eq!(window.admit(10, Via::Unicast), Ok(Admission::SecondCopy));
        assert_eq!(window.admit(10, Via::Unicast), Err(DatagramError::Replayed { sequence: 10 }));
        assert_eq!(window.admit(10, Via::Multicast), Err(DatagramError::Replayed { sequence: 10 }));
    }

    #[test]
    fn an_overtaken_datagram_is_late_but_welcome() {
        let mut window = ReplayWindow::starting_at(1, Via::Multicast);

        assert_eq!(window.admit(3, Via::Multicast), Ok(Admission::Newest));
        assert_eq!(window.admit(2, Via::Multicast), Ok(Admission::Late));
        assert_eq!(window.admit(2, Via::Multicast), Err(DatagramError::Replayed { sequence: 2 }));
        assert_eq!(window.newest(), 3);
    }

    #[test]
    fn what_the_window_no_longer_reaches_is_refused() {
        let mut window = ReplayWindow::starting_at(1, Via::Unicast);
        window.admit(100, Via::Unicast).unwrap();

        assert_eq!(window.admit(37, Via::Unicast), Ok(Admission::Late));
        assert_eq!(window.admit(36, Via::Unicast), Err(DatagramError::TooOld { sequence: 36, newest: 100 }));
    }

    #[test]
    fn a_leap_of_sequences_clears_the_window() {
        let mut window = ReplayWindow::starting_at(1, Via::Unicast);
        window.admit(u64::MAX, Via::Unicast).unwrap();

        assert_eq!(window.admit(u64::MAX - 63, Via::Unicast), Ok(Admission::Late));
        assert_eq!(window.newest(), u64::MAX);
    }

    #[test]
    fn the_window_agrees_with_a_plain_set_of_sequences() {
        let mut window = ReplayWindow::starting_at(500, Via::Multicast);
        let mut seen = std::collections::BTreeSet::from([500_u64]);
        let mut newest = 500_u64;
        for step in 0..5000_u64 {
            let sequence = 400 + (step * 7919) % 300 + step / 10;
            let expected_ok = sequence + ReplayWindow::LENGTH > newest && seen.insert(sequence);

            let admitted = window.admit(sequence, Via::Multicast);

            assert_eq!(admitted.is_ok(), expected_ok, "sequence {sequence}, newest {newest}");
            newest = newest.max(sequence);
        }
    }
}
