//! Ends of connections that only their real servers see, and questions about those of which nothing is heard.
//!
//! With direct replies a director sees the client's half of a conversation. A real server therefore says which of its sockets
//! are gone; which connections they were, of all that had the same ends, it does not know. So the director asks about the one
//! that it has, and only an answer to such a question ends it: it was asked when that connection had its handshake behind it, so
//! no socket means that it is over. About silent connections a director asks by itself, also to find what it was not told
//! (docs/decisions/0059-closings.md).
//!
//! Nobody is asked about translated connections, whose director sees both halves.

mod allowance;
mod repeated;

use crate::director::{Director, LocalSockets};
use crate::ownership::Service;
use crate::sending::method_to;
use allowance::Allowance;
use dpr_conntrack::sync::{Message, Record, RecordState};
use dpr_conntrack::{EntryView, Page, Silence, TcpState};
use dpr_model::{ClientSocket, FlowKey, ForwardingMethod, NodeId, Protocol, ServiceSocket, Timestamp};
use repeated::Repeated;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Connections that others are told of, or asked about, at one time: 100,000 a second, each for a quarter of a second.
const SAID_MAX: usize = 1 << 15;
/// Connections that wait for another data plane to look them up, or to hear what became of them.
const WAITING_MAX: usize = 1 << 15;

/// Silence after which a director asks, where a third of what is left would be more: senders that pause rarely pause longer.
const QUIET_AFTER: Duration = Duration::from_secs(30);
/// Part of an entry's time after which it is asked about at the latest, and again, without regard to how many there are.
const PARTS: u32 = 3;
/// Places of the table that are looked at for silent connections each time, and how often.
const PAGE: usize = 1024;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What has become of a connection, as its real server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Its name.
    pub flow: FlowKey,
    /// Which of those with this name.
    pub generation: u32,
    /// Who said it.
    pub real_server: NodeId,
    /// There is no socket for it any more; otherwise there is one.
    pub is_over: bool,
}

/// What this node, as a real server, has to say about ends, and what it asks as a director.
#[derive(Debug)]
pub(crate) struct Closings {
    /// Connections of others that have ended here.
    ended: Repeated<()>,
    /// Connections of this node's own that have.
    kept: Vec<FlowKey>,
    /// Services of which this host has, or had, sockets of connections. Of others they may be elsewhere: in a container behind a
    /// translation of the host's own, for instance. Where there never was one, that there is none says nothing.
    held_here: BTreeSet<(Protocol, ServiceSocket)>,
    /// Generations of connections that real servers are asked about.
    questions: Repeated<u32>,
    /// Connections that have ended at a real server, as it says.
    doubts: VecDeque<(NodeId, FlowKey)>,
    settled: VecDeque<Settled>,
    allowance: Allowance,
    /// Where the walk through the table stands.
    place: usize,
    look_at: Timestamp,
}

impl Closings {
    pub(crate) fn new() -> Self {
        Self {
            ended: Repeated::new(SAID_MAX),
            kept: Vec::new(),
            held_here: BTreeSet::new(),
            questions: Repeated::new(SAID_MAX),
            doubts: VecDeque::new(),
            settled: VecDeque::new(),
            allowance: Allowance::default(),
            place: 0,
            look_at: Timestamp::default(),
        }
    }

    /// The next message: to whom, and what.
    fn poll(&mut self, now: Timestamp) -> Option<(NodeId, Message)> {
        if let Some((director, ended)) = self.ended.poll(now) {
            let flows = ended.into_iter().map(|(flow, ())| flow).collect();
            return Some((director, Message::Ended(flows)));
        }
        let (real_server, questions) = self.questions.poll(now)?;
        let record = |(flow, generation)| Record { generation, real_server, ..Record::asking_for(flow) };
        Some((real_server, Message::Inquiry(questions.into_iter().map(record).collect())))
    }
}

impl Director {
    /// The local stack has given up a TCP socket with these ends.
    pub fn note_ended(&mut self, local: SocketAddr, client: SocketAddr) {
        let address = self.deliveries.service_of(local.ip()).unwrap_or(local.ip());
        let flow = FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address: client.ip(), port: client.port() },
            service: ServiceSocket { address, port: local.port() },
        };
        // A socket that listens has no other end.
        if client.port() != 0
            && let Some(service) = self.ownership.service_of(&flow)
        {
            self.note_held(&flow, &service);
        }
        self.note_end_here(flow);
    }

    /// This host has, or had, the socket of a connection.
    fn note_held(&mut self, flow: &FlowKey, service: &Service) {
        let named = service.named(flow);
        self.closings.held_here.insert((named.protocol, named.service));
    }

    /// The local stack has no socket for a connection any more, or has refused it.
    pub fn note_end_here(&mut self, flow: FlowKey) {
        let Some(service) = self.ownership.service_of(&flow) else { return };
        let owner = service.owner.node;
        let has_room = if owner == self.node {
            let has_room = self.closings.kept.len() < WAITING_MAX;
            if has_room && self.remembers_kept(&flow, &service) {
                self.closings.kept.push(flow);
            }
            has_room
        } else {
            !self.peers.is_known(owner) || self.closings.ended.say(owner, flow, ())
        };
        self.counters.closings_overlooked += u64::from(!has_room);
    }

    /// Ends connections that this node had kept and for which there is no socket any more. To be called after
    /// [`Self::note_ended`] and [`Self::handle_reply`], as often as [`Self::poll_sync`].
    pub fn end_kept(&mut self, sockets: &mut dyn LocalSockets, now: Timestamp) {
        for flow in std::mem::take(&mut self.closings.kept) {
            let kept =
                self.table.get(&flow).filter(|entry| entry.real_server == self.node && is_open(*entry));
            let (Some(entry), Some(service)) = (kept, self.ownership.service_of(&flow)) else { continue };
            if self.lacks_socket(&flow, &service, sockets) {
                let EntryView { generation, real_server, .. } = entry;
                self.settle(Settled { flow, generation, real_server, is_over: true }, now);
            }
        }
    }

    /// The local stack has given up sockets of which nobody has heard. Questions about silent connections will find them.
    pub fn note_endings_missed(&mut self) {
        self.counters.closings_overlooked += 1;
    }

    /// Asks about the connections of which real servers say that they have ended, as far as they are known: to `elsewhere`,
    /// another data plane that decides by entries of its own, or to this director. To be called before [`Self::poll_sync`], which
    /// does so for whoever has no other one.
    pub fn take_up_doubts(&mut self, elsewhere: &mut dyn FnMut(&FlowKey) -> Option<EntryView>) {
        while let Some((real_server, flow)) = self.closings.doubts.pop_front() {
            let known = elsewhere(&flow).or_else(|| self.table.get(&flow));
            if let Some(entry) = known.filter(|entry| entry.real_server == real_server)
                && !self.inquire(&flow, entry)
            {
                self.counters.closings_overlooked += 1;
            }
        }
    }

    /// A connection has been silent: asks about it if that has lasted long enough. To be called for every connection now and
    /// then by a data plane that decides by entries of its own.
    pub fn note_silence(&mut self, flow: &FlowKey, entry: EntryView, silence: Silence, now: Timestamp) {
        let is_urgent = silence.left < part_of(silence);
        let is_time = is_quiet(silence) && (is_urgent || self.closings.allowance.has_some(now));
        if is_time && self.may_inquire(flow, entry) {
            if !is_urgent {
                self.closings.allowance.take(now);
            }
            self.closings.questions.say(entry.real_server, *flow, entry.generation);
        }
    }

    /// What has become of a connection, for a data plane that decides by entries of its own. To be called until it returns
    /// `None`, as often as [`Self::poll_sync`].
    pub fn poll_settled(&mut self) -> Option<Settled> {
        self.closings.settled.pop_front()
    }

    /// The next message about ends.
    pub(crate) fn poll_closings(&mut self, now: Timestamp) -> Option<(NodeId, Message)> {
        self.take_up_doubts(&mut |_| None);
        if now >= self.closings.look_at {
            self.closings.look_at = now + LOOK_EVERY;
            self.look_for_silence(now);
        }
        self.closings.poll(now)
    }

    /// A real server says that these connections have ended.
    pub(crate) fn hear_ended(&mut self, from: NodeId, flows: &[FlowKey]) {
        for flow in flows {
            if self.closings.doubts.len() < WAITING_MAX {
                self.closings.doubts.push_back((from, *flow));
            } else {
                self.counters.closings_overlooked += 1;
            }
        }
    }

    /// Which of the connections that a director asks about this node, as their real server, still has, and which it has no more. Of
    /// others it says nothing: silence ends no connection.
    pub(crate) fn answer_inquiry(&mut self, asked: &[Record], sockets: &mut dyn LocalSockets) -> Vec<Record> {
        let mut records = Vec::with_capacity(asked.len());
        let this = self.node;
        for record in asked.iter().filter(|record| record.real_server == this) {
            // Whoever asks has heard of its end.
            self.closings.ended.take(&record.flow);
            let Some(service) = self.ownership.service_of(&record.flow) else { continue };
            if self.holds_socket(&record.flow, &service, sockets) {
                self.note_held(&record.flow, &service);
                records.push(Record { state: RecordState::Established, ..*record });
            } else if self.would_hold(&record.flow, &service)
                && self.lacks_socket(&record.flow, &service, sockets)
            {
                records.push(Record { state: RecordState::Closed, ..*record });
            }
        }
        records
    }

    /// True for a connection of a service whose sockets are on this host.
    fn would_hold(&self, flow: &FlowKey, service: &Service) -> bool {
        let named = service.named(flow);
        self.closings.held_here.contains(&(named.protocol, named.service))
    }

    /// A real server says what has become of connections. Of what it was not asked about, nothing is believed.
    pub(crate) fn hear_standing(&mut self, from: NodeId, records: &[Record], now: Timestamp) {
        for record in records {
            let Record { flow, generation, state, .. } = *record;
            if self.closings.questions.get(&flow) == Some((from, generation)) {
                self.closings.questions.take(&flow);
                let is_over = state == RecordState::Closed;
                self.settle(Settled { flow, generation, real_server: from, is_over }, now);
            }
        }
    }

    fn settle(&mut self, settled: Settled, now: Timestamp) {
        let Settled { flow, generation, real_server, is_over } = settled;
        let is_here = self.table.get(&flow).is_some_and(|entry| entry.real_server == real_server);
        if is_here && !is_over {
            self.table.renew(&flow, generation, now);
        } else if is_here && self.table.close(&flow, generation, now) {
            self.note_end(&flow, now);
        }
        if self.closings.settled.len() == WAITING_MAX {
            self.closings.settled.pop_front();
        }
        self.closings.settled.push_back(settled);
    }

    /// Goes on through the table, and asks about what has been silent.
    fn look_for_silence(&mut self, now: Timestamp) {
        if !self.closings.questions.has_room_for(PAGE) {
            return;
        }
        let Page { entries, next } = self.table.page_with_silence(self.closings.place, PAGE);
        let silent: Vec<_> = entries.filter(|(.., silence)| is_quiet(*silence)).collect();
        self.closings.place = next.unwrap_or(0);
        for (flow, entry, silence) in silent {
            self.note_silence(&flow, entry, silence, now);
        }
    }

    /// Asks the real server about a connection. False if there is no room for the question.
    fn inquire(&mut self, flow: &FlowKey, entry: EntryView) -> bool {
        !self.may_inquire(flow, entry)
            || self.closings.questions.say(entry.real_server, *flow, entry.generation)
    }

    /// Whether it is for this node to ask about a connection, and its real server would know.
    fn may_inquire(&self, flow: &FlowKey, entry: EntryView) -> bool {
        let server = entry.real_server;
        if !is_open(entry) || flow.protocol != Protocol::Tcp || server == self.node || server.is_external() {
            return false;
        }
        let Some(service) = self.ownership.service_of(flow) else { return false };
        let is_translated =
            || matches!(method_to(server, &service), ForwardingMethod::Nat | ForwardingMethod::HalfNat);
        service.owner.node == self.node
            && self.peers.is_alive(server)
            && !is_translated()
            && self.stand_in_of(server, flow).is_none()
    }
}

/// True for a silence after which it is worth to ask.
fn is_quiet(silence: Silence) -> bool {
    silence.lasts >= part_of(silence).min(QUIET_AFTER)
}

fn part_of(silence: Silence) -> Duration {
    (silence.lasts + silence.left) / PARTS
}

/// True for a connection that is neither half-open nor over.
fn is_open(entry: EntryView) -> bool {
    matches!(entry.state, TcpState::Established | TcpState::Fin | TcpState::Reset)
}
