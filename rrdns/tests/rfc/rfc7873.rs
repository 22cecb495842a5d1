//! RFC 7873 and RFC 9018: cookies.

use crate::fixture::{Bench, Query, UNIX_S, addresses, option_of, query};
use dpr_rrdns::{Outcome, Settings};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

const COOKIE: u16 = 10;

fn with_cookie(cookie: &[u8]) -> Query {
    query("www", RecordType::A).option(COOKIE, cookie)
}

/// A cookie that the server has just made.
fn cookie_of(bench: &mut Bench) -> Vec<u8> {
    option_of(&bench.send(&with_cookie(&[1; 8]).bytes()), COOKIE).unwrap()
}

mod section_5_2 {
    use super::*;

    #[test]
    fn a_cookie_of_any_other_length_is_malformed() {
        for length in [0, 7, 9, 15, 41] {
            let reply = Bench::new().send(&with_cookie(&vec![1; length]).bytes());
            assert_eq!(reply[3] & 0xf, 1, "{length} bytes");
        }
    }

    #[test]
    fn a_client_with_a_cookie_gets_long_answers_and_no_limit() {
        let mut bench = Bench::with(Settings { rate_max: 1, ..Settings::default() });
        let cookie = cookie_of(&mut bench);

        for _ in 0..50 {
            let reply = bench.ask(&with_cookie(&cookie));
            assert_eq!((reply.answers.len(), reply.metadata.truncation), (4, false));
        }
    }

    #[test]
    fn a_client_by_tcp_needs_no_cookie_for_that() {
        let mut bench = Bench::with(Settings { rate_max: 1, ..Settings::default() }).over_tcp();

        for _ in 0..50 {
            assert_eq!(bench.ask(&query("www", RecordType::A)).answers.len(), 4);
        }
    }

    #[test]
    fn what_is_malformed_is_limited_as_well_and_never_answered_with_more_than_a_header() {
        let mut bench = Bench::with(Settings { rate_max: 10, ..Settings::default() });
        let mut malformed = query("www", RecordType::A).bytes();
        malformed.truncate(20);

        let lengths: Vec<usize> = (0..100).map(|_| bench.send(&malformed).len()).collect();

        assert_eq!(lengths, [[12; 20].as_slice(), &[0; 80]].concat());
    }

    #[test]
    fn another_clients_cookie_is_worth_nothing() {
        let mut bench = Bench::new();
        let cookie = cookie_of(&mut bench);

        let reply = bench.send_from("198.51.100.8", &with_cookie(&cookie).bytes());

        assert_eq!(addresses(&Message::from_vec(&reply).unwrap()).len(), 2, "the query's length allows two");
        assert_ne!(option_of(&reply, COOKIE), Some(cookie), "but it gets one of its own");
    }

    #[test]
    fn without_a_cookie_a_network_is_limited_and_every_second_answer_is_truncated() {
        let mut bench = Bench::with(Settings { rate_max: 10, ..Settings::default() });

        let mut outcomes = std::collections::BTreeMap::new();
        for _ in 0..100 {
            bench.send(&query("api", RecordType::A).bytes());
            *outcomes.entry(bench.outcome).or_insert(0) += 1;
        }

        assert_eq!(
            outcomes.into_iter().collect::<Vec<_>>(),
            [(Outcome::Answered, 20), (Outcome::LimitedTruncated, 40), (Outcome::Limited, 40)]
        );
    }
}

mod section_5_4 {
    use super::*;

    #[test]
    fn a_client_may_ask_for_a_cookie_only() {
        let mut bytes = vec![0x12, 0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        bytes.extend(with_cookie(&[1; 8]).edns.unwrap().bytes());
        let mut bench = Bench::new();

        let reply = bench.send(&bytes);

        assert_eq!(option_of(&reply, COOKIE).unwrap().len(), 24);
        assert_eq!((bench.outcome, reply[3] & 0xf), (Outcome::Cookie, 0));
    }
}

mod rfc9018_section_4 {
    use super::*;

    #[test]
    fn a_server_cookie_has_version_time_and_hash() {
        let cookie = cookie_of(&mut Bench::new());

        assert_eq!(cookie[..8], [1; 8]);
        assert_eq!(cookie[8..12], [1, 0, 0, 0]);
        assert_eq!(cookie[12..16], UNIX_S.to_be_bytes());
        assert_eq!(cookie.len(), 24);
    }

    #[test]
    fn a_cookie_is_good_for_an_hour() {
        let mut bench = Bench::new();
        let cookie = cookie_of(&mut bench);

        bench.now.unix_s += 3600;
        assert_eq!(bench.ask(&with_cookie(&cookie)).answers.len(), 4);
        bench.now.unix_s += 1;
        assert_eq!(bench.ask(&with_cookie(&cookie)).answers.len(), 2);
    }
}
