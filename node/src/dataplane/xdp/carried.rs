//! Flows that the director decides about and the programs carry on: which they are, and by which neighbours translated ones leave.
//!
//! The director sees how they begin and end (docs/decisions/0058-translation-in-the-kernel.md).

use super::{KernelPath, SWEEP_PAUSE, ticks_now};
use dpr_conntrack::EntryView;
use dpr_director::{CarriedFlow, Director};
use dpr_model::{FlowKey, Timestamp};
use dpr_rewrite::Packet;
use dpr_xdp::{Carrying, Finder, Left, Tables, XdpError};

/// Batches of entries that are looked at in one go: of a full table a walk takes less than two seconds.
const WALK_BATCHES: usize = 8;

/// Flows, and the routes that they were entered by.
pub(super) struct Carried {
    carrying: Carrying,
    routes: u64,
    walk_at: Timestamp,
}

impl Carried {
    /// With what an earlier daemon has left.
    pub(super) fn found_in(tables: &Tables, left: Option<&Left>) -> Result<Self, XdpError> {
        Ok(Self { carrying: Carrying::found_in(tables, left)?, routes: 0, walk_at: Timestamp::default() })
    }

    /// How many flows there are.
    pub(super) fn len(&self) -> usize {
        self.carrying.len()
    }
}

impl KernelPath {
    /// Flows that an earlier daemon has left, for the director.
    pub(in crate::dataplane) fn carried(&self) -> impl Iterator<Item = &CarriedFlow> {
        self.carried.carrying.found(&self.mirror)
    }

    /// Connections that the programs have decided about for an earlier daemon, and that are this director's to decide about.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub(in crate::dataplane) fn begun_below(
        &self,
        director: &Director,
    ) -> Result<Vec<(FlowKey, EntryView)>, XdpError> {
        let entries = self.mirror.entries(&self.tables, ticks_now())?;
        Ok(entries.filter(|(flow, _)| director.decides_about(flow)).collect())
    }

    /// The opposite: what an earlier daemon has decided about, and the programs decide about from now on.
    pub(super) fn hand_down(&mut self, director: &Director) {
        let Self { carried, tables, mirror, timeouts, .. } = self;
        carried.carrying.hand_down(tables, director, mirror, (timeouts, ticks_now()));
    }

    /// Lets the programs carry on the flow of a packet that they have handed up, or takes it back, as `director` says.
    pub(super) fn learn_carried(&mut self, director: &Director, packet: &Packet, now: Timestamp) {
        let Self { carried, tables, mirror, ways, interfaces, .. } = self;
        let on = (interfaces.service(), director.mtu());
        let mut finder = Finder { mirror, neighbour_of: &mut |address| ways.neighbour_of(address, on, now) };
        if let Err(error) = carried.carrying.learn(tables, director, packet, &mut finder, ticks_now()) {
            tracing::error!(%error, "the programs cannot be told of a flow");
        }
    }

    /// Tells the programs where neighbours are, hears of flows that are in use, and takes back what has ended.
    pub(super) fn follow_carried(&mut self, director: &mut Director, now: Timestamp) -> Result<(), XdpError> {
        let Self { carried: Carried { carrying, routes, walk_at }, tables, mirror, ways, interfaces, .. } =
            self;
        let on = (interfaces.service(), director.mtu());
        if *routes != ways.routes_changed() {
            *routes = ways.routes_changed();
            carrying.take_back_routed(tables)?;
        }
        if carrying.has_found() {
            let mut finder =
                Finder { mirror, neighbour_of: &mut |address| ways.neighbour_of(address, on, now) };
            carrying.renew_found(tables, director, &mut finder, ticks_now())?;
        }
        carrying.write_hops(tables, |neighbour| ways.hop_to(neighbour, on, now))?;
        if now >= *walk_at && carrying.walk(tables, director, mirror, WALK_BATCHES, now)? {
            *walk_at = now + SWEEP_PAUSE;
        }
        Ok(())
    }
}
