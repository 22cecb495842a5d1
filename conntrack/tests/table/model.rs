//! The table does what the naive model does, whatever is asked of it.

use crate::fixtures::{A, B, C, ISN, ack, at, config, flow, ipv4_ends, known};
use crate::reference::Reference;
use dpr_conntrack::{Config, Segment, Table, TcpState};
use dpr_model::NodeId;
use dpr_model::status::Connection;
use proptest::prelude::*;

const FLOWS: u32 = 12;
const NODES: [NodeId; 3] = [A, B, C];

#[derive(Clone, Debug)]
enum Call {
    Observe(u32, Segment),
    CarryOn(u32),
    Insert(u32, Segment, NodeId),
    Remove(u32),
    Close(u32, u32),
    Wait(u64),
    Expire(usize),
    RemoveRealServer(NodeId),
}

fn segments() -> impl Strategy<Value = Segment> {
    let sequences = prop_oneof![3 => Just(ISN), 3 => Just(ISN + 1), 1 => Just(77)];
    let flags = prop_oneof![
        3 => Just((true, false, false, false)),
        4 => Just((false, true, false, false)),
        2 => Just((false, true, true, false)),
        1 => Just((false, false, false, true)),
        1 => any::<(bool, bool, bool, bool)>(),
    ];
    (flags, sequences).prop_map(|((syn, ack, fin, rst), sequence)| Segment { syn, ack, fin, rst, sequence })
}

fn calls() -> impl Strategy<Value = Call> {
    let nodes = prop::sample::select(&NODES[..]);
    let waits = prop_oneof![0..1500_u64, 1000..70_000_u64, 70_000..1_200_000_u64, 0..5_000_000_000_u64];
    prop_oneof![
        8 => (0..FLOWS, segments()).prop_map(|(flow, segment)| Call::Observe(flow, segment)),
        4 => (0..FLOWS).prop_map(Call::CarryOn),
        8 => (0..FLOWS, segments(), nodes.clone()).prop_map(|(flow, segment, node)| Call::Insert(flow, segment, node)),
        1 => (0..FLOWS).prop_map(Call::Remove),
        2 => (0..FLOWS, prop_oneof![Just(ISN), Just(77)]).prop_map(|(flow, generation)| Call::Close(flow, generation)),
        5 => waits.prop_map(Call::Wait),
        3 => (0..6_usize).prop_map(Call::Expire),
        1 => nodes.prop_map(Call::RemoveRealServer),
    ]
}

fn connections(table: &Table, now_ms: u64) -> Vec<Connection> {
    let mut connections: Vec<Connection> = table.iter(at(now_ms)).collect();
    connections.sort_by_key(|connection| connection.flow);
    connections
}

/// Makes one call on both. Calls that change nothing but room are compared only if `exact`.
fn call_both(call: &Call, table: &mut Table, reference: &mut Reference, exact: bool) {
    let now = at(reference.now_ms());
    tell_time(table, reference);
    match *call {
        Call::Observe(number, segment) => {
            let seen = table.observe(&flow(number), segment, now);
            assert_eq!(seen, reference.observe(&flow(number), segment));
        }
        Call::CarryOn(number) => {
            let Some((client, service)) = ipv4_ends(&flow(number)) else { return };
            // What has more to do is observed, and nothing else has changed.
            if let Some(real_server) = table.carry_on(client, service, now) {
                let seen = reference.observe(&flow(number), ack(ISN + 1));
                assert_eq!(seen, known(real_server, TcpState::Established));
            }
        }
        Call::Insert(number, segment, node) => {
            let inserted = table.insert(&flow(number), segment, node, now);
            assert_eq!(inserted.is_ok(), reference.insert(&flow(number), segment, node));
        }
        Call::Remove(number) => {
            assert_eq!(table.remove(&flow(number)), reference.remove(&flow(number)));
        }
        Call::Close(number, generation) => {
            let closed = table.close(&flow(number), generation, now);
            assert_eq!(closed, reference.close(&flow(number), generation));
        }
        Call::Wait(millis) => reference.wait(millis),
        Call::Expire(_) if exact => assert_eq!(table.expire(now, usize::MAX), reference.expire()),
        Call::Expire(budget) => assert!(table.expire(now, budget) <= budget),
        Call::RemoveRealServer(node) => {
            let stranded = (table.remove_real_server(node), reference.remove_real_server(node));
            assert!(!exact || stranded.0 == stranded.1, "{stranded:?}");
        }
    }
}

/// Some calls take no time of their own: the table goes by the last that it was told.
fn tell_time(table: &mut Table, reference: &Reference) {
    assert_eq!(table.expire(at(reference.now_ms()), 0), 0);
}

fn assert_same_answers(table: &mut Table, reference: &Reference) {
    assert_eq!(connections(table, reference.now_ms()), reference.connections());
    tell_time(table, reference);
    for number in 0..FLOWS {
        assert_eq!(table.get(&flow(number)), reference.get(&flow(number)));
    }
    for node in NODES {
        assert_eq!(table.sent_to(node), reference.sent_to(node));
    }
}

fn assert_same_room(table: &Table, reference: &Reference) {
    assert_eq!(table.status(), reference.status());
    for node in NODES {
        assert_eq!(table.open_at(node) as usize, reference.open_at(node));
        assert_eq!(table.active_at(node) as usize, reference.active_at(node));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_crowded_table_does_what_the_model_does(calls in prop::collection::vec(calls(), 1..200)) {
        let config = Config { capacity: 6, half_open_capacity: 3, ..config() };
        let (mut table, mut reference) = (Table::new(config), Reference::new(config));

        for call in &calls {
            call_both(call, &mut table, &mut reference, true);
            assert_same_answers(&mut table, &reference);
            assert_same_room(&table, &reference);
        }
    }

    #[test]
    fn how_much_is_swept_when_changes_no_answer(calls in prop::collection::vec(calls(), 1..200)) {
        let (mut table, mut reference) = (Table::new(config()), Reference::new(config()));

        for call in &calls {
            call_both(call, &mut table, &mut reference, false);
            assert_same_answers(&mut table, &reference);
        }
    }

    #[test]
    fn the_same_calls_give_the_same_table_and_another_seed_the_same_answers(
        calls in prop::collection::vec(calls(), 1..200),
        hash_seed: [u64; 2],
    ) {
        let run = |config: Config| {
            let (mut table, mut reference) = (Table::new(config), Reference::new(config));
            for call in &calls {
                call_both(call, &mut table, &mut reference, false);
            }
            (table.iter(at(reference.now_ms())).collect::<Vec<_>>(), table.status())
        };

        let first = run(config());

        prop_assert_eq!(&run(config()), &first);
        prop_assert_eq!(&run(Config { hash_seed, ..config() }), &first);
    }
}
