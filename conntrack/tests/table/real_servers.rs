//! What is counted per real server, and what its removal does.

use crate::fixtures::{A, B, C, ISN, ack, at, at_s, establish, flow, known, syn, table};
use dpr_conntrack::{Observation, TcpState};

#[test]
fn connections_are_counted_for_ever_and_while_they_are_open() {
    let mut table = table();
    establish(&mut table, 1, A, at(0));
    establish(&mut table, 2, A, at(0));
    establish(&mut table, 3, B, at(0));
    table.remove(&flow(1));

    assert_eq!((table.sent_to(A), table.sent_to(B), table.sent_to(C)), (2, 1, 0));
    assert_eq!((table.open_at(A), table.open_at(B), table.open_at(C)), (1, 1, 0));

    table.expire(at_s(2000), usize::MAX);

    assert_eq!((table.sent_to(A), table.open_at(A)), (2, 0));
}

#[test]
fn connections_of_a_removed_real_server_are_unknown_at_once() {
    let mut table = table();
    establish(&mut table, 1, A, at(0));
    establish(&mut table, 2, B, at(0));

    assert_eq!(table.remove_real_server(A), 1);

    assert_eq!((table.get(&flow(1)), table.open_at(A)), (None, 0));
    assert_eq!(table.iter(at(0)).count(), 1);
    assert_eq!(table.observe(&flow(1), ack(ISN + 1), at(1)), Observation::Unknown);
    assert_eq!(table.observe(&flow(2), ack(ISN + 1), at(1)), known(B, TcpState::Established));
    assert!(!table.close(&flow(1), ISN, at(1)));
}

#[test]
fn a_returning_real_server_is_usable_at_once_and_its_old_connections_stay_gone() {
    let mut table = table();
    establish(&mut table, 1, A, at(0));
    establish(&mut table, 2, A, at(0));
    table.remove_real_server(A);

    table.insert(&flow(3), syn(ISN), A, at(10)).unwrap();

    assert_eq!(table.observe(&flow(1), syn(77), at(20)), Observation::Unknown);
    assert_eq!(table.observe(&flow(2), ack(ISN + 1), at(20)), Observation::Unknown);
    assert!(table.get(&flow(3)).is_some());
    assert_eq!((table.sent_to(A), table.open_at(A)), (3, 1));
}

#[test]
fn the_room_of_a_removed_real_server_is_given_back_in_bounded_steps() {
    let mut table = table();
    for number in 0..100 {
        establish(&mut table, number, if number < 60 { A } else { B }, at(0));
    }
    table.remove_real_server(A);
    assert_eq!(table.next_expiry(), Some(at(0)), "there is work at once");

    let freed: Vec<usize> = (0..4).map(|_| table.expire(at(1), 25)).collect();

    assert_eq!(freed, [25, 25, 10, 0]);
    assert_eq!(table.status().entries, 40);
}

#[test]
fn a_full_table_of_a_dead_real_server_makes_room() {
    let mut table = table();
    for number in 0..1024 {
        establish(&mut table, number, A, at(0));
    }
    table.remove_real_server(A);

    for number in 1024..2048 {
        establish(&mut table, number, B, at(1));
    }

    assert_eq!((table.open_at(B), table.status().refused_full), (1024, 0));
}

#[test]
fn a_real_server_that_comes_and_goes_never_runs_out_of_numbers() {
    let mut table = table();

    for round in 0..100_000_u32 {
        table.insert(&flow(round % 64), ack(ISN), A, at(0)).unwrap();
        table.remove_real_server(A);
    }

    assert_eq!((table.sent_to(A), table.open_at(A)), (100_000, 0));
    assert!(table.memory_bytes() < 64 * 1024 + 32 * 1024);
}
