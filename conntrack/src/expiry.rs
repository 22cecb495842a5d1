//! When entries expire: a queue for half-open ones, a timer wheel for all others.
//!
//! Half-open entries all have the same timeout, so a queue in the order of their last SYN is also the order in which
//! they expire, and its front is the one that has to go when there are too many. Other entries hang in a wheel of
//! 1024 seconds (Varghese and Lauck, "Hashed and hierarchical timing wheels", 1987, scheme 6). A packet only
//! writes the new deadline; when the wheel gets to the entry, it files it again if its deadline has moved. An entry
//! whose deadline moves closer is filed again at once, and one beyond the wheel's horizon as far ahead as possible.

use crate::slab::{EntryIndex, Slab};
use crate::tcp_state::TcpState;

/// Slots of the wheel, one second each: established connections (15 minutes) fit.
const SLOTS: u32 = 1024;

const SLOT_MS: u64 = 1000;

/// The list of half-open entries stands after the wheel's slots.
const HALF_OPEN: u32 = SLOTS;

/// Neighbours in a ring of entries that is closed by its list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    previous: Link,
    next: Link,
}

impl Links {
    /// Of an entry that is in no list.
    pub(crate) const NONE: Self = Self { previous: Link(0), next: Link(0) };
}

/// The number of an entry, or [`Link::LIST`] plus the number of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link(u32);

impl Link {
    const LIST: u32 = 1 << 31;

    fn list(number: u32) -> Self {
        Self(Self::LIST | number)
    }

    fn list_number(self) -> Option<usize> {
        (self.0 & Self::LIST != 0).then_some((self.0 & !Self::LIST) as usize)
    }

    fn entry(self) -> Option<EntryIndex> {
        if self.0 & Self::LIST != 0 { None } else { EntryIndex::from_number(self.0) }
    }
}

impl From<EntryIndex> for Link {
    fn from(index: EntryIndex) -> Self {
        Self(index.number())
    }
}

/// All entries by the time at which they expire. An entry is in the queue if and only if it is half-open.
#[derive(Debug)]
pub(crate) struct Schedule {
    lists: Box<[Links]>,
    half_open: usize,
    in_wheel: usize,
    /// Second that the wheel has got to: slots before it are empty, entries to come are filed at or after it.
    cursor_s: u64,
}

impl Schedule {
    pub(crate) fn new() -> Self {
        let lists =
            (0..=HALF_OPEN).map(Link::list).map(|link| Links { previous: link, next: link }).collect();
        Self { lists, half_open: 0, in_wheel: 0, cursor_s: 0 }
    }

    /// Half-open entries.
    pub(crate) fn half_open(&self) -> usize {
        self.half_open
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.lists)
    }

    /// Files an entry that is in no list, by its state and deadline.
    pub(crate) fn file(&mut self, slab: &mut Slab, index: EntryIndex, now_ms: u64) {
        if slab[index].state == Some(TcpState::HalfOpen) {
            self.half_open += 1;
            return self.push_back(slab, HALF_OPEN, index);
        }
        if self.in_wheel == 0 {
            self.cursor_s = now_ms / SLOT_MS;
        }
        self.in_wheel += 1;
        self.hang(slab, index, now_ms);
    }

    /// Takes an entry out of its list; its state must be the one with which it was filed.
    pub(crate) fn withdraw(&mut self, slab: &mut Slab, index: EntryIndex) {
        if slab[index].state == Some(TcpState::HalfOpen) {
            self.half_open -= 1;
        } else {
            self.in_wheel -= 1;
        }
        self.unlink(slab, index);
    }

    /// The half-open entry whose last SYN is the longest ago.
    pub(crate) fn oldest_half_open(&self) -> Option<EntryIndex> {
        self.front(HALF_OPEN)
    }

    /// The next entry whose time is over, still filed. Every entry looked at costs one of `budget`.
    ///
    /// Half-open entries are due with their deadline, others in the second after it.
    pub(crate) fn next_due(
        &mut self,
        slab: &mut Slab,
        now_ms: u64,
        budget: &mut usize,
    ) -> Option<EntryIndex> {
        if let Some(oldest) = self.oldest_half_open()
            && slab[oldest].deadline.time_ms(now_ms) <= now_ms
            && spend(budget)
        {
            return Some(oldest);
        }
        let now_s = now_ms / SLOT_MS;
        self.skip_to(now_s);
        while self.cursor_s < now_s {
            while let Some(index) = self.front(slot(self.cursor_s)) {
                if !spend(budget) {
                    return None;
                }
                if slab[index].deadline.time_ms(now_ms) / SLOT_MS < now_s {
                    return Some(index);
                }
                self.unlink(slab, index);
                self.hang(slab, index, now_ms);
            }
            self.cursor_s += 1;
        }
        None
    }

    /// When [`Self::next_due`] may next have something to do, milliseconds; `None` if nothing is filed.
    pub(crate) fn next_ms(&self, slab: &Slab, now_ms: u64) -> Option<u64> {
        let half_open = self.oldest_half_open().map(|index| slab[index].deadline.time_ms(now_ms));
        let occupied_s = || {
            let mut seconds = self.cursor_s..self.cursor_s + u64::from(SLOTS);
            seconds.find(|&second| self.front(slot(second)).is_some())
        };
        let wheel = if self.in_wheel == 0 { None } else { occupied_s() };
        let wheel_ms = wheel.map(|second| (second + 1) * SLOT_MS);
        half_open.into_iter().chain(wheel_ms).min()
    }

    /// Moves the cursor over seconds that need no visit: all if the wheel is empty, all but its last turn otherwise.
    fn skip_to(&mut self, now_s: u64) {
        let turn_s = if self.in_wheel == 0 { 0 } else { u64::from(SLOTS) };
        self.cursor_s = self.cursor_s.max(now_s.saturating_sub(turn_s));
    }

    /// Puts an entry into the wheel: at its deadline, or as far ahead as the wheel goes.
    fn hang(&mut self, slab: &mut Slab, index: EntryIndex, now_ms: u64) {
        let deadline_s = slab[index].deadline.time_ms(now_ms) / SLOT_MS;
        let horizon_s = self.cursor_s + u64::from(SLOTS) - 1;
        self.push_back(slab, slot(deadline_s.clamp(self.cursor_s, horizon_s)), index);
    }

    fn unlink(&mut self, slab: &mut Slab, index: EntryIndex) {
        let Links { previous, next } = slab[index].links;
        self.links_mut(slab, previous).next = next;
        self.links_mut(slab, next).previous = previous;
    }

    fn front(&self, list: u32) -> Option<EntryIndex> {
        self.lists[list as usize].next.entry()
    }

    fn push_back(&mut self, slab: &mut Slab, list: u32, index: EntryIndex) {
        let end = Link::list(list);
        let previous = self.lists[list as usize].previous;
        slab[index].links = Links { previous, next: end };
        self.links_mut(slab, previous).next = index.into();
        self.lists[list as usize].previous = index.into();
    }

    fn links_mut<'a>(&'a mut self, slab: &'a mut Slab, link: Link) -> &'a mut Links {
        match (link.list_number(), link.entry()) {
            (None, Some(index)) => &mut slab[index].links,
            (list, _) => &mut self.lists[list.expect("a filed entry has neighbours")],
        }
    }
}

fn slot(second: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below SLOTS")]
    let slot = (second % u64::from(SLOTS)) as u32;
    slot
}

fn spend(budget: &mut usize) -> bool {
    let left = budget.checked_sub(1);
    *budget = left.unwrap_or(0);
    left.is_some()
}
