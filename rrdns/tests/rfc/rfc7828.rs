//! RFC 7828: how long a connection may be idle.

use crate::fixture::{Bench, option_of, query};
use hickory_proto::rr::RecordType;

const KEEPALIVE: u16 = 11;

mod section_3_3_2 {
    use super::*;

    #[test]
    fn clients_by_tcp_are_told_and_those_by_udp_are_not() {
        let asked = query("www", RecordType::A).option(KEEPALIVE, b"").bytes();

        assert_eq!(option_of(&Bench::new().over_tcp().send(&asked), KEEPALIVE), Some(vec![0, 100]));
        assert_eq!(option_of(&Bench::new().send(&asked), KEEPALIVE), None);
    }
}
