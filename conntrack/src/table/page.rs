//! The table bit by bit, for those who may not stop the packet path for all of it.

use crate::slab::Entry;
use crate::table::{EntryView, Table};
use crate::tcp_state::TcpState;
use dpr_model::FlowKey;
use std::time::Duration;

/// Some of a table's entries.
#[derive(Debug)]
pub struct Page<I> {
    /// The entries.
    pub entries: I,
    /// Where the next page begins; `None` after the last.
    pub next: Option<usize>,
}

/// How long nothing has been heard of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Since the last packet that counts, or since the real server last said that it has it.
    pub lasts: Duration,
    /// Until it is forgotten.
    pub left: Duration,
}

impl Silence {
    /// Of an entry that is remembered for `patience` in all.
    pub fn of(patience: Duration, left: Duration) -> Self {
        Self { lasts: patience.saturating_sub(left), left }
    }
}

impl Table {
    /// The entries in `places` places from place `from` on, for those who go through the table bit by bit: whatever is in
    /// it from the beginning to the end is met.
    pub fn page(&self, from: usize, places: usize) -> Page<impl Iterator<Item = (FlowKey, EntryView)>> {
        let Page { entries, next } = self.entries(from, places);
        Page { entries: entries.map(|(state, entry)| self.named(state, entry)), next }
    }

    /// The same, with how long each connection has been silent.
    pub fn page_with_silence(
        &self,
        from: usize,
        places: usize,
    ) -> Page<impl Iterator<Item = (FlowKey, EntryView, Silence)>> {
        let Page { entries, next } = self.entries(from, places);
        let entries = entries.map(|(state, entry)| {
            let (flow, view) = self.named(state, entry);
            let left_ms = entry.deadline.time_ms(self.now_ms).saturating_sub(self.now_ms);
            (flow, view, Silence::of(self.timeout_of(flow.protocol, state), Duration::from_millis(left_ms)))
        });
        Page { entries, next }
    }

    fn entries(&self, from: usize, places: usize) -> Page<impl Iterator<Item = (TcpState, &Entry)>> {
        let end = from.saturating_add(places);
        let entries = self.slab.page(from, places).filter(|(_, entry)| self.is_live(entry));
        Page { entries, next: (end < self.slab.places()).then_some(end) }
    }

    fn named(&self, state: TcpState, entry: &Entry) -> (FlowKey, EntryView) {
        let real_server = self.real_servers.node(entry.real_server);
        (entry.key.flow(), EntryView { real_server, state, generation: entry.generation })
    }
}
