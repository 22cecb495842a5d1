//! A million connections in 64 MiB, from the first to the last.

use crate::fixtures::{A, ISN, ack, at, flow};
use dpr_conntrack::{Config, Table};

const MILLION: u32 = 1 << 20;

/// The timer wheel and one real server.
const FIXED_BYTES: usize = 9 * 1024;

#[test]
fn a_million_connections_cost_64_bytes_each_and_nothing_grows() {
    let mut table = Table::new(Config::with_seed([1, 2]));
    let empty = table.memory_bytes();

    for number in 0..MILLION {
        table.insert(&flow(number), ack(ISN), A, at(u64::from(number) / 100)).unwrap();
    }

    assert!(empty <= 64 * MILLION as usize + FIXED_BYTES, "{empty} bytes");
    assert!(table.memory_bytes() <= 64 * MILLION as usize + FIXED_BYTES, "{} bytes", table.memory_bytes());
    assert_eq!(table.status().entries, u64::from(MILLION));
    assert!(table.insert(&flow(MILLION), ack(ISN), A, at(20_000)).is_err());
    assert!((0..MILLION).all(|number| table.get(&flow(number)).is_some()));
}

#[test]
fn churn_reuses_the_same_memory() {
    let mut table = Table::new(Config { capacity: 1000, ..Config::with_seed([1, 2]) });
    table.insert(&flow(0), ack(ISN), A, at(0)).unwrap();
    let before = table.memory_bytes();

    for round in 0..20 {
        for number in 0..1000 {
            table.insert(&flow(round * 1000 + number), ack(ISN), A, at(0)).unwrap();
            if number >= 1 {
                table.remove(&flow(round * 1000 + number - 1));
            }
        }
        table.remove(&flow(round * 1000 + 999));
    }

    assert_eq!(table.memory_bytes(), before);
}
