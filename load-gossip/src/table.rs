//! The peer load table: every peer that was heard within the last hour, bounded, with its deadlines.

use crate::error::DatagramError;
use crate::membership::{Changes, Heard, Observer, Peer};
use crate::tombstones::Tombstones;
use dpr_model::{Candidate, LoadReport, NodeId, ServiceReport, Timestamp, Weight};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Peers that the table holds; a new node beyond that is refused and counted.
pub const PEERS_MAX: usize = 4096;

/// Known peers below which the panic freeze never sets in.
const FREEZE_PEERS_MIN: usize = 3;

/// A peer as this node sees it.
#[derive(Clone, Copy, Debug)]
pub struct PeerView<'a> {
    /// Its freshest report; `received` is empty, see `acknowledged`.
    pub report: &'a LoadReport,
    /// The services of its report, to be shared.
    pub services: &'a Arc<[ServiceReport]>,
    /// Neither suspected nor gone.
    pub alive: bool,
    /// Time since its freshest report came.
    pub report_age: Duration,
    /// Where its freshest report came from.
    pub from: SocketAddr,
    /// Whether its multicast copies come.
    pub heard_by_multicast: bool,
    /// Alive and heard by unicast, but not by multicast for more than 5 s (or 10 intervals, if longer).
    pub multicast_blocked: bool,
    /// Its weight, lowered while it starts slowly.
    pub slow_start_weight: Weight,
    /// Time between its reports, as it announces it; this node's own if it does not.
    pub interval: Duration,
    /// How many connections of this node's present life it says it received; `None` before it says so.
    pub acknowledged: Option<u64>,
}

impl PeerView<'_> {
    /// What a director needs of it. `mtu` is the largest IP packet that the way to it was seen to carry, bytes, if
    /// somebody asked: reports do not tell. Nor do they tell of filters on the way.
    pub fn to_peer(&self, mtu: Option<u16>) -> dpr_model::Peer {
        let report = self.report;
        dpr_model::Peer {
            candidate: candidate_of(report, self.slow_start_weight),
            state: report.state,
            alive: self.alive,
            incarnation: report.incarnation,
            report_interval: self.interval,
            acknowledged: self.acknowledged,
            services: Arc::clone(self.services),
            nat_ports: report.nat_ports,
            mtu,
            source_filters: dpr_model::SourceFilters::default(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct PeerTable {
    by_node: BTreeMap<NodeId, Entry>,
    /// One deadline per peer, possibly earlier than the true one.
    deadlines: BTreeSet<(Timestamp, NodeId)>,
    tombstones: Tombstones,
}

#[derive(Clone, Debug)]
struct Entry {
    peer: Peer,
    /// Its deadline in [`PeerTable::deadlines`].
    filed: Timestamp,
}

/// What a deadline that passed did to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    Suspected(NodeId),
    Forgotten(NodeId),
}

impl PeerTable {
    /// Takes an authentic datagram into the table, if it is fresh.
    pub(crate) fn hear(
        &mut self,
        heard: Heard<'_>,
        observer: &Observer,
        now: Timestamp,
    ) -> Result<Changes, DatagramError> {
        let node = heard.header.sender;
        let Some(entry) = self.by_node.get_mut(&node) else {
            return self.welcome(&heard, observer, now);
        };
        let peer = &mut entry.peer;
        let changes = if heard.header.incarnation == peer.report.incarnation {
            peer.hear(heard, observer, now)?
        } else {
            restart(peer, &heard, observer, now)?
        };
        // A deadline that is nearer than the one on file is filed; a later one is when that passes. Reports come several
        // times before they are missed, and nearly all only put the deadline off.
        if peer.deadline_min() < entry.filed {
            let deadline = peer.deadline(observer.deaf_for);
            if deadline < entry.filed {
                entry.file(&mut self.deadlines, node, deadline);
            }
        }
        Ok(changes)
    }

    /// When [`Self::expire`] wants to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Handles one deadline that has passed; to be called until it returns `None`.
    pub(crate) fn expire(&mut self, deaf_for: Duration, now: Timestamp) -> Option<Expiry> {
        while let Some(&(at, node)) = self.deadlines.first()
            && at <= now
        {
            let entry = self.by_node.get_mut(&node).expect("every deadline belongs to a peer");
            let peer = &mut entry.peer;
            let was_alive = peer.is_alive();
            let is_due = peer.deadline(deaf_for) <= now;
            if is_due && !was_alive {
                self.forget(node);
                return Some(Expiry::Forgotten(node));
            }
            if is_due {
                peer.suspect(now);
            }
            let deadline = peer.deadline(deaf_for);
            entry.file(&mut self.deadlines, node, deadline);
            if is_due {
                return Some(Expiry::Suspected(node));
            }
        }
        None
    }

    /// Removes a peer and leaves a tombstone; says whether it was there.
    pub(crate) fn forget(&mut self, node: NodeId) -> bool {
        let Some(Entry { peer, filed }) = self.by_node.remove(&node) else { return false };
        self.deadlines.remove(&(filed, node));
        self.tombstones.bury(node, peer.report.incarnation, peer.newest_sequence());
        true
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Peer> {
        self.by_node.get(&node).map(|entry| &entry.peer)
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.by_node.values().map(|entry| &entry.peer)
    }

    /// Whether brief reports are understood by all who are there.
    pub(crate) fn all_read_brief(&self) -> bool {
        self.peers().all(|peer| peer.reads_brief || !peer.is_alive())
    }

    /// Panic freeze, see [`crate::Gossip::frozen`].
    pub(crate) fn is_frozen(&self) -> bool {
        let (known, alive) = self.peers().fold((0, 0), |(known, alive), peer| {
            (known + usize::from(!peer.has_left()), alive + usize::from(peer.is_alive()))
        });
        known >= FREEZE_PEERS_MIN && alive * 2 < known
    }

    fn welcome(
        &mut self,
        heard: &Heard<'_>,
        observer: &Observer,
        now: Timestamp,
    ) -> Result<Changes, DatagramError> {
        let header = heard.header;
        self.tombstones.admit(header.sender, header.incarnation, header.sequence)?;
        if self.by_node.len() >= PEERS_MAX {
            return Err(DatagramError::TableFull { limit: PEERS_MAX });
        }
        let peer = Peer::new(heard, observer, now)?;
        self.tombstones.remove(header.sender);
        let changes = Changes { fresh: true, up: peer.is_alive(), ..Changes::default() };
        let filed = peer.deadline(observer.deaf_for);
        self.deadlines.insert((filed, header.sender));
        self.by_node.insert(header.sender, Entry { peer, filed });
        Ok(changes)
    }
}

impl Entry {
    fn file(&mut self, deadlines: &mut BTreeSet<(Timestamp, NodeId)>, node: NodeId, deadline: Timestamp) {
        deadlines.remove(&(self.filed, node));
        deadlines.insert((deadline, node));
        self.filed = deadline;
    }
}

/// A datagram of another life than the one known: a newer one replaces it, an older one is refused.
fn restart(
    peer: &mut Peer,
    heard: &Heard<'_>,
    observer: &Observer,
    now: Timestamp,
) -> Result<Changes, DatagramError> {
    let (incarnation, known) = (heard.header.incarnation, peer.report.incarnation);
    if incarnation < known {
        return Err(DatagramError::StaleIncarnation { incarnation, known });
    }
    let (was_alive, had_left) = (peer.is_alive(), peer.has_left());
    *peer = Peer::new(heard, observer, now)?;
    Ok(Changes {
        fresh: true,
        restarted: true,
        up: !was_alive && peer.is_alive(),
        left: !had_left && peer.has_left(),
    })
}

/// The view of a peer that people and the director get.
pub(crate) fn view(peer: &Peer, slow_start: Duration, now: Timestamp) -> PeerView<'_> {
    PeerView {
        report: &peer.report,
        services: &peer.services,
        alive: peer.is_alive(),
        report_age: now.since(peer.heard_at),
        from: peer.from,
        heard_by_multicast: peer.is_heard_by_multicast(),
        multicast_blocked: peer.is_multicast_blocked(now),
        slow_start_weight: peer.weight(slow_start, now),
        interval: peer.interval,
        acknowledged: peer.acknowledged,
    }
}

/// A peer that a director may choose: alive, active, of positive weight.
pub(crate) fn candidate(peer: &Peer, slow_start: Duration, now: Timestamp) -> Option<Candidate> {
    if !peer.may_be_chosen() || peer.report.weight.0 == 0 {
        return None;
    }
    Some(candidate_of(&peer.report, peer.weight(slow_start, now)))
}

fn candidate_of(report: &LoadReport, weight: Weight) -> Candidate {
    Candidate {
        node: report.node,
        address: report.address,
        load: report.load,
        capacity: report.capacity,
        weight,
        outstanding: 0,
    }
}
