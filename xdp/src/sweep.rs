//! One walk after another through the tables of connections: gives back the room of entries that are over, and counts the
//! others.
//!
//! To the programs an entry is over from its deadline on, so nothing depends on how fast a walk is. `flows` never evicts:
//! without the walk it would fill up with what is over.

use crate::abi::{FlowEntry, SELF, TcpState};
use crate::error::XdpError;
use crate::tables::{Connections, Cursor, Tables};
use dpr_model::FlowKey as Flow;
use std::collections::BTreeMap;

/// What an entry is that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// User space does not know it.
    Untold,
    /// User space knows it, and counts it.
    Told,
    /// It counts no more: somebody else decides about the connection, or did meanwhile.
    Void,
}

/// Entries, as of the last whole walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    by_table: BTreeMap<Connections, [u64; 2]>,
    /// Established connections that user space does not count, by number of the node that terminates them, not this one.
    pub established_by_node: BTreeMap<u16, u32>,
}

impl Tally {
    /// How many a table has: of IPv4, and of IPv6.
    pub fn entries(&self, table: Connections) -> [u64; 2] {
        self.by_table.get(&table).copied().unwrap_or_default()
    }
}

/// A walk that goes on for ever.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// Position in [`Connections::ALL`].
    table: usize,
    cursor: Cursor,
    counting: Tally,
    counted: Tally,
}

impl Sweep {
    /// Looks at the entries of at most `batches` batches of some thousands, and at none twice. `now` in ticks of the
    /// monotonic clock. `look` is shown all that are not over, and says what they are; what is void goes as well. True when
    /// that was the end of a whole walk.
    ///
    /// # Errors
    /// A map cannot be read or written.
    pub fn step(
        &mut self,
        tables: &mut Tables,
        now: u32,
        batches: usize,
        look: &mut dyn FnMut(&Flow, &FlowEntry) -> Standing,
    ) -> Result<bool, XdpError> {
        for _ in 0..batches {
            let table = Connections::ALL[self.table];
            for (flow, entry) in tables.next_connections(table, &mut self.cursor)? {
                let standing = if entry.is_over(now) { Standing::Void } else { look(&flow, &entry) };
                match standing {
                    Standing::Void => delete(tables, table, &flow, &entry, now)?,
                    standing => self.counting.count(table, &flow, &entry, standing),
                }
            }
            if !self.cursor.is_at_start() {
                continue;
            }
            self.table = (self.table + 1) % Connections::ALL.len();
            if self.table == 0 {
                self.counted = std::mem::take(&mut self.counting);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// True when the next step begins a walk.
    pub fn is_at_start(&self) -> bool {
        self.table == 0 && self.cursor.is_at_start()
    }

    /// What the last whole walk has counted.
    pub fn tally(&self) -> &Tally {
        &self.counted
    }
}

impl Tally {
    fn count(&mut self, table: Connections, flow: &Flow, entry: &FlowEntry, standing: Standing) {
        let by_version = self.by_table.entry(table).or_default();
        by_version[usize::from(flow.service.address.is_ipv6())] += 1;
        let is_established = entry.state == TcpState::Established as u8;
        if is_established && entry.real_server != SELF && standing == Standing::Untold {
            *self.established_by_node.entry(entry.real_server).or_default() += 1;
        }
    }
}

/// Deletes an entry that is over or void, unless it was used again since it was read: then a program has given it another deadline,
/// or made it anew in another term.
fn delete(
    tables: &mut Tables,
    table: Connections,
    flow: &Flow,
    read: &FlowEntry,
    now: u32,
) -> Result<(), XdpError> {
    match tables.connection(table, flow)? {
        Some(entry) if entry.is_over(now) || !read.is_over(now) && entry.term == read.term => {
            tables.remove(table, flow)
        }
        _ => Ok(()),
    }
}

impl FlowEntry {
    /// True from its deadline on; `now` in ticks of the monotonic clock, which wrap.
    pub fn is_over(&self, now: u32) -> bool {
        self.ticks_left(now) <= 0
    }

    /// Ticks until its deadline.
    pub fn ticks_left(&self, now: u32) -> i32 {
        self.deadline.wrapping_sub(now).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_over_from_its_deadline_on_also_when_the_clock_wraps() {
        let entry = FlowEntry { deadline: 5, ..FlowEntry::default() };
        assert!(!entry.is_over(u32::MAX - 1) && !entry.is_over(4));
        assert!(entry.is_over(5) && entry.is_over(6));
    }
}
