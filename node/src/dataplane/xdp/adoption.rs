//! Taking over from an earlier daemon: its maps stay as they are until this one knows as much.
//!
//! A daemon that has just started knows no peers. Told so, the programs would take every connection to a peer for lost. So
//! they are told nothing until all peers that were alive have been heard of, or have had time enough; without a lease they
//! keep new connections here meanwhile.

use dpr_director::View;
use dpr_model::{NodeId, Timestamp};
use dpr_xdp::Content;
use dpr_xdp::abi::{SELF, node_flag, unmapped};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// Peers report ten times a second; those that say nothing for so long died while nobody listened. A peer's daemon that is
/// started again at the same time is silent too, on a busy machine for three seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found, and for whom to wait.
#[derive(Clone, Debug)]
pub(super) struct Adoption {
    deliveries: Vec<(IpAddr, IpAddr)>,
    alive: BTreeSet<NodeId>,
    until: Timestamp,
}

impl Adoption {
    /// What there is to take over of `content`; `None` if it was never written.
    pub(super) fn of(content: &Content, now: Timestamp) -> Option<Self> {
        if content.nodes.is_empty() {
            return None;
        }
        let deliveries = content.deliveries.iter();
        let alive = content.nodes.iter();
        Some(Self {
            deliveries: deliveries
                .map(|(delivery, its)| (unmapped(its.service), unmapped(*delivery)))
                .collect(),
            alive: alive
                .filter(|(number, node)| **number != SELF && node.flags & node_flag::ALIVE != 0)
                .map(|(_, node)| NodeId(node.id))
                .collect(),
            until: now + PATIENCE,
        })
    }

    /// Service and delivery addresses.
    pub(super) fn deliveries(&self) -> Vec<(IpAddr, IpAddr)> {
        self.deliveries.clone()
    }

    /// True when the programs lose nothing by what `view` says.
    pub(super) fn is_over(&self, view: &View<'_>, now: Timestamp) -> bool {
        let knows = |node: &NodeId| view.peers.iter().any(|peer| peer.node == *node);
        now >= self.until || self.alive.iter().all(knows)
    }
}
