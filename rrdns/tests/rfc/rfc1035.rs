//! RFC 1035: domain names, implementation and specification.

use crate::fixture::{Bench, addresses, query};
use dpr_rrdns::Outcome;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

mod section_4_1_1 {
    use super::*;

    #[test]
    fn an_answer_is_these_bytes() {
        let reply = Bench::new().send(&query("api", RecordType::A).bytes());

        let expected = b"\x12\x34\x85\x00\0\x01\0\x01\0\0\0\0\
            \x03api\x07example\x03org\0\0\x01\0\x01\
            \xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x0b";
        assert_eq!(reply, expected);
    }

    #[test]
    fn other_operations_are_not_implemented() {
        // IQUERY, STATUS, NOTIFY, UPDATE.
        for opcode in [1, 2, 4, 5] {
            let mut asked = query("www", RecordType::A);
            asked.flags = opcode << 11;
            let reply = Bench::new().ask(&asked);
            assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
            assert_eq!((reply.metadata.id, u16::from(u8::from(reply.metadata.op_code))), (0x1234, opcode));
        }
    }

    #[test]
    fn what_is_not_well_formed_is_told_so_in_a_header() {
        let whole = query("www", RecordType::A).bytes();
        let mut two_questions = whole.clone();
        two_questions[5] = 2;
        two_questions.extend(&whole[12..]);
        let mut with_answer = whole.clone();
        with_answer[7] = 1;
        for bytes in [&whole[..20], &whole[..12], &two_questions, &with_answer] {
            let mut bench = Bench::new();
            let reply = bench.send(bytes);
            assert_eq!(reply, b"\x12\x34\x81\x01\0\0\0\0\0\0\0\0");
            assert_eq!(bench.outcome, Outcome::Malformed);
        }
    }

    #[test]
    fn responses_and_scraps_are_not_answered() {
        let mut response = query("www", RecordType::A);
        response.flags = 0x8000;
        for bytes in [&response.bytes()[..], b"", b"\x12\x34\x01\x00\0\x01\0\0\0\0\0"] {
            let mut bench = Bench::new();
            assert!(bench.send(bytes).is_empty());
            assert_eq!(bench.outcome, Outcome::Ignored);
        }
    }

    #[test]
    fn zone_transfers_and_other_classes_are_refused() {
        for rtype in [RecordType::AXFR, RecordType::IXFR] {
            let reply = Bench::new().over_tcp().ask(&query("@", rtype));
            assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
        }
        let mut chaos = query("version.bind.", RecordType::TXT);
        chaos.class = 3;
        assert_eq!(Bench::new().ask(&chaos).metadata.response_code, ResponseCode::Refused);
    }
}

mod section_3_2_5 {
    use super::*;

    #[test]
    fn who_asks_for_any_class_gets_the_one_there_is() {
        let mut asked = query("www", RecordType::A);
        asked.class = 255;

        let reply = Bench::new().over_tcp().ask(&asked);

        assert_eq!(addresses(&reply).len(), 4);
    }
}

mod section_4_1_4 {
    use super::*;

    #[test]
    fn a_name_that_points_at_itself_is_malformed() {
        let bytes = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01";

        assert_eq!(Bench::new().send(bytes)[3] & 0xf, 1);
    }
}

mod section_3_3_9 {
    use super::*;

    #[test]
    fn records_of_the_operator_are_served() {
        let reply = Bench::new().over_tcp().ask(&query("@", RecordType::MX));

        assert_eq!(reply.answers[0].data.to_string(), "10 mail.example.net.");
        assert_eq!(reply.answers[0].ttl, 300);
    }
}

/// RFC 1794 by another way: every answer begins with the next address.
mod section_6_2 {
    use super::*;

    #[test]
    fn addresses_take_turns() {
        let mut bench = Bench::new().over_tcp();

        let firsts: Vec<String> =
            (0..8).map(|_| addresses(&bench.ask(&query("www", RecordType::A)))[0].clone()).collect();

        let (first, second) = firsts.split_at(4);
        assert_eq!(first, second);
        assert_eq!(first, ["192.0.2.11", "192.0.2.12", "192.0.2.13", "192.0.2.14"]);
    }
}
