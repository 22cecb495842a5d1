//! RFC 1034: domain names, concepts and facilities.

use crate::fixture::{Bench, addresses, query};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

mod section_3_6_2 {
    use super::*;

    #[test]
    fn an_alias_is_followed_to_the_addresses_of_a_service() {
        let reply = Bench::new().over_tcp().ask(&query("home", RecordType::A));

        assert_eq!(reply.answers[0].record_type(), RecordType::CNAME);
        assert_eq!(reply.answers[0].name.to_ascii(), "home.example.org.");
        assert_eq!(reply.answers[1].name.to_ascii(), "www.example.org.");
        assert_eq!(addresses(&reply).len(), 4);
    }

    #[test]
    fn who_asks_for_the_alias_itself_gets_only_that() {
        let reply = Bench::new().over_tcp().ask(&query("home", RecordType::CNAME));

        assert_eq!(reply.answers.len(), 1);
    }

    #[test]
    fn an_alias_into_another_zone_is_all_that_is_known_here() {
        let reply = Bench::new().over_tcp().ask(&query("far", RecordType::A));

        assert_eq!(reply.answers.len(), 1);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(reply.authorities.is_empty());
    }
}

mod section_4_3_2 {
    use super::*;

    #[test]
    fn names_of_other_zones_are_refused_without_the_authority_bit() {
        for name in ["example.net.", "org.", "notexample.org."] {
            let reply = Bench::new().ask(&query(name, RecordType::A));
            assert_eq!(reply.metadata.response_code, ResponseCode::Refused, "{name}");
            assert!(!reply.metadata.authoritative);
        }
    }

    #[test]
    fn name_servers_come_with_their_addresses() {
        let reply = Bench::new().over_tcp().ask(&query("@", RecordType::NS));

        assert_eq!(reply.answers.len(), 2);
        let glue: Vec<String> =
            reply.additionals.iter().filter_map(|record| Some(record.data.ip_addr()?.to_string())).collect();
        assert_eq!(glue, ["192.0.2.11", "2001:db8::11", "192.0.2.12"]);
    }

    #[test]
    fn nothing_is_recursed_and_nobody_is_told_otherwise() {
        let reply = Bench::new().ask(&query("www", RecordType::A));

        assert!(reply.metadata.authoritative && !reply.metadata.recursion_available);
        assert!(reply.metadata.recursion_desired, "RD is copied");
    }
}
