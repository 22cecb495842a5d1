//! Entries in one allocation that never moves and never grows.

use crate::expiry::Links;
use crate::key::Key;
use crate::real_servers::RealServerIndex;
use crate::tcp_state::TcpState;
use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// `None` while the place is free.
    pub(crate) state: Option<TcpState>,
    pub(crate) real_server: RealServerIndex,
    pub(crate) generation: u32,
    pub(crate) deadline: Deadline,
    /// Next entry of the bucket, or next free place.
    pub(crate) chain_next: Option<EntryIndex>,
    /// Neighbours in the list by which the entry expires.
    pub(crate) links: Links,
}

/// Bytes of table per connection: its entry and one head of a bucket.
pub(crate) const BYTES_PER_CONNECTION: usize = size_of::<Entry>() + size_of::<Option<EntryIndex>>();

const _: () = assert!(BYTES_PER_CONNECTION <= 64, "a connection costs 64 bytes, index included");

/// Place of an entry, counted from 1 so that `Option<EntryIndex>` takes 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryIndex(NonZeroU32);

impl EntryIndex {
    /// The index of a number that [`Self::number`] gave; 0 is none.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// 1 to [`crate::CAPACITY_MAX`].
    pub(crate) fn number(self) -> u32 {
        self.0.get()
    }

    fn position(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// When an entry expires: the low 32 bits of milliseconds since the clock's origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(u32);

impl Deadline {
    pub(crate) fn at(time_ms: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what is kept")]
        Self(time_ms as u32)
    }

    /// Milliseconds since the clock's origin, right if `now_ms` is within 24 days of it.
    pub(crate) fn time_ms(self, now_ms: u64) -> u64 {
        let ahead = self.0.wrapping_sub(Self::at(now_ms).0).cast_signed();
        now_ms.saturating_add_signed(i64::from(ahead))
    }

    /// True while it is to come, if `now_ms` is within 24 days of it.
    #[inline]
    pub(crate) fn is_after(self, now_ms: u64) -> bool {
        Self::at(now_ms).is_before(self)
    }

    /// True for the earlier one of two deadlines that are within 24 days of each other.
    pub(crate) fn is_before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() < 0
    }
}

/// A fixed number of places for entries. Memory is reserved at once and touched as it is first needed.
#[derive(Debug)]
pub(crate) struct Slab {
    entries: Vec<Entry>,
    capacity: usize,
    len: usize,
    free: Option<EntryIndex>,
}

impl Slab {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: Vec::with_capacity(capacity), capacity, len: 0, free: None }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Takes a place for `entry`, or `None` if every place is taken.
    pub(crate) fn insert(&mut self, entry: Entry) -> Option<EntryIndex> {
        let index = match self.free {
            Some(index) => {
                self.free = self[index].chain_next;
                self[index] = entry;
                index
            }
            None if self.is_full() => return None,
            None => {
                self.entries.push(entry);
                let number = u32::try_from(self.entries.len()).ok()?;
                EntryIndex::from_number(number)?
            }
        };
        self.len += 1;
        Some(index)
    }

    pub(crate) fn remove(&mut self, index: EntryIndex) {
        let free = self.free;
        let entry = &mut self[index];
        entry.state = None;
        entry.chain_next = free;
        self.free = Some(index);
        self.len -= 1;
    }

    /// Entries in use, by place.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TcpState, &Entry)> {
        self.entries.iter().filter_map(|entry| Some((entry.state?, entry)))
    }

    /// Places that were ever in use.
    pub(crate) fn places(&self) -> usize {
        self.entries.len()
    }

    /// Entries in use among `places` places from `from` on.
    pub(crate) fn page(&self, from: usize, places: usize) -> impl Iterator<Item = (TcpState, &Entry)> {
        self.entries.iter().skip(from).take(places).filter_map(|entry| Some((entry.state?, entry)))
    }

    /// The places that were ever in use, as a ring: the place after `place`, and its entry unless it is free.
    pub(crate) fn after(&self, place: Option<EntryIndex>) -> Option<(EntryIndex, Option<&Entry>)> {
        let position = place.map_or(0, |index| index.position() + 1) % self.entries.len().max(1);
        let entry = self.entries.get(position)?;
        let index = EntryIndex::from_number(u32::try_from(position + 1).ok()?)?;
        Some((index, entry.state.is_some().then_some(entry)))
    }
}

impl Index<EntryIndex> for Slab {
    type Output = Entry;

    fn index(&self, index: EntryIndex) -> &Entry {
        &self.entries[index.position()]
    }
}

impl IndexMut<EntryIndex> for Slab {
    fn index_mut(&mut self, index: EntryIndex) -> &mut Entry {
        &mut self.entries[index.position()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    #[test]
    fn a_connection_costs_64_bytes_with_its_share_of_the_index() {
        assert_eq!(size_of::<Entry>(), 60);
        assert_eq!(BYTES_PER_CONNECTION, 64);
    }

    #[test]
    fn a_deadline_is_told_from_times_on_both_sides_of_the_wrap() {
        for time_ms in [1_000, u64::from(u32::MAX), u64::from(u32::MAX) + 5, 400 * DAY_MS] {
            let deadline = Deadline::at(time_ms);

            assert_eq!(deadline.time_ms(time_ms), time_ms);
            assert_eq!(deadline.time_ms(time_ms + 20 * DAY_MS), time_ms);
            assert_eq!(deadline.time_ms(time_ms.saturating_sub(20 * DAY_MS)), time_ms);
            assert!(deadline.is_before(Deadline::at(time_ms + 1)) && !deadline.is_before(deadline));
        }
    }
}
