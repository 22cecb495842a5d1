//! Which translated flows the programs carry on: those that a director has established, for as long as it goes on with them.
//!
//! The director decides, and sees how flows begin and end. A walk through the translations tells it which of them are in use, and
//! takes back what it does not go on with.

use crate::abi::{Hop, Translation};
use crate::error::XdpError;
use crate::hops::{Hops, Neighbour};
use crate::left::Left;
use crate::tables::{Cursor, Tables};
use dpr_director::{Director, TranslatedFlow};
use dpr_model::{FlowKey, Protocol, Timestamp};
use dpr_rewrite::Packet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What the programs were told.
#[derive(Clone, Debug, Default)]
pub struct Carrying {
    entered: BTreeMap<FlowKey, Entered>,
    hops: Hops,
    cursor: Cursor,
    /// Flows of an earlier life of the daemon, whose neighbours have to be found anew.
    found: Vec<TranslatedFlow>,
}

#[derive(Clone, Copy, Debug)]
struct Entered {
    translated: TranslatedFlow,
    /// Towards the real server, and towards the client.
    hops: [u16; 2],
    /// When packets of a client and of a real server came, as of the last look.
    seen: [u32; 2],
}

impl Carrying {
    /// Takes over what an earlier life of the daemon has entered: into `left`, if that had other maps.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn found_in(tables: &Tables, left: Option<&Left>) -> Result<Self, XdpError> {
        let table = left.map_or(&tables.translations, |left| &left.translations);
        let mut carrying = Self::default();
        let mut numbers = BTreeSet::new();
        for (name, translation) in table.entries(usize::MAX)? {
            numbers.insert(translation.hop);
            carrying.found.extend(translation.of_flow(&name));
        }
        carrying.hops.reserve(numbers);
        Ok(carrying)
    }

    /// Flows that were found, for a director that does not know them yet.
    pub fn found(&self) -> &[TranslatedFlow] {
        &self.found
    }

    /// Finds the neighbours of what was found, once. `neighbour_of` says by which neighbour an address is reached; `now` in ticks of
    /// the monotonic clock.
    ///
    /// # Errors
    /// The maps cannot be written.
    pub fn renew_found(
        &mut self,
        tables: &mut Tables,
        director: &Director,
        mut neighbour_of: impl FnMut(IpAddr) -> Option<Neighbour>,
        now: u32,
    ) -> Result<(), XdpError> {
        for found in std::mem::take(&mut self.found) {
            let is_entered = self.entered.contains_key(&found.flow);
            if !is_entered && director.translated(&found.flow) == Some(found) {
                self.enter(tables, found, &mut neighbour_of, now)?;
            }
            if !self.entered.contains_key(&found.flow) {
                tables.remove_translation(&found)?;
            }
        }
        self.hops.take_reserved().iter().try_for_each(|number| tables.set_hop(*number, &Hop::default()))
    }

    /// Enters the flow of a packet that was handed up, or takes it back, as `director` says after the packet.
    ///
    /// # Errors
    /// The maps cannot be written.
    pub fn learn(
        &mut self,
        tables: &mut Tables,
        director: &Director,
        packet: &Packet,
        neighbour_of: impl FnMut(IpAddr) -> Option<Neighbour>,
        now: u32,
    ) -> Result<(), XdpError> {
        let Some(flow) = director.flow_to_translate(packet) else { return Ok(()) };
        let translated = director.translated(&flow);
        match self.entered.get(&flow).copied() {
            None if translated.is_none() => return Ok(()),
            Some(its) if translated == Some(its.translated) => {
                return self.look_for_neighbours(tables, its, neighbour_of);
            }
            _ => self.take_back(tables, &flow)?,
        }
        match translated {
            Some(translated) => self.enter(tables, translated, neighbour_of, now),
            None => Ok(()),
        }
    }

    /// Packets of a flow are handed up until its neighbours have answered: not until the next update only.
    fn look_for_neighbours(
        &mut self,
        tables: &mut Tables,
        its: Entered,
        mut neighbour_of: impl FnMut(IpAddr) -> Option<Neighbour>,
    ) -> Result<(), XdpError> {
        for (number, end) in its.hops.into_iter().zip(its.translated.ends()) {
            if !self.hops.is_known(number)
                && let Some(neighbour) = neighbour_of(end)
                && self.hops.is_of(number, neighbour.address)
            {
                self.hops.write(tables, number, neighbour.hop)?;
            }
        }
        Ok(())
    }

    /// Looks at the entries of at most `batches` batches of some thousands: tells `director` of flows that are in use, and takes back
    /// what it does not go on with. True when that was the end of a whole walk.
    ///
    /// # Errors
    /// A map cannot be read or written.
    pub fn walk(
        &mut self,
        tables: &mut Tables,
        director: &mut Director,
        batches: usize,
        now: Timestamp,
    ) -> Result<bool, XdpError> {
        // Also an empty map has half a million buckets to look at.
        if self.entered.is_empty() {
            return Ok(true);
        }
        for _ in 0..batches {
            for (name, translation) in tables.translations.next(&mut self.cursor)? {
                let flow = translation.flow(&name);
                match self.entered.get_mut(&flow) {
                    Some(its) if director.translated(&flow) == Some(its.translated) => {
                        its.hear(director, &translation, now);
                    }
                    Some(_) => self.take_back(tables, &flow)?,
                    // Neither this daemon nor, any more, an earlier one knows it.
                    None => tables.translations.remove(&name)?,
                }
            }
            if self.cursor.is_at_start() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells the programs where neighbours are now.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn write_hops(
        &mut self,
        tables: &mut Tables,
        hop_of: impl FnMut(IpAddr) -> Hop,
    ) -> Result<(), XdpError> {
        self.hops.write_all(tables, hop_of)
    }

    /// Takes everything back: routes may lead elsewhere. What goes on is entered again with its next packet.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn take_all_back(&mut self, tables: &mut Tables) -> Result<(), XdpError> {
        let flows: Vec<FlowKey> = self.entered.keys().copied().collect();
        flows.iter().try_for_each(|flow| self.take_back(tables, flow))
    }

    /// How the programs translate a flow, if they carry it on.
    pub fn translated(&self, flow: &FlowKey) -> Option<&TranslatedFlow> {
        self.entered.get(flow).map(|its| &its.translated)
    }

    /// Flows that the programs carry on, in order.
    pub fn flows(&self) -> impl Iterator<Item = &TranslatedFlow> {
        self.entered.values().map(|its| &its.translated)
    }

    /// How many flows the programs carry on.
    pub fn len(&self) -> usize {
        self.entered.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.entered.is_empty()
    }

    /// Without a neighbour, a number for it, or room, all packets of the flow go on to be handed up.
    fn enter(
        &mut self,
        tables: &mut Tables,
        translated: TranslatedFlow,
        mut neighbour_of: impl FnMut(IpAddr) -> Option<Neighbour>,
        now: u32,
    ) -> Result<(), XdpError> {
        let [Some(to_server), Some(to_client)] = translated.ends().map(&mut neighbour_of) else {
            return Ok(());
        };
        let Some(first) = self.hops.take(to_server.address) else { return Ok(()) };
        let Some(second) = self.hops.take(to_client.address) else {
            return self.release(tables, [first]);
        };
        let hops = [first, second];
        self.hops.write(tables, first, to_server.hop)?;
        self.hops.write(tables, second, to_client.hop)?;
        match tables.enter_translation(&translated, hops, now) {
            Ok(()) => {
                self.entered.insert(translated.flow, Entered { translated, hops, seen: [now; 2] });
            }
            // There is no room.
            Err(_) => self.release(tables, hops)?,
        }
        Ok(())
    }

    fn take_back(&mut self, tables: &mut Tables, flow: &FlowKey) -> Result<(), XdpError> {
        let Some(its) = self.entered.remove(flow) else { return Ok(()) };
        tables.remove_translation(&its.translated)?;
        self.release(tables, its.hops)
    }

    fn release<const LEN: usize>(&mut self, tables: &mut Tables, hops: [u16; LEN]) -> Result<(), XdpError> {
        let mut free = hops.into_iter().filter(|hop| self.hops.release(*hop));
        free.try_for_each(|hop| tables.set_hop(hop, &Hop::default()))
    }
}

impl Entered {
    /// Only clients keep connections; both sides keep flows of datagrams, as in the director.
    fn hear(&mut self, director: &mut Director, translation: &Translation, now: Timestamp) {
        let seen = &mut self.seen[usize::from(translation.is_reply())];
        let is_in_use = *seen != translation.seen;
        *seen = translation.seen;
        if is_in_use && (!translation.is_reply() || self.translated.flow.protocol == Protocol::Udp) {
            director.note_carried(&self.translated, now);
        }
    }
}
