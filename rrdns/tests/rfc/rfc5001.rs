//! RFC 5001: which server answers.

use crate::fixture::{Bench, option_of, query};
use dpr_rrdns::Settings;
use hickory_proto::rr::RecordType;

const NSID: u16 = 3;

mod section_2_1 {
    use super::*;

    #[test]
    fn a_server_tells_its_name_to_who_asks_for_it() {
        let bench = || Bench::with(Settings { server_id: "web1".to_owned(), ..Settings::default() });

        let asked = bench().send(&query("www", RecordType::A).option(NSID, b"").bytes());
        let not_asked = bench().send(&query("www", RecordType::A).edns().bytes());

        assert_eq!(option_of(&asked, NSID), Some(b"web1".to_vec()));
        assert_eq!(option_of(&not_asked, NSID), None);
    }
}
