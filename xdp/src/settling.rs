//! What real servers say of connections, in the tables of the programs.
//!
//! A program may write to an entry while it is read and written here: then what it wrote is lost, at worst a state that the next
//! answer about the connection mends. One that it has deleted meanwhile stays deleted.

use crate::abi::{FlowEntry, TICK_SHIFT};
use crate::error::XdpError;
use crate::mirror::{Mirror, ticks};
use crate::tables::{Connections, Tables};
use dpr_conntrack::{EntryView, Silence, TcpState, Timeouts};
use dpr_director::Settled;
use dpr_model::{FlowKey as Flow, Protocol};
use std::time::Duration;

impl Mirror {
    /// What the programs know of a connection beyond its handshake, or of a flow of datagrams, by which they still go. `now` in ticks
    /// of the monotonic clock.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn entry_of(&self, tables: &Tables, flow: &Flow, now: u32) -> Result<Option<EntryView>, XdpError> {
        let table = match flow.protocol {
            Protocol::Tcp => Connections::Flows,
            Protocol::Udp => Connections::Datagrams,
        };
        let counts = |entry: &FlowEntry| !entry.is_over(now) && !self.is_void(flow, entry);
        Ok(tables.connection(table, flow)?.filter(counts).and_then(|entry| self.view_of(&entry)))
    }

    /// Writes what became of a connection, if the programs still have that one: from now on it is over, or remembered as if its
    /// client had just spoken. `now` in ticks of the monotonic clock.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn settle(
        &self,
        tables: &mut Tables,
        settled: &Settled,
        (timeouts, now): (&Timeouts, u32),
    ) -> Result<(), XdpError> {
        let Settled { flow, generation, real_server, is_over } = settled;
        let Some(entry) = tables.connection(Connections::Flows, flow)? else { return Ok(()) };
        let known = self.view_of(&entry).filter(|known| {
            (known.generation, known.real_server) == (*generation, *real_server) && !entry.is_over(now)
        });
        let Some(known) = known else { return Ok(()) };
        let state = if *is_over { TcpState::Closed } else { known.state };
        let deadline = now.wrapping_add(ticks(patience(timeouts, state)));
        // The states have the same numbers.
        tables.replace(Connections::Flows, flow, &FlowEntry { state: state as u8, deadline, ..entry })
    }

    /// A connection beyond its handshake, and how long its client has been silent. `now` in ticks of the monotonic clock.
    pub fn silence_of(
        &self,
        entry: &FlowEntry,
        (timeouts, now): (&Timeouts, u32),
    ) -> Option<(EntryView, Silence)> {
        let left = u64::try_from(entry.ticks_left(now)).ok()? << TICK_SHIFT;
        let view = self.view_of(entry).filter(|view| view.state != TcpState::HalfOpen)?;
        Some((view, Silence::of(patience(timeouts, view.state), Duration::from_nanos(left))))
    }
}

/// For how long a silent TCP connection is remembered in a state.
pub(crate) fn patience(timeouts: &Timeouts, state: TcpState) -> Duration {
    match state {
        TcpState::HalfOpen => timeouts.syn,
        TcpState::Established => timeouts.established,
        TcpState::Fin => timeouts.fin,
        TcpState::Reset | TcpState::Closed => timeouts.close,
    }
}
