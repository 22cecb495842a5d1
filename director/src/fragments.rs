//! Which flow fragments are of.
//!
//! The first fragment of a packet names its ports, the others do not. All of them come to the owner of (source,
//! destination), who remembers by addresses, protocol and identification what the first one said, and so sends every fragment
//! to where the rest of the flow is. A fragment that overtakes its first one is dropped: nothing is kept for later, so that
//! nobody can fill a buffer.

use crate::director::{Director, LocalSockets};
use crate::pipeline::Journey;
use crate::subject::Step;
use dpr_model::{ClientSocket, DropReason, FlowKey, Protocol, ServiceSocket, Sharing, Timestamp, Verdict};
use dpr_rewrite::{Packet, Piece};
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

/// Packets whose fragments are on their way at one time; the oldest one goes for a new one.
pub(crate) const PACKETS_MAX: usize = 4096;

/// How long a packet's fragments are recognised: as long as Linux keeps them (`ipfrag_time`), and twice what RFC 791 asks of a
/// receiver at least (section 3.2). A sender uses an identification again later than that (RFC 6864, section 4.3).
pub(crate) const LIFETIME: Duration = Duration::from_secs(30);

/// What all fragments of a packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Whole {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) id: u32,
}

/// Source and destination port.
pub(crate) type Ports = (u16, u16);

/// Packets whose first fragment was seen.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    ports_by_whole: HashMap<Whole, (Ports, Timestamp)>,
    /// In the order in which they came.
    arrivals: VecDeque<(Whole, Timestamp)>,
}

impl Fragments {
    /// What the first fragment said.
    pub(crate) fn remember(&mut self, whole: Whole, ports: Ports, now: Timestamp) {
        while let Some((oldest, seen)) = self.arrivals.front()
            && (self.arrivals.len() >= PACKETS_MAX || now.since(*seen) > LIFETIME)
        {
            // An identification that was used again has an arrival for each time; the latest one counts.
            if self.ports_by_whole.get(oldest).is_some_and(|(_, last)| last == seen) {
                self.ports_by_whole.remove(oldest);
            }
            self.arrivals.pop_front();
        }
        self.ports_by_whole.insert(whole, (ports, now));
        self.arrivals.push_back((whole, now));
    }

    /// The ports of a packet whose first fragment has come.
    pub(crate) fn ports_of(&self, whole: &Whole, now: Timestamp) -> Option<Ports> {
        let (ports, seen) = self.ports_by_whole.get(whole)?;
        (now.since(*seen) <= LIFETIME).then_some(*ports)
    }
}

impl Director {
    /// A fragment of a packet for a service address of this node's own.
    pub(crate) fn handle_fragment(
        &mut self,
        piece: Piece,
        protocol: Protocol,
        packet: &Packet,
        journey: Journey,
        sockets: &mut dyn LocalSockets,
    ) -> Verdict {
        let (source, destination) = (packet.ip.source(), packet.ip.destination());
        let whole = Whole { source, destination, protocol, id: piece.id };
        if let Some(ports) = piece.ports {
            self.fragments.remember(whole, ports, journey.now);
        }
        let Some((source_port, port)) = self.fragments.ports_of(&whole, journey.now) else {
            return Verdict::Drop(DropReason::Fragment);
        };
        let flow = FlowKey {
            protocol,
            client: ClientSocket { address: source, port: source_port },
            service: ServiceSocket { address: destination, port },
        };
        let Some(service) = self.ownership.service_of(&flow) else { return Verdict::Pass };
        if service.sharing != Sharing::Home
            && let Some(verdict) = self.leave_gathered((&flow, &service), packet, journey)
        {
            return verdict;
        }
        if self.was_sent_back(&service, packet, journey) {
            return self.deliver(service.delivery, destination, journey);
        }
        let placement = match (protocol, piece.ports) {
            (Protocol::Udp, Some(_)) => {
                self.place_packet(&flow, &service, Step::DATAGRAM, journey.now, sockets)
            }
            // No connection begins in fragments.
            _ => Some(self.placement_of(&flow, &service)),
        };
        match placement {
            Some(placement) => self.send_to(placement, &flow, &service, packet, journey),
            None => Verdict::Ask,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(id: u32) -> Whole {
        let (source, destination) = ([198, 51, 100, 7].into(), [192, 0, 2, 1].into());
        Whole { source, destination, protocol: Protocol::Udp, id }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1000 * seconds)
    }

    #[test]
    fn ports_are_known_for_half_a_minute_from_the_first_fragment_on() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.ports_of(&whole(1), at(100)), None);

        fragments.remember(whole(1), (4000, 53), at(100));

        assert_eq!(fragments.ports_of(&whole(1), at(130)), Some((4000, 53)));
        assert_eq!(fragments.ports_of(&whole(1), at(131)), None);
        let other = Whole { protocol: Protocol::Tcp, ..whole(1) };
        assert_eq!(fragments.ports_of(&other, at(100)), None);
    }

    #[test]
    fn an_identification_that_is_used_again_is_of_the_later_packet() {
        let mut fragments = Fragments::default();
        fragments.remember(whole(1), (4000, 53), at(100));
        fragments.remember(whole(1), (5000, 53), at(120));
        fragments.remember(whole(2), (6000, 53), at(135));

        assert_eq!(fragments.ports_of(&whole(1), at(135)), Some((5000, 53)));
    }

    #[test]
    fn a_flood_of_first_fragments_displaces_the_oldest_and_takes_no_more_room() {
        let mut fragments = Fragments::default();
        let ids = 0..u32::try_from(3 * PACKETS_MAX).unwrap();
        ids.for_each(|id| fragments.remember(whole(id), (1, 53), at(100)));

        assert_eq!((fragments.ports_by_whole.len(), fragments.arrivals.len()), (PACKETS_MAX, PACKETS_MAX));
        assert_eq!(fragments.ports_of(&whole(0), at(100)), None);
        assert!(fragments.ports_of(&whole(3 * PACKETS_MAX as u32 - 1), at(100)).is_some());
    }
}
