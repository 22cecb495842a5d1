//! Adding up what every processor counted.

use crate::abi::Counters;
use dpr_model::DropReason;

impl Counters {
    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.connections_kept += other.connections_kept;
        self.connections_forwarded += other.connections_forwarded;
        self.loops_stopped += other.loops_stopped;
        self.packets_forwarded += other.packets_forwarded;
        self.packets_delivered += other.packets_delivered;
        self.packets_received += other.packets_received;
        self.packets_replied += other.packets_replied;
        self.icmp_too_big_sent += other.icmp_too_big_sent;
        self.arp_answered += other.arp_answered;
        self.refused_full += other.refused_full;
        self.syns_without_entry += other.syns_without_entry;
        for (sum, count) in self.drops.iter_mut().zip(other.drops) {
            *sum += count;
        }
        self
    }

    /// Drops for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason.index()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_to_drop_has_a_counter() {
        assert_eq!(DropReason::ALL.len(), crate::abi::DROP_REASONS);
        let mut one = Counters::default();
        one.drops[DropReason::Fragment.index()] = 2;
        assert_eq!(one.plus(&one).dropped(DropReason::Fragment), 4);
    }
}
