//! What the node knows about itself at one moment: its data plane's figures and its load.

use crate::dataplane::{Line, Snapshot};
use crate::load_sampler::{LoadSampler, Readings};
use dpr_model::NodeId;
use std::net::IpAddr;
use std::pin::Pin;

/// The data plane's figures, and the load measured after them.
///
/// The order matters: a report that acknowledges a connection must not show a load from before it, or directors would
/// take the node for lighter than it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    /// From the data plane.
    pub(crate) snapshot: Snapshot,
    /// From the load sampler.
    pub(crate) readings: Readings,
}

impl Observation {
    /// Connections that would suffer if the node ended now.
    pub(super) fn open_connections(&self) -> u64 {
        self.readings.connections.saturating_add(self.snapshot.forwarded_out.into())
    }
}

/// An observation that is being made.
pub(super) type Observing = Pin<Box<dyn Future<Output = anyhow::Result<Box<Observation>>> + Send>>;

/// Makes observations.
#[derive(Clone, Debug)]
pub(crate) struct Observer {
    /// Line to the data plane.
    pub(crate) line: Line,
    /// What measures load.
    pub(crate) sampler: LoadSampler,
    /// This node.
    pub(crate) node: NodeId,
}

impl Observer {
    /// Begins an observation.
    pub(super) fn observe(&self) -> Observing {
        let observer = self.clone();
        Box::pin(async move {
            let snapshot = observer.line.snapshot().await?;
            let own_deliveries = observer.own_deliveries(&snapshot);
            let readings = observer.sampler.read(own_deliveries).await?;
            Ok(Box::new(Observation { snapshot, readings }))
        })
    }

    fn own_deliveries(&self, snapshot: &Snapshot) -> Vec<IpAddr> {
        let own = snapshot.deliveries.iter().filter(|delivery| delivery.owner == self.node);
        own.map(|delivery| delivery.delivery).collect()
    }
}
