//! The programs go, and what they knew and did stays.

use super::{KernelPath, Snapshot, counts, ticks_now};
use dpr_director::Director;
use dpr_model::Timestamp;
use dpr_xdp::abi::Counters;

/// What is left of programs that are not in use any more.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct Retired {
    counted: Counters,
    connections: usize,
}

impl KernelPath {
    /// Gives `director` the connections that the programs know, and takes the programs off their interfaces. What cannot be
    /// read is lost, and said in the log.
    pub(in crate::dataplane) fn retire(mut self, director: &mut Director, now: Timestamp) -> Retired {
        if let Some(Err(error)) = self.left.take().map(|left| left.copy_to(&mut self.tables, ticks_now())) {
            tracing::warn!(%error, "connections of an earlier daemon cannot be read");
        }
        let mut connections = 0;
        // Twice: no packet may find neither, and what begins while the first round lasts must not be forgotten.
        for round in 0..2 {
            match self.hand_over(director, now) {
                Ok(entries) => connections = entries,
                Err(error) => {
                    tracing::error!(error = %format_args!("{error:#}"), "connections of the kernel's programs are lost");
                }
            }
            if round == 0
                && let Err(error) = self.programs.detach()
            {
                tracing::warn!(%error, "programs could not be taken off their interfaces");
            }
        }
        let counted = self.tables.counters().map(|counters| counters.since(&self.before));
        Retired { counted: counted.unwrap_or_default(), connections }
    }

    /// How many connections the director has got.
    fn hand_over(&mut self, director: &mut Director, now: Timestamp) -> anyhow::Result<usize> {
        self.report(director, now)?;
        let entries = self.mirror.entries(&self.tables, ticks_now())?;
        Ok(entries.filter(|(flow, entry)| director.take_over(flow, *entry, now)).count())
    }
}

impl Retired {
    /// How many connections have gone over to user space.
    pub(in crate::dataplane) fn connections(&self) -> usize {
        self.connections
    }

    /// Adds what the programs did to what user space says of itself, so that no counter goes back.
    pub(in crate::dataplane) fn add_to(&self, snapshot: &mut Snapshot) {
        counts::add(&mut snapshot.counters, &self.counted);
        snapshot.conntrack.refused_full += self.counted.refused_full;
    }
}
