//! What the local stack sends to clients.

use crate::stage::*;

#[test]
fn replies_get_the_address_that_the_client_knows() {
    let mut node = NodeA::with_loads(IDLE, IDLE, IDLE);
    let reply_from = |delivery: [u8; 4]| {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(delivery, CLIENT.octets(), 64);
        let mut bytes = Vec::new();
        builder.tcp(80, 1000, 1, 1).syn().ack(2).write(&mut bytes, &[]).unwrap();
        parse_ip(&bytes, 14).unwrap()
    };
    let to = IpAddr::V4(CLIENT);
    let own = node.director.handle_reply(&reply_from([169, 254, 64, 1]), 1);
    assert_eq!(own, Verdict::Reply(Reply { from: IpAddr::V4(A), to, mss_max: None }));
    let forwarded = node.director.handle_reply(&reply_from([169, 254, 64, 2]), 1);
    assert_eq!(forwarded, Verdict::Reply(Reply { from: IpAddr::V4(B), to, mss_max: Some(1440) }));
    let unknown = node.director.handle_reply(&reply_from([169, 254, 64, 77]), 1);
    assert_eq!(unknown, Verdict::Drop(DropReason::UnknownDelivery));
    let elsewhere = node.director.handle_reply(&reply_from([10, 0, 0, 1]), 1);
    assert_eq!(elsewhere, Verdict::Pass);
}
