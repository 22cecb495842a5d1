//! The wire format of synchronisation.

use crate::link::{enter, page, record};
use dpr_conntrack::sync::{
    ClientRecord, Copied, MESSAGE_MAX, Message, MessageError, QUERY_MAX, Record, RecordState, Replica,
    Stream, named_len,
};
use dpr_conntrack::{Config, Stay, Table};
use dpr_model::{ClientSocket, FlowKey, NodeId, Protocol, ServiceSocket, Timestamp};
use proptest::prelude::*;
use std::net::IpAddr;
use std::time::Duration;

#[test]
fn an_ipv4_connection_is_21_bytes() {
    let bytes = Message::Answer(vec![record(0x0102, RecordState::Closed)]).to_bytes();

    let expected = [19, 8, 198, 51, 100, 0, 1, 2, 192, 0, 2, 1, 0, 80, 0, 0, 1, 2, 0, 0, 0, 9];
    assert_eq!(bytes, expected);
}

#[test]
fn a_translated_ipv4_connection_is_27_bytes() {
    let stand_in = Some("192.0.2.7:61000".parse().unwrap());
    let translated = Record { stand_in, ..record(0x0102, RecordState::Established) };
    let message = Message::Answer(vec![translated]);

    let expected =
        [19, 16, 198, 51, 100, 0, 1, 2, 192, 0, 2, 1, 0, 80, 0, 0, 1, 2, 0, 0, 0, 9, 192, 0, 2, 7, 238, 72];
    assert_eq!(message.to_bytes(), expected);
    assert_eq!(Message::from_bytes(&expected), Ok(message));
}

#[test]
fn words_about_ends_are_lists_of_connections() {
    let closed = record(0x0102, RecordState::Closed);
    let listed = [198, 51, 100, 0, 1, 2, 192, 0, 2, 1, 0, 80, 0, 0, 1, 2, 0, 0, 0, 9];
    let named = [&listed[..12], &[0; 8]].concat();

    for (message, kind, flags, rest) in [
        (Message::Ended(vec![closed.flow]), 20, 0, &named[..]),
        (Message::Inquiry(vec![record(0x0102, RecordState::Established)]), 21, 0, &listed[..]),
        (Message::Standing(vec![closed]), 22, 8, &listed[..]),
    ] {
        let expected = [&[kind, flags], rest].concat();
        assert_eq!(message.to_bytes(), expected);
        assert_eq!(Message::from_bytes(&expected), Ok(message));
        assert_eq!(expected.len(), 1 + named_len(&closed.flow));
    }
}

#[test]
fn a_client_is_told_of_in_batches_only() {
    let Record { flow, real_server, .. } = record(0, RecordState::Established);
    let (age, left) = (Duration::from_millis(7 * 16), Duration::from_secs(360));
    let stay = Stay { server: real_server, age, left, established: true };
    let client = Copied::Client(ClientRecord { client: flow, stay });
    let batch = Message::Batch { sequence: 1, oldest: 0, snapshot_began: None, records: vec![client] };
    let bytes = batch.to_bytes();

    let expected = [32, 198, 51, 100, 0, 0, 7, 192, 0, 2, 1, 0, 80, 0x00, 0x05, 0x7e, 0x40, 0, 0, 0, 9];
    assert_eq!(bytes[26..], expected);
    assert_eq!(Message::from_bytes(&bytes), Ok(batch));
    assert_eq!(Message::from_bytes(&[&[19], &expected[..]].concat()), Err(MessageError::Malformed));
}

#[test]
fn handshakes_that_have_begun_are_told_of_as_answers_are() {
    let message = Message::Begun(vec![record(0x0102, RecordState::Established)]);
    let expected = [23, 0, 198, 51, 100, 0, 1, 2, 192, 0, 2, 1, 0, 80, 0, 0, 1, 2, 0, 0, 0, 9];
    assert_eq!(message.to_bytes(), expected);
    assert_eq!(Message::from_bytes(&expected), Ok(message));
}

#[test]
fn the_longest_query_and_its_answer_fit_a_message() {
    let address = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
    let flow = FlowKey {
        protocol: Protocol::Udp,
        client: ClientSocket { address, port: 1 },
        service: ServiceSocket { address, port: 2 },
    };
    let stand_in = Some(std::net::SocketAddr::new(address, 3));
    let state = RecordState::Established;
    let record = Record { flow, generation: 3, real_server: NodeId(4), state, stand_in };

    for message in [Message::Query(vec![flow; QUERY_MAX]), Message::Answer(vec![record; QUERY_MAX])] {
        let bytes = message.to_bytes();
        assert!(bytes.len() <= MESSAGE_MAX);
        assert_eq!(Message::from_bytes(&bytes), Ok(message));
    }
}

#[test]
fn what_is_no_message_is_refused_with_a_reason() {
    let batch = Message::Batch { sequence: 1, oldest: 0, snapshot_began: Some(0), records: vec![] };
    let mut unknown_record = Message::Answer(vec![record(1, RecordState::Closed)]).to_bytes();
    unknown_record[1] |= 0x80;

    assert_eq!(Message::from_bytes(&batch.to_bytes()), Ok(batch.clone()));
    assert_eq!(Message::from_bytes(&batch.to_bytes()[..20]), Err(MessageError::Malformed));
    assert_eq!(Message::from_bytes(&unknown_record), Err(MessageError::Malformed));
    assert_eq!(Message::from_bytes(&[1]), Err(MessageError::UnknownKind(1)));
}

proptest! {
    #[test]
    fn nothing_that_comes_causes_a_panic(
        bytes: Vec<u8>,
        kind in 15..21_u8,
        numbers: [u64; 3],
        wants_snapshot: bool,
    ) {
        let _ = Message::from_bytes(&[[kind].as_slice(), &bytes].concat());
        let now = Timestamp::from_millis(1000);
        let mut table = Table::new(Config { capacity: 16, ..Config::with_seed([1, 2]) });
        let [sequence, oldest, began] = numbers;
        let records = vec![Copied::Connection(record(1, RecordState::Established))];
        let mut replica = Replica::new();
        for sequence in [sequence, u64::MAX, sequence / 2] {
            let records = records.clone();
            let batch = Message::Batch { sequence, oldest, snapshot_began: Some(began), records };
            replica.handle(batch, |copied| enter(&mut table, copied, now), now);
        }
        let mut stream = Stream::new(1_000_000, 0, now);
        stream.record(&Copied::Connection(record(1, RecordState::Established)), now);
        stream.handle_ack(sequence, oldest, wants_snapshot);
        let _ = stream.poll(|from, tell| page(&table, from, tell), now);
    }
}
