//! Adding up what every processor counted, and telling what was counted before.

use crate::abi::Counters;
use dpr_model::DropReason;

impl Counters {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        self.combined(other, |one, other| one + other)
    }

    /// What came after `before`.
    #[must_use]
    pub fn since(self, before: &Self) -> Self {
        self.combined(before, u64::saturating_sub)
    }

    fn combined(mut self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let pairs = [
            (&mut self.connections_kept, other.connections_kept),
            (&mut self.connections_forwarded, other.connections_forwarded),
            (&mut self.loops_stopped, other.loops_stopped),
            (&mut self.packets_forwarded, other.packets_forwarded),
            (&mut self.packets_delivered, other.packets_delivered),
            (&mut self.packets_received, other.packets_received),
            (&mut self.packets_replied, other.packets_replied),
            (&mut self.nat_replies, other.nat_replies),
            (&mut self.icmp_too_big_sent, other.icmp_too_big_sent),
            (&mut self.arp_answered, other.arp_answered),
            (&mut self.refused_full, other.refused_full),
            (&mut self.syns_without_entry, other.syns_without_entry),
        ];
        for (count, other) in pairs.into_iter().chain(self.drops.iter_mut().zip(other.drops)) {
            *count = combine(*count, other);
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
        let twice = one.plus(&one);
        assert_eq!(twice.dropped(DropReason::Fragment), 4);
        assert_eq!(twice.since(&one), one);
    }
}
