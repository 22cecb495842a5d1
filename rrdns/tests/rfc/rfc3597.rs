//! RFC 3597: unknown types.

use crate::fixture::{Bench, query};
use hickory_proto::rr::{RData, RecordType};

mod section_4 {
    use super::*;

    #[test]
    fn a_type_that_nobody_knows_is_served_as_bytes() {
        let reply = Bench::new().over_tcp().ask(&query("unknown", RecordType::Unknown(65_280)));

        let RData::Unknown { rdata, .. } = &reply.answers[0].data else { panic!("{:?}", reply.answers) };
        assert_eq!(rdata.anything, [0xab, 0xcd, 0xef]);
    }
}
