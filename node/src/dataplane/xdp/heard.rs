//! What programs and director hear of each other about connections that others may have to go on with.
//!
//! The director tells other nodes of them, so it has to know what the programs decided; and what it was told by others, or asked
//! for, the programs have to know (docs/decisions/0054-owned-addresses-in-the-kernel.md).

use super::{CHANGES_AT_ONCE, KernelPath, REFRESH_EVERY, SWEEP_BATCHES, SWEEP_PAUSE, ticks_now};
use dpr_conntrack::EntryView;
use dpr_director::Director;
use dpr_model::{FlowKey, Timestamp};
use dpr_rewrite::Packet;
use dpr_xdp::abi::{FlowEntry, SELF};
use dpr_xdp::{Change, Standing};

impl KernelPath {
    /// Tells `director` what has become of connections since the last time; to be called before it is asked what to tell others.
    pub(in crate::dataplane) fn report_changes(&mut self, director: &mut Director, now: Timestamp) {
        for _ in 0..CHANGES_AT_ONCE {
            match self.mirror.next_change(&mut self.tables) {
                Some(Change::Progress(flow, entry)) => director.note_progress_elsewhere(&flow, entry, now),
                Some(Change::Reset(flow)) => director.note_end_here(flow),
                None => return,
            }
        }
    }

    /// Asks, for `director`, about the connections that have ended as their real servers say, and tells the programs what came of
    /// such questions.
    pub(in crate::dataplane) fn settle(&mut self, director: &mut Director) {
        director.take_up_doubts(&mut |flow| self.entry_of(flow));
        let Self { mirror, tables, timeouts, .. } = self;
        while let Some(settled) = director.poll_settled() {
            if let Err(error) = mirror.settle(tables, &settled, (timeouts, ticks_now())) {
                tracing::debug!(flow = %settled.flow, %error, "the programs cannot be told what became of a connection");
            }
        }
    }

    /// What the programs know of a connection beyond its handshake.
    pub(in crate::dataplane) fn entry_of(&self, flow: &FlowKey) -> Option<EntryView> {
        self.mirror
            .entry_of(&self.tables, flow, ticks_now())
            .inspect_err(|error| tracing::debug!(%flow, %error, "what the programs know of a connection cannot be read"))
            .ok()?
    }

    /// Tells the programs what `director` knows of the flow of a packet that they have handed up.
    pub(in crate::dataplane) fn learn(&mut self, director: &Director, packet: &Packet, now: Timestamp) {
        self.learn_carried(director, packet, now);
        let Some((flow, entry)) = director.entry_of(packet, now) else { return };
        let known = self.mirror.enter(&mut self.tables, &flow, entry, (&self.timeouts, ticks_now()));
        if let Err(error) = known {
            tracing::debug!(%flow, %error, "the programs have no room for a connection: user space goes on with it");
        }
    }

    /// Looks at some of the entries: those that are over go, and now and then the director hears which are still there.
    pub(super) fn walk(&mut self, director: &mut Director, now: Timestamp) -> anyhow::Result<()> {
        if now < self.sweep_at {
            return Ok(());
        }
        if self.sweep.is_at_start() {
            self.is_refreshing = now >= self.refresh_at;
            if self.is_refreshing {
                self.refresh_at = now + REFRESH_EVERY;
            }
        }
        let (mirror, timeouts, is_refreshing) = (&self.mirror, self.timeouts, self.is_refreshing);
        let ticks = ticks_now();
        // Before, the programs may still act by them.
        let is_adopted = self.adoption.is_none();
        let mut look = |flow: &FlowKey, entry: &FlowEntry| {
            if let Some((entry, silence)) = mirror.silence_of(entry, (&timeouts, ticks)) {
                director.note_silence(flow, entry, silence, now);
            }
            // Or user space has taken it over.
            let is_above = || is_adopted && entry.real_server != SELF && director.decides_about(flow);
            if mirror.is_void(flow, entry) || is_above() {
                return Standing::Void;
            }
            let Some(told) = mirror.told_of(flow, entry) else { return Standing::Untold };
            if is_refreshing {
                director.note_presence_elsewhere(flow, told, now);
            }
            Standing::Told
        };
        if self.sweep.step(&mut self.tables, ticks, SWEEP_BATCHES, &mut look)? {
            self.sweep_at = now + SWEEP_PAUSE;
        }
        Ok(())
    }

    /// Enters the connections that have just become this node's, with their addresses or slots.
    pub(super) fn enter_gained(&mut self, director: &Director) {
        let (connections, refused) =
            self.mirror.enter_gained(&mut self.tables, director, &self.timeouts, ticks_now());
        if connections + refused > 0 {
            tracing::info!(connections, refused, "programs go on with connections that came here");
        }
    }
}
