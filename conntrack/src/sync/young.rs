//! Connections whose handshake is over, until they are old enough to be announced.

use crate::sync::{ANNOUNCED_AFTER, Record};
use crate::{EntryView, Table, TcpState};
use dpr_model::{FlowKey, Timestamp};
use std::collections::VecDeque;

/// All wait equally long, so a queue in the order of their handshakes is in the order in which they are due.
#[derive(Debug)]
pub struct Young {
    queue: VecDeque<(Timestamp, FlowKey, u32)>,
    capacity: usize,
    overlooked: u64,
}

impl Young {
    /// Room for `capacity` connections: as many as begin in [`ANNOUNCED_AFTER`].
    pub fn new(capacity: usize) -> Self {
        Self { queue: VecDeque::new(), capacity, overlooked: 0 }
    }

    /// A handshake is over. Without room the connection is not announced before the next snapshot, and counted.
    pub fn add(&mut self, flow: FlowKey, generation: u32, now: Timestamp) {
        if self.queue.len() == self.capacity {
            self.overlooked += 1;
            return;
        }
        self.queue.push_back((now + ANNOUNCED_AFTER, flow, generation));
    }

    /// The next connection that is old enough and has not ended meanwhile. To be called until it returns `None`.
    pub fn poll(&mut self, table: &Table, now: Timestamp) -> Option<Record> {
        while let Some((due, flow, generation)) = self.queue.front().copied()
            && due <= now
        {
            self.queue.pop_front();
            let is_same =
                |entry: &EntryView| entry.generation == generation && entry.state != TcpState::Closed;
            let record = table.get(&flow).filter(is_same).and_then(|entry| Record::of(flow, entry));
            if record.is_some() {
                return record;
            }
        }
        None
    }

    /// When the first one is old enough.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.queue.front().map(|(due, _, _)| *due)
    }

    /// Connections that there was no room for.
    pub fn overlooked(&self) -> u64 {
        self.overlooked
    }
}
