//! The receiving side: copies of one director's connections.

use crate::sync::message::Message;
use crate::sync::record::Copied;
use dpr_model::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Batches that wait for one that is missing: as many as a sender keeps.
const WAITING_MAX: usize = 1024;
/// Between two acknowledgements.
const ACK_EVERY: Duration = Duration::from_millis(20);

/// Records, and where the snapshot began that ends with them.
type Waiting = (Vec<Copied>, Option<u64>);

/// What one director has said, in this life of both.
#[derive(Debug)]
pub struct Replica {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// From this batch on none was missed.
    intact_from: u64,
    /// A snapshot has come, and everything since.
    whole: bool,
    missed: u64,
    refused: u64,
    /// Since when there is something to acknowledge.
    ack_since: Option<Timestamp>,
}

impl Replica {
    /// Nothing has come yet.
    pub fn new() -> Self {
        Self {
            next: 0,
            waiting: BTreeMap::new(),
            intact_from: 0,
            whole: false,
            missed: 0,
            refused: 0,
            ack_since: None,
        }
    }

    /// Takes in a batch, and gives all whose turn it is to `enter`, which says whether there was room. Anything else changes
    /// nothing.
    pub fn handle(&mut self, message: Message, mut enter: impl FnMut(&Copied) -> bool, now: Timestamp) {
        let Message::Batch { sequence, oldest, snapshot_began, records } = message else { return };
        if oldest > sequence || sequence == u64::MAX {
            return;
        }
        self.ack_since.get_or_insert(now);
        if sequence >= self.next && (self.waiting.len() < WAITING_MAX || sequence == self.next) {
            self.waiting.insert(sequence, (records, snapshot_began));
        }
        while let Some((sequence, (records, snapshot_began))) = self.next_batch(oldest) {
            self.skip_to(sequence);
            self.whole |= snapshot_began.is_some_and(|began| began >= self.intact_from);
            self.next = sequence + 1;
            self.refused += records.iter().map(|record| u64::from(!enter(record))).sum::<u64>();
        }
        self.skip_to(oldest);
    }

    /// When an acknowledgement is due, if there is one to send.
    pub fn next_ack(&self) -> Option<Timestamp> {
        self.ack_since.map(|since| since + ACK_EVERY)
    }

    /// The acknowledgement to send, if one is due.
    pub fn poll_ack(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        self.next_ack().filter(|at| now >= *at)?;
        self.ack_since = None;
        let after = self.next.saturating_add(1);
        let present = self
            .waiting
            .range(after..after.saturating_add(64))
            .fold(0_u64, |bits, (sequence, _)| bits | 1 << (sequence - after));
        let ack = Message::Ack { next: self.next, present, wants_snapshot: !self.whole };
        Some(ack.to_bytes())
    }

    /// True if the director's connections are all here, but for what is on its way.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Batches that never came, ever; a snapshot made up for them.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Connections for which the table had no room, ever.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What came before `sequence` and is not here will not come any more.
    fn skip_to(&mut self, sequence: u64) {
        if sequence > self.next {
            self.missed += sequence - self.next;
            self.next = sequence;
            self.intact_from = sequence;
            self.whole = false;
        }
    }

    /// The first batch that waits, if all before it have come or cannot come any more.
    fn next_batch(&mut self, oldest: u64) -> Option<(u64, Waiting)> {
        let entry = self.waiting.first_entry()?;
        let sequence = *entry.key();
        (sequence == self.next || sequence <= oldest).then(|| entry.remove_entry())
    }
}

impl Default for Replica {
    fn default() -> Self {
        Self::new()
    }
}
