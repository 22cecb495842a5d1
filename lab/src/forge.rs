//! Frames and datagrams that no honest node would send: raw injection from a machine.

use crate::error::LabError;
use crate::machine::Machine;
use crate::packet_socket::PacketSocket;
use dpr_model::MacAddress;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

/// Sends whole Ethernet frames through one interface of a machine.
#[derive(Debug)]
pub struct FrameSender {
    socket: PacketSocket,
    machine: String,
}

impl FrameSender {
    /// Opens it on `interface`.
    ///
    /// # Errors
    ///
    /// No packet socket could be made, or there is no such interface.
    pub fn open(machine: &Machine, interface: &str) -> Result<Self, LabError> {
        let name = interface.to_owned();
        let doing = || format!("send frames through {interface} of {}", machine.name());
        let open = move || -> io::Result<PacketSocket> {
            let socket = PacketSocket::new()?;
            socket.bind(&name, 0)?;
            Ok(socket)
        };
        let socket = machine.exec(open)?.map_err(LabError::io(doing))?;
        Ok(Self { socket, machine: machine.name().to_owned() })
    }

    /// Sends one frame, whatever it is.
    ///
    /// # Errors
    ///
    /// The interface refused it: shorter than an Ethernet header, longer than the MTU, link down.
    pub fn send(&self, frame: &[u8]) -> Result<(), LabError> {
        // SAFETY: pointer and length describe `frame`, which outlives the call.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 {
            let doing = || format!("send a frame of {} bytes from {}", frame.len(), self.machine);
            return Err(LabError::io(doing)(io::Error::last_os_error()));
        }
        Ok(())
    }
}

/// A UDP socket of a machine, to send datagrams to nodes or to their multicast group.
///
/// # Errors
///
/// The port cannot be bound.
pub fn udp_socket(machine: &Machine, source_port: u16) -> Result<UdpSocket, LabError> {
    let doing = || format!("bind UDP port {source_port} of {}", machine.name());
    let address = machine.address();
    let bind = move || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((address, source_port))?;
        if let IpAddr::V4(address) = address {
            socket2::SockRef::from(&socket).set_multicast_if_v4(&address)?;
        }
        Ok(socket)
    };
    machine.exec(bind)?.map_err(LabError::io(doing))
}

/// An Ethernet frame around an IPv4 packet.
pub fn ethernet_ipv4(from: MacAddress, to: MacAddress, packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + packet.len());
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&0x0800u16.to_be_bytes());
    frame.extend_from_slice(packet);
    frame
}

/// An IPv4 packet without options, TTL 64, DF, correct header checksum, around any payload (RFC 791).
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let total_len = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&total_len.to_be_bytes());
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&[0x40, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let sum = !ones_complement_sum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A TCP segment without data or options, with a correct checksum (RFC 9293).
pub fn tcp(source: SocketAddrV4, destination: SocketAddrV4, sequence: u32, flags: u8) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20);
    segment.extend_from_slice(&source.port().to_be_bytes());
    segment.extend_from_slice(&destination.port().to_be_bytes());
    segment.extend_from_slice(&sequence.to_be_bytes());
    segment.extend_from_slice(&[0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let mut covered = Vec::new();
    covered.extend_from_slice(&source.ip().octets());
    covered.extend_from_slice(&destination.ip().octets());
    covered.extend_from_slice(&[0, 6, 0, 20]);
    covered.extend_from_slice(&segment);
    let sum = !ones_complement_sum(&covered);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// The sum that IP and TCP checksums are the complement of (RFC 1071).
fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_with_its_checksum_sums_to_all_ones() {
        let packet = ipv4(Ipv4Addr::new(10, 77, 0, 101), Ipv4Addr::new(10, 77, 0, 11), 4, 0x1230, &[1, 2, 3]);
        assert_eq!(ones_complement_sum(&packet[..20]), 0xffff);
        assert_eq!(packet[2..4], [0, 23]);
        assert_eq!(packet[20..], [1, 2, 3]);
    }

    #[test]
    fn the_checksum_of_rfc_1071_section_3_is_reproduced() {
        assert_eq!(ones_complement_sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }
}
