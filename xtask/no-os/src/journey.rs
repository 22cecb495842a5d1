//! A SYN on its way from a client through a director to its real server, the answer on its way back, and what else
//! `rewrite` is called for.

use core::hint::black_box;
use core::net::Ipv4Addr;
use dpr_model::{HopBudget, MacAddress};
use dpr_rewrite::arp;
use dpr_rewrite::ethernet::{self, ethertype};
use dpr_rewrite::ipv4::{self, Fields};
use dpr_rewrite::segment::Segments;
use dpr_rewrite::tcp::{self, flag};
use dpr_rewrite::{
    ChecksumState, Encapsulation, FlowHash, Frame, Parsed, Tunnel, Version, checksum, deliver, edit, parse,
    parse_ip, protocol, reply, too_big, tunnel,
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVICE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const DIRECTOR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const DELIVERY: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 1);
const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// Room for an outer header in front of a frame.
const HEADROOM: usize = tunnel::overhead(Encapsulation::Ipip, Version::V4);
/// Data of the segment, bytes; two pieces when it is cut.
const DATA_LEN: usize = 8;
const PACKET_LEN: usize = ipv4::HEADER_LEN + TCP_LEN + DATA_LEN;
/// With a maximum segment size option.
const TCP_LEN: usize = tcp::HEADER_LEN + 4;
const FRAME_LEN: usize = ethernet::HEADER_LEN + PACKET_LEN;

/// The step that went wrong; its number is the program's exit status.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    Forward = 1,
    Deliver,
    Reply,
    Cut,
    TooBig,
    Arp,
    Refuse,
    Gue,
    Translate,
    Fragment,
    Echo,
    Neighbour,
}

/// Takes packets through every entry point.
pub(crate) fn all() -> Result<(), Step> {
    forward_and_deliver()?;
    answer().ok_or(Step::Reply)?;
    cut().ok_or(Step::Cut)?;
    too_big().ok_or(Step::TooBig)?;
    arp().ok_or(Step::Arp)?;
    refuse()
}

/// Director and real server: into a tunnel, out of it, to the delivery address.
fn forward_and_deliver() -> Result<(), Step> {
    let mut buffer = [0; HEADROOM + FRAME_LEN];
    buffer[HEADROOM..].copy_from_slice(&black_box(segment_from(CLIENT, SERVICE)));
    let sent = parse_ip_frame(&buffer[HEADROOM..]).ok_or(Step::Forward)?;
    edit::decrement_hop_limit(&mut buffer[HEADROOM..], &sent.packet).map_err(|_| Step::Forward)?;
    let tunnel =
        Tunnel { encapsulation: Encapsulation::Ipip, source: DIRECTOR.into(), destination: SERVER.into() };
    let flow = FlowHash::of(&sent.packet, 0);
    let outer_at = tunnel
        .encapsulate(&mut buffer, HEADROOM + sent.packet.at, HopBudget::SPENT, flow)
        .map_err(|_| Step::Forward)?;
    let frame_at = outer_at - ethernet::HEADER_LEN;
    buffer[frame_at..outer_at].copy_from_slice(&ethernet::header(MAC, MAC, ethertype::IPV4));

    let arrived = parse_ip_frame(&buffer[frame_at..]).ok_or(Step::Deliver)?;
    let outer = arrived.outer.ok_or(Step::Deliver)?;
    deliver(&mut buffer[frame_at..], &arrived, DELIVERY.into(), ChecksumState::Complete)
        .map_err(|_| Step::Deliver)?;
    let delivered = parse_ip(&buffer[frame_at..], arrived.packet.at).map_err(|_| Step::Deliver)?;

    let right =
        outer.hops.is_spent() && outer.source == DIRECTOR && delivered.packet.ip.destination() == DELIVERY;
    if right { Ok(()) } else { Err(Step::Deliver) }
}

/// Real server: the source becomes the service address, the maximum segment size is clamped.
fn answer() -> Option<()> {
    let mut bytes = black_box(segment_from(DELIVERY, CLIENT));
    let frame = parse_ip_frame(&bytes)?;
    reply(&mut bytes, &frame.packet, SERVICE.into(), Some(1440), ChecksumState::Complete).ok()?;
    let segment = &bytes[frame.packet.transport_at()..];
    let sum = checksum::pseudo_header(SERVICE.into(), CLIENT.into(), protocol::TCP, segment.len() as u16);
    let verifies = checksum::fold(sum + checksum::sum_of(segment)) == 0xffff;
    let clamped = segment[tcp::HEADER_LEN + 2..tcp::HEADER_LEN + 4] == 1440u16.to_be_bytes();
    (verifies && clamped).then_some(())
}

fn cut() -> Option<()> {
    let bytes = black_box(segment_from(CLIENT, SERVICE));
    let frame = parse_ip_frame(&bytes)?;
    let mut segments = Segments::new(&bytes, &frame.packet, DATA_LEN / 2).ok()?;
    let mut piece = [0; PACKET_LEN];
    let mut pieces = 0;
    while let Some(len) = segments.next_into(&mut piece) {
        parse_ip(&piece[..len.ok()?], 0).ok()?;
        pieces += 1;
    }
    (pieces == 2).then_some(())
}

fn too_big() -> Option<()> {
    let bytes = black_box(segment_from(CLIENT, SERVICE));
    let mut out = [0; too_big::ANSWER_LEN_MAX];
    let len = too_big::answer(&bytes[ethernet::HEADER_LEN..], 1480, SERVICE.into(), &mut out).ok()?;
    let error = parse_ip(&out[..len], 0).ok()?;
    (error.packet.ip.destination() == CLIENT).then_some(())
}

fn arp() -> Option<()> {
    let mut request = [0; 42];
    request[..14].copy_from_slice(&ethernet::header(MacAddress::BROADCAST, MAC, ethertype::ARP));
    request[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    request[22..28].copy_from_slice(&MAC.0);
    request[28..32].copy_from_slice(&CLIENT.octets());
    request[38..42].copy_from_slice(&SERVICE.octets());
    let Ok(Parsed::Arp(parsed)) = parse(&black_box(request)) else { return None };
    let mut out = [0; arp::FRAME_LEN_MAX];
    let len = parsed.reply(MAC, &mut out).ok()?;
    (parsed.target == SERVICE && out[28..32] == SERVICE.octets() && len == request.len()).then_some(())
}

/// Every frame that ends too early is refused, whatever is missing.
fn refuse() -> Result<(), Step> {
    let bytes = black_box(segment_from(CLIENT, SERVICE));
    let refused = (0..FRAME_LEN).all(|len| parse(&bytes[..len]).is_err());
    if refused { Ok(()) } else { Err(Step::Refuse) }
}

fn parse_ip_frame(bytes: &[u8]) -> Option<Frame> {
    match parse(bytes).ok()? {
        Parsed::Ip(frame) => Some(frame),
        Parsed::Arp(_) | Parsed::Neighbour(_) | Parsed::Other => None,
    }
}

/// A frame with a SYN that announces a maximum segment size of 1460 and carries data.
fn segment_from(source: Ipv4Addr, destination: Ipv4Addr) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    let (ethernet, packet) = frame.split_at_mut(ethernet::HEADER_LEN);
    ethernet.copy_from_slice(&ethernet::header(MAC, MAC, ethertype::IPV4));
    let (ip, segment) = packet.split_at_mut(ipv4::HEADER_LEN);
    ip.copy_from_slice(&ipv4::header(&Fields {
        tos: 0,
        total_len: PACKET_LEN as u16,
        id: 1,
        ttl: 64,
        protocol: protocol::TCP,
        source,
        destination,
    }));
    segment[12] = (TCP_LEN as u8 / 4) << 4;
    segment[tcp::field::FLAGS] = flag::SYN;
    segment[tcp::HEADER_LEN..TCP_LEN].copy_from_slice(&[2, 4, 0x05, 0xb4]);
    let sum = checksum::pseudo_header(source.into(), destination.into(), protocol::TCP, segment.len() as u16)
        + checksum::sum_of(segment);
    segment[tcp::field::CHECKSUM..tcp::field::CHECKSUM + 2]
        .copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
    frame
}
