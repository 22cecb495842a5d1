//! This node's own reports, on their way out: full ones, and brief ones between them.
//!
//! Most of a report is as it was a tenth of a second ago. So only some are full: those that say something that brief ones
//! cannot, the first ones that a newcomer hears, and one a second, for those who missed these. While somebody is there
//! who does not understand brief reports, all are full.

use crate::config::Config;
use crate::gossip::{Action, Destination, Gossip};
use crate::message::{self, EncodedReport, Header, ReportError, Via};
use crate::table::PeerTable;
use dpr_model::{LoadReport, Timestamp};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Full reports in a row when there is news; a few of them may get lost.
const FULL_REPEATS: u8 = 3;
/// Time after which a report is full even without news.
const FULL_EVERY: Duration = Duration::from_secs(1);

/// What this node says of itself.
#[derive(Debug)]
pub(super) struct OwnReport {
    pub(super) address: IpAddr,
    encoded: EncodedReport,
    /// Reports from the next one on that have to be full.
    full_left: u8,
    /// When one has to be full in any case.
    full_due: Timestamp,
}

impl Gossip {
    /// What this node says from now on; sent at the next interval. The previous report stays on error.
    pub fn set_report(&mut self, report: &LoadReport) -> Result<(), ReportError> {
        let (node, incarnation) = (report.node, report.incarnation);
        if (node, incarnation) != (self.config.node, self.config.incarnation) {
            return Err(ReportError::NotOwn { node, incarnation });
        }
        let encoded = EncodedReport::new(report, self.config.interval)?;
        self.acknowledgements.update(&report.received);
        match &mut self.report {
            Some(own) => own.replace(report.address, encoded),
            None => self.report = Some(OwnReport::first(report.address, encoded)),
        }
        Ok(())
    }

    /// Sends the report at once, without waiting for the interval: for changes of state.
    pub fn send_now(&mut self, now: Timestamp) {
        let Some(own) = &mut self.report else { return };
        self.sequence += 1;
        self.next_send = now + self.jitter.around(self.config.interval);
        own.encoded.set_exclusions(&self.exclusions.take());
        let is_full = own.is_full(&self.table, now);
        let room = if is_full {
            own.encoded.acknowledgements_max()
        } else {
            own.encoded.brief_acknowledgements_max()
        };
        let received = self.acknowledgements.take(room);
        let encode = |via| {
            let Config { node: sender, incarnation, keyring, .. } = &self.config;
            let header = Header { via, sender: *sender, incarnation: *incarnation, sequence: self.sequence };
            let encode = if is_full { message::encode } else { message::encode_brief };
            Arc::<[u8]>::from(encode(&header, &own.encoded, &received, keyring))
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

impl OwnReport {
    fn first(address: IpAddr, encoded: EncodedReport) -> Self {
        Self { address, encoded, full_left: FULL_REPEATS, full_due: Timestamp::default() }
    }

    fn replace(&mut self, address: IpAddr, encoded: EncodedReport) {
        if !encoded.differs_briefly(&self.encoded) {
            self.introduce();
        }
        self.address = address;
        self.encoded = encoded;
    }

    /// Makes the next reports full: somebody is there who has not heard one.
    pub(super) fn introduce(&mut self) {
        self.full_left = FULL_REPEATS;
    }

    /// Whether the next report is full; it is sent then.
    fn is_full(&mut self, table: &PeerTable, now: Timestamp) -> bool {
        let is_full = self.full_left > 0 || now >= self.full_due || !table.all_read_brief();
        if is_full {
            self.full_left = self.full_left.saturating_sub(1);
            self.full_due = now + FULL_EVERY;
        }
        is_full
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
