//! What strangers can do to the table, and what they cannot.

use crate::fixtures::{A, B, ISN, ack, at, at_s, config, establish, flow, syn};
use dpr_conntrack::{Config, Observation, Table, TableFull};

const ESTABLISHED: u32 = 500;
const FLOOD: u32 = 200_000;

/// 500 established connections among 1024 entries, of which 64 may be half-open.
fn busy_table() -> Table {
    let mut table = Table::new(config());
    for number in 0..ESTABLISHED {
        establish(&mut table, number, A, at(0));
    }
    table
}

#[test]
fn a_syn_flood_cannot_displace_established_connections() {
    let mut table = busy_table();

    for number in 0..FLOOD {
        table.insert(&flow(ESTABLISHED + number), syn(number), B, at(u64::from(number) / 100)).unwrap();
    }

    let status = table.status();
    assert_eq!((status.entries, status.half_open), (u64::from(ESTABLISHED) + 64, 64));
    assert_eq!((status.half_open_evicted, status.refused_full), (u64::from(FLOOD) - 64, 0));
    assert_eq!((table.open_at(A), table.open_at(B)), (ESTABLISHED, 64));
    for number in 0..ESTABLISHED {
        let seen = table.observe(&flow(number), ack(ISN + 1), at_s(3));
        assert!(matches!(seen, Observation::Known { real_server: A, .. }));
    }
}

#[test]
fn a_flood_of_handshakes_fills_the_table_and_no_more() {
    let mut table = busy_table();

    let refused = (ESTABLISHED..FLOOD).filter(|&number| {
        let inserted = table.insert(&flow(number), syn(ISN), B, at(1));
        table.observe(&flow(number), ack(ISN + 1), at(1));
        inserted == Err(TableFull::Entries { capacity: 1024 })
    });

    assert_eq!(refused.count(), FLOOD as usize - 1024);
    assert_eq!(table.status().refused_full, u64::from(FLOOD) - 1024);
    assert_eq!(table.open_at(A), ESTABLISHED);
}

#[test]
fn a_full_table_takes_a_connection_in_place_of_its_oldest_half_open_one() {
    let mut table = Table::new(Config { capacity: 3, half_open_capacity: 3, ..config() });
    establish(&mut table, 0, A, at(0));
    table.insert(&flow(1), syn(ISN), A, at(1)).unwrap();
    table.insert(&flow(2), syn(ISN), A, at(2)).unwrap();

    table.insert(&flow(3), ack(ISN), B, at(3)).unwrap();

    assert!(table.get(&flow(1)).is_none() && table.get(&flow(2)).is_some());
    assert_eq!((table.status().entries, table.status().half_open_evicted), (3, 1));
}

#[test]
fn a_note_that_is_not_worth_it_displaces_nobody() {
    let mut table = Table::new(Config { capacity: 3, half_open_capacity: 2, ..config() });
    assert!(table.insert_if_room(&flow(1), syn(ISN), A, at(1)));
    assert!(table.insert_if_room(&flow(2), syn(ISN), A, at(1)));
    assert!(!table.insert_if_room(&flow(3), syn(ISN), A, at(1)), "half-open ones have reached their bound");
    assert!(table.insert_if_room(&flow(4), ack(ISN), A, at(1)));
    assert!(!table.insert_if_room(&flow(5), ack(ISN), A, at(1)), "the table is full");

    let status = table.status();
    assert_eq!((status.entries, status.half_open_evicted, status.refused_full), (3, 0, 0));
    assert!(table.get(&flow(1)).is_some());
}

#[test]
fn a_full_table_finds_the_room_of_expired_connections_by_itself() {
    let mut table = Table::new(Config { capacity: 200, ..config() });
    for number in 0..200 {
        establish(&mut table, number, A, at(0));
    }

    for number in 200..400 {
        table.insert(&flow(number), syn(ISN), B, at_s(1000)).unwrap();
        table.observe(&flow(number), ack(ISN + 1), at_s(1000));
    }

    assert_eq!((table.open_at(A), table.open_at(B)), (0, 200));
    assert_eq!(table.status().refused_full, 0);
}

#[test]
fn an_expired_half_open_connection_does_not_count_as_evicted() {
    let mut table = Table::new(Config { half_open_capacity: 1, ..config() });
    table.insert(&flow(1), syn(ISN), A, at_s(0)).unwrap();

    table.insert(&flow(2), syn(ISN), A, at_s(60)).unwrap();

    assert_eq!(table.status().half_open_evicted, 0);
}
