//! Delivery to the local TCP stack, and its replies.

use crate::packets::{
    Carrying, IP_AT, Sent, assert_sound, fix_ipv4_checksum, parsed, with_extension_headers,
};
use core::net::{IpAddr, SocketAddr};
use dpr_model::{DropReason, HopBudget};
use dpr_rewrite::{
    ChecksumState, Encapsulation, Kind, Outer, Version, checksum, deliver, edit, ipv4, ipv6, parse_ip, reply,
    too_big,
};
use etherparse::{TcpHeaderSlice, TcpOptionElement};

/// (client, service, delivery address) of either version.
fn cases() -> [(SocketAddr, SocketAddr, IpAddr); 2] {
    [
        (
            "198.51.100.7:40000".parse().unwrap(),
            "192.0.2.11:80".parse().unwrap(),
            "169.254.64.1".parse().unwrap(),
        ),
        (
            "[2001:db8:7::7]:40000".parse().unwrap(),
            "[2001:db8::11]:80".parse().unwrap(),
            "[fd00:40::1]:1".parse::<SocketAddr>().unwrap().ip(),
        ),
    ]
}

fn segment(source: SocketAddr, destination: SocketAddr, carrying: Carrying, data: &[u8]) -> Sent {
    Sent { source, destination, carrying, data: data.to_vec() }
}

#[test]
fn delivery_changes_the_destination_and_nothing_else() {
    for (client, service, delivery) in cases() {
        for carrying in [Carrying::Data, Carrying::Datagram] {
            let mut frame = segment(client, service, carrying, b"GET /").frame();
            let before = frame.clone();
            let facts = parsed(&frame);

            let at = deliver(&mut frame, &facts, delivery, ChecksumState::Complete).unwrap();

            assert_sound(&frame[at..], client, SocketAddr::new(delivery, 80), b"GET /");
            let changed: Vec<usize> = (0..frame.len()).filter(|&i| frame[i] != before[i]).collect();
            let destination = if client.is_ipv4() { 30..34 } else { 38..54 };
            let transport = facts.packet.transport_at();
            let transport_sum = if carrying == Carrying::Data { transport + 16 } else { transport + 6 };
            let header_sum = if client.is_ipv4() { 24..26 } else { 0..0 };
            assert!(changed.iter().all(|i| {
                destination.contains(i)
                    || header_sum.contains(i)
                    || (transport_sum..transport_sum + 2).contains(i)
            }));
        }
    }
}

#[test]
fn a_spent_hop_limit_is_one_and_nothing_else_changes() {
    for (client, service, _) in cases() {
        let mut frame = segment(client, service, Carrying::Data, b"GET /").frame();
        let facts = parsed(&frame);

        edit::spend_hop_limit(&mut frame, &facts.packet).unwrap();

        assert_sound(&frame[IP_AT..], client, service, b"GET /");
        let spent = parsed(&frame).packet;
        assert_eq!(spent.ip.hop_limit(), 1);
        assert_eq!(edit::spend_hop_limit(&mut frame, &spent), Err(DropReason::TtlExpired));
    }
}

#[test]
fn extension_headers_stay_where_they_are() {
    let [_, (client, service, delivery)] = cases();
    let mut frame = with_extension_headers(segment(client, service, Carrying::Data, b"GET /").frame());
    let before = frame.clone();
    let facts = parsed(&frame);
    assert!(matches!(facts.packet.kind, Kind::Tcp(_)));

    let at = deliver(&mut frame, &facts, delivery, ChecksumState::Complete).unwrap();

    assert_sound(&frame[at..], client, SocketAddr::new(delivery, 80), b"GET /");
    assert_eq!(frame[IP_AT + 40..IP_AT + 72], before[IP_AT + 40..IP_AT + 72]);
}

#[test]
fn congestion_in_the_tunnel_reaches_the_transport() {
    for (client, service, delivery) in cases() {
        let mut inner = segment(client, service, Carrying::Data, b"x").frame();
        // ECT(0) inside, CE outside.
        if client.is_ipv4() {
            inner[IP_AT + 1] = 0b10;
            fix_ipv4_checksum(&mut inner[IP_AT..]);
        } else {
            inner[IP_AT + 1] = 0b10 << 4;
        }
        let mut facts = parsed(&inner);
        assert_eq!(facts.packet.ip.traffic_class(), 0b10);
        facts.outer = Some(Outer {
            encapsulation: Encapsulation::Ipip,
            source: service.ip(),
            destination: service.ip(),
            traffic_class: 0b11,
            hops: HopBudget::SPENT,
            len: 20,
        });

        let at = deliver(&mut inner, &facts, delivery, ChecksumState::Complete).unwrap();

        assert_eq!(parse_ip(&inner, at).unwrap().packet.ip.traffic_class(), 0b11);
        assert_sound(&inner[at..], client, SocketAddr::new(delivery, 80), b"x");
    }
}

#[test]
fn a_reply_gets_the_service_address_and_a_syn_ack_a_smaller_mss() {
    for (client, service, delivery) in cases() {
        let mut frame = segment(SocketAddr::new(delivery, 80), client, Carrying::Syn, b"").frame();
        let facts = parsed(&frame);

        reply(&mut frame, &facts.packet, service.ip(), Some(1440), ChecksumState::Complete).unwrap();

        assert_sound(&frame[IP_AT..], service, client, b"");
        let header = TcpHeaderSlice::from_slice(&frame[facts.packet.transport_at()..]).unwrap();
        let option = header.options_iterator().next().unwrap().unwrap();
        assert_eq!(option, TcpOptionElement::MaximumSegmentSize(1440));
    }
}

#[test]
fn a_partial_checksum_stays_the_sum_of_the_pseudo_header() {
    for (client, service, delivery) in cases() {
        for (carrying, protocol, offset) in [(Carrying::Syn, 6, 16), (Carrying::Datagram, 17, 6)] {
            let mut frame = segment(SocketAddr::new(delivery, 80), client, carrying, b"hello").frame();
            let facts = parsed(&frame);
            let at = facts.packet.transport_at();
            let len = u16::try_from(frame.len() - at).unwrap();
            let pseudo =
                |source: IpAddr| checksum::fold(checksum::pseudo_header(source, client.ip(), protocol, len));
            frame[at + offset..at + offset + 2].copy_from_slice(&pseudo(delivery).to_be_bytes());

            reply(&mut frame, &facts.packet, service.ip(), Some(1440), ChecksumState::Partial).unwrap();

            assert_eq!(frame[at + offset..at + offset + 2], pseudo(service.ip()).to_be_bytes());
        }
    }
}

#[test]
fn an_icmp_error_is_translated_with_what_it_quotes() {
    for ((client, service, delivery), router) in
        cases().into_iter().zip(["203.0.113.1:1", "[2001:db8:9::1]:1"])
    {
        let router = router.parse::<SocketAddr>().unwrap().ip();
        let sent = segment(service, client, Carrying::Data, &[7; 100]);
        let expected = sent.between(SocketAddr::new(delivery, 80), client).packet();
        let mut error = [0; too_big::ANSWER_LEN_MAX];
        let len = too_big::answer(&sent.packet(), 1400, router, &mut error).unwrap();
        let facts = parse_ip(&error[..len], 0).unwrap();
        let Kind::IcmpError(quote) = facts.packet.kind else { panic!("{facts:?}") };
        assert_eq!(
            (facts.packet.ip.destination(), quote.source_port, quote.destination_port),
            (service.ip(), 80, 40000)
        );

        let at = deliver(&mut error, &facts, delivery, ChecksumState::Complete).unwrap();

        crate::packets::assert_checksums(&error[at..len]);
        assert_eq!(parse_ip(&error[..len], at).unwrap().packet.ip.destination(), delivery);
        assert_eq!(error[quote.at()..len], expected);
        assert_eq!(error[quote.at() - 2..quote.at()], 1400u16.to_be_bytes());
    }
}

#[test]
fn an_error_about_what_its_receiver_never_sent_is_none_of_ours() {
    for ((client, service, _), router) in cases().into_iter().zip(["203.0.113.1:1", "[2001:db8:9::1]:1"]) {
        let router = router.parse::<SocketAddr>().unwrap().ip();
        let sent = segment(service, client, Carrying::Data, &[7; 100]);
        let mut error = [0; too_big::ANSWER_LEN_MAX];
        let len = too_big::answer(&sent.packet(), 1400, router, &mut error).unwrap();
        let error = &mut error[..len];
        let source_at = if service.is_ipv4() { 28 + 12 } else { 48 + 8 };
        error[source_at] ^= 1;

        assert_eq!(parse_ip(error, 0).unwrap().packet.kind, Kind::Other);
    }
}

#[test]
fn a_hop_limit_that_runs_out_is_a_reason_of_its_own() {
    for (client, service, _) in cases() {
        let mut frame = segment(client, service, Carrying::Data, b"").frame();
        let packet = parsed(&frame).packet;
        edit::decrement_hop_limit(&mut frame, &packet).unwrap();
        assert_eq!(parsed(&frame).packet.ip.hop_limit(), 63);
        assert_sound(&frame[IP_AT..], client, service, b"");
        for spent in [0, 1] {
            match packet.ip.version() {
                Version::V4 => {
                    frame[IP_AT + ipv4::field::TTL] = spent;
                    fix_ipv4_checksum(&mut frame[IP_AT..]);
                }
                Version::V6 => frame[IP_AT + ipv6::field::HOP_LIMIT] = spent,
            }
            let spent = parsed(&frame).packet;
            let refused = edit::decrement_hop_limit(&mut frame, &spent);
            assert_eq!(refused, Err(DropReason::TtlExpired));
        }
    }
}
