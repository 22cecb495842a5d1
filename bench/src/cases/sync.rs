//! Synchronisation: 100,000 connections a second that live long enough to be announced, to two backups.

use super::Turn;
use crate::fixture::{LIFE, NOW, PORT, address, client, id};
use dpr_conntrack::sync::{ANNOUNCED_AFTER, Copied, Message, Record, RecordState, Replica, Stream, Young};
use dpr_conntrack::{Config, Segment, Table};
use dpr_model::{ClientSocket, FlowKey, Protocol, ServiceSocket, Timestamp};
use std::hint::black_box;
use std::time::Duration;

/// Between two connections.
const EVERY: Duration = Duration::from_micros(10);
/// How often the event loop sends, and acknowledges, in connections.
const SEND_EVERY: usize = 100;
const ACK_EVERY: usize = 2000;
/// What no stream here exceeds.
const BYTES_PER_SECOND: u64 = 1 << 30;

/// What a connection costs its director: it waits, is looked up, written into a batch for each of two backups, sent,
/// and acknowledged.
pub(super) fn send(turns: usize) -> Turn {
    let old_enough = (ANNOUNCED_AFTER.as_nanos() / EVERY.as_nanos()) as usize;
    let table = table_of(turns + old_enough);
    let mut young = Young::new(turns + old_enough);
    for number in 0..old_enough {
        young.add(flow(number), 0, at(number));
    }
    let mut streams = [0, 1].map(|_| Stream::new(BYTES_PER_SECOND, 0, NOW));
    let mut sent = [0_u64; 2];
    Box::new(move |turn| {
        let now = at(turn + old_enough);
        young.add(flow(turn + old_enough), 0, now);
        while let Some(record) = young.poll(&table, now) {
            let record = Copied::Connection(record);
            streams.iter_mut().for_each(|stream| stream.record(&record, now));
        }
        for (stream, sent) in streams.iter_mut().zip(&mut sent) {
            if turn % SEND_EVERY == 0 {
                while let Some(bytes) = stream.poll(|_, _| None, now) {
                    *sent += 1;
                    black_box(bytes);
                }
            }
            if turn % ACK_EVERY == 0 {
                stream.handle_ack(*sent, 0, false);
            }
        }
    })
}

/// What it costs a backup: it is read out of a batch and entered into the table.
pub(super) fn apply(turns: usize) -> Turn {
    let mut stream = Stream::new(BYTES_PER_SECOND, 0, NOW);
    let mut batches = Vec::new();
    for number in 0..turns {
        stream.record(&Copied::Connection(record(number)), at(number));
        while let Some(bytes) = stream.poll(|_, _| None, at(number)) {
            batches.push(bytes);
            stream.handle_ack(batches.len() as u64, 0, false);
        }
    }
    let mut batches = batches.into_iter();
    let mut table = table_with_room(turns);
    let mut replica = Replica::new();
    let mut applied = 0;
    Box::new(move |turn| {
        // One batch whenever all connections of those before have had their turn.
        while applied <= turn {
            let Some(bytes) = batches.next() else { return };
            let message = Message::from_bytes(&bytes).expect("written by a stream");
            if let Message::Batch { records, .. } = &message {
                applied += records.len();
            }
            let enter = |copied: &Copied| match copied {
                Copied::Connection(record) => record.apply(&mut table, false, at(turn)),
                Copied::Client(_) => true,
            };
            replica.handle(message, enter, at(turn));
            black_box(replica.poll_ack(at(turn)));
        }
    })
}

fn at(number: usize) -> Timestamp {
    NOW + EVERY * number as u32
}

fn flow(number: usize) -> FlowKey {
    let (source, port) = client(number as u32);
    FlowKey {
        protocol: Protocol::Tcp,
        client: ClientSocket { address: source.into(), port },
        service: ServiceSocket { address: address(0).into(), port: PORT },
    }
}

fn record(number: usize) -> Record {
    let (flow, real_server) = (flow(number), id(1));
    Record { flow, generation: 0, real_server, state: RecordState::Established, stand_in: None }
}

fn table_of(connections: usize) -> Table {
    let mut table = table_with_room(connections);
    for number in 0..connections {
        let ack = Segment { ack: true, sequence: 1, ..Segment::default() };
        table.insert(&flow(number), ack, id(1), NOW).expect("there is room");
    }
    table
}

fn table_with_room(connections: usize) -> Table {
    let capacity = connections.next_power_of_two() * 2;
    Table::new(Config { capacity, ..Config::with_seed([LIFE.0, 2]) })
}
