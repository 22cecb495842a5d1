//! The table bit by bit, for those who may not stop the packet path for all of it.

use crate::table::{EntryView, Table};
use dpr_model::FlowKey;

/// Some of a table's entries.
#[derive(Debug)]
pub struct Page<I> {
    /// The entries.
    pub entries: I,
    /// Where the next page begins; `None` after the last.
    pub next: Option<usize>,
}

impl Table {
    /// The entries in `places` places from place `from` on, for those who go through the table bit by bit: whatever is in
    /// it from the beginning to the end is met.
    pub fn page(&self, from: usize, places: usize) -> Page<impl Iterator<Item = (FlowKey, EntryView)>> {
        let end = from.saturating_add(places);
        let live = self.slab.page(from, places).filter(|(_, entry)| self.is_live(entry));
        let entries = live.map(|(state, entry)| {
            let real_server = self.real_servers.node(entry.real_server);
            (entry.key.flow(), EntryView { real_server, state, generation: entry.generation })
        });
        Page { entries, next: (end < self.slab.places()).then_some(end) }
    }
}
