//! Connections that a director knows, in the tables of the programs.

use crate::abi::{FlowEntry, SELF};
use crate::error::XdpError;
use crate::mirror::{Mirror, ticks};
use crate::settling::patience;
use crate::tables::{Connections, Tables};
use dpr_conntrack::{EntryView, TcpState, Timeouts};
use dpr_director::Director;
use dpr_model::{FlowKey as Flow, Protocol};

impl Mirror {
    /// Enters what `director` knows of connections that have become this node's with the last content. To be called
    /// before that is written, so that no packet finds an address without its connections; and then what the programs do not
    /// know, nobody has told this node. `now` in ticks of the monotonic clock. Returns how many there were, and how many found
    /// no room.
    pub fn enter_gained(
        &mut self,
        tables: &mut Tables,
        director: &Director,
        timeouts: &Timeouts,
        now: u32,
    ) -> (usize, usize) {
        let gained = self.terms.take_gained();
        let (mut entered, mut refused) = (0, 0);
        if gained.is_empty() {
            return (entered, refused);
        }
        // What user space decides about, it enters with the next packet.
        let is_theirs = |flow: &Flow| self.terms.is_gained(&gained, flow) && !director.decides_about(flow);
        for (flow, entry) in director.entries().filter(|(flow, _)| is_theirs(flow)) {
            match self.enter(tables, &flow, entry, (timeouts, now)) {
                Ok(()) => entered += 1,
                Err(_) => refused += 1,
            }
        }
        (entered, refused)
    }

    /// Enters a connection of which this node is the owner; what is not the programs' is left out.
    ///
    /// # Errors
    /// There is no room.
    pub fn enter(
        &self,
        tables: &mut Tables,
        flow: &Flow,
        entry: EntryView,
        (timeouts, now): (&Timeouts, u32),
    ) -> Result<(), XdpError> {
        let Some(real_server) = self.number(entry.real_server) else { return Ok(()) };
        let Some(term) = self.term_of(flow) else { return Ok(()) };
        let is_kept = real_server == SELF && flow.protocol == Protocol::Tcp;
        // The socket of a connection that is kept knows it.
        if is_kept && !self.remember_kept.contains(&flow.service.address) {
            return Ok(());
        }
        let (table, patience) = match (flow.protocol, entry.state) {
            (Protocol::Udp, _) => (Connections::Datagrams, timeouts.udp),
            (Protocol::Tcp, TcpState::HalfOpen) => (Connections::HalfOpen, timeouts.syn),
            (Protocol::Tcp, state) => (Connections::Flows, patience(timeouts, state)),
        };
        let entry = FlowEntry {
            generation: entry.generation,
            deadline: now.wrapping_add(ticks(patience)),
            real_server,
            // The states have the same numbers.
            state: entry.state as u8,
            term,
        };
        tables.insert(table, flow, &entry)
    }

    /// The term in which entries of a flow count: 0 where nobody but this node can own it. `None` while another node is the owner.
    pub(crate) fn term_of(&self, flow: &Flow) -> Option<u8> {
        let nobody_else_owns = !self.terms.may_move(flow.service.address);
        self.terms.of(flow).or(nobody_else_owns.then_some(0))
    }

    /// True for an entry by which packets were sent on as their owner, in another term than this one: nothing goes by it any more.
    pub fn is_void(&self, flow: &Flow, entry: &FlowEntry) -> bool {
        let is_void = || self.terms.may_move(flow.service.address) && self.terms.of(flow) != Some(entry.term);
        // What only says that a connection was counted as received is in no term.
        entry.real_server != SELF && is_void()
    }

    /// An entry of which user space hears, as others may have to go on with the connection; `None` for all others, and for those
    /// that are void or half-open.
    pub fn told_of(&self, flow: &Flow, entry: &FlowEntry) -> Option<EntryView> {
        let is_told = self.terms.of(flow) == Some(entry.term);
        self.view_of(entry).filter(|entry| is_told && entry.state != TcpState::HalfOpen)
    }
}
