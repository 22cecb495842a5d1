//! The programs take their place at the interface: an empty one, or that of programs with other maps.

use super::{KernelPath, ticks_now};
use dpr_xdp::{Left, Pins};

impl KernelPath {
    /// Lets the programs see packets, and lets go of maps that are not theirs.
    pub(super) fn take_place(&mut self) -> anyhow::Result<()> {
        let attached = self.interfaces.attach(&mut self.programs)?;
        tracing::info!(
            mode = attached.mode.label(),
            why_generic = attached.why_not_native,
            found = self.found(),
            "programs are attached"
        );
        self.attached = Some(attached);
        if let Some(pins) = &self.pins {
            pins.forget_other_maps()?;
        }
        Ok(())
    }

    /// Takes the place of programs with other maps, and their connections. Twice: what begins while they are copied must not be
    /// forgotten.
    pub(super) fn replace(&mut self, left: &Left) -> anyhow::Result<()> {
        let (before, _) = left.copy_to(&mut self.tables, ticks_now())?;
        self.has_carried = true;
        self.take_place()?;
        let (after, refused) = left.copy_to(&mut self.tables, ticks_now())?;
        tracing::info!(connections = before + after, refused, "connections were taken over from other maps");
        Ok(())
    }
}

/// What can be read of maps with which these programs cannot go on.
pub(super) fn readable_left(pins: &Pins) -> Option<Left> {
    Left::open(pins).unwrap_or_else(|error| {
        tracing::warn!(%error, "connections of an earlier daemon cannot be read");
        None
    })
}
