//! Packets of flows that user space decides about: of their clients, and what real servers answer to this node.

use super::{Frames, ethertype_of, framed};
use crate::world::{MAC, NAT_PORTS, NODE, peer_address};
use dpr_director::{CarriedFlow, Onward};
use dpr_model::Protocol;
use dpr_rewrite::checksum::{fold, pseudo_header, sum_of};
use dpr_rewrite::tcp::flag;
use dpr_rewrite::udp::checksum_to_send;
use std::net::SocketAddr;

impl Frames {
    /// A real server's to what was translated, perhaps.
    pub(super) fn answer(&mut self) -> Vec<u8> {
        let peer = peer_address(self.rng.u8(1..4));
        let (source, destination) = (self.address(peer), self.address(NODE));
        let port = NAT_PORTS.first() + self.rng.u16(..NAT_PORTS.count());
        let (protocol, from) =
            [(Protocol::Tcp, 80), (Protocol::Tcp, 443), (Protocol::Udp, 53)][self.rng.usize(..3)];
        self.between(protocol, SocketAddr::new(source, from), SocketAddr::new(destination, port))
    }

    /// Of a flow that the programs carry on, from either side.
    pub(crate) fn of_carried(&mut self, carried: &CarriedFlow) -> Vec<u8> {
        let CarriedFlow { flow, onward, .. } = carried;
        let client = SocketAddr::new(flow.client.address, flow.client.port);
        let service = SocketAddr::new(flow.service.address, flow.service.port);
        let (from, to) = match onward {
            Onward::Translated { server, stand_in: Some(stand_in) } if self.rng.bool() => {
                (*server, *stand_in)
            }
            Onward::Translated { .. } | Onward::AsSent => (client, service),
        };
        let mut packet = self.between(flow.protocol, from, to);
        if *onward == Onward::AsSent && self.rng.u8(..3) == 0 {
            packet = self.tunnel_of(&packet);
        }
        framed(MAC, ethertype_of(&packet), &packet)
    }

    fn between(&mut self, protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let (header_len, sum_at) = if protocol == Protocol::Tcp { (20, 16) } else { (8, 6) };
        let mut payload = vec![0; header_len + self.data_len()];
        self.rng.fill(&mut payload[header_len..]);
        let len = payload.len() as u16;
        payload[..2].copy_from_slice(&from.port().to_be_bytes());
        payload[2..4].copy_from_slice(&to.port().to_be_bytes());
        if protocol == Protocol::Tcp {
            const ACK: u8 = flag::ACK;
            payload[12] = 5 << 4;
            payload[13] =
                [ACK, ACK, ACK, ACK, ACK, ACK | flag::PSH, ACK | flag::FIN, flag::RST][self.rng.usize(..8)];
        } else {
            payload[4..6].copy_from_slice(&len.to_be_bytes());
        }
        // Sometimes a datagram has none.
        if protocol == Protocol::Tcp || self.rng.u8(..4) > 0 {
            let pseudo = pseudo_header(from.ip(), to.ip(), protocol.number(), len);
            let checksum = checksum_to_send(!fold(pseudo + sum_of(&payload)));
            payload[sum_at..sum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        self.packet(protocol.number(), from.ip(), to.ip(), &payload)
    }
}
