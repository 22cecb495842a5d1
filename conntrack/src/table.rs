//! The table itself: what is known about a packet's connection, and what becomes of its entry.

mod answers;
mod page;
mod taken_over;

pub use answers::{EntryView, Observation, TableFull};
pub use page::{Page, Silence};

use crate::buckets::Buckets;
use crate::config::{Config, TIMEOUT_MAX};
use crate::expiry::{Links, Schedule};
use crate::key::{Ipv4Key, Key};
use crate::real_servers::RealServers;
use crate::slab::{Deadline, Entry, EntryIndex, Slab};
use crate::tcp_state::{Segment, Step, TcpState};
use dpr_model::status::{Connection, ConntrackStatus};
use dpr_model::{FlowKey, NodeId, Protocol, Timestamp};
use std::net::SocketAddrV4;
use std::time::Duration;

/// Entries that an insertion into a full table looks at in the hope that some are due.
const SWEEP_WHEN_FULL: usize = 64;

/// Longer than any timeout; no entry is live when nobody has called for so long.
const SILENCE_MAX_MS: u64 = TIMEOUT_MAX.as_secs() * 1000 + 1000;

/// Timeouts by numbers of the protocol and the state, milliseconds.
type TimeoutsMs = [[u64; TcpState::ALL.len()]; 2];

/// Connections and their real servers. Not shared between threads; every call takes the time.
///
/// A timestamp earlier than one of a previous call counts as that one. A connection is gone for every caller with its
/// deadline; its room is given back by [`Table::expire`], within a second.
#[derive(Debug)]
pub struct Table {
    slab: Slab,
    buckets: Buckets,
    schedule: Schedule,
    real_servers: RealServers,
    half_open_capacity: usize,
    timeouts_ms: TimeoutsMs,
    now_ms: u64,
    /// When the next millisecond begins.
    next_ms: Timestamp,
    /// Where the sweep for stranded entries stands.
    swept: Option<EntryIndex>,
    half_open_evicted: u64,
    refused_full: u64,
}

impl Table {
    /// An empty table. Reserves all memory that it will ever need for connections.
    pub fn new(config: Config) -> Self {
        let capacity = config.capacity_bounded();
        Self {
            slab: Slab::new(capacity),
            buckets: Buckets::new(capacity, config.hash_seed),
            schedule: Schedule::new(),
            real_servers: RealServers::default(),
            half_open_capacity: config.half_open_capacity_bounded(),
            timeouts_ms: config.timeouts.by_state_ms(),
            now_ms: 0,
            next_ms: Timestamp::default(),
            swept: None,
            half_open_evicted: 0,
            refused_full: 0,
        }
    }

    /// What the table knows about a client's packet, after the packet has advanced the connection's state.
    ///
    /// A SYN of another generation on a connection that is half-open or closing removes the entry and gives
    /// [`Observation::Unknown`]. On an established one it goes to the same real server and changes nothing: if the
    /// client did restart, the real server's challenge ACK makes it send a reset (RFC 5961 section 4), which clears
    /// the way for its next SYN.
    #[inline(always)]
    pub fn observe(&mut self, flow: &FlowKey, segment: Segment, now: Timestamp) -> Observation {
        self.advance(now);
        let Some((index, before)) = self.find(&Key::from(flow)) else { return Observation::Unknown };
        let entry = &mut self.slab[index];
        let (real_server, generation) = (entry.real_server, entry.generation);
        let state = match before.step(segment, generation) {
            Step::Keep => before,
            Step::Enter(state) => {
                let deadline = Self::deadline(&self.timeouts_ms, self.now_ms, entry.key.protocol(), state);
                // Nearly every packet only puts the deadline off, and the wheel notices when it gets there.
                if state == before && state != TcpState::HalfOpen && !deadline.is_before(entry.deadline) {
                    entry.deadline = deadline;
                } else {
                    self.enter(index, before, state);
                }
                state
            }
            Step::Replace => {
                self.release(index);
                return Observation::Unknown;
            }
        };
        Observation::Known {
            real_server: self.real_servers.node(real_server),
            state,
            retransmitted_syn: segment.opens() && segment.sequence == generation,
            handshake_completed: before == TcpState::HalfOpen && state != TcpState::HalfOpen,
        }
    }

    /// The real server of an established TCP connection between IPv4 addresses, which a segment with ACK and without SYN,
    /// FIN and RST carries on: [`Self::observe`] in short. `None`, and no entry has changed, where that has more to do.
    #[inline(always)]
    pub fn carry_on(
        &mut self,
        client: SocketAddrV4,
        service: SocketAddrV4,
        now: Timestamp,
    ) -> Option<NodeId> {
        const STATE: TcpState = TcpState::Established;
        self.advance(now);
        let key = Ipv4Key::new(Protocol::Tcp, client, service);
        let index = self.buckets.find_ipv4(&self.slab, &key)?;
        let entry = &mut self.slab[index];
        let deadline = Self::deadline(&self.timeouts_ms, self.now_ms, Protocol::Tcp, STATE);
        if entry.state != Some(STATE) || !entry.deadline.is_after(self.now_ms) {
            return None;
        }
        if deadline.is_before(entry.deadline) {
            return None;
        }
        let real_server = self.real_servers.present(entry.real_server)?;
        entry.deadline = deadline;
        Some(real_server)
    }

    /// Records a connection that begins, for this table, with `segment`. An entry of the same flow is replaced.
    ///
    /// A connection that is taken over from another node at known generation g is inserted with an ACK segment of
    /// sequence number g + 1.
    ///
    /// When half-open connections have reached their bound, or the table its capacity, the oldest half-open one goes.
    ///
    /// # Errors
    ///
    /// [`TableFull`] if there is no half-open connection to go; counted as `refused_full`.
    pub fn insert(
        &mut self,
        flow: &FlowKey,
        segment: Segment,
        real_server: NodeId,
        now: Timestamp,
    ) -> Result<(), TableFull> {
        self.advance(now);
        let inserted = self.try_insert(Key::from(flow), segment, real_server);
        if inserted.is_err() {
            self.refused_full += 1;
        }
        inserted
    }

    /// As [`Self::insert`], but displaces nobody. False, and not counted, if that leaves no room.
    pub fn insert_if_room(
        &mut self,
        flow: &FlowKey,
        segment: Segment,
        real_server: NodeId,
        now: Timestamp,
    ) -> bool {
        self.advance(now);
        let is_half_open = TcpState::initial(segment) == TcpState::HalfOpen;
        if self.slab.is_full() || is_half_open && self.schedule.half_open() == self.half_open_capacity {
            return false;
        }
        self.try_insert(Key::from(flow), segment, real_server).is_ok()
    }

    /// Forgets a connection. True if the table had it.
    pub fn remove(&mut self, flow: &FlowKey) -> bool {
        let found = self.find(&Key::from(flow));
        if let Some((index, _)) = found {
            self.release(index);
        }
        found.is_some()
    }

    /// The real server reports that a connection is over. True if the table had it in this generation; otherwise the
    /// report is about an earlier connection with the same sockets and changes nothing.
    pub fn close(&mut self, flow: &FlowKey, generation: u32, now: Timestamp) -> bool {
        self.advance(now);
        let found =
            self.find(&Key::from(flow)).filter(|&(index, _)| self.slab[index].generation == generation);
        if let Some((index, before)) = found {
            self.enter(index, before, TcpState::Closed);
        }
        found.is_some()
    }

    /// The real server still has a connection: it is remembered as if its client had just spoken. True if the table had it in
    /// this generation.
    pub fn renew(&mut self, flow: &FlowKey, generation: u32, now: Timestamp) -> bool {
        self.advance(now);
        let found = self.find(&Key::from(flow)).filter(|&(index, state)| {
            self.slab[index].generation == generation && state != TcpState::HalfOpen
        });
        if let Some((index, state)) = found {
            self.enter(index, state, state);
        }
        found.is_some()
    }

    /// Gives back the room of connections that are over or whose real server was removed. Returns how many.
    ///
    /// Looks at no more than `budget` entries. Call it once a second or more often; [`Self::next_expiry`] says
    /// whether anything was left over.
    pub fn expire(&mut self, now: Timestamp, budget: usize) -> usize {
        self.advance(now);
        self.sweep(budget)
    }

    /// When [`Self::expire`] may next find something: not later than that, perhaps earlier. `None` if the table is
    /// empty. A time in the past means that there is work left.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let due_ms = self.schedule.next_ms(&self.slab, self.now_ms)?;
        let due_ms = if self.real_servers.stranded() > 0 { due_ms.min(self.now_ms) } else { due_ms };
        Some(Timestamp::from_millis(due_ms))
    }

    /// The entry of a flow, as of the latest time that the table was told.
    pub fn get(&self, flow: &FlowKey) -> Option<EntryView> {
        let entry = &self.slab[self.buckets.find(&self.slab, &Key::from(flow))?];
        let state = entry.state.filter(|_| self.is_live(entry))?;
        let real_server = self.real_servers.node(entry.real_server);
        Some(EntryView { real_server, state, generation: entry.generation })
    }

    /// Every connection, in no particular order that is the same in every run. Looks at the whole table.
    pub fn iter(&self, now: Timestamp) -> impl Iterator<Item = Connection> {
        let now_ms = now.as_millis().max(self.now_ms);
        self.slab.iter().filter(|(_, entry)| self.is_live(entry)).filter_map(move |(state, entry)| {
            let left_ms =
                entry.deadline.time_ms(self.now_ms).checked_sub(now_ms).filter(|left_ms| *left_ms > 0)?;
            Some(Connection {
                flow: entry.key.flow(),
                state: state.label().into(),
                real_server: self.real_servers.node(entry.real_server),
                generation: entry.generation,
                expires_in_s: u32::try_from(left_ms.div_ceil(1000)).unwrap_or(u32::MAX),
            })
        })
    }

    /// Connections ever inserted for a real server.
    ///
    /// Never decreases, not when they expire nor when the node is removed and returns. Whoever compares it with what
    /// the node has counted since its own start takes the difference to the value at that start.
    pub fn sent_to(&self, node: NodeId) -> u64 {
        self.real_servers.sent_to(node)
    }

    /// Entries in use for a real server; 0 after its removal.
    pub fn open_at(&self, node: NodeId) -> u32 {
        self.real_servers.open_at(node)
    }

    /// Of those, established: what IPVS calls active connections.
    pub fn active_at(&self, node: NodeId) -> u32 {
        self.real_servers.active_at(node)
    }

    /// A real server is gone for good, and its connections with it. Returns how many there were.
    ///
    /// Constant work, however many they are: from now on none of them is known, and [`Self::expire`] gives back their
    /// room. The node may be inserted for again at once.
    pub fn remove_real_server(&mut self, node: NodeId) -> usize {
        self.real_servers.end(node)
    }

    /// Fill and refusals.
    pub fn status(&self) -> ConntrackStatus {
        ConntrackStatus {
            capacity: self.slab.capacity() as u64,
            entries: self.slab.len() as u64,
            half_open: self.schedule.half_open() as u64,
            half_open_evicted: self.half_open_evicted,
            refused_full: self.refused_full,
        }
    }

    /// How long it remembers a silent flow in this state.
    pub fn timeout_of(&self, protocol: Protocol, state: TcpState) -> Duration {
        Duration::from_millis(self.timeouts_ms[protocol as usize][state as usize])
    }

    /// The latest time that the table was told.
    pub fn latest(&self) -> Timestamp {
        Timestamp::from_millis(self.now_ms)
    }

    /// Bytes that the table has allocated.
    pub fn memory_bytes(&self) -> usize {
        self.slab.memory_bytes()
            + self.buckets.memory_bytes()
            + self.schedule.memory_bytes()
            + self.real_servers.memory_bytes()
    }

    fn try_insert(&mut self, key: Key, segment: Segment, node: NodeId) -> Result<(), TableFull> {
        let real_server = self.real_servers.intern(node).ok_or(TableFull::RealServers { node })?;
        if let Some((index, _)) = self.find(&key) {
            self.release(index);
        }
        let state = TcpState::initial(segment);
        self.make_room(state);
        let entry = Entry {
            key,
            state: Some(state),
            real_server,
            generation: segment.generation(),
            deadline: Self::deadline(&self.timeouts_ms, self.now_ms, key.protocol(), state),
            chain_next: None,
            links: Links::NONE,
        };
        let index = self.slab.insert(entry).ok_or(TableFull::Entries { capacity: self.slab.capacity() })?;
        self.buckets.insert(&mut self.slab, index);
        self.schedule.file(&mut self.slab, index, self.now_ms);
        self.real_servers.open(real_server);
        self.real_servers.count_active(real_server, false, state == TcpState::Established);
        Ok(())
    }

    fn make_room(&mut self, state: TcpState) {
        if state == TcpState::HalfOpen && self.schedule.half_open() == self.half_open_capacity {
            self.evict_oldest_half_open();
        }
        if self.slab.is_full() {
            self.sweep(SWEEP_WHEN_FULL);
        }
        if self.slab.is_full() {
            self.evict_oldest_half_open();
        }
    }

    fn evict_oldest_half_open(&mut self) {
        let Some(index) = self.schedule.oldest_half_open() else { return };
        if self.is_live(&self.slab[index]) {
            self.half_open_evicted += 1;
        }
        self.release(index);
    }

    /// The live entry of a key and its state; a dead one is released.
    #[inline]
    fn find(&mut self, key: &Key) -> Option<(EntryIndex, TcpState)> {
        let index = self.buckets.find(&self.slab, key)?;
        let entry = &self.slab[index];
        if !self.is_live(entry) {
            self.release(index);
            return None;
        }
        Some((index, entry.state?))
    }

    #[inline]
    fn is_live(&self, entry: &Entry) -> bool {
        entry.deadline.is_after(self.now_ms) && !self.real_servers.is_over(entry.real_server)
    }

    fn enter(&mut self, index: EntryIndex, before: TcpState, state: TcpState) {
        let established = |state| state == TcpState::Established;
        let real_server = self.slab[index].real_server;
        self.real_servers.count_active(real_server, established(before), established(state));
        let protocol = self.slab[index].key.protocol();
        let deadline = Self::deadline(&self.timeouts_ms, self.now_ms, protocol, state);
        if before != TcpState::HalfOpen && !deadline.is_before(self.slab[index].deadline) {
            // The wheel notices when it gets there.
            self.slab[index].state = Some(state);
            self.slab[index].deadline = deadline;
            return;
        }
        self.schedule.withdraw(&mut self.slab, index);
        self.slab[index].state = Some(state);
        self.slab[index].deadline = deadline;
        self.schedule.file(&mut self.slab, index, self.now_ms);
    }

    #[inline]
    fn deadline(timeouts_ms: &TimeoutsMs, now_ms: u64, protocol: Protocol, state: TcpState) -> Deadline {
        Deadline::at(now_ms.wrapping_add(timeouts_ms[protocol as usize][state as usize]))
    }

    fn sweep(&mut self, mut budget: usize) -> usize {
        let before = self.slab.len();
        while let Some(index) = self.schedule.next_due(&mut self.slab, self.now_ms, &mut budget) {
            self.release(index);
        }
        while budget > 0 && self.real_servers.stranded() > 0 {
            budget -= 1;
            let Some((index, entry)) = self.slab.after(self.swept) else { break };
            self.swept = Some(index);
            if entry.is_some_and(|entry| self.real_servers.is_over(entry.real_server)) {
                self.release(index);
            }
        }
        before - self.slab.len()
    }

    fn release(&mut self, index: EntryIndex) {
        let was_active = self.slab[index].state == Some(TcpState::Established);
        self.real_servers.count_active(self.slab[index].real_server, was_active, false);
        self.real_servers.close(self.slab[index].real_server);
        self.schedule.withdraw(&mut self.slab, index);
        self.buckets.remove(&mut self.slab, index);
        self.slab.remove(index);
    }

    #[inline(always)]
    fn advance(&mut self, now: Timestamp) {
        // Packets that came together have one time.
        if now >= self.next_ms {
            self.advance_to_ms(now.as_millis());
        }
    }

    #[inline(never)]
    fn advance_to_ms(&mut self, now_ms: u64) {
        if now_ms > self.now_ms + SILENCE_MAX_MS {
            self.end_silence();
        }
        self.now_ms = self.now_ms.max(now_ms);
        self.next_ms = Timestamp::from_millis(self.now_ms + 1);
    }

    /// Everything is due, and soon a deadline so far back could not be told from one to come.
    #[cold]
    fn end_silence(&mut self) {
        self.now_ms += SILENCE_MAX_MS;
        self.sweep(usize::MAX);
    }
}
