//! The naive model: a list of connections that every call goes through from end to end.

use dpr_conntrack::{Config, EntryView, Observation, Segment, TIMEOUT_MAX, TcpState};
use dpr_model::status::{Connection, ConntrackStatus};
use dpr_model::{FlowKey, NodeId};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone)]
struct Entry {
    flow: FlowKey,
    real_server: NodeId,
    state: TcpState,
    generation: u32,
    deadline_ms: u64,
    /// When the state was last entered, as a count of calls.
    entered: u64,
    stranded: bool,
}

pub(crate) struct Reference {
    config: Config,
    entries: Vec<Entry>,
    now_ms: u64,
    calls: u64,
    sent: BTreeMap<NodeId, u64>,
    half_open_evicted: u64,
    refused_full: u64,
}

impl Reference {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            entries: Vec::new(),
            now_ms: 0,
            calls: 0,
            sent: BTreeMap::new(),
            half_open_evicted: 0,
            refused_full: 0,
        }
    }

    /// After a wait that is longer than any timeout nothing is kept, not even for a sweep.
    pub(crate) fn wait(&mut self, millis: u64) {
        self.now_ms += millis;
        if Duration::from_millis(millis) > TIMEOUT_MAX + Duration::from_secs(1) {
            self.entries.clear();
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    pub(crate) fn observe(&mut self, flow: &FlowKey, segment: Segment) -> Observation {
        self.calls += 1;
        let Some(position) = self.find(flow) else { return Observation::Unknown };
        let (before, generation) = (self.entries[position].state, self.entries[position].generation);
        match next(before, segment, generation) {
            Next::Gone => {
                self.entries.remove(position);
                return Observation::Unknown;
            }
            Next::Same => {}
            Next::State(state) => self.enter(position, state),
        }
        let entry = &self.entries[position];
        Observation::Known {
            real_server: entry.real_server,
            state: entry.state,
            retransmitted_syn: segment.opens() && segment.sequence == generation,
            handshake_completed: before == TcpState::HalfOpen && entry.state != TcpState::HalfOpen,
        }
    }

    /// True if the connection was recorded.
    pub(crate) fn insert(&mut self, flow: &FlowKey, segment: Segment, real_server: NodeId) -> bool {
        self.calls += 1;
        if let Some(position) = self.find(flow) {
            self.entries.remove(position);
        }
        let state = match (segment.rst, segment.syn && !segment.ack, segment.fin) {
            (true, _, _) => TcpState::Closed,
            (_, true, _) => TcpState::HalfOpen,
            (_, _, true) => TcpState::Fin,
            _ => TcpState::Established,
        };
        if state == TcpState::HalfOpen && self.half_open() == self.config.half_open_capacity {
            self.evict();
        }
        if self.entries.len() == self.config.capacity {
            self.expire();
        }
        if self.entries.len() == self.config.capacity {
            self.evict();
        }
        if self.entries.len() == self.config.capacity {
            self.refused_full += 1;
            return false;
        }
        let (flow, generation) = (*flow, segment.generation());
        let entry =
            Entry { flow, real_server, state, generation, deadline_ms: 0, entered: 0, stranded: false };
        self.entries.push(entry);
        self.enter(self.entries.len() - 1, state);
        *self.sent.entry(real_server).or_default() += 1;
        true
    }

    pub(crate) fn remove(&mut self, flow: &FlowKey) -> bool {
        let found = self.find(flow);
        if let Some(position) = found {
            self.entries.remove(position);
        }
        found.is_some()
    }

    pub(crate) fn close(&mut self, flow: &FlowKey, generation: u32) -> bool {
        self.calls += 1;
        let found = self.find(flow).filter(|&position| self.entries[position].generation == generation);
        if let Some(position) = found {
            self.enter(position, TcpState::Closed);
        }
        found.is_some()
    }

    /// Half-open entries go with their deadline, all others in the second after it.
    pub(crate) fn expire(&mut self) -> usize {
        let (now_ms, before) = (self.now_ms, self.entries.len());
        self.entries.retain(|entry| {
            let due = match entry.state {
                TcpState::HalfOpen => entry.deadline_ms <= now_ms,
                _ => entry.deadline_ms / 1000 < now_ms / 1000,
            };
            !due && !entry.stranded
        });
        before - self.entries.len()
    }

    pub(crate) fn remove_real_server(&mut self, node: NodeId) -> usize {
        let own = self.entries.iter_mut().filter(|entry| entry.real_server == node && !entry.stranded);
        own.map(|entry| entry.stranded = true).count()
    }

    pub(crate) fn get(&self, flow: &FlowKey) -> Option<EntryView> {
        let entry = self.entries.iter().find(|entry| entry.flow == *flow && self.is_live(entry))?;
        let &Entry { real_server, state, generation, .. } = entry;
        Some(EntryView { real_server, state, generation })
    }

    /// Live connections, by flow.
    pub(crate) fn connections(&self) -> Vec<Connection> {
        let live = self.entries.iter().filter(|entry| self.is_live(entry));
        let mut connections: Vec<Connection> = live
            .map(|entry| Connection {
                flow: entry.flow,
                state: entry.state.label().to_owned(),
                real_server: entry.real_server,
                generation: entry.generation,
                expires_in_s: u32::try_from((entry.deadline_ms - self.now_ms).div_ceil(1000))
                    .unwrap_or(u32::MAX),
            })
            .collect();
        connections.sort_by_key(|connection| connection.flow);
        connections
    }

    pub(crate) fn sent_to(&self, node: NodeId) -> u64 {
        self.sent.get(&node).copied().unwrap_or(0)
    }

    pub(crate) fn open_at(&self, node: NodeId) -> usize {
        self.entries.iter().filter(|entry| entry.real_server == node && !entry.stranded).count()
    }

    pub(crate) fn active_at(&self, node: NodeId) -> usize {
        let active = |entry: &&Entry| {
            entry.real_server == node && !entry.stranded && entry.state == TcpState::Established
        };
        self.entries.iter().filter(active).count()
    }

    pub(crate) fn status(&self) -> ConntrackStatus {
        ConntrackStatus {
            capacity: self.config.capacity as u64,
            entries: self.entries.len() as u64,
            half_open: self.half_open() as u64,
            half_open_evicted: self.half_open_evicted,
            refused_full: self.refused_full,
        }
    }

    fn half_open(&self) -> usize {
        self.entries.iter().filter(|entry| entry.state == TcpState::HalfOpen).count()
    }

    fn evict(&mut self) {
        let half_open =
            self.entries.iter().enumerate().filter(|(_, entry)| entry.state == TcpState::HalfOpen);
        let oldest = half_open.min_by_key(|(_, entry)| entry.entered).map(|(position, _)| position);
        if let Some(position) = oldest {
            let entry = self.entries.remove(position);
            self.half_open_evicted += u64::from(self.is_live(&entry));
        }
    }

    fn find(&mut self, flow: &FlowKey) -> Option<usize> {
        let position = self.entries.iter().position(|entry| entry.flow == *flow)?;
        if !self.is_live(&self.entries[position]) {
            self.entries.remove(position);
            return None;
        }
        Some(position)
    }

    fn is_live(&self, entry: &Entry) -> bool {
        entry.deadline_ms > self.now_ms && !entry.stranded
    }

    fn enter(&mut self, position: usize, state: TcpState) {
        let timeouts = self.config.timeouts;
        let timeout: Duration = match state {
            TcpState::HalfOpen => timeouts.syn,
            TcpState::Established => timeouts.established,
            TcpState::Fin => timeouts.fin,
            TcpState::Reset | TcpState::Closed => timeouts.close,
        };
        let entry = &mut self.entries[position];
        entry.state = state;
        entry.deadline_ms = self.now_ms + u64::try_from(timeout.as_millis()).expect("timeouts are short");
        entry.entered = self.calls;
    }
}

enum Next {
    Same,
    State(TcpState),
    Gone,
}

fn next(state: TcpState, segment: Segment, generation: u32) -> Next {
    let new_syn = segment.opens() && segment.sequence != generation;
    match (state, segment) {
        (TcpState::Established, Segment { rst: true, .. }) => Next::State(TcpState::Reset),
        (TcpState::Fin, Segment { rst: true, .. }) => Next::State(TcpState::Closed),
        (_, Segment { rst: true, .. }) => Next::Same,
        (TcpState::Established, _) if new_syn => Next::Same,
        (_, _) if new_syn => Next::Gone,
        (TcpState::HalfOpen, Segment { syn: true, ack: false, .. }) => Next::State(TcpState::HalfOpen),
        (_, Segment { syn: true, .. } | Segment { ack: false, .. }) => Next::Same,
        (TcpState::Closed, _) => Next::State(TcpState::Closed),
        (TcpState::Fin, _) | (_, Segment { fin: true, .. }) => Next::State(TcpState::Fin),
        _ => Next::State(TcpState::Established),
    }
}
