//! Entries of the tables of connections, for people and for other tables.

use crate::abi::{FlowEntry, RESET_HERE, TICK_SHIFT};
use crate::error::XdpError;
use crate::mirror::Mirror;
use crate::tables::{Connections, Tables};
use dpr_conntrack::{EntryView, TcpState};
use dpr_model::FlowKey as Flow;
use dpr_model::status::Connection;

/// What is new about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// What has become of one that others may have to go on with.
    Progress(Flow, EntryView),
    /// A server on this node has reset it, or refused it.
    Reset(Flow),
}

impl Mirror {
    /// At most `limit` connections that are not over, those beyond the handshake first; `now` in ticks of the monotonic
    /// clock.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn connections(&self, tables: &Tables, limit: usize, now: u32) -> Result<Vec<Connection>, XdpError> {
        let entries = self.live(tables, limit, now)?;
        let connections = entries.filter_map(|(ticks_left, flow, entry)| {
            let entry = self.view_of(&entry)?;
            Some(Connection {
                flow,
                state: entry.state.label().to_owned(),
                real_server: entry.real_server,
                generation: entry.generation,
                // Fewer than 2^32 ticks of 2^20 ns.
                expires_in_s: (ticks_left << TICK_SHIFT).div_ceil(1_000_000_000) as u32,
            })
        });
        Ok(connections.take(limit).collect())
    }

    /// Every connection that is not over, and by whose entry packets still go, for another table; `now` in ticks of the monotonic
    /// clock.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn entries(
        &self,
        tables: &Tables,
        now: u32,
    ) -> Result<impl Iterator<Item = (Flow, EntryView)>, XdpError> {
        let counts = |(_, flow, entry): &(u64, Flow, FlowEntry)| !self.is_void(flow, entry);
        let entries = self.live(tables, usize::MAX, now)?.filter(counts);
        Ok(entries.filter_map(|(_, flow, entry)| Some((flow, self.view_of(&entry)?))))
    }

    /// What the programs have to say of a connection, as far as it is known whose it is; `None` when there is nothing new.
    pub fn next_change(&self, tables: &mut Tables) -> Option<Change> {
        loop {
            let (flow, entry) = tables.next_change()?;
            if entry.state == RESET_HERE {
                return Some(Change::Reset(flow));
            }
            if let Some(entry) = self.told_of(&flow, &entry) {
                return Some(Change::Progress(flow, entry));
            }
        }
    }

    /// At most `limit` of each table, with the ticks that are left to them.
    fn live(
        &self,
        tables: &Tables,
        limit: usize,
        now: u32,
    ) -> Result<impl Iterator<Item = (u64, Flow, FlowEntry)>, XdpError> {
        let mut entries = Vec::new();
        for table in Connections::ALL {
            entries.extend(tables.connections(table, limit)?);
        }
        Ok(entries.into_iter().filter_map(move |(flow, entry)| {
            let left = u64::try_from(entry.ticks_left(now)).ok().filter(|left| *left > 0)?;
            Some((left, flow, entry))
        }))
    }

    /// An entry with the node that it names; `None` for what no build of this crate writes.
    pub(crate) fn view_of(&self, entry: &FlowEntry) -> Option<EntryView> {
        Some(EntryView {
            real_server: self.node(entry.real_server)?,
            // The states have the same numbers.
            state: *TcpState::ALL.get(usize::from(entry.state))?,
            generation: entry.generation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi;

    #[test]
    fn states_have_the_numbers_that_the_programs_give_them() {
        for (state, its) in TcpState::ALL.into_iter().zip([
            abi::TcpState::HalfOpen,
            abi::TcpState::Established,
            abi::TcpState::Fin,
            abi::TcpState::Reset,
            abi::TcpState::Closed,
        ]) {
            assert_eq!(state as u8, its as u8);
        }
        assert_eq!(TcpState::ALL.len(), abi::TCP_STATES);
    }
}
