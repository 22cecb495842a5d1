//! Messages that gossip carries for others: who wants to agree on something needs the same network, the same keys and
//! the same knowledge of who is where.
//!
//! Gossip authenticates them and says who sent them in which life. It neither repeats nor orders them, and does not
//! refuse a copy or a repetition: whoever makes them sees to it that this does no harm.

use dpr_model::{Incarnation, NodeId};
use std::collections::VecDeque;

/// Messages that wait to be picked up; with more than that the shell is far behind, and the oldest are lost.
const WAITING_MAX: usize = 1024;

/// A message that came for somebody else than gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cargo {
    /// Who sent it.
    pub from: NodeId,
    /// In which life.
    pub incarnation: Incarnation,
    /// At most [`crate::message::CARGO_BYTES_MAX`] bytes.
    pub bytes: Vec<u8>,
}

/// Why a message cannot be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CargoError {
    /// It does not fit a datagram.
    #[error("{0} bytes do not fit a datagram")]
    TooLong(usize),
    /// Nothing was heard of the receiver, so that its address is not known.
    #[error("it is not known where {0} is")]
    UnknownPeer(NodeId),
}

/// Queue of bounded length.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    queue: VecDeque<T>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new() }
    }
}

impl<T> Waiting<T> {
    /// Adds a message; false if an older one had to go.
    pub(crate) fn push(&mut self, item: T) -> bool {
        let is_full = self.queue.len() == WAITING_MAX;
        if is_full {
            self.queue.pop_front();
        }
        self.queue.push_back(item);
        !is_full
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        self.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_lost_when_nobody_picks_up() {
        let mut waiting = Waiting::default();
        let kept = (0..=WAITING_MAX).filter(|item| waiting.push(*item)).count();

        assert_eq!((kept, waiting.pop()), (WAITING_MAX, Some(1)));
    }
}
