//! Which flows the programs carry on of those that a director decides about: what it has established, for as long as it goes on with
//! them.
//!
//! The director decides, and sees how flows begin and end. A walk through what was entered tells it which of them are in use, and
//! takes back what it does not go on with.

use crate::abi::{Carried, Hop};
use crate::carried::Next;
use crate::error::XdpError;
use crate::hops::{Hops, Neighbour};
use crate::left::Left;
use crate::mirror::Mirror;
use crate::tables::{Cursor, Tables};
use dpr_conntrack::{EntryView, TcpState, Timeouts};
use dpr_director::{CarriedFlow, Director, Onward};
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
    /// Flows of an earlier life of the daemon, whose neighbours have to be found anew, and the terms that they were entered in.
    found: Vec<(CarriedFlow, u8)>,
}

/// Who finds what packets go to next.
pub struct Finder<'a> {
    /// Knows the numbers of nodes.
    pub mirror: &'a Mirror,
    /// Says by which neighbour an address is reached.
    pub neighbour_of: &'a mut dyn FnMut(IpAddr) -> Option<Neighbour>,
}

#[derive(Clone, Copy, Debug)]
struct Entered {
    carried: CarriedFlow,
    next: Next,
    /// It is void in all others.
    term: u8,
    /// When packets of a client and of a real server came, as of the last look.
    seen: [u32; 2],
}

impl Carrying {
    /// Takes over what an earlier life of the daemon has entered: into `left`, if that had other maps.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn found_in(tables: &Tables, left: Option<&Left>) -> Result<Self, XdpError> {
        let table = left.map_or(&tables.carried, |left| &left.carried);
        let mut carrying = Self::default();
        let mut numbers = BTreeSet::new();
        for (name, carried) in table.entries(usize::MAX)? {
            if !carried.is_as_sent() {
                numbers.insert(carried.next);
            }
            carrying.found.extend(carried.of_flow(&name).map(|flow| (flow, carried.term)));
        }
        carrying.hops.reserve(numbers);
        Ok(carrying)
    }

    /// Flows that were found, for a director that does not know them yet; without those that the owner of an address has entered which
    /// this node does not own since, as far as `mirror` knows.
    pub fn found(&self, mirror: &Mirror) -> impl Iterator<Item = &CarriedFlow> {
        let counts = |(found, term): &&(CarriedFlow, u8)| mirror.term_of(&found.flow) == Some(*term);
        self.found.iter().filter(counts).map(|(found, _)| found)
    }

    /// True until what was found was looked at.
    pub fn has_found(&self) -> bool {
        !self.found.is_empty()
    }

    /// Of what was found, gives the programs what is theirs now, as the director does not decide about it any more. To be called
    /// before they are told so; `now` in ticks of the monotonic clock. What finds no room is lost.
    pub fn hand_down(
        &self,
        tables: &mut Tables,
        director: &Director,
        mirror: &Mirror,
        (timeouts, now): (&Timeouts, u32),
    ) {
        let is_theirs =
            |found: &&CarriedFlow| found.onward == Onward::AsSent && !director.decides_about(&found.flow);
        for found in self.found(mirror).filter(is_theirs) {
            let CarriedFlow { flow, real_server, generation, .. } = *found;
            let entry = EntryView { real_server, state: TcpState::Established, generation };
            // Who found no room was not there before either.
            let _ = mirror.enter(tables, &flow, entry, (timeouts, now));
        }
    }

    /// Finds what comes next for what was found, once; `now` in ticks of the monotonic clock.
    ///
    /// # Errors
    /// The maps cannot be written.
    pub fn renew_found(
        &mut self,
        tables: &mut Tables,
        director: &Director,
        finder: &mut Finder<'_>,
        now: u32,
    ) -> Result<(), XdpError> {
        for (found, _) in std::mem::take(&mut self.found) {
            let is_entered = self.entered.contains_key(&found.flow);
            if !is_entered && director.carried(&found.flow) == Some(found) {
                self.enter(tables, found, finder, now)?;
            }
            if !self.entered.contains_key(&found.flow) {
                tables.remove_carried(&found)?;
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
        finder: &mut Finder<'_>,
        now: u32,
    ) -> Result<(), XdpError> {
        let Some(flow) = director.flow_to_carry(packet) else { return Ok(()) };
        let carried = director.carried(&flow);
        match self.entered.get(&flow).copied() {
            None if carried.is_none() => return Ok(()),
            Some(its) if its.goes_on(director, finder.mirror) => {
                return self.look_for_neighbours(tables, its, finder);
            }
            _ => self.take_back(tables, &flow)?,
        }
        match carried {
            Some(carried) => self.enter(tables, carried, finder, now),
            None => Ok(()),
        }
    }

    /// Packets of a flow are handed up until its neighbours have answered: not until the next update only.
    fn look_for_neighbours(
        &mut self,
        tables: &mut Tables,
        its: Entered,
        finder: &mut Finder<'_>,
    ) -> Result<(), XdpError> {
        let (Next::Hops(numbers), Some(ends)) = (its.next, ends(&its.carried)) else { return Ok(()) };
        for (number, end) in numbers.into_iter().zip(ends) {
            if !self.hops.is_known(number)
                && let Some(neighbour) = (finder.neighbour_of)(end)
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
        mirror: &Mirror,
        batches: usize,
        now: Timestamp,
    ) -> Result<bool, XdpError> {
        // Also an empty map has half a million buckets to look at.
        if self.entered.is_empty() {
            return Ok(true);
        }
        for _ in 0..batches {
            for (name, carried) in tables.carried.next(&mut self.cursor)? {
                let flow = carried.flow(&name);
                match self.entered.get_mut(&flow) {
                    Some(its) if its.goes_on(director, mirror) => {
                        its.hear(director, &carried, now);
                    }
                    Some(_) => self.take_back(tables, &flow)?,
                    // Neither this daemon nor, any more, an earlier one knows it.
                    None => tables.carried.remove(&name)?,
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

    /// Takes back what goes by neighbours: routes may lead elsewhere. What goes on is entered again with its next packet.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn take_back_routed(&mut self, tables: &mut Tables) -> Result<(), XdpError> {
        let routed = self.entered.iter().filter(|(_, its)| matches!(its.next, Next::Hops(_)));
        let flows: Vec<FlowKey> = routed.map(|(flow, _)| *flow).collect();
        flows.iter().try_for_each(|flow| self.take_back(tables, flow))
    }

    /// How a flow goes on, if the programs carry it on.
    pub fn carried(&self, flow: &FlowKey) -> Option<&CarriedFlow> {
        self.entered.get(flow).map(|its| &its.carried)
    }

    /// Flows that the programs carry on, in order.
    pub fn flows(&self) -> impl Iterator<Item = &CarriedFlow> {
        self.entered.values().map(|its| &its.carried)
    }

    /// How many flows the programs carry on.
    pub fn len(&self) -> usize {
        self.entered.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.entered.is_empty()
    }

    /// Without a term, a neighbour, a number for it, or room, all packets of the flow go on to be handed up.
    fn enter(
        &mut self,
        tables: &mut Tables,
        carried: CarriedFlow,
        finder: &mut Finder<'_>,
        now: u32,
    ) -> Result<(), XdpError> {
        let Some(term) = finder.mirror.term_of(&carried.flow) else { return Ok(()) };
        let next = match ends(&carried) {
            Some(ends) => self.take_hops(tables, ends, finder)?.map(Next::Hops),
            None => finder.mirror.number(carried.real_server).map(Next::Node),
        };
        let Some(next) = next else { return Ok(()) };
        match tables.enter_carried(&carried, next, term, now) {
            Ok(()) => {
                self.entered.insert(carried.flow, Entered { carried, next, term, seen: [now; 2] });
            }
            // There is no room.
            Err(_) => self.release_next(tables, next)?,
        }
        Ok(())
    }

    /// Numbers of the neighbours towards both ends.
    fn take_hops(
        &mut self,
        tables: &mut Tables,
        ends: [IpAddr; 2],
        finder: &mut Finder<'_>,
    ) -> Result<Option<[u16; 2]>, XdpError> {
        let [Some(to_server), Some(to_client)] = ends.map(&mut *finder.neighbour_of) else {
            return Ok(None);
        };
        let Some(first) = self.hops.take(to_server.address) else { return Ok(None) };
        let Some(second) = self.hops.take(to_client.address) else {
            return self.release(tables, [first]).map(|()| None);
        };
        self.hops.write(tables, first, to_server.hop)?;
        self.hops.write(tables, second, to_client.hop)?;
        Ok(Some([first, second]))
    }

    fn take_back(&mut self, tables: &mut Tables, flow: &FlowKey) -> Result<(), XdpError> {
        let Some(its) = self.entered.remove(flow) else { return Ok(()) };
        tables.remove_carried(&its.carried)?;
        self.release_next(tables, its.next)
    }

    fn release_next(&mut self, tables: &mut Tables, next: Next) -> Result<(), XdpError> {
        match next {
            Next::Hops(numbers) => self.release(tables, numbers),
            Next::Node(_) => Ok(()),
        }
    }

    fn release<const LEN: usize>(&mut self, tables: &mut Tables, hops: [u16; LEN]) -> Result<(), XdpError> {
        let mut free = hops.into_iter().filter(|hop| self.hops.release(*hop));
        free.try_for_each(|hop| tables.set_hop(hop, &Hop::default()))
    }
}

impl Entered {
    /// True while the programs do what the director says.
    fn goes_on(&self, director: &Director, mirror: &Mirror) -> bool {
        let Self { carried, term, .. } = self;
        director.carried(&carried.flow) == Some(*carried) && mirror.term_of(&carried.flow) == Some(*term)
    }

    /// Only clients keep connections; both sides keep flows of datagrams, as in the director.
    fn hear(&mut self, director: &mut Director, carried: &Carried, now: Timestamp) {
        let seen = &mut self.seen[usize::from(carried.is_reply())];
        let is_in_use = *seen != carried.seen;
        *seen = carried.seen;
        if is_in_use && (!carried.is_reply() || self.carried.flow.protocol == Protocol::Udp) {
            director.note_carried(&self.carried, now);
        }
    }
}

/// Where packets of a translated flow are sent: towards the real server, and towards the client.
fn ends(carried: &CarriedFlow) -> Option<[IpAddr; 2]> {
    match carried.onward {
        Onward::Translated { server, .. } => Some([server.ip(), carried.flow.client.address]),
        Onward::AsSent => None,
    }
}
