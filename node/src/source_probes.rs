//! Whether what a node sends from other addresses than its own gets through, as its direct replies to clients have to.
//!
//! A real server behind `ipip`, `gue` and `dr` answers with the service address for its source. Networks drop that where
//! they check sources: unicast reverse path forwarding (RFC 3704), the anti-spoofing of virtual networks and switch
//! ports. So every node sends to each living peer pairs of datagrams of gossip's cargo, one from its own address and one from
//! an address for measurements. Who hears the first ones and never the second tells the sender, and gives it no more
//! connections whose replies would have to come like the second.
//!
//! A filter that all nodes are behind together, such as that of their only router, is not found.

use dpr_model::{Incarnation, NodeId, SourceFilters, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// First byte of these messages: agreement's are lower, those about connections higher.
const KIND: u8 = 15;
/// A probe from the sender's own address.
pub(crate) const OWN: [u8; 2] = [KIND, 0];
/// A probe from a foreign source.
pub(crate) const FOREIGN: [u8; 2] = [KIND, 1];
/// The receiver of this one hears the other's probes from foreign sources no more.
const MISSED: [u8; 2] = [KIND, 2];
/// It hears them.
const HEARD: [u8; 2] = [KIND, 3];

/// Probes from own addresses in a row without one from a foreign source, before the network is blamed: at 30 % loss that
/// happens by chance to one in 400.
const MISSES: u32 = 5;
/// Time between the first rounds with a new peer.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How many rounds are the first ones: enough to blame the network.
const FIRST_ROUNDS: u32 = 2 * MISSES;
/// Time between later rounds.
const PAUSE: Duration = Duration::from_secs(10);

/// True for messages that [`SourceProbes::handle`] understands.
pub(crate) fn is_probe(cargo: &[u8]) -> bool {
    cargo.first() == Some(&KIND)
}

/// What is known of every living peer.
#[derive(Debug, Default)]
pub(crate) struct SourceProbes {
    by_peer: BTreeMap<NodeId, Way>,
}

#[derive(Debug, Default)]
struct Way {
    rounds: u32,
    next: Timestamp,
    incarnation: Incarnation,
    /// Probes from its own address since the last one from a foreign source.
    misses: u32,
    /// What was last found out about the way from there.
    arrive_from: Option<bool>,
    /// What the peer says about the way there.
    arrive_at: Option<bool>,
}

impl SourceProbes {
    /// Peers to send probes to now, and forgets those that are not alive.
    pub(crate) fn due(&mut self, alive: BTreeSet<NodeId>, now: Timestamp) -> Vec<NodeId> {
        self.by_peer.retain(|peer, _| alive.contains(peer));
        let is_due = |peer: &NodeId| {
            let way = self.by_peer.entry(*peer).or_default();
            let is_due = now >= way.next;
            if is_due {
                way.rounds = way.rounds.saturating_add(1);
                way.next = now + if way.rounds < FIRST_ROUNDS { FIRST_PAUSE } else { PAUSE };
            }
            is_due
        };
        alive.into_iter().filter(is_due).collect()
    }

    /// Takes in a probe, or what a peer says about this node's. Returns what the peer is to be told.
    pub(crate) fn handle(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        message: &[u8],
    ) -> Option<&'static [u8]> {
        // Of nobody who is not alive, so that there is no more of this than peers.
        let way = self.by_peer.get_mut(&from)?;
        if way.incarnation != incarnation {
            // A new life may be on another network.
            *way = Way { rounds: 0, incarnation, ..Way::default() };
        }
        if message == FOREIGN {
            way.misses = 0;
            way.find_out(from, true);
        } else if message == OWN {
            way.misses = way.misses.saturating_add(1);
            if way.misses > MISSES {
                way.find_out(from, false);
            }
            return way.arrive_from.map(|arrive| if arrive { &HEARD[..] } else { &MISSED[..] });
        } else if message == HEARD || message == MISSED {
            way.hear(from, message == HEARD);
        }
        None
    }

    /// Whether what `peer` sends from foreign sources arrives here; `None` while nobody knows.
    pub(crate) fn arrive_from(&self, peer: NodeId) -> Option<bool> {
        self.by_peer.get(&peer)?.arrive_from
    }

    /// Whether what this node sends from foreign sources arrives at `peer`.
    pub(crate) fn arrive_at(&self, peer: NodeId) -> Option<bool> {
        self.by_peer.get(&peer)?.arrive_at
    }

    /// What a director has to know.
    pub(crate) fn filters(&self, peer: NodeId) -> SourceFilters {
        SourceFilters {
            from_peer: self.arrive_from(peer) == Some(false),
            to_peer: self.arrive_at(peer) == Some(false),
        }
    }
}

impl Way {
    fn find_out(&mut self, peer: NodeId, arrive: bool) {
        match (self.arrive_from.replace(arrive), arrive) {
            (Some(true) | None, false) => tracing::warn!(
                %peer,
                "the network drops a peer's packets from other addresses than its own: it gets no connections by ipip, gue \
                 and dr; allow foreign sources there, or set method = \"nat\""
            ),
            (Some(false), true) => {
                tracing::info!(%peer, "a peer's packets from other addresses arrive again");
            }
            (Some(true) | None, true) | (Some(false), false) => {}
        }
    }

    fn hear(&mut self, peer: NodeId, arrive: bool) {
        match (self.arrive_at.replace(arrive), arrive) {
            (Some(true) | None, false) => tracing::warn!(
                %peer,
                "the network drops this node's packets from other addresses than its own on the way to a peer, who sends it \
                 no connections by ipip, gue and dr; allow foreign sources here, or set method = \"nat\""
            ),
            (Some(false), true) => {
                tracing::info!(%peer, "this node's packets from other addresses arrive at a peer again");
            }
            (Some(true) | None, true) | (Some(false), false) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);
    const LIFE: Incarnation = Incarnation(7);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1000 + millis)
    }

    fn met() -> SourceProbes {
        let mut probes = SourceProbes::default();
        assert_eq!(probes.due([PEER].into(), at(0)), [PEER]);
        probes
    }

    #[test]
    fn a_peer_of_whom_only_own_addresses_are_heard_is_filtered_until_a_foreign_one_is() {
        let mut probes = met();
        for _ in 0..MISSES {
            assert_eq!(probes.handle(PEER, LIFE, &OWN), None, "nothing is known yet");
        }
        assert_eq!(probes.filters(PEER), SourceFilters::default());

        assert_eq!(probes.handle(PEER, LIFE, &OWN), Some(&MISSED[..]));
        assert_eq!(probes.filters(PEER), SourceFilters { from_peer: true, to_peer: false });

        assert_eq!(probes.handle(PEER, LIFE, &FOREIGN), None);
        assert_eq!(probes.handle(PEER, LIFE, &OWN), Some(&HEARD[..]));
        assert_eq!((probes.arrive_from(PEER), probes.arrive_at(PEER)), (Some(true), None));
    }

    #[test]
    fn losing_a_few_probes_of_either_kind_means_nothing() {
        let mut probes = met();
        for lost in 0..20 {
            probes.handle(PEER, LIFE, &OWN);
            if lost % MISSES == 0 {
                probes.handle(PEER, LIFE, &FOREIGN);
            }
        }
        assert_eq!(probes.arrive_from(PEER), Some(true));
    }

    #[test]
    fn what_a_peer_says_of_the_way_there_holds_until_it_says_otherwise_or_begins_anew() {
        let mut probes = met();
        probes.handle(PEER, LIFE, &MISSED);
        assert_eq!(probes.filters(PEER), SourceFilters { from_peer: false, to_peer: true });
        probes.handle(PEER, LIFE, &HEARD);
        assert_eq!(probes.arrive_at(PEER), Some(true));

        probes.handle(PEER, LIFE, &MISSED);
        probes.handle(PEER, Incarnation(8), &OWN);
        assert_eq!(probes.filters(PEER), SourceFilters::default());
    }

    #[test]
    fn strangers_and_what_is_none_of_these_messages_change_nothing() {
        let mut probes = met();
        assert_eq!(probes.handle(NodeId(3), LIFE, &OWN), None);
        for message in [&[KIND][..], &[KIND, 9], &[KIND, 2, 0], &[]] {
            assert_eq!(probes.handle(PEER, LIFE, message), None);
        }
        assert_eq!((probes.by_peer.len(), probes.filters(PEER)), (1, SourceFilters::default()));
    }

    #[test]
    fn a_new_peer_is_asked_often_and_an_old_one_seldom() {
        let mut probes = SourceProbes::default();
        let asked = |probes: &mut SourceProbes, from: u64, to: u64| {
            (from..to).step_by(100).filter(|&now| !probes.due([PEER].into(), at(now)).is_empty()).count()
        };
        assert_eq!(asked(&mut probes, 0, 4_600), FIRST_ROUNDS as usize);
        assert_eq!(asked(&mut probes, 4_600, 34_600), 3);

        probes.due(BTreeSet::new(), at(34_600));
        assert_eq!(asked(&mut probes, 34_700, 36_700), 4, "it was away");
    }
}
