//! Handshakes that have begun while one node owned their slot and end while another one does.
//!
//! Nobody has copies of them, and a SYN is not asked about. A client whose SYN was answered late sends it again, after a second,
//! and another owner would choose another real server: so the owner before tells the one after it. Once, as all of it is over in
//! seconds, and bounded, as most of a flood of SYNs begins nothing.

use crate::copies::SyncMessage;
use crate::director::Director;
use dpr_conntrack::TcpState;
use dpr_conntrack::sync::{Message, QUERY_MAX, Record, RecordState};
use dpr_model::{FlowKey, NodeId, Timestamp};
use dpr_ownership::agreement::Duty;
use std::collections::BTreeMap;

/// Handshakes that are told of after one change of maps at most: a second of 1000 a second, 22 kB over IPv4.
const HANDED_OVER_MAX: usize = 1024;

impl Director {
    /// Tells new owners which handshakes have begun in what was this node's and is theirs now.
    pub(crate) fn hand_over_handshakes(&mut self, before: &Duty) {
        let Some(now) = self.ownership.duty() else { return };
        let owner = |duty: &Duty, flow: &FlowKey| {
            Some(duty.map.right(flow.service.address, self.ownership.slot_of(flow)?)?.owner)
        };
        let heir_of = |flow: &FlowKey| {
            let was_own = owner(before, flow) == Some(self.node);
            owner(now, flow).filter(|heir| was_own && *heir != self.node)
        };
        let entries = self.table.page(0, usize::MAX).entries;
        let half_open = entries.filter(|(_, entry)| entry.state == TcpState::HalfOpen);
        let handed = half_open.filter_map(|(flow, entry)| Some((heir_of(&flow)?, flow, entry)));
        let mut records_by_heir: BTreeMap<NodeId, Vec<Record>> = BTreeMap::new();
        for (heir, flow, entry) in handed.take(HANDED_OVER_MAX) {
            let record = Record::new(flow, entry, RecordState::Established);
            records_by_heir.entry(heir).or_default().push(record);
        }
        // What an earlier map moved and nobody has sent is told to those who have lost it again.
        self.copies.handed_over.clear();
        for (heir, records) in records_by_heir {
            let parts = records.chunks(QUERY_MAX).map(|part| Message::Begun(part.to_vec()).to_bytes());
            self.copies.handed_over.extend(parts.map(|bytes| SyncMessage { to: Some(heir), bytes }));
        }
    }

    /// Another node has begun handshakes that this one goes on with.
    pub(crate) fn take_handshakes(&mut self, from: NodeId, records: &[Record], now: Timestamp) {
        if !self.peers.is_known(from) {
            return;
        }
        for record in records.iter().filter(|record| self.ownership.is_own(&record.flow)) {
            record.begin(&mut self.table, now);
        }
    }
}
