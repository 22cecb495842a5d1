//! This node's own reports, on their way out.

use crate::config::Config;
use crate::gossip::{Action, Destination, Gossip};
use crate::message::{self, Header, Via};
use crate::table::PeerTable;
use dpr_model::Timestamp;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

impl Gossip {
    /// Sends the report at once, without waiting for the interval: for changes of state.
    pub fn send_now(&mut self, now: Timestamp) {
        let Some(own) = &mut self.report else { return };
        self.sequence += 1;
        self.next_send = now + self.jitter.around(self.config.interval);
        own.encoded.set_exclusions(&self.exclusions.take());
        let received = self.acknowledgements.take(own.encoded.acknowledgements_max());
        let encode = |via| {
            let Config { node: sender, incarnation, keyring, .. } = &self.config;
            let header = Header { via, sender: *sender, incarnation: *incarnation, sequence: self.sequence };
            Arc::<[u8]>::from(message::encode(&header, &own.encoded, &received, keyring))
        };
        self.outbox.clear();
        if self.config.multicast {
            self.outbox.push_back(Action::Send { to: Destination::Groups, bytes: encode(Via::Multicast) });
        }
        let peers = unicast_destinations(&self.config, &self.table, self.sequence, now);
        if !peers.is_empty() {
            let bytes = encode(Via::Unicast);
            let copies = peers
                .into_iter()
                .map(|peer| Action::Send { to: Destination::Peer(peer), bytes: Arc::clone(&bytes) });
            self.outbox.extend(copies);
        }
    }
}

/// Configured peers, and those that multicast does not reach.
pub(super) fn unicast_destinations(
    config: &Config,
    table: &PeerTable,
    sequence: u64,
    now: Timestamp,
) -> BTreeSet<SocketAddr> {
    let wanting = table.peers().filter(|peer| peer.wants_unicast(sequence, now));
    config.peers.iter().copied().chain(wanting.map(|peer| peer.from)).collect()
}
