//! What the programs counted, in the words of status.

use dpr_model::DropReason;
use dpr_model::status::{ConntrackStatus, Counters};
use dpr_xdp::{Connections, Sizes, Tally, abi};

/// Adds what the programs counted to what the director did in user space.
pub(super) fn add(counters: &mut Counters, kernel: &abi::Counters) {
    counters.connections_kept += kernel.connections_kept;
    counters.connections_forwarded += kernel.connections_forwarded;
    counters.packets_forwarded += kernel.packets_forwarded;
    counters.packets_delivered += kernel.packets_delivered;
    counters.packets_received += kernel.packets_received;
    counters.packets_replied += kernel.packets_replied;
    counters.nat_replies += kernel.nat_replies;
    counters.loops_stopped += kernel.loops_stopped;
    counters.icmp_too_big_sent += kernel.icmp_too_big_sent;
    counters.arp_answered += kernel.arp_answered;
    for reason in DropReason::ALL {
        let drops = kernel.dropped(*reason);
        if drops > 0 {
            *counters.drops.entry(reason.label().to_owned()).or_default() += drops;
        }
    }
}

/// Fill of the tables of connections of both planes; the capacity is that of the programs' table, for each IP version.
pub(super) fn conntrack(
    above: ConntrackStatus,
    tally: &Tally,
    sizes: Sizes,
    kernel: &abi::Counters,
) -> ConntrackStatus {
    ConntrackStatus {
        capacity: sizes.flows.into(),
        entries: above.entries
            + Connections::ALL.into_iter().flat_map(|table| tally.entries(table)).sum::<u64>(),
        half_open: above.half_open + tally.entries(Connections::HalfOpen).iter().sum::<u64>(),
        half_open_evicted: above.half_open_evicted,
        refused_full: above.refused_full + kernel.refused_full,
    }
}

/// Packets that the director did something about in user space.
pub(super) fn handled(above: &Counters) -> u64 {
    above.packets_forwarded
        + above.packets_delivered
        + above.packets_received
        + above.packets_replied
        + above.nat_replies
        + above.icmp_too_big_sent
        + above.arp_answered
        + above.neighbours_answered
        + above.echo_answered
        + above.drops.values().sum::<u64>()
}
