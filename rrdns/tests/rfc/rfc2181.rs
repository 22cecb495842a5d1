//! RFC 2181: clarifications to the DNS specification.

use crate::fixture::{Bench, query};
use dpr_rrdns::{Outcome, Settings};
use hickory_proto::rr::RecordType;

mod section_9 {
    use super::*;

    #[test]
    fn an_answer_that_does_not_fit_is_truncated_and_empty() {
        let mut bench = Bench::new();
        let reply = bench.ask(&query("@", RecordType::MX));

        assert!(reply.metadata.truncation);
        assert_eq!((reply.answers.len(), reply.queries.len()), (0, 1));
        assert_eq!(bench.outcome, Outcome::Truncated);
    }

    #[test]
    fn no_reply_to_a_client_without_a_cookie_is_more_than_half_as_long_again_as_its_query() {
        let names =
            ["www", "api", "@", "home", "far", "gone", "no.such", "real.wild", "x.wild", "a.deep.name"];
        let types = [RecordType::A, RecordType::AAAA, RecordType::NS, RecordType::SOA, RecordType::TXT];
        for name in names {
            for rtype in types.into_iter().chain([RecordType::ANY, RecordType::MX]) {
                let plain = query(name, rtype);
                let nsid = plain.clone().option(3, b"");
                let cookie = plain.clone().option(10, &[1; 8]).option(3, b"");
                let subnet = plain.clone().option(8, &[0, 1, 24, 0, 198, 51, 100]);
                for asked in [&plain, &plain.clone().edns(), &nsid, &cookie, &subnet] {
                    let settings = Settings { server_id: "n".repeat(63), ..Settings::default() };
                    let bytes = asked.bytes();
                    let reply = Bench::with(settings).send(&bytes);
                    assert!(!reply.is_empty() && reply.len() * 2 <= bytes.len() * 3, "{name} {rtype}");
                }
            }
        }
    }

    #[test]
    fn an_answer_with_addresses_rather_has_fewer_of_them_but_two() {
        // Half of the query's length is room; the reply has 44 bytes without addresses, each of which takes 16.
        let answered = |query_length: usize| {
            let padding = vec![0; query_length - 48];
            let reply = Bench::new().ask(&query("www", RecordType::A).option(12, &padding));
            (reply.metadata.truncation, reply.answers.len())
        };

        assert_eq!([50, 51, 61, 62].map(answered), [(true, 0), (false, 2), (false, 2), (false, 3)]);
    }
}

/// Records of one name and type are one set, whatever lines they come from.
mod section_5 {
    use super::*;

    #[test]
    fn a_record_is_in_its_set_once_and_the_shortest_ttl_is_everybodys() {
        let reply = Bench::new().over_tcp().ask(&query("host", RecordType::A));

        assert_eq!(crate::fixture::addresses(&reply), ["192.0.2.91", "192.0.2.92"]);
        assert!(reply.answers.iter().all(|record| record.ttl == 200));
    }

    #[test]
    fn sets_of_other_types_have_their_own_ttl() {
        let reply = Bench::new().over_tcp().ask(&query("host", RecordType::TXT));

        assert_eq!((reply.answers.len(), reply.answers[0].ttl), (1, 900));
    }
}

mod section_5_2 {
    use super::*;

    #[test]
    fn all_addresses_of_an_answer_have_one_ttl() {
        let reply = Bench::new().over_tcp().ask(&query("www", RecordType::A));

        assert!(reply.answers.iter().all(|record| record.ttl == 60));
    }
}
