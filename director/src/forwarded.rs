//! How many connections this node forwards: those that it decides about, not the copies that it has as a backup.

use crate::director::Director;
use dpr_conntrack::TcpState;

/// Places of the table that are looked at for one question: a millisecond at most.
const PAGE: usize = 16_384;

/// A count that goes round the table bit by bit.
#[derive(Debug, Default)]
pub(crate) struct Forwarded {
    next: usize,
    so_far: u32,
    /// By the last whole round since owners changed.
    counted: Option<u32>,
}

impl Forwarded {
    /// Owners have changed: what was counted counts no more.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self::default();
    }
}

impl Director {
    /// Established connections that this node forwards at the moment.
    ///
    /// Where it shares addresses, its table has copies of others' connections too, and a look at the whole table would hold up
    /// packets: then this is a count of a short while ago, and after a change of owners first one with copies.
    pub fn forwarded_out(&mut self) -> u32 {
        let peers = self.peers.sent().into_iter().map(|sent| sent.node);
        let all = peers.chain(self.peers.external()).map(|server| self.table.active_at(server)).sum();
        if self.ownership.duty().is_none() {
            return all;
        }
        let Self { table, ownership, forwarded, node, .. } = self;
        let page = table.page(forwarded.next, PAGE);
        let is_forwarded = |(flow, entry): &(dpr_model::FlowKey, dpr_conntrack::EntryView)| {
            entry.state == TcpState::Established && entry.real_server != *node && ownership.is_own(flow)
        };
        let count = page.entries.filter(is_forwarded).count();
        forwarded.so_far = forwarded.so_far.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        forwarded.next = page.next.unwrap_or(0);
        if page.next.is_none() {
            forwarded.counted = Some(std::mem::take(&mut forwarded.so_far));
        }
        forwarded.counted.unwrap_or(all)
    }
}
