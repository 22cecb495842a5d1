//! A line of text, out of a frame's bytes; checksums that do not hold are said.

use dpr_rewrite::checksum::{fold, pseudo_header, sum_of};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet frame.
pub fn describe_frame(frame: &[u8]) -> String {
    let mut at = 12;
    let mut text = String::new();
    while frame[at..at + 2] == [0x81, 0x00] {
        write!(text, "vlan {} / ", u16_at(frame, at + 2)).unwrap();
        at += 4;
    }
    if frame[at..at + 2] == [0x08, 0x06] {
        let arp = &frame[at + 2..];
        let operation = if arp[7] == 1 { "?" } else { "!" };
        write!(text, "arp {} {operation} {}", v4(&arp[14..]), v4(&arp[24..])).unwrap();
        return text;
    }
    text + &describe_packet(&frame[at + 2..])
}

/// An IP packet.
pub fn describe_packet(packet: &[u8]) -> String {
    describe(packet, false)
}

fn describe(packet: &[u8], quoted: bool) -> String {
    match packet[0] >> 4 {
        4 => {
            let length = u16_at(packet, 2);
            let end = if quoted { packet.len() } else { usize::from(length) };
            let mut text = format!("ip {} > {}", v4(&packet[12..]), v4(&packet[16..]));
            let field = u16_at(packet, 6);
            note(&mut text, "ttl", packet[8].into(), 64);
            note(&mut text, "tos", packet[1].into(), 0);
            note(&mut text, "id", u16_at(packet, 4).into(), 0);
            if field & 0x4000 == 0 {
                write!(text, " frag={}{}", (field & 0x1fff) * 8, if field & 0x2000 != 0 { "+" } else { "" })
                    .unwrap();
            }
            if fold(sum_of(&packet[..20])) != 0xffff {
                text.push_str(" BAD-HEADER");
            }
            let is_fragment = field & 0x3fff != 0;
            let ends = (v4(&packet[12..]).into(), v4(&packet[16..]).into());
            text + &payload(packet[9], &packet[20..end], ends, is_fragment || quoted, field & 0x1fff == 0)
        }
        6 => {
            let end = if quoted { packet.len() } else { 40 + usize::from(u16_at(packet, 4)) };
            let mut text = format!("ip {} > {}", v6(&packet[8..]), v6(&packet[24..]));
            note(&mut text, "ttl", packet[7].into(), 64);
            note(&mut text, "tos", (packet[0] << 4 | packet[1] >> 4).into(), 0);
            let label = u32::from_be_bytes([0, packet[1] & 0x0f, packet[2], packet[3]]);
            note(&mut text, "label", label, 0);
            let ends = (v6(&packet[8..]).into(), v6(&packet[24..]).into());
            if packet[6] != 44 {
                return text + &payload(packet[6], &packet[40..end], ends, quoted, true);
            }
            let field = u16_at(packet, 42);
            write!(text, " frag={}{}", field & 0xfff8, if field & 1 != 0 { "+" } else { "" }).unwrap();
            note(&mut text, "id", u32::from_be_bytes(packet[44..48].try_into().unwrap()), 0);
            text + &payload(packet[40], &packet[48..end], ends, true, field & 0xfff8 == 0)
        }
        version => format!("version {version}"),
    }
}

fn note(text: &mut String, name: &str, value: u32, ordinary: u32) {
    if value != ordinary {
        write!(text, " {name}={value}").unwrap();
    }
}

/// Of what is cut off, checksums cannot be told, and of later fragments nothing.
fn payload(protocol: u8, bytes: &[u8], ends: (IpAddr, IpAddr), is_part: bool, is_start: bool) -> String {
    if !is_start || bytes.len() < 8 {
        return format!(" / {} bytes of protocol {protocol}", bytes.len());
    }
    let pseudo = if protocol == 1 { 0 } else { pseudo_header(ends.0, ends.1, protocol, bytes.len() as u16) };
    let holds = is_part || fold(pseudo + sum_of(bytes)) == 0xffff;
    let sum = if holds { "" } else { " BAD-SUM" };
    match protocol {
        4 | 41 => format!(" / {}", describe(bytes, false)),
        6 => format!(" / {}{sum}", tcp(bytes)),
        17 => {
            let none = u16_at(bytes, 6) == 0;
            let sum = if none { " nosum" } else { sum };
            let head = format!(" / udp {} > {}{sum}", u16_at(bytes, 0), u16_at(bytes, 2));
            match bytes.get(8..16) {
                Some([1, kind @ (4 | 41), _, _, 0xd9, hops, 0, 0]) if u16_at(bytes, 2) == 6080 => {
                    format!("{head} / gue {kind} hops={} / {}", hops & 15, describe(&bytes[16..], false))
                }
                _ => format!("{head} len={}", bytes.len() - 8),
            }
        }
        1 | 58 => format!(" / icmp {}.{}{sum}{}", bytes[0], bytes[1], icmp(protocol, bytes)),
        _ => format!(" / {} bytes of protocol {protocol}", bytes.len()),
    }
}

fn tcp(bytes: &[u8]) -> String {
    let mut text = format!("tcp {} > {}", u16_at(bytes, 0), u16_at(bytes, 2));
    if bytes.len() < 20 {
        return text + " cut";
    }
    for (bit, word) in ["fin", "syn", "rst", "psh", "ack"].iter().enumerate() {
        if bytes[13] & 1 << bit != 0 {
            write!(text, " {word}").unwrap();
        }
    }
    let header_len = usize::from(bytes[12] >> 4) * 4;
    if bytes.get(20..22) == Some(&[2, 4]) && header_len > 20 {
        write!(text, " mss={}", u16_at(bytes, 22)).unwrap();
    }
    text + &format!(" len={}", bytes.len().saturating_sub(header_len))
}

fn icmp(protocol: u8, bytes: &[u8]) -> String {
    match (protocol, bytes[0]) {
        (1, 3 | 11) | (58, 1..=3) => {
            format!(" mtu={} / quotes {}", u16_at(bytes, 6), describe(&bytes[8..], true))
        }
        (58, 136) => format!(" {}", v6(&bytes[8..])),
        _ => format!(" len={}", bytes.len() - 8),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn v4(bytes: &[u8]) -> Ipv4Addr {
    <[u8; 4]>::try_from(&bytes[..4]).unwrap().into()
}

fn v6(bytes: &[u8]) -> Ipv6Addr {
    <[u8; 16]>::try_from(&bytes[..16]).unwrap().into()
}
