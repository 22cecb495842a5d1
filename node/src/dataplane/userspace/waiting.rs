//! Packets whose next hop's MAC address is not known yet.

use super::next_hops::{Neighbourhood, Resolution};
use super::packet_socket::Offload;
use super::tagged_hosts::Towards;
use super::transmit::{Owned, with_header};
use dpr_model::{DropReason, Timestamp};
use std::collections::VecDeque;
use std::time::Duration;

/// Packets that wait for a neighbour's MAC address.
const WAITING_MAX: usize = 256;
/// How long they wait: as long as the kernel's own three requests take.
const WAITING_TIME: Duration = Duration::from_secs(3);

/// Packets for neighbours that the kernel is looking for.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    packets: VecDeque<WaitingPacket>,
}

#[derive(Debug)]
struct WaitingPacket {
    neighbourhood: Neighbourhood,
    /// An IP packet.
    packet: Vec<u8>,
    offload: Offload,
    destination: Towards,
    since: Timestamp,
}

impl Waiting {
    /// Keeps a packet; the oldest one goes when there are too many.
    pub(crate) fn push(
        &mut self,
        neighbourhood: Neighbourhood,
        destination: Towards,
        packet: &[u8],
        offload: Offload,
        now: Timestamp,
    ) -> Option<DropReason> {
        let dropped = (self.packets.len() >= WAITING_MAX).then(|| self.packets.pop_front()).flatten();
        let packet = packet.to_vec();
        self.packets.push_back(WaitingPacket { neighbourhood, packet, offload, destination, since: now });
        dropped.map(|_| DropReason::NoNeighbour)
    }

    /// True when no packet waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Takes out what can be sent now, and what has waited for too long; `resolve` answers for a destination.
    pub(crate) fn retry(
        &mut self,
        now: Timestamp,
        mut resolve: impl FnMut(Towards) -> Resolution,
    ) -> (Vec<Owned>, Vec<DropReason>) {
        let (mut ready, mut dropped) = (Vec::new(), Vec::new());
        self.packets.retain(|waiting| match resolve(waiting.destination) {
            Resolution::Known(next_hop) => {
                ready.push(with_header(next_hop, &waiting.packet, waiting.offload));
                false
            }
            Resolution::Pending(neighbourhood) if neighbourhood == waiting.neighbourhood => {
                let patient = now.since(waiting.since) < WAITING_TIME;
                if !patient {
                    dropped.push(DropReason::NoNeighbour);
                }
                patient
            }
            // The route changed meanwhile: the sender will try again.
            Resolution::Pending(_) => {
                dropped.push(DropReason::NoNeighbour);
                false
            }
            Resolution::Never(reason) => {
                dropped.push(reason);
                false
            }
        });
        (ready, dropped)
    }
}
