//! The two-tier TTL (Colajanni, Yu, Cardellini 1998): short where much follows from an answer.

use crate::fixture::{Bench, addresses, query};
use dpr_rrdns::{AddressTable, ServiceAddress, Settings};
use hickory_proto::rr::RecordType;

fn ttl(bench: &mut Bench, client: &str) -> u32 {
    let reply = bench.send_from(client, &query("www", RecordType::A).bytes());
    hickory_proto::op::Message::from_vec(&reply).unwrap().answers[0].ttl
}

fn entry(last: u8, hot: bool) -> (u16, ServiceAddress) {
    (80, ServiceAddress { address: std::net::Ipv4Addr::new(192, 0, 2, last).into(), weight: 1, hot })
}

#[test]
fn an_answer_that_names_a_hot_node_is_short_lived() {
    let mut bench = Bench::with(Settings { addresses_max: 1, ..Settings::default() });
    bench.update(&AddressTable::new([entry(1, false), entry(2, true)]));

    let ttls = [ttl(&mut bench, "198.51.100.7"), ttl(&mut bench, "198.51.100.7")];

    assert_eq!(ttls, [60, 10]);
}

#[test]
fn a_hot_node_need_not_be_the_first() {
    let mut bench = Bench::with(Settings { addresses_max: 2, ..Settings::default() }).over_tcp();
    bench.update(&AddressTable::new([entry(1, false), entry(2, true)]));

    let ttls = [ttl(&mut bench, "198.51.100.7"), ttl(&mut bench, "198.51.100.7")];

    assert_eq!(ttls, [10, 10]);
}

#[test]
fn loads_that_come_and_go_change_nobodys_turn() {
    let mut bench = Bench::with(Settings { addresses_max: 1, ..Settings::default() });
    let mut named = std::collections::BTreeMap::<String, u32>::new();
    for number in 0..90 {
        bench.update(&AddressTable::new((1..=3).map(|last| entry(last, number % 3 == u32::from(last)))));
        let reply = bench.ask(&query("www", RecordType::A));
        *named.entry(addresses(&reply)[0].clone()).or_default() += 1;
    }

    assert_eq!(named.into_values().collect::<Vec<_>>(), [30; 3]);
}

#[test]
fn an_answer_to_a_network_that_asks_much_is_short_lived() {
    let mut bench = Bench::with(Settings { rate_max: 0, addresses_max: 1, ..Settings::default() });
    for number in 0..200 {
        ttl(&mut bench, &format!("203.0.{number}.1"));
        ttl(&mut bench, "198.51.100.7");
    }

    assert_eq!(ttl(&mut bench, "198.51.100.9"), 10);
    assert_eq!(ttl(&mut bench, "203.0.7.1"), 60);
}
