//! The sending side: one director's connections, for one backup.

use crate::sync::message::{BATCH_HEADER, MESSAGE_MAX, begin_batch, end_batch, set_oldest};
use crate::sync::record::{Copied, RECORD_MAX};
use dpr_model::Timestamp;
use std::collections::VecDeque;
use std::time::Duration;

/// Batches that are kept until they are acknowledged: 1.3 MB, or 600 ms of 100,000 connections a second.
const BATCHES_MAX: usize = 1024;
/// Longest time for which a record waits for others.
const FLUSH_AFTER: Duration = Duration::from_millis(20);
/// After that an unacknowledged batch is sent again: more than acknowledgements wait, and the way there and back.
const RESEND_AFTER: Duration = Duration::from_millis(100);
/// Batches of a snapshot that are ready beforehand; more would push out news.
const SNAPSHOT_AHEAD: usize = 32;
/// Places that are to be looked at for one page of a snapshot.
pub const SNAPSHOT_PAGE: usize = 1024;
/// A snapshot at this interval keeps copies of long connections from expiring, which do so after 15 minutes.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(5 * 60);
/// The end of time.
const NEVER: Timestamp = Timestamp::from_nanos(u64::MAX);
/// How much of a second's bytes may go out at once.
const BURST: Duration = Duration::from_millis(10);

/// How much a backup does not know yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Batches that are not acknowledged.
    pub batches: usize,
    /// Age of the oldest of them.
    pub age: Duration,
    /// Batches that were given up, ever; a snapshot made up for them.
    pub given_up: u64,
    /// A snapshot is under way: not all of it was acknowledged.
    pub snapshot: bool,
}

/// One director's connections, for one backup. A new life of either has a new stream.
#[derive(Debug)]
pub struct Stream {
    bytes_per_second: u64,
    /// Bytes that may be sent now.
    tokens: u64,
    refilled_at: Timestamp,
    /// The batch that is being filled, its sequence is that after the last of `batches`; and since when.
    open: Vec<u8>,
    open_since: Option<Timestamp>,
    /// Batches that are not acknowledged.
    batches: VecDeque<Batch>,
    /// Sequence of the first of them.
    first: u64,
    /// How many of them were never sent: the last ones.
    unsent: usize,
    given_up: u64,
    /// Where the snapshot stands, and with which batch it began.
    snapshot: Option<(usize, u64)>,
    /// The last batch of the last snapshot.
    snapshot_ended: Option<u64>,
    snapshot_at: Timestamp,
    /// No batch that was sent has to be sent again before.
    overdue_from: Timestamp,
}

#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    closed_at: Timestamp,
    sent_at: Option<Timestamp>,
    arrived: bool,
}

impl Stream {
    /// Begins with a snapshot, and with the batch `first`: where the last stream to this backup ended, if there was one in
    /// this life, so that the backup can tell them apart. `bytes_per_second` bounds what is sent; at 100,000 connections a second over IPv4,
    /// 2.2 MB are needed, and half as much again leaves room for repetition and snapshots.
    pub fn new(bytes_per_second: u64, first: u64, now: Timestamp) -> Self {
        let mut stream = Self {
            bytes_per_second,
            tokens: 0,
            refilled_at: now,
            open: Vec::with_capacity(MESSAGE_MAX),
            open_since: None,
            batches: VecDeque::new(),
            first,
            unsent: 0,
            given_up: 0,
            snapshot: Some((0, first)),
            snapshot_ended: None,
            snapshot_at: now,
            overdue_from: now,
        };
        begin_batch(&mut stream.open, first);
        stream
    }

    /// A connection of a slot of this backup began or ended, or a client was heard of.
    pub fn record(&mut self, copied: &Copied, now: Timestamp) {
        copied.write_to(&mut self.open);
        self.open_since.get_or_insert(now);
        if self.open.len() + RECORD_MAX > MESSAGE_MAX {
            self.close_batch(None, now);
        }
    }

    /// The backup has copies of other slots than before: it gets a snapshot from the beginning.
    pub fn copy_anew(&mut self) {
        self.snapshot = Some((0, self.open_sequence()));
    }

    /// What has been recorded goes out with the next messages, and waits for no more.
    pub fn flush(&mut self, now: Timestamp) {
        if self.open_since.is_some() {
            self.close_batch(None, now);
        }
    }

    /// Where another stream to the same backup has to begin.
    pub fn end(&self) -> u64 {
        self.open_sequence() + 1
    }

    /// The next message to send, if there is one and bandwidth allows it. To be called until it returns `None`.
    /// `page` gives what this backup has copies of, from a place on and some [`SNAPSHOT_PAGE`] places further, and says where
    /// the next page begins, `None` after the last.
    pub fn poll(
        &mut self,
        page: impl FnOnce(usize, &mut dyn FnMut(&Copied)) -> Option<usize>,
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        if now < self.next_at() {
            return None;
        }
        self.refill(now);
        if now.since(self.snapshot_at) >= SNAPSHOT_EVERY {
            self.begin_snapshot();
            self.snapshot_at = now;
        }
        self.continue_snapshot(page, now);
        if self.open_since.is_some_and(|since| now.since(since) >= FLUSH_AFTER) {
            self.close_batch(None, now);
        }
        let position = self.due(now)?;
        let oldest = self.first;
        let batch = &mut self.batches[position];
        self.tokens = self.tokens.checked_sub(batch.bytes.len() as u64)?;
        self.overdue_from = self.overdue_from.min(now + RESEND_AFTER);
        if batch.sent_at.replace(now).is_none() && position >= self.batches.len() - self.unsent {
            self.unsent -= 1;
        }
        let batch = &mut self.batches[position];
        set_oldest(&mut batch.bytes, oldest);
        Some(batch.bytes.clone())
    }

    /// Before that there is nothing to send, unless something is recorded or acknowledged.
    pub fn next_at(&self) -> Timestamp {
        if self.unsent > 0 || self.snapshot.is_some() {
            return Timestamp::default();
        }
        let again = (!self.batches.is_empty()).then_some(self.overdue_from);
        let open = self.open_since.map(|since| since + FLUSH_AFTER);
        again.into_iter().chain(open).fold(self.snapshot_at + SNAPSHOT_EVERY, Timestamp::min)
    }

    /// What the backup says has come.
    pub fn handle_ack(&mut self, next: u64, present: u64, wants_snapshot: bool) {
        let sent = self.first + (self.batches.len() - self.unsent) as u64;
        if next > sent {
            // Of an earlier life of this node.
            return;
        }
        self.overdue_from = Timestamp::default();
        while self.first < next {
            self.batches.pop_front();
            self.first += 1;
        }
        // In an earlier life it may have had what it waits for now.
        if let Some(front) = self.batches.front_mut().filter(|_| next == self.first) {
            front.arrived = false;
        }
        let missing_before = u64::from(64 - present.leading_zeros());
        for after in 0..64 {
            let Some(position) = (next + 1 + after).checked_sub(self.first) else { continue };
            if let Some(batch) = usize::try_from(position).ok().and_then(|at| self.batches.get_mut(at)) {
                batch.arrived |= present >> after & 1 == 1;
            }
        }
        // Whoever got a later one missed those before it: they need not wait.
        for sequence in next..next + missing_before {
            let Some(position) = sequence.checked_sub(self.first) else { continue };
            let batch = usize::try_from(position).ok().and_then(|at| self.batches.get_mut(at));
            if let Some(batch) = batch.filter(|batch| !batch.arrived) {
                batch.sent_at = batch.sent_at.map(|_| Timestamp::default());
            }
        }
        // Before the last snapshot has come, the wish is an old one.
        if wants_snapshot && self.snapshot_ended.is_none_or(|ended| next > ended) {
            self.begin_snapshot();
        }
    }

    /// How far the backup is behind.
    pub fn behind(&self, now: Timestamp) -> Behind {
        Behind {
            batches: self.batches.len(),
            age: self.batches.front().map_or(Duration::ZERO, |batch| now.since(batch.closed_at)),
            given_up: self.given_up,
            snapshot: self.snapshot.is_some() || self.snapshot_ended.is_some_and(|ended| self.first <= ended),
        }
    }

    /// The first batch that has to be sent, or sent again.
    fn due(&mut self, now: Timestamp) -> Option<usize> {
        let sent = self.batches.len() - self.unsent;
        let again = if now < self.overdue_from { None } else { self.first_overdue(sent, now) };
        again.or_else(|| (self.unsent > 0).then_some(sent))
    }

    /// The first of the `sent` batches that has to be sent again. Notes from when on there can be one if there is none.
    fn first_overdue(&mut self, sent: usize, now: Timestamp) -> Option<usize> {
        let mut overdue_from = NEVER;
        for (position, batch) in self.batches.iter().take(sent).enumerate() {
            let Some(at) = batch.sent_at.filter(|_| !batch.arrived) else { continue };
            if now.since(at) >= RESEND_AFTER {
                return Some(position);
            }
            overdue_from = overdue_from.min(at + RESEND_AFTER);
        }
        self.overdue_from = overdue_from;
        None
    }

    fn close_batch(&mut self, snapshot_began: Option<u64>, now: Timestamp) {
        if self.batches.len() == BATCHES_MAX {
            self.unsent = self.unsent.min(BATCHES_MAX - 1);
            self.batches.pop_front();
            self.first += 1;
            self.given_up += 1;
        }
        let mut bytes = std::mem::replace(&mut self.open, Vec::with_capacity(MESSAGE_MAX));
        end_batch(&mut bytes, snapshot_began);
        self.batches.push_back(Batch { bytes, closed_at: now, sent_at: None, arrived: false });
        self.unsent += 1;
        let sequence = self.open_sequence();
        begin_batch(&mut self.open, sequence);
        self.open_since = None;
    }

    fn continue_snapshot(
        &mut self,
        page: impl FnOnce(usize, &mut dyn FnMut(&Copied)) -> Option<usize>,
        now: Timestamp,
    ) {
        let Some((from, began)) = self.snapshot.filter(|_| self.unsent < SNAPSHOT_AHEAD) else { return };
        let next = page(from, &mut |copied| self.record(copied, now));
        self.snapshot = next.map(|next| (next, began));
        if next.is_none() {
            self.snapshot_at = now;
            self.snapshot_ended = Some(self.open_sequence());
            self.close_batch(Some(began), now);
        }
    }

    fn begin_snapshot(&mut self) {
        let began = self.open_sequence();
        self.snapshot.get_or_insert((0, began));
    }

    /// The sequence of the batch that is being filled.
    fn open_sequence(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    fn refill(&mut self, now: Timestamp) {
        let earned = |time: Duration| {
            let bytes = u128::from(self.bytes_per_second) * time.as_nanos() / 1_000_000_000;
            u64::try_from(bytes).unwrap_or(u64::MAX)
        };
        let gained = earned(now.since(self.refilled_at));
        if gained > 0 {
            let limit = earned(BURST).max(2 * MESSAGE_MAX as u64);
            self.tokens = (self.tokens + gained).min(limit);
            self.refilled_at = now;
        }
    }
}

const _: () = assert!(BATCH_HEADER + RECORD_MAX <= MESSAGE_MAX);
