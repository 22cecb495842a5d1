//! Copies of connections: what this node tells its backups, what others tell it, and what it asks when it took over.
//!
//! Only connections to addresses that more than one node may own are copied. Who owns and who stands ready, agreement
//! says; who carries the messages is the caller's business.

use crate::asked::Asked;
use crate::director::{Director, LocalSockets};
use crate::ownership::Service;
use crate::replicas::Replicas;
use crate::streams::Streams;
use dpr_conntrack::sync::{
    Behind, ClientRecord, Copied, Message, MessageError, Record, RecordState, Replica, SNAPSHOT_PAGE, Stream,
    Young, answer,
};
use dpr_conntrack::{EntryView, Segment, Table, TcpState};
use dpr_model::{FlowKey, Incarnation, NodeId, Peer, Sharing, Timestamp};
use dpr_ownership::agreement::Duty;
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Connections that wait until they are old enough to be worth a copy: half a second of 100,000 a second.
const YOUNG_MAX: usize = 50_000;
/// Answers that wait to be sent; more were asked for faster than anybody can use.
const ANSWERS_MAX: usize = 256;

/// A message about connections, for the node that it names or for all peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncMessage {
    /// One node, or all peers.
    pub to: Option<NodeId>,
    /// At most [`dpr_conntrack::sync::MESSAGE_MAX`] bytes.
    pub bytes: Vec<u8>,
}

/// How things stand between this node and another one about copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncStatus {
    /// The other node.
    pub node: NodeId,
    /// How far its copies of this node's connections are behind; `None` if it has none.
    pub behind: Option<Behind>,
    /// Whether copies of its connections are all here; `None` if it sends none.
    pub whole: Option<bool>,
    /// Its connections for which there was no room here, ever.
    pub refused: u64,
}

/// Streams to backups, copies of other directors' connections, and questions.
#[derive(Debug)]
pub(crate) struct Copies {
    pub(crate) streams: Streams,
    replicas: Replicas,
    young: Young,
    pub(crate) asked: Asked,
    answers: VecDeque<SyncMessage>,
    /// Handshakes that have begun here and end elsewhere, to be told before this node says that it acts by the map that moved them.
    pub(crate) handed_over: VecDeque<SyncMessage>,
}

impl Copies {
    pub(crate) fn new() -> Self {
        Self {
            streams: Streams::default(),
            replicas: Replicas::default(),
            young: Young::new(YOUNG_MAX),
            asked: Asked::default(),
            answers: VecDeque::new(),
            handed_over: VecDeque::new(),
        }
    }

    /// Answers a node, as far as there is room: it asks again.
    fn answer(&mut self, to: NodeId, answer: &Message) {
        if self.answers.len() < ANSWERS_MAX {
            self.answers.push_back(SyncMessage { to: Some(to), bytes: answer.to_bytes() });
        }
    }

    /// Forgets what nodes have said whom nobody knows any more.
    pub(crate) fn retain(&mut self, is_known: impl Fn(NodeId) -> bool) {
        self.replicas.retain(&is_known);
        self.streams.retain_lives(is_known);
    }
}

impl Director {
    /// What nodes have agreed on about slots that more than one of them may own, and until when this node may act as their
    /// owner. Takes effect at once; [`Self::update`] need not be called. The right ends with `duty.until`, or when no update
    /// has come for [`crate::LEASE_MAX`], whichever is sooner. Time in `duty` is of the clock by which this director is told
    /// the time. After a change of maps it looks at the whole connection-forwarding table.
    pub fn set_duty(&mut self, duty: Duty, now: Timestamp) {
        if self.duty_serial() == Some(duty.serial) {
            self.ownership.set_duty(duty);
            return;
        }
        self.tenancy.update(&duty, now);
        let map = Arc::clone(&duty.map);
        let before = self.ownership.set_duty(duty);
        if before.as_ref().is_some_and(|before| before.map.version() == map.version()) {
            return;
        }
        let backups = self.tenancy.find_backups(&map);
        self.copies.streams.set_backups(backups, now);
        self.copies.streams.flush(now);
        self.forwarded.begin_anew();
        if let Some(before) = before {
            self.hand_over_handshakes(&before);
            self.forget_hearsay(&before);
        }
    }

    /// Peers that have begun another life are told anew. Those that live may come to own what others own now: where clients stay,
    /// all have to know by then.
    pub(crate) fn follow_lives(&mut self, peers: &[Peer], now: Timestamp) {
        if self.duty_serial().is_none() {
            return;
        }
        let streams = &mut self.copies.streams;
        for peer in peers.iter().filter(|peer| peer.alive) {
            streams.note_life(peer.candidate.node, peer.incarnation);
        }
        if self.persistence.is_used() {
            let alive = peers.iter().filter(|peer| peer.alive).map(|peer| peer.candidate.node);
            streams.set_hearers(alive.collect(), now);
        }
    }

    /// Takes in a message that another node's [`Self::poll_sync`] has made in its life `from.1`.
    ///
    /// # Errors
    ///
    /// [`MessageError`], of which the caller counts the label.
    pub fn handle_sync(
        &mut self,
        from: (NodeId, Incarnation),
        bytes: &[u8],
        sockets: &mut dyn LocalSockets,
        now: Timestamp,
    ) -> Result<(), MessageError> {
        match Message::from_bytes(bytes)? {
            Message::Ack { next, present, wants_snapshot } => {
                let take_in = |stream: &mut Stream| stream.handle_ack(next, present, wants_snapshot);
                self.copies.streams.with(from.0, take_in);
            }
            Message::Query(flows) => self.answer_query(from.0, &flows, sockets),
            Message::Begun(records) => self.take_handshakes(from.0, &records, now),
            Message::Answer(records) => {
                records.iter().for_each(|record| self.handle_answer(from.0, record, now));
            }
            Message::Ended(flows) => self.hear_ended(from.0, &flows),
            Message::Inquiry(asked) => {
                let standing = self.answer_inquiry(&asked, sockets);
                if !standing.is_empty() {
                    self.copies.answer(from.0, &Message::Standing(standing));
                }
            }
            Message::Standing(records) => self.hear_standing(from.0, &records, now),
            batch @ Message::Batch { .. } => self.handle_batch(from, batch, now),
        }
        Ok(())
    }

    /// The next message to send to other nodes. To be called until it returns `None`: every 20 ms, after
    /// [`Self::handle_sync`], and after [`dpr_model::Verdict::Ask`].
    pub fn poll_sync(&mut self, now: Timestamp) -> Option<SyncMessage> {
        if let Some(said) = self.copies.handed_over.pop_front().or_else(|| self.copies.answers.pop_front()) {
            return Some(said);
        }
        let flows = self.copies.asked.poll(now);
        if !flows.is_empty() {
            return Some(SyncMessage { to: None, bytes: Message::Query(flows).to_bytes() });
        }
        if let Some((to, message)) = self.poll_closings(now) {
            return Some(SyncMessage { to: Some(to), bytes: message.to_bytes() });
        }
        if let Some((director, bytes)) = self.copies.replicas.poll_ack(now) {
            return Some(SyncMessage { to: Some(director), bytes });
        }
        while let Some(record) = self.copies.young.poll(&self.table, now) {
            self.tell_backups(&record, now);
        }
        let mut streams = std::mem::take(&mut self.copies.streams);
        let message = streams.poll(|node, from, tell| self.page_for(node, from, now, tell), now);
        self.copies.streams = streams;
        message.map(|(node, bytes)| SyncMessage { to: Some(node), bytes })
    }

    /// Some of what a node is to have copies of: clients first, then connections.
    fn page_for(
        &self,
        to: NodeId,
        from: usize,
        now: Timestamp,
        tell: &mut dyn FnMut(&Copied),
    ) -> Option<usize> {
        let places_of_clients = self.persistence.places();
        if from < places_of_clients {
            self.persistence.page(from, now, &mut |client: ClientRecord| {
                let service = self.ownership.service_of(&client.client);
                if service.is_some_and(|service| service.sharing != Sharing::Home) {
                    tell(&Copied::Client(client));
                }
            });
            return Some(places_of_clients.min(from + SNAPSHOT_PAGE));
        }
        let page = self.table.page(from - places_of_clients, SNAPSHOT_PAGE);
        for (flow, entry) in page.entries {
            if let Some(record) = Record::of(flow, entry).map(|record| self.with_stand_in(record))
                && self.backups_of(&record).any(|node| node == to)
            {
                tell(&Copied::Connection(record));
            }
        }
        page.next.map(|next| places_of_clients + next)
    }

    /// The record as others have to know it.
    fn with_stand_in(&self, record: Record) -> Record {
        Record { stand_in: self.stand_in_of(record.real_server, &record.flow), ..record }
    }

    fn backups_of(&self, record: &Record) -> impl Iterator<Item = NodeId> + use<> {
        let slot = self.ownership.slot_of(&record.flow);
        let of = |slot| self.tenancy.copied_to(record.flow.service.address, slot, record.stand_in.is_some());
        slot.map(of).into_iter().flatten()
    }

    /// How things stand with each node about copies, in order of id.
    pub fn sync_status(&self, now: Timestamp) -> Vec<SyncStatus> {
        let Copies { streams, replicas, .. } = &self.copies;
        let nodes: BTreeSet<NodeId> = streams.nodes().chain(replicas.nodes()).collect();
        let status = |node: NodeId| {
            let replica = replicas.get(node);
            SyncStatus {
                node,
                behind: streams.get(node).map(|stream| stream.behind(now)),
                whole: replica.map(Replica::is_whole),
                refused: replica.map_or(0, Replica::refused),
            }
        };
        nodes.into_iter().map(status).collect()
    }

    /// Connections that this node had to ask for: how many somebody knew, and how many nobody knew in time.
    pub fn asked(&self) -> (u64, u64) {
        self.copies.asked.counts()
    }

    /// True for a packet of an unknown connection that may have begun while another node decided: it waits until others were
    /// asked. Longer ago than this node remembers silent connections, nobody else does either.
    #[inline(never)]
    pub(crate) fn must_ask(&mut self, flow: &FlowKey, service: &Service, now: Timestamp) -> bool {
        if service.sharing == Sharing::Home {
            return false;
        }
        let recently = self.table.timeout_of(flow.protocol, TcpState::Established);
        let slot = self.ownership.slot_of(flow);
        slot.is_some_and(|slot| self.tenancy.is_recent(flow.service.address, slot, recently, now))
            && self.copies.asked.must_wait(flow, now)
    }

    /// A packet has brought a connection forward of which others may have to know.
    pub(crate) fn note_progress(
        &mut self,
        flow: &FlowKey,
        segment: Segment,
        is_established: bool,
        now: Timestamp,
    ) {
        let Some(entry) = self.table.get(flow) else { return };
        if is_established {
            self.copies.young.add(*flow, entry.generation, now);
        } else if segment.fin || segment.rst {
            self.tell_backups(&Record::new(*flow, entry, RecordState::Closed), now);
        }
    }

    /// A connection is over for all, as its real server says.
    pub(crate) fn note_end(&mut self, flow: &FlowKey, now: Timestamp) {
        if let Some(entry) = self.table.get(flow) {
            self.tell_backups(&Record::new(*flow, entry, RecordState::Closed), now);
        }
    }

    /// True where the real server of a connection that this node keeps is to be known to its backups.
    pub(crate) fn remembers_kept(&self, flow: &FlowKey, service: &Service) -> bool {
        self.remembers_kept_to(flow.service.address, service.sharing)
    }

    /// True for an address of which this node is not the home. Of a home, connections end with it.
    pub(crate) fn remembers_kept_to(&self, address: IpAddr, sharing: Sharing) -> bool {
        match sharing {
            Sharing::Home => false,
            Sharing::Takeover => self.ownership.reporter_of(address) != Some(self.node),
            Sharing::Shared(_) => true,
        }
    }

    fn tell_backups(&mut self, record: &Record, now: Timestamp) {
        let record = self.with_stand_in(*record);
        for backup in self.backups_of(&record) {
            self.copies.streams.with(backup, |stream| stream.record(&Copied::Connection(record), now));
        }
    }

    fn handle_batch(&mut self, from: (NodeId, Incarnation), batch: Message, now: Timestamp) {
        if !self.peers.is_known(from.0) {
            return;
        }
        let mut replicas = std::mem::take(&mut self.copies.replicas);
        replicas.handle(from, batch, |copied| self.take_copy(copied, now), now);
        self.copies.replicas = replicas;
    }

    /// Enters what a director says. False if there is no room for it.
    fn take_copy(&mut self, copied: &Copied, now: Timestamp) -> bool {
        let record = match copied {
            Copied::Connection(record) => record,
            Copied::Client(client) => {
                self.take_client(client, now);
                return true;
            }
        };
        let is_own = self.ownership.is_own(&record.flow);
        let has_room = record.apply(&mut self.table, is_own, now);
        let is_entered = |entry: EntryView| {
            (entry.generation, entry.real_server) == (record.generation, record.real_server)
        };
        if self.table.get(&record.flow).is_some_and(is_entered) {
            self.adopt_translation(record, now);
        }
        has_room
    }

    /// What this node knows of connections: of those that its own stack has, more than anybody else.
    fn answer_query(&mut self, to: NodeId, flows: &[FlowKey], sockets: &mut dyn LocalSockets) {
        let mut records = Vec::new();
        for flow in flows {
            let Some(service) = self.ownership.service_of(flow) else { continue };
            let elsewhere = |entry| Record::in_answer(*flow, entry);
            let known = answer(&self.table, flow).map(|record| self.with_stand_in(record));
            let known = known.or_else(|| sockets.entry_elsewhere(flow).and_then(elsewhere));
            if self.holds_socket(flow, &service, sockets) {
                // Which connection of these sockets it is, a socket does not tell: only an entry does.
                let generation = known.filter(|known| known.real_server == self.node);
                let generation = generation.map_or(0, |known| known.generation);
                let (real_server, state) = (self.node, RecordState::Established);
                records.push(Record { flow: *flow, generation, real_server, state, stand_in: None });
            } else {
                records.extend(known.filter(|known| known.real_server != self.node));
            }
        }
        if !records.is_empty() {
            self.copies.answer(to, &Message::Answer(records));
        }
    }

    fn handle_answer(&mut self, from: NodeId, record: &Record, now: Timestamp) {
        let by_real_server = record.real_server == from;
        // This node's own stack was asked first, and knows nothing.
        let is_possible = record.real_server != self.node && self.ownership.is_own(&record.flow);
        if !is_possible || !self.copies.asked.accept(&record.flow, by_real_server) {
            return;
        }
        // What was asked about was not known, or known to be over: it is not.
        self.table.remove(&record.flow);
        if record.apply(&mut self.table, false, now) {
            self.adopt_translation(record, now);
            self.tell_backups(record, now);
        }
    }

    /// Forgets connections of slots that this node has to know from now on and did not have to know before, and what it has
    /// asked about those that it comes to own: what it has heard of them is of an earlier time. Others are asked for what is
    /// still there.
    fn forget_hearsay(&mut self, before: &Duty) {
        let Some(now) = self.ownership.duty() else { return };
        let is_own = |duty: &Duty, flow: &FlowKey| {
            let right = duty.map.right(flow.service.address, self.ownership.slot_of(flow)?)?;
            Some(right.owner == self.node)
        };
        let is_informed = |duty: &Duty, flow: &FlowKey| {
            let backups = duty.map.backups(flow.service.address, self.ownership.slot_of(flow)?);
            Some(is_own(duty, flow) == Some(true) || backups.contains(&Some(self.node)))
        };
        let is_stale =
            |flow: &FlowKey| is_informed(before, flow) == Some(false) && is_informed(now, flow) == Some(true);
        let stale: Vec<FlowKey> = flows_of(&self.table).filter(is_stale).collect();
        let has_come = |flow: &FlowKey| is_own(before, flow) != Some(true) && is_own(now, flow) == Some(true);
        self.copies.asked.retain(|flow| !has_come(flow));
        for flow in stale {
            self.table.remove(&flow);
        }
    }
}

fn flows_of(table: &Table) -> impl Iterator<Item = FlowKey> {
    table.page(0, usize::MAX).entries.map(|(flow, _)| flow)
}
