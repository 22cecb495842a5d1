//! RFC 4592: wildcards.

use crate::fixture::{Bench, query};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

mod section_3_3 {
    use super::*;

    #[test]
    fn a_wildcard_stands_in_for_names_that_do_not_exist() {
        for name in ["x.wild", "y.x.wild"] {
            let reply = Bench::new().over_tcp().ask(&query(name, RecordType::TXT));
            assert_eq!(reply.answers[0].name.to_ascii(), format!("{name}.example.org."));
        }
    }

    #[test]
    fn a_wildcard_does_not_stand_in_for_names_that_exist_or_below_them() {
        let existing = Bench::new().over_tcp().ask(&query("real.wild", RecordType::TXT));
        let below = Bench::new().over_tcp().ask(&query("x.real.wild", RecordType::TXT));

        assert_eq!((existing.answers.len(), existing.metadata.response_code), (0, ResponseCode::NoError));
        assert_eq!(below.metadata.response_code, ResponseCode::NXDomain);
    }
}
