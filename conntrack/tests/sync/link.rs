//! A director's table and a backup's, joined by a stream over a lossy link on a virtual clock.

use dpr_conntrack::sync::{Copied, Message, Record, RecordState, Replica, SNAPSHOT_PAGE, Stream};
use dpr_conntrack::{Config, Segment, Table};
use dpr_model::{ClientSocket, FlowKey, NodeId, Protocol, ServiceSocket, Timestamp};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

pub(crate) const SERVER: NodeId = NodeId(9);
const STEP: Duration = Duration::from_millis(5);

pub(crate) struct Link {
    pub(crate) now: Timestamp,
    pub(crate) director: Table,
    pub(crate) backup: Table,
    pub(crate) stream: Stream,
    pub(crate) replica: Replica,
    pub(crate) loss_permille: u64,
    pub(crate) delay_max_ms: u64,
    /// Bytes sent to the backup.
    pub(crate) sent_bytes: u64,
    in_flight: BTreeMap<(Timestamp, u64), Vec<u8>>,
    random: u64,
}

impl Link {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let table = || Table::new(Config { capacity: 1 << 17, ..Config::with_seed([1, 2]) });
        Self {
            now,
            director: table(),
            backup: table(),
            stream: Stream::new(bytes_per_second, 0, now),
            replica: Replica::new(),
            loss_permille: 0,
            delay_max_ms: 1,
            sent_bytes: 0,
            in_flight: BTreeMap::new(),
            random: 7,
        }
    }

    /// A connection that is old enough.
    pub(crate) fn establish(&mut self, number: u32, generation: u32) {
        self.insert(number, generation);
        let record = Record { generation, ..record(number, RecordState::Established) };
        self.stream.record(&Copied::Connection(record), self.now);
    }

    /// A connection that the stream is not told of.
    pub(crate) fn insert(&mut self, number: u32, generation: u32) {
        let ack = Segment { ack: true, sequence: generation.wrapping_add(1), ..Segment::default() };
        self.director.insert(&flow(number), ack, SERVER, self.now).expect("there is room");
    }

    pub(crate) fn close(&mut self, number: u32, generation: u32) {
        self.director.close(&flow(number), generation, self.now);
        let record = Record { generation, ..record(number, RecordState::Closed) };
        self.stream.record(&Copied::Connection(record), self.now);
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now = self.now + STEP;
            while let Some(bytes) = self.stream.poll(|from, tell| page(&self.director, from, tell), self.now)
            {
                self.sent_bytes += bytes.len() as u64;
                self.launch(bytes);
            }
            while let Some(entry) = self.in_flight.first_entry()
                && entry.key().0 <= self.now
            {
                let bytes = entry.remove();
                self.arrive(&bytes);
            }
            if let Some(ack) = self.replica.poll_ack(self.now) {
                self.launch(ack);
            }
        }
    }

    /// What the stream says next, which gets lost.
    pub(crate) fn next_message(&mut self) -> Message {
        self.now = self.now + 5 * STEP;
        let bytes = self.stream.poll(|_, _| None, self.now).expect("something to say");
        Message::from_bytes(&bytes).expect("written by a stream")
    }

    /// True if the backup knows exactly the connections that the director has.
    pub(crate) fn agree_about(&self, numbers: std::ops::Range<u32>) -> bool {
        numbers.into_iter().all(|number| {
            let known = |table: &Table| {
                let entry = table.get(&flow(number)).and_then(|entry| Record::of(flow(number), entry));
                entry.filter(|record| record.state == RecordState::Established)
            };
            known(&self.director) == known(&self.backup)
        })
    }

    fn launch(&mut self, bytes: Vec<u8>) {
        if self.random(1000) >= self.loss_permille {
            let delay = Duration::from_millis(self.random(self.delay_max_ms + 1));
            let key = (self.now + delay, self.random(u64::MAX));
            self.in_flight.insert(key, bytes);
        }
    }

    fn arrive(&mut self, bytes: &[u8]) {
        match Message::from_bytes(bytes).expect("written by a stream or a replica") {
            Message::Ack { next, present, wants_snapshot } => {
                self.stream.handle_ack(next, present, wants_snapshot);
            }
            batch => {
                self.replica.handle(batch, |copied| enter(&mut self.backup, copied, self.now), self.now);
            }
        }
    }

    /// Xorshift64* (Vigna 2016).
    fn random(&mut self, bound: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8) % bound
    }
}

/// All connections of a table, as a stream wants them.
pub(crate) fn page(table: &Table, from: usize, tell: &mut dyn FnMut(&Copied)) -> Option<usize> {
    let page = table.page(from, SNAPSHOT_PAGE);
    let records = page.entries.filter_map(|(flow, entry)| Record::of(flow, entry));
    records.for_each(|record| tell(&Copied::Connection(record)));
    page.next
}

/// As a backup does that decides about nothing.
pub(crate) fn enter(table: &mut Table, copied: &Copied, now: Timestamp) -> bool {
    match copied {
        Copied::Connection(record) => record.apply(table, false, now),
        Copied::Client(_) => true,
    }
}

pub(crate) fn flow(number: u32) -> FlowKey {
    FlowKey {
        protocol: Protocol::Tcp,
        client: ClientSocket {
            address: IpAddr::V4((0xc633_6400 + (number >> 12)).into()),
            port: number as u16,
        },
        service: ServiceSocket { address: [192, 0, 2, 1].into(), port: 80 },
    }
}

pub(crate) fn record(number: u32, state: RecordState) -> Record {
    Record { flow: flow(number), generation: number, real_server: SERVER, state, stand_in: None }
}
