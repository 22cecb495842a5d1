//! Packets: parse, decide, rewrite.

use super::Turn;
use crate::fixture::{
    HEADROOM, PORT, address, client, director, establish, from_client, handle, parsed, segment,
    through_a_tunnel, wrap,
};
use dpr_director::Director;
use dpr_model::Verdict;
use dpr_rewrite::tcp::flag;
use dpr_rewrite::{ChecksumState, Frame, Parsed, deliver, edit, ethernet, parse, parse_ip};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

/// Connections that the table holds: the most that it was sized for.
const MILLION: u32 = 1 << 20;
const DATA: u8 = flag::ACK | flag::PSH;

/// A client's segment.
pub(super) fn parse_plain(_turns: usize) -> Turn {
    let frame = from_client(0, 0, DATA);
    Box::new(move |_| {
        black_box(&parse(black_box(&frame[HEADROOM..])));
    })
}

/// The same through a tunnel of ours.
pub(super) fn parse_tunnelled(_turns: usize) -> Turn {
    let frame = through_a_tunnel(0, 1, DATA);
    Box::new(move |_| {
        black_box(&parse(black_box(&frame[HEADROOM..])));
    })
}

/// A director's work for a packet of a connection that it forwards, one of a million: parse, look up, encapsulate.
pub(super) fn forward_known(turns: usize) -> Turn {
    forward(turns, MILLION, MILLION as usize)
}

/// The same with a thousand connections.
pub(super) fn forward_known_1k(turns: usize) -> Turn {
    forward(turns, 1000, MILLION as usize)
}

fn forward(turns: usize, connections: u32, capacity: usize) -> Turn {
    let mut director = director(8, capacity);
    establish(&mut director, connections);
    // A step that is prime to the count visits connections all over the table.
    let mut frames: Vec<Vec<u8>> =
        (0..turns as u32).map(|nth| from_client(nth.wrapping_mul(7919) % connections, 0, DATA)).collect();
    Box::new(move |nth| forward_one(&mut director, &mut frames[nth]))
}

fn forward_one(director: &mut Director, buffer: &mut [u8]) {
    // Looked at where it was made, as data planes do: to move it would be work of the benchmark's own.
    let parsed = parse(&buffer[HEADROOM..]);
    let Ok(parsed @ Parsed::Ip(frame)) = &parsed else { panic!("the frame was written by this program") };
    let verdict = handle(director, buffer, parsed);
    let Verdict::Forward(forward) = &verdict else { panic!("a known connection is forwarded") };
    edit::decrement_hop_limit(&mut buffer[HEADROOM..], &frame.packet).expect("the time to live is 57");
    black_box(wrap(buffer, &frame.packet, forward.from, forward.to, forward.hops));
}

/// A real server's work for a packet that a director forwarded: parse, decapsulate, translate.
pub(super) fn deliver_received(turns: usize) -> Turn {
    let mut director = director(8, 1 << 16);
    let mut frames: Vec<Vec<u8>> = (0..turns as u32).map(|nth| through_a_tunnel(nth, 1, DATA)).collect();
    Box::new(move |nth| {
        let buffer = &mut frames[nth];
        let parsed = parsed(buffer);
        let (Parsed::Ip(frame), Verdict::Deliver(delivery)) =
            (&parsed, handle(&mut director, buffer, &parsed))
        else {
            panic!("a forwarded connection is delivered");
        };
        let to = delivery.to.expect("delivery is by translation");
        let at = deliver(&mut buffer[HEADROOM..], frame, to, ChecksumState::Complete);
        black_box(at.expect("the segment can be delivered"));
    })
}

/// A real server's work for a packet of its TCP stack to a client: parse, name the service address.
pub(super) fn reply(turns: usize) -> Turn {
    let mut director = director(8, 1 << 16);
    let delivery = delivery_address_of(&director, address(1));
    let mut frames: Vec<Vec<u8>> =
        (0..turns as u32).map(|nth| segment((delivery, PORT), client(nth), DATA)).collect();
    Box::new(move |nth| {
        let bytes = &mut frames[nth][HEADROOM..];
        let frame: Frame = parse_ip(bytes, ethernet::HEADER_LEN).expect("written by this program");
        let Verdict::Reply(reply) = director.handle_reply(&frame, 1) else {
            panic!("a reply from a delivery address gets its service address");
        };
        dpr_rewrite::reply(bytes, &frame.packet, reply.from, reply.mss_max, ChecksumState::Complete)
            .expect("the segment can be translated");
    })
}

fn delivery_address_of(director: &Director, service: Ipv4Addr) -> Ipv4Addr {
    let deliveries = director.delivery_addresses();
    let delivery = deliveries.iter().find(|delivery| delivery.service == service);
    match delivery.expect("every service has a delivery address").delivery {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => panic!("delivery addresses are IPv4 here"),
    }
}

/// A director's decision on a new connection with 8 candidates, itself included, and its record.
pub(super) fn syn_among_8(turns: usize) -> Turn {
    syn(turns, 7)
}

/// The same with 1,000 candidates.
pub(super) fn syn_among_1000(turns: usize) -> Turn {
    syn(turns, 999)
}

fn syn(turns: usize, peers: u32) -> Turn {
    let mut director = director(peers, 1 << 16);
    let frames: Vec<Vec<u8>> = (0..turns as u32).map(|nth| from_client(nth, 0, flag::SYN)).collect();
    Box::new(move |nth| {
        let verdict = handle(&mut director, &frames[nth], &parsed(&frames[nth]));
        assert!(matches!(verdict, Verdict::Forward(_)), "a loaded director forwards");
    })
}
