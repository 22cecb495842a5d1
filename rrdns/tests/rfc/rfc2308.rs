//! RFC 2308: negative caching.

use crate::fixture::{Bench, query};
use dpr_rrdns::Outcome;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};

fn assert_soa(reply: &Message) {
    assert_eq!(reply.authorities.len(), 1);
    let RData::SOA(soa) = &reply.authorities[0].data else { panic!("{:?}", reply.authorities) };
    assert_eq!(
        (soa.minimum, reply.authorities[0].ttl),
        (60, 60),
        "section 3: the TTL is no more than MINIMUM"
    );
    assert_eq!(reply.authorities[0].name.to_ascii(), "example.org.");
}

mod section_2_1 {
    use super::*;

    #[test]
    fn a_name_that_does_not_exist_is_told_with_the_soa() {
        let mut bench = Bench::new().over_tcp();
        let reply = bench.ask(&query("nothing", RecordType::A));

        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        assert!(reply.metadata.authoritative && reply.answers.is_empty());
        assert_soa(&reply);
        assert_eq!(bench.outcome, Outcome::NoSuchName);
    }

    #[test]
    fn an_alias_to_nothing_is_told_with_both() {
        let reply = Bench::new().over_tcp().ask(&query("gone", RecordType::A));

        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(reply.answers.len(), 1);
        assert_soa(&reply);
    }
}

mod section_7_1 {
    use super::*;

    #[test]
    fn a_service_without_any_address_is_a_failure_that_nobody_remembers() {
        let mut bench = Bench::new().over_tcp();
        let reply = bench.ask(&query("idle", RecordType::A));

        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert!(reply.authorities.is_empty() && !reply.metadata.authoritative);
        assert_eq!(bench.outcome, Outcome::NoAddress);
    }
}

mod section_2_2 {
    use super::*;

    #[test]
    fn a_service_with_addresses_of_the_other_family_only_has_no_data() {
        let mut bench = Bench::new().over_tcp();
        let only = |address: &str| {
            let address = address.parse().unwrap();
            dpr_rrdns::AddressTable::new([(80, dpr_rrdns::ServiceAddress { address, weight: 1, hot: false })])
        };
        for (address, rtype) in [("2001:db8::1", RecordType::A), ("192.0.2.1", RecordType::AAAA)] {
            bench.update(&only(address));
            assert_soa(&bench.ask(&query("www", rtype)));
            assert_eq!(bench.outcome, Outcome::NoData);
        }
    }

    #[test]
    fn a_type_that_does_not_exist_is_told_with_the_soa() {
        for (name, rtype) in [("www", RecordType::TXT), ("api", RecordType::AAAA), ("@", RecordType::A)] {
            let mut bench = Bench::new().over_tcp();
            let reply = bench.ask(&query(name, rtype));
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{name}");
            assert!(reply.answers.is_empty());
            assert_soa(&reply);
            assert_eq!(bench.outcome, Outcome::NoData);
        }
    }
}
