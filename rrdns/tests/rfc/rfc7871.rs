//! RFC 7871: the client's subnet.

use crate::fixture::{Bench, addresses, option_of, query};
use dpr_rrdns::{Near, Settings};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

const SUBNET: u16 = 8;

/// Clients in 203.0.113.0/24 are near the upper addresses.
fn bench() -> Bench {
    let near =
        Near { clients: "203.0.113.0/24".parse().unwrap(), addresses: "192.0.2.12/30".parse().unwrap() };
    Bench::with(Settings { near: vec![near], ..Settings::default() }).over_tcp()
}

fn ask(bench: &mut Bench, subnet: &[u8]) -> (Vec<String>, Option<Vec<u8>>) {
    let reply = bench.send(&query("www", RecordType::A).option(SUBNET, subnet).bytes());
    let mut addresses = addresses(&Message::from_vec(&reply).unwrap());
    addresses.sort();
    (addresses, option_of(&reply, SUBNET))
}

mod section_7_2_1 {
    use super::*;

    #[test]
    fn clients_get_addresses_near_them_and_the_scope_says_for_whom_that_holds() {
        let (addresses, subnet) = ask(&mut bench(), &[0, 1, 24, 0, 203, 0, 113]);

        assert_eq!(addresses, ["192.0.2.12", "192.0.2.13", "192.0.2.14"]);
        assert_eq!(subnet, Some(vec![0, 1, 24, 24, 203, 0, 113]));
    }

    #[test]
    fn the_scope_for_other_clients_does_not_cover_those() {
        let (addresses, subnet) = ask(&mut bench(), &[0, 1, 24, 0, 203, 0, 112]);

        assert_eq!(addresses.len(), 4);
        assert_eq!(subnet, Some(vec![0, 1, 24, 24, 203, 0, 112]));
    }

    #[test]
    fn who_asks_not_to_be_located_is_not() {
        let mut bench = bench();
        let asked = query("www", RecordType::A).option(SUBNET, &[0, 1, 0, 0]).bytes();
        let reply = bench.send_from("203.0.113.9", &asked);

        assert_eq!(addresses(&Message::from_vec(&reply).unwrap()).len(), 4);
        assert_eq!(option_of(&reply, SUBNET), Some(vec![0, 1, 0, 0]));
    }

    #[test]
    fn no_network_however_large_is_near_those_who_ask_not_to_be_located() {
        let near =
            Near { clients: "0.0.0.0/0".parse().unwrap(), addresses: "192.0.2.12/30".parse().unwrap() };
        let mut bench = Bench::with(Settings { near: vec![near], ..Settings::default() }).over_tcp();

        assert_eq!(ask(&mut bench, &[0, 1, 0, 0]).0.len(), 4);
        assert_eq!(ask(&mut bench, &[0, 1, 8, 0, 10]).0.len(), 3);
    }

    #[test]
    fn without_the_option_the_resolver_is_taken_for_the_client() {
        let reply = bench().send_from("203.0.113.9", &query("www", RecordType::A).bytes());

        assert_eq!(addresses(&Message::from_vec(&reply).unwrap()).len(), 3);
        assert_eq!(option_of(&reply, SUBNET), None);
    }

    #[test]
    fn when_nobody_near_is_left_everybody_serves() {
        let mut bench = bench();
        let far = dpr_rrdns::ServiceAddress { address: "192.0.2.1".parse().unwrap(), weight: 1, hot: false };
        bench.update(&dpr_rrdns::AddressTable::new([(80, far)]));

        assert_eq!(ask(&mut bench, &[0, 1, 24, 0, 203, 0, 113]).0, ["192.0.2.1"]);
    }
}

mod section_6 {
    use super::*;

    #[test]
    fn options_that_break_the_format_are_malformed() {
        let wrong: [&[u8]; 6] = [
            &[0, 1, 24, 24, 203, 0, 113],
            &[0, 1, 24, 0, 203, 0],
            &[0, 1, 20, 0, 203, 0, 113],
            &[0, 1, 33, 0, 203, 0, 113, 1, 1],
            &[0, 7, 8, 0, 1],
            &[0, 1],
        ];
        for subnet in wrong {
            let reply = bench().send(&query("www", RecordType::A).option(SUBNET, subnet).bytes());
            assert_eq!(reply[3] & 0xf, 1, "{subnet:?}");
        }
    }
}
