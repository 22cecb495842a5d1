//! Copies of connections: messages of any bytes to a node that is both director and backup.

use crate::input::Input;
use dpr_conntrack::sync::{
    Copied, MESSAGE_MAX, Message, Record, RecordState, Replica, SNAPSHOT_PAGE, Stream, answer,
};
use dpr_conntrack::{Config, Table};
use dpr_model::Timestamp;
use std::time::Duration;

const CAPACITY: usize = 32;
/// What a stream may send in a second, bytes.
const BANDWIDTH: u64 = 100_000;
/// More messages than bandwidth and clock allow at a time.
const MESSAGES_MAX: usize = 1000;

/// Takes in messages of any bytes. Each that is understood is written as it was understood, the table stays within
/// its limit, and what the node sends in turn can be read by the next one.
///
/// Bytes: for each message milliseconds before it (2), length (2), bytes.
///
/// # Panics
/// When the rule is broken.
pub fn sync(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut now = Timestamp::from_millis(1000);
    let mut node = Node::new(now);
    let mut next = Node::new(now);
    while !input.is_empty() {
        now = now + Duration::from_millis(input.u16().into());
        let bytes = input.message();
        let Ok(message) = Message::from_bytes(bytes) else { continue };
        assert_eq!(Message::from_bytes(&message.to_bytes()), Ok(message.clone()));
        for reply in node.handle(message, now) {
            next.understands(&reply, now);
        }
        for sent in node.send(now) {
            next.understands(&sent, now);
        }
        if let Some(acknowledgement) = next.replica.poll_ack(now) {
            node.understands(&acknowledgement, now);
        }
    }
}

struct Node {
    table: Table,
    replica: Replica,
    stream: Stream,
}

impl Node {
    fn new(now: Timestamp) -> Self {
        let config = Config { capacity: CAPACITY, ..Config::with_seed([1, 2]) };
        Self { table: Table::new(config), replica: Replica::new(), stream: Stream::new(BANDWIDTH, 0, now) }
    }

    /// Takes in a message of its like.
    fn understands(&mut self, bytes: &[u8], now: Timestamp) {
        assert!(bytes.len() <= MESSAGE_MAX, "{} bytes", bytes.len());
        let message = Message::from_bytes(bytes).expect("what a node sends can be read");
        self.handle(message, now);
    }

    fn handle(&mut self, message: Message, now: Timestamp) -> Vec<Vec<u8>> {
        let mut replies = Vec::new();
        match message {
            Message::Batch { .. } => {
                let table = &mut self.table;
                let enter = |copied: &Copied| match copied {
                    Copied::Connection(record) => record.apply(table, false, now),
                    Copied::Client(_) => true,
                };
                self.replica.handle(message, enter, now);
            }
            Message::Ack { next, present, wants_snapshot } => {
                self.stream.handle_ack(next, present, wants_snapshot);
            }
            Message::Query(flows) => {
                let records = flows.iter().filter_map(|flow| answer(&self.table, flow)).collect();
                replies.push(Message::Answer(records).to_bytes());
            }
            Message::Answer(records) => {
                for record in records {
                    record.apply(&mut self.table, false, now);
                    self.stream.record(&Copied::Connection(record), now);
                }
            }
            // Only names: which connections they were, a director finds out.
            Message::Ended(_) => {}
            Message::Inquiry(records) => replies.push(Message::Standing(records).to_bytes()),
            Message::Standing(records) => {
                for Record { flow, generation, state, .. } in records {
                    match state {
                        RecordState::Established => self.table.renew(&flow, generation, now),
                        RecordState::Closed => self.table.close(&flow, generation, now),
                    };
                }
            }
            Message::Begun(records) => {
                records.iter().for_each(|record| record.begin(&mut self.table, now));
            }
        }
        self.table.expire(now, usize::MAX);
        let entries = self.table.status().entries;
        assert!(entries <= CAPACITY as u64, "{entries} entries");
        // What has just expired may be swept later.
        assert!(self.table.iter(now).count() as u64 <= entries);
        replies
    }

    fn send(&mut self, now: Timestamp) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        let table = &self.table;
        let page = |from, tell: &mut dyn FnMut(&Copied)| {
            let page = table.page(from, SNAPSHOT_PAGE);
            let records = page.entries.filter_map(|(flow, entry)| Record::of(flow, entry));
            records.for_each(|record| tell(&Copied::Connection(record)));
            page.next
        };
        while let Some(batch) = self.stream.poll(page, now) {
            sent.push(batch);
            assert!(sent.len() < MESSAGES_MAX, "a stream without an end");
        }
        sent.extend(self.replica.poll_ack(now));
        sent
    }
}
