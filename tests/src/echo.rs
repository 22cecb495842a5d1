//! Echo requests in both IP versions, as `ping` sends them.

use dpr_lab::Machine;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// "Are you there?" of ICMP (RFC 792) and ICMPv6 (RFC 4443), and the answers.
const TYPES: [(u8, u8); 2] = [(8, 0), (128, 129)];

/// Asks `target` from `machine`, and panics unless the same bytes come back from there within two seconds.
pub fn ping(machine: &Machine, target: IpAddr) {
    let (domain, protocol, (request, reply)) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, TYPES[0]),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, TYPES[1]),
    };
    let payload = b"dpr scenario";
    let mut message = vec![request, 0, 0, 0, 0x12, 0x34, 0, 1];
    message.extend_from_slice(payload);
    if target.is_ipv4() {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let open = || -> std::io::Result<Socket> {
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        // Only what `target` sends.
        socket.connect(&SocketAddr::new(target, 0).into())?;
        Ok(socket)
    };
    let mut socket = machine.exec(open).unwrap().unwrap();
    socket.send(&message).unwrap();
    let mut buffer = [0; 512];
    loop {
        let length = socket.read(&mut buffer).expect("an echo reply within two seconds");
        // IPv4 raw sockets show the IP header.
        let header_len = if target.is_ipv4() { usize::from(buffer[0] & 0xf) * 4 } else { 0 };
        let answer = &buffer[header_len..length];
        if answer[0] == reply && answer[4..] == message[4..] {
            return;
        }
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
