//! RFC 4343: case insensitivity; and the case of a question as a nonce (draft-vixie-dnsext-dns0x20).

use crate::fixture::{Bench, query};
use hickory_proto::rr::RecordType;

mod section_4_1 {
    use super::*;

    #[test]
    fn names_match_whatever_their_case_and_come_back_as_they_were_asked() {
        let mut asked = query("www", RecordType::A);
        asked.name = "wWw.ExAmPlE.oRg".to_owned();

        let reply = Bench::new().over_tcp().ask(&asked);

        assert_eq!(reply.queries[0].name().to_ascii(), "wWw.ExAmPlE.oRg.");
        assert_eq!(reply.answers[0].name.to_ascii(), "wWw.ExAmPlE.oRg.");
    }
}
