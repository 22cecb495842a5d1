//! A frame's bytes, out of a line of text.
//!
//! Layers are separated by ` / `: `vlan 5`, `ip A > B`, `ipip A > B hops=0`, `gue A > B hops=1`, `tcp 1000 > 80 syn seq=1`,
//! `udp 1000 > 53`, `echo request`, `too-big 1400`, `unreachable` and `expired` (what follows is quoted), `arp A ? B`,
//! `nd A ? B`, `proto 89`. `tos` of a tunnel is that of its outer header. Whatever is not said has an ordinary value; checksums are right unless `badsum` says otherwise.

use dpr_model::{Encapsulation, HopBudget, MacAddress};
use dpr_rewrite::checksum::{Checksum, fold, pseudo_header, sum_of};
use dpr_rewrite::tcp::flag;
use dpr_rewrite::udp::checksum_to_send;
use dpr_rewrite::{FlowHash, Tunnel, parse_ip};
use std::net::{IpAddr, Ipv6Addr};

/// MAC address of the node that the frames come to, and with which it answers for others.
pub const NODE_MAC: MacAddress = MacAddress([2; 6]);

/// Words of a layer: bare ones, and those with a value.
pub(crate) struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self(text.split_whitespace().collect())
    }

    pub(crate) fn at(&self, position: usize) -> &'a str {
        self.0.get(position).unwrap_or_else(|| panic!("too few words: {:?}", self.0))
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    pub(crate) fn number(&self, key: &str, otherwise: u32) -> u32 {
        self.value(key).map_or(otherwise, number)
    }
}

/// Decimal, or hexadecimal after `0x`.
pub(crate) fn number(text: &str) -> u32 {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{text} is no number"))
}

/// The Ethernet frame that `line` describes.
///
/// # Panics
/// When the line is not of this notation.
pub fn frame_of(line: &str) -> Vec<u8> {
    let (line, cut) = match line.split_once(" | cut ") {
        Some((line, len)) => (line, Some(number(len.trim()) as usize)),
        None => (line, None),
    };
    let mut layers: Vec<&str> = line.split(" / ").map(str::trim).collect();
    let mut frame = NODE_MAC.0.to_vec();
    frame.extend([4; 6]);
    while let Some(tag) = layers.first().and_then(|layer| layer.strip_prefix("vlan ")) {
        frame.extend([0x81, 0x00]);
        frame.extend((number(tag) as u16).to_be_bytes());
        layers.remove(0);
    }
    let first = Words::of(layers[0]);
    if first.at(0) == "arp" {
        frame.extend([0x08, 0x06]);
        frame.extend(arp(&first));
    } else {
        let packet = packet_of(&layers);
        frame.extend(if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(packet);
    }
    frame.truncate(cut.unwrap_or(usize::MAX));
    frame
}

fn packet_of(layers: &[&str]) -> Vec<u8> {
    let words = Words::of(layers[0]);
    match words.at(0) {
        "ip" => {
            let ends = (address(words.at(1)), address(words.at(3)));
            let (protocol, payload) = payload_of(&layers[1..], ends);
            ip(&words, ends, protocol, &payload)
        }
        "ipip" | "gue" => {
            let encapsulation = if words.at(0) == "gue" { Encapsulation::Gue } else { Encapsulation::Ipip };
            let tunnel =
                Tunnel { encapsulation, source: address(words.at(1)), destination: address(words.at(3)) };
            let inner = packet_of(&layers[1..]);
            let mut bytes = vec![0; tunnel.overhead()];
            bytes.extend(&inner);
            let hops = words.number("hops", 0) as u8;
            let flow = FlowHash::of(&parse_ip(&inner, 0).unwrap().packet, 0);
            let budget = HopBudget::from_wire(hops);
            tunnel.encapsulate(&mut bytes, tunnel.overhead(), budget, flow).unwrap();
            if hops != budget.get() {
                claim(&mut bytes, encapsulation, hops);
            }
            if let Some(class) = words.value("tos").map(number) {
                mark(&mut bytes, class as u8);
            }
            bytes
        }
        "nd" => solicitation(&words),
        layer => panic!("no packet begins with {layer}"),
    }
}

/// Hops that no node of ours would write, into an outer header.
fn claim(outer: &mut [u8], encapsulation: Encapsulation, hops: u8) {
    match (encapsulation, outer[0] >> 4) {
        (Encapsulation::Ipip, 4) => outer[5] = outer[5] & 0xf0 | hops & 0x0f,
        (Encapsulation::Ipip, _) => outer[2] = outer[2] & 0xcf | hops.min(3) << 4,
        (Encapsulation::Gue, 4) => outer[33] = outer[33] & 0xf0 | hops & 0x0f,
        (Encapsulation::Gue, _) => {
            let old = u16::from_be_bytes([outer[52], outer[53]]);
            outer[53] = outer[53] & 0xf0 | hops & 0x0f;
            let new = u16::from_be_bytes([outer[52], outer[53]]);
            let sum = Checksum::from_header(u16::from_be_bytes([outer[46], outer[47]]));
            let sum = checksum_to_send(sum.replace_word(old, new).finish());
            outer[46..48].copy_from_slice(&sum.to_be_bytes());
        }
    }
    complete_header(outer);
}

/// The traffic class of an outer header, which is the inner one's unless it is said.
fn mark(outer: &mut [u8], class: u8) {
    match outer[0] >> 4 {
        4 => outer[1] = class,
        _ => (outer[0], outer[1]) = (0x60 | class >> 4, class << 4 | outer[1] & 0x0f),
    }
    complete_header(outer);
}

fn complete_header(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        packet[10..12].copy_from_slice(&[0, 0]);
        let sum = !fold(sum_of(&packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

fn payload_of(layers: &[&str], ends: (IpAddr, IpAddr)) -> (u8, Vec<u8>) {
    let words = Words::of(layers.first().copied().unwrap_or("proto 89"));
    let ipv6 = ends.0.is_ipv6();
    let icmp = if ipv6 { 58 } else { 1 };
    let data = vec![0x61; words.number("len", 0) as usize];
    let (protocol, mut payload, sum_at) = match words.at(0) {
        "tcp" => (6, tcp(&words, &data), 16),
        "udp" => (17, udp(&words, &data), 6),
        "echo" => (icmp, [&[if ipv6 { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1], &data[..]].concat(), 2),
        "too-big" => {
            let mtu = number(words.at(1)) as u16;
            let kind: [u8; 2] = if ipv6 { [2, 0] } else { [3, 4] };
            (icmp, error(kind, mtu, &layers[1..]), 2)
        }
        "unreachable" => (icmp, error(if ipv6 { [1, 4] } else { [3, 3] }, 0, &layers[1..]), 2),
        "expired" => (icmp, error(if ipv6 { [3, 0] } else { [11, 0] }, 0, &layers[1..]), 2),
        "proto" => (number(words.at(1)) as u8, vec![0; 8], usize::MAX),
        layer => panic!("no layer is called {layer}"),
    };
    if sum_at != usize::MAX && !words.has("nosum") {
        let pseudo = match protocol {
            1 => 0,
            _ => pseudo_header(ends.0, ends.1, protocol, payload.len() as u16),
        };
        let mut sum = !fold(pseudo + sum_of(&payload));
        if protocol == 17 && sum == 0 {
            sum = 0xffff;
        }
        let sum = if words.has("badsum") { sum ^ 0x0101 } else { sum };
        payload[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    (protocol, payload)
}

fn tcp(words: &Words<'_>, data: &[u8]) -> Vec<u8> {
    let flags =
        [("fin", flag::FIN), ("syn", flag::SYN), ("rst", flag::RST), ("psh", flag::PSH), ("ack", flag::ACK)];
    let flags = flags.iter().filter(|(word, _)| words.has(word)).fold(0, |all, (_, flag)| all | flag);
    let options =
        words.value("mss").map_or(vec![], |mss| [&[2, 4], &(number(mss) as u16).to_be_bytes()[..]].concat());
    let mut bytes = (number(words.at(1)) as u16).to_be_bytes().to_vec();
    bytes.extend((number(words.at(3)) as u16).to_be_bytes());
    bytes.extend(words.number("seq", 1).to_be_bytes());
    bytes.extend([0, 0, 0, 1, ((5 + options.len() / 4) << 4) as u8, flags, 0x20, 0, 0, 0, 0, 0]);
    [bytes, options, data.to_vec()].concat()
}

fn udp(words: &Words<'_>, data: &[u8]) -> Vec<u8> {
    let mut bytes = (number(words.at(1)) as u16).to_be_bytes().to_vec();
    bytes.extend((number(words.at(3)) as u16).to_be_bytes());
    bytes.extend((8 + data.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    [bytes, data.to_vec()].concat()
}

/// An error's message; of what it quotes at most 128 bytes.
fn error([kind, code]: [u8; 2], mtu: u16, quoted: &[&str]) -> Vec<u8> {
    let [high, low] = mtu.to_be_bytes();
    let quoted = packet_of(quoted);
    [&[kind, code, 0, 0, 0, 0, high, low], &quoted[..quoted.len().min(128)]].concat()
}

/// `frag=OFFSET+:ID` says which part of `payload` goes into the packet: up to the next `upto=`, or all that is left.
fn ip(words: &Words<'_>, ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (fragment, id) = words.value("frag").map_or((None, words.number("id", 0)), |value| {
        let (place, id) = value.split_once(':').unwrap();
        let more = place.ends_with('+');
        (Some((number(place.trim_end_matches('+')) as u16, more)), number(id))
    });
    let from = fragment.map_or(0, |(offset, _)| usize::from(offset));
    let payload = &payload[from..words.value("upto").map_or(payload.len(), |end| number(end) as usize)];
    let hop_limit = words.number("ttl", 64) as u8;
    match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let df = if words.has("nodf") || fragment.is_some() { 0 } else { 0x4000 };
            let (offset, more) = fragment.unwrap_or_default();
            let field: u16 = df | (offset / 8) | if more { 0x2000 } else { 0 };
            let mut bytes = vec![0x45, words.number("tos", 0) as u8];
            bytes.extend((20 + payload.len() as u16).to_be_bytes());
            bytes.extend((id as u16).to_be_bytes());
            bytes.extend(field.to_be_bytes());
            bytes.extend([hop_limit, protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            let sum = !fold(sum_of(&bytes)) ^ if words.has("badhdr") { 1 } else { 0 };
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            [&bytes, payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let extension = fragment.map_or(vec![], |(offset, more)| {
                let [high, low] = (offset | u16::from(more)).to_be_bytes();
                [&[protocol, 0, high, low], &id.to_be_bytes()[..]].concat()
            });
            let class = words.number("tos", 0) as u8;
            let mut bytes = vec![0x60 | class >> 4, class << 4, 0, 0];
            bytes.extend(((extension.len() + payload.len()) as u16).to_be_bytes());
            bytes.extend([if fragment.is_some() { 44 } else { protocol }, hop_limit]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            [&bytes, &extension[..], payload].concat()
        }
        ends => panic!("{ends:?} are of different versions"),
    }
}

fn arp(words: &Words<'_>) -> Vec<u8> {
    let (IpAddr::V4(asks), IpAddr::V4(target)) = (address(words.at(1)), address(words.at(3))) else {
        panic!("ARP is for IPv4")
    };
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1, 4, 4, 4, 4, 4, 4];
    bytes.extend(asks.octets());
    bytes.extend([0; 6]);
    bytes.extend(target.octets());
    bytes
}

fn solicitation(words: &Words<'_>) -> Vec<u8> {
    let (source, IpAddr::V6(target)) = (address(words.at(1)), address(words.at(3))) else {
        panic!("neighbour discovery is for IPv6")
    };
    let [.., a, b, c] = target.octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&[a, b, c]);
    let group = IpAddr::from(group);
    let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0], &target.octets()[..]].concat();
    let sum = !fold(pseudo_header(source, group, 58, 24) + sum_of(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(&Words::of("ttl=255"), (source, group), 58, &message)
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}
