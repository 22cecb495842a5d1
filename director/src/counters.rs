//! What the packet path counts: plain arrays while packets fly, names when somebody asks.

use dpr_model::status::Counters;
use dpr_model::{DropReason, Verdict};

/// Packets and decisions since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct PacketCounters {
    pub(crate) connections_kept: u64,
    pub(crate) connections_forwarded: u64,
    pub(crate) loops_stopped: u64,
    pub(crate) nat_refused: u64,
    pub(crate) closings_overlooked: u64,
    packets_forwarded: u64,
    packets_delivered: u64,
    packets_received: u64,
    packets_replied: u64,
    icmp_too_big_sent: u64,
    arp_answered: u64,
    neighbours_answered: u64,
    echo_answered: u64,
    nat_replies: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl PacketCounters {
    /// Counts what happens to a frame that is `packets` packets on the wire.
    #[inline]
    pub(crate) fn count(&mut self, verdict: &Verdict, packets: u32) {
        match verdict {
            // Questions are counted, not packets that wait for their answers.
            Verdict::Pass | Verdict::Ask => {}
            Verdict::Deliver(delivery) if delivery.decapsulate == 0 => {
                self.packets_delivered += u64::from(packets);
            }
            Verdict::Deliver(_) => self.packets_received += u64::from(packets),
            Verdict::Forward(_) | Verdict::Direct { .. } | Verdict::Nat(_) => self.count_forwarded(packets),
            Verdict::Reply(_) => self.packets_replied += u64::from(packets),
            Verdict::NatReply(_) => self.nat_replies += u64::from(packets),
            Verdict::TooBig { .. } => self.icmp_too_big_sent += 1,
            Verdict::AnswerArp => self.arp_answered += 1,
            Verdict::AnswerNeighbour => self.neighbours_answered += 1,
            Verdict::AnswerEcho => self.echo_answered += 1,
            Verdict::Drop(reason) => self.count_drops(*reason, 1),
        }
    }

    /// Counts a frame that is forwarded, as [`Self::count`] does.
    #[inline(always)]
    pub(crate) fn count_forwarded(&mut self, packets: u32) {
        self.packets_forwarded += u64::from(packets);
    }

    /// Counts drops that a data plane found out about after the verdict, or before it.
    pub(crate) fn count_drops(&mut self, reason: DropReason, frames: u64) {
        self.drops[reason.index()] += frames;
    }

    /// With names, for people; reasons that never occurred are left out.
    pub(crate) fn named(&self, connections_received: u64) -> Counters {
        Counters {
            connections_kept: self.connections_kept,
            connections_forwarded: self.connections_forwarded,
            connections_received,
            packets_forwarded: self.packets_forwarded,
            packets_delivered: self.packets_delivered,
            packets_received: self.packets_received,
            packets_replied: self.packets_replied,
            loops_stopped: self.loops_stopped,
            nat_refused: self.nat_refused,
            closings_overlooked: self.closings_overlooked,
            icmp_too_big_sent: self.icmp_too_big_sent,
            arp_answered: self.arp_answered,
            neighbours_answered: self.neighbours_answered,
            echo_answered: self.echo_answered,
            nat_replies: self.nat_replies,
            drops: DropReason::ALL
                .iter()
                .map(|reason| (reason.label().to_owned(), self.drops[reason.index()]))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }
}
