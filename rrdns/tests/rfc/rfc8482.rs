//! RFC 8482: minimal answers to questions for everything.

use crate::fixture::{Bench, query};
use hickory_proto::rr::{RData, RecordType};

mod section_4_2 {
    use super::*;

    #[test]
    fn the_answer_is_one_record_that_says_so() {
        for name in ["www", "@", "home"] {
            let reply = Bench::new().over_tcp().ask(&query(name, RecordType::ANY));
            assert_eq!(reply.answers.len(), 1);
            let RData::HINFO(hinfo) = &reply.answers[0].data else { panic!("{:?}", reply.answers) };
            assert_eq!(&*hinfo.cpu, b"RFC8482");
        }
    }
}
