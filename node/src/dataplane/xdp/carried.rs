//! Translated flows that the programs carry on: which they are, and by which neighbours their packets leave.
//!
//! The director decides about them and sees how they begin and end (docs/decisions/0058-translation-in-the-kernel.md).

use super::{KernelPath, SWEEP_PAUSE, ticks_now};
use dpr_director::{Director, TranslatedFlow};
use dpr_model::Timestamp;
use dpr_rewrite::Packet;
use dpr_xdp::{Carrying, Left, Tables, XdpError};

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
    /// Translated flows that an earlier daemon has left, for the director.
    pub(in crate::dataplane) fn carried(&self) -> &[TranslatedFlow] {
        self.carried.carrying.found()
    }

    /// Lets the programs carry on the flow of a packet that they have handed up, or takes it back, as `director` says.
    pub(super) fn learn_translation(&mut self, director: &Director, packet: &Packet, now: Timestamp) {
        let Self { carried, tables, ways, interfaces, .. } = self;
        let on = (interfaces.service(), director.mtu());
        let neighbour_of = |address| ways.neighbour_of(address, on, now);
        if let Err(error) = carried.carrying.learn(tables, director, packet, neighbour_of, ticks_now()) {
            tracing::error!(%error, "the programs cannot be told of a translated flow");
        }
    }

    /// Tells the programs where neighbours are, hears of flows that are in use, and takes back what has ended.
    pub(super) fn follow_translations(
        &mut self,
        director: &mut Director,
        now: Timestamp,
    ) -> Result<(), XdpError> {
        let Self { carried: Carried { carrying, routes, walk_at }, tables, ways, interfaces, .. } = self;
        let on = (interfaces.service(), director.mtu());
        if *routes != ways.routes_changed() {
            *routes = ways.routes_changed();
            carrying.take_all_back(tables)?;
        }
        if !carrying.found().is_empty() {
            let neighbour_of = |address| ways.neighbour_of(address, on, now);
            carrying.renew_found(tables, director, neighbour_of, ticks_now())?;
        }
        carrying.write_hops(tables, |neighbour| ways.hop_to(neighbour, on, now))?;
        if now >= *walk_at && carrying.walk(tables, director, WALK_BATCHES, now)? {
            *walk_at = now + SWEEP_PAUSE;
        }
        Ok(())
    }
}
