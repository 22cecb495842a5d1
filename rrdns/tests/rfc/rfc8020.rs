//! RFC 8020: below a name that does not exist there is nothing, so a name with something below it exists.

use crate::fixture::{Bench, query};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

mod section_2 {
    use super::*;

    #[test]
    fn a_name_with_names_below_it_exists() {
        for name in ["deep.name", "name", "wild"] {
            let reply = Bench::new().over_tcp().ask(&query(name, RecordType::TXT));
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{name}");
        }
    }
}
