//! What is going to happen, in order of time; what happens at the same time, in the order in which it was decided.

use dpr_model::Timestamp;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Events to come.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<Scheduled<E>>>,
    sequence: u64,
}

#[derive(Debug)]
struct Scheduled<E> {
    at: Timestamp,
    sequence: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0 }
    }

    /// Events to come.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn push(&mut self, at: Timestamp, event: E) {
        self.sequence += 1;
        self.heap.push(Reverse(Scheduled { at, sequence: self.sequence, event }));
    }

    /// The next event, if it happens at `end` or before.
    pub(crate) fn pop_until(&mut self, end: Timestamp) -> Option<(Timestamp, E)> {
        if self.heap.peek()?.0.at > end {
            return None;
        }
        self.heap.pop().map(|Reverse(next)| (next.at, next.event))
    }
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for Scheduled<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_then_of_decision() {
        let mut queue = Queue::new();
        for (at, event) in [(20, "c"), (10, "a"), (10, "b"), (30, "d")] {
            queue.push(Timestamp::from_millis(at), event);
        }

        let until_20 = std::iter::from_fn(|| queue.pop_until(Timestamp::from_millis(20)));

        assert_eq!(until_20.map(|(_, event)| event).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(queue.len(), 1);
    }
}
