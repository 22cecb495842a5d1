//! RFC 6891: EDNS(0).

use crate::fixture::{Bench, Opt, query};
use dpr_rrdns::{Settings, UDP_PAYLOAD_MAX};
use hickory_proto::rr::RecordType;

mod section_6_1_1 {
    use super::*;

    #[test]
    fn a_reply_has_an_opt_record_if_the_query_had_one() {
        let with = Bench::new().ask(&query("www", RecordType::A).edns());
        let without = Bench::new().ask(&query("www", RecordType::A));

        assert_eq!(with.edns.unwrap().max_payload(), UDP_PAYLOAD_MAX);
        assert!(without.edns.is_none());
    }

    #[test]
    fn an_opt_record_of_a_name_is_malformed() {
        let asked = query("www", RecordType::A);
        let mut bytes = asked.bytes();
        bytes[11] = 1;
        bytes.extend(b"\x01a");
        bytes.extend(asked.edns().edns.unwrap().bytes());

        assert_eq!(Bench::new().send(&bytes)[3] & 0xf, 1);
    }

    #[test]
    fn two_opt_records_are_malformed() {
        let asked = query("www", RecordType::A).edns();
        let mut bytes = asked.bytes();
        bytes[11] = 2;
        bytes.extend(asked.edns.unwrap().bytes());

        assert_eq!(Bench::new().send(&bytes)[3] & 0xf, 1);
    }
}

mod section_6_1_3 {
    use super::*;

    #[test]
    fn a_later_version_is_told_which_one_there_is() {
        let mut asked = query("www", RecordType::A);
        asked.edns = Some(Opt { payload: 1232, version: 1, flags: 0, options: vec![] });

        let reply = Bench::new().ask(&asked);

        assert_eq!(u16::from(reply.metadata.response_code), 16, "BADVERS");
        assert_eq!(reply.edns.unwrap().version(), 0);
        assert!(reply.answers.is_empty());
    }

    #[test]
    fn the_bit_for_signatures_is_copied() {
        for flags in [0, 0x8000] {
            let mut asked = query("www", RecordType::A).edns();
            asked.edns.as_mut().unwrap().flags = flags;
            let reply = Bench::new().ask(&asked);
            assert_eq!(reply.edns.unwrap().flags().dnssec_ok, flags != 0);
        }
    }
}

mod section_6_2_3 {
    use super::*;

    /// Nobody is limited by the length of queries here.
    fn bench() -> Bench {
        Bench::with(Settings { amplification_percent: 100_000, addresses_max: 200, ..Settings::default() })
    }

    fn longest(payload: u16) -> usize {
        let addresses = (0..200u8).map(|last| {
            let address = std::net::Ipv4Addr::new(198, 18, 0, last).into();
            (80, dpr_rrdns::ServiceAddress { address, weight: 1, hot: false })
        });
        let mut bench = bench();
        bench.update(&dpr_rrdns::AddressTable::new(addresses));
        let mut asked = query("www", RecordType::A).edns();
        asked.edns.as_mut().unwrap().payload = payload;
        bench.send(&asked.bytes()).len()
    }

    #[test]
    fn a_reply_is_no_longer_than_the_client_can_take_and_paths_let_through() {
        assert!((497..=512).contains(&longest(0)), "less than 512 is taken as 512");
        assert!((985..=1000).contains(&longest(1000)));
        assert!((1217..=1232).contains(&longest(65_535)));
    }

    #[test]
    fn without_edns_a_reply_has_at_most_512_bytes() {
        let reply = bench().send(&query("www", RecordType::A).bytes());

        assert!(reply.len() <= 512);
    }
}
