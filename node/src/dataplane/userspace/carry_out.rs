//! Frames to the director, and what it decides about them done to their bytes.

use super::next_hops::NextHop;
use super::outbox::InBuffer;
use super::packet_socket::{HEADROOM, Offload, Received};
use super::plane::Plane;
use super::tagged_hosts::Towards;
use super::transmit::Owned;
use super::tunnels;
use dpr_director::Arrival;
use dpr_model::{Delivery, DropReason, Forward, MacAddress, Nat, Reply, Timestamp, Verdict};
use dpr_rewrite::ethernet::{self, EthernetHeader, Tags, ethertype};
use dpr_rewrite::{
    Frame, Kind, Parsed, arp, decapsulate, deliver, echo, edit, ndp, parse, parse_ip, reply, too_big,
    translate, udp,
};
use std::net::IpAddr;
use std::ops::Range;

impl Plane {
    /// A frame from the network. An error is a drop that was found out about after the verdict.
    pub(super) fn handle_frame(&mut self, received: Received, now: Timestamp) -> Result<(), DropReason> {
        let bytes = &self.batch.bytes(received.buffer)[HEADROOM..HEADROOM + received.len];
        let tags = EthernetHeader::parse(bytes)?.tags;
        // Other VLANs' frames belong to other interfaces. The filter knows, unless it shows everything.
        if !self.parts.interest.current.takes(&tags) {
            return Ok(());
        }
        let parsed = parse(bytes)?;
        if !tags.is_empty() {
            self.parts.outbox.tagged().learn(bytes, &parsed, now);
        }
        let (wire_len, packets) = match &parsed {
            Parsed::Ip(frame) => on_the_wire(frame, received.offload),
            Parsed::Arp(_) | Parsed::Neighbour(_) | Parsed::Other => (received.len, 1),
        };
        let arrival = Arrival { parsed: &parsed, wire_len, packets };
        let parts = &mut self.parts;
        let verdict = parts.director.handle_frame(arrival, &mut parts.sockets, now);
        if let (Some(kernel), Parsed::Ip(frame)) = (&mut parts.kernel, &parsed) {
            kernel.learn(&parts.director, &frame.packet, now);
        }
        if let (Parsed::Ip(frame), false) = (&parsed, matches!(verdict, Verdict::Pass | Verdict::Drop(_))) {
            parts.outbox.tagged().hear(frame.packet.ip.source(), tags);
        }
        match (verdict, &parsed) {
            (Verdict::Pass, Parsed::Ip(frame)) if self.parts.interest.takes_for_want_of_ports(frame) => {
                self.send_to_stack(received, frame.packet.at..frame.packet.end())
            }
            (Verdict::Pass | Verdict::Drop(_), _) => Ok(()),
            (Verdict::AnswerArp, Parsed::Arp(request)) => {
                self.send_answer(arp::FRAME_LEN_MAX, request.target.into(), |mac, out| {
                    request.reply(mac, out)
                })
            }
            (Verdict::AnswerNeighbour, Parsed::Neighbour(solicitation)) => {
                let target = solicitation.target.into();
                self.send_answer(ndp::ADVERTISEMENT_LEN_MAX, target, |mac, out| {
                    solicitation.advertisement(mac, out)
                })
            }
            (verdict, Parsed::Ip(frame)) => self.carry_out(verdict, received, frame, now),
            // A verdict about a packet, and no packet.
            (_, Parsed::Arp(_) | Parsed::Neighbour(_) | Parsed::Other) => Err(DropReason::Malformed),
        }
    }

    fn carry_out(
        &mut self,
        verdict: Verdict,
        received: Received,
        frame: &Frame,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        match verdict {
            Verdict::Deliver(delivery) => self.deliver(received, frame, delivery),
            Verdict::Forward(forward) => self.forward(received, frame, &forward, now),
            Verdict::Direct { to } => self.direct(received, frame, to, now),
            Verdict::Nat(nat) | Verdict::NatReply(nat) => self.translate(received, frame, &nat, now),
            Verdict::TooBig { mtu, from } => self.answer_too_big(received, frame, (mtu, from), now),
            Verdict::AnswerEcho => self.answer_echo(received, frame, now),
            Verdict::Pass | Verdict::Drop(_) => Ok(()),
            Verdict::Ask => {
                // Its sender waits: the question goes out with this batch.
                self.sync_at = now;
                Ok(())
            }
            // Given to what the local stack sends, and to questions about addresses.
            Verdict::Reply(_) | Verdict::AnswerArp | Verdict::AnswerNeighbour => Err(DropReason::Malformed),
        }
    }

    /// A packet of the local stack to a client.
    pub(super) fn handle_reply(&mut self, received: Received, now: Timestamp) -> Result<(), DropReason> {
        let bytes = &mut self.batch.buffer(received.buffer)[HEADROOM..HEADROOM + received.len];
        if !matches!(ethernet::ethertype_of(bytes), Some(ethertype::IPV4 | ethertype::IPV6)) {
            return Ok(());
        }
        let frame = parse_ip(bytes, ethernet::HEADER_LEN)?;
        let packets = on_the_wire(&frame, received.offload).1;
        let to = match self.parts.director.handle_reply(&frame, packets) {
            Verdict::Reply(Reply { from, to, mss_max }) => {
                reply(bytes, &frame.packet, from, mss_max, received.offload.checksum())?;
                to
            }
            Verdict::NatReply(nat) => return self.translate(received, &frame, &nat, now),
            // Of a service with alias delivery: it has the right address already.
            Verdict::Pass => frame.packet.ip.destination(),
            _ => return Ok(()),
        };
        self.send_in_place(received, frame.packet.at..frame.packet.end(), Towards::Host(to), now)
    }

    fn deliver(&mut self, received: Received, frame: &Frame, delivery: Delivery) -> Result<(), DropReason> {
        let bytes = &mut self.batch.buffer(received.buffer)[HEADROOM..];
        let packet_at = match delivery.to {
            Some(to) => deliver(bytes, frame, to, received.offload.checksum())?,
            None => decapsulate(bytes, frame)?,
        };
        let offload = received.offload.shifted(u16::from(delivery.decapsulate));
        self.send_to_stack(Received { offload, ..received }, packet_at..frame.packet.end())
    }

    fn forward(
        &mut self,
        received: Received,
        frame: &Frame,
        forward: &Forward,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        let offload = received.offload;
        if offload.is_foreign() {
            return Err(DropReason::Malformed);
        }
        let flow = tunnels::tunnel_of(forward).flow_hash(&frame.packet, self.parts.flow_seed);
        let buffer = self.batch.buffer(received.buffer);
        decapsulate(&mut buffer[HEADROOM..], frame)?;
        edit::decrement_hop_limit(&mut buffer[HEADROOM..], &frame.packet)?;
        if offload.is_finished() && forward.fragment.is_none() {
            let start = tunnels::in_place(buffer, frame, forward, flow)?;
            let sent =
                InBuffer { buffer: received.buffer, packet: start..HEADROOM + frame.packet.end(), offload };
            let to = Towards::Node(forward.to, frame.tags);
            return self.parts.outbox.send_in_place(&mut self.batch, sent, to, now);
        }
        let bytes = &buffer[HEADROOM..HEADROOM + received.len];
        for piece in tunnels::in_pieces(bytes, &frame.packet, offload, forward, flow)? {
            self.parts.outbox.send_copy(&self.batch, &piece, Towards::Node(forward.to, frame.tags), now)?;
        }
        Ok(())
    }

    /// To another node by its MAC address; the packet keeps its destination.
    fn direct(
        &mut self,
        received: Received,
        frame: &Frame,
        to: IpAddr,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        let bytes = &mut self.batch.buffer(received.buffer)[HEADROOM..];
        edit::spend_hop_limit(bytes, &frame.packet)?;
        let to = Towards::Node(to, frame.tags);
        self.send_in_place(received, frame.packet.at..frame.packet.end(), to, now)
    }

    /// With other ends, to whom the new ones say.
    fn translate(
        &mut self,
        received: Received,
        frame: &Frame,
        nat: &Nat,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        let bytes = &mut self.batch.buffer(received.buffer)[HEADROOM..];
        let at = decapsulate(bytes, frame)?;
        edit::decrement_hop_limit(bytes, &frame.packet)?;
        translate(bytes, &frame.packet, &nat.ends, received.offload.checksum())?;
        let to = nat.ends.destination.map_or(frame.packet.ip.destination(), |end| end.address);
        let received = Received { offload: received.offload.shifted(u16::from(nat.decapsulate)), ..received };
        match self.parts.director.is_delivery_address(to) {
            true => self.send_to_stack(received, at..frame.packet.end()),
            false => self.send_in_place(received, at..frame.packet.end(), Towards::Host(to), now),
        }
    }

    fn answer_too_big(
        &mut self,
        received: Received,
        frame: &Frame,
        (mtu, from): (u16, IpAddr),
        now: Timestamp,
    ) -> Result<(), DropReason> {
        let buffer = self.batch.bytes(received.buffer);
        let original = &buffer[HEADROOM + frame.packet.at..HEADROOM + frame.packet.end()];
        let mut error = [0; too_big::ANSWER_LEN_MAX];
        let len = too_big::answer(original, mtu, from, &mut error)?;
        let to = Towards::Host(frame.packet.ip.source());
        self.parts.outbox.send_copy(&self.batch, &error[..len], to, now)
    }

    fn answer_echo(&mut self, received: Received, frame: &Frame, now: Timestamp) -> Result<(), DropReason> {
        let mut answer = vec![0; frame.packet.ip.total_len()];
        let len = echo::reply(&self.batch.bytes(received.buffer)[HEADROOM..], &frame.packet, &mut answer)?;
        let to = Towards::Host(frame.packet.ip.source());
        self.parts.outbox.send_copy(&self.batch, &answer[..len], to, now)
    }

    /// Tells all neighbours where a service address is now, those in VLANs too.
    pub(super) fn announce(&mut self, address: IpAddr) -> Result<(), DropReason> {
        let in_vlans = self.parts.interest.current.vlans.iter().map(|vlan| vlan.tags());
        let tags: Vec<Tags> = std::iter::once(Tags::default()).chain(in_vlans).collect();
        tags.into_iter().try_for_each(|tags| self.announce_under(tags, address))
    }

    fn announce_under(&mut self, tags: Tags, address: IpAddr) -> Result<(), DropReason> {
        match address {
            IpAddr::V4(v4) => self
                .send_answer(arp::FRAME_LEN_MAX, address, |mac, out| arp::announcement(v4, mac, tags, out)),
            IpAddr::V6(v6) => self.send_answer(ndp::ADVERTISEMENT_LEN_MAX, address, |mac, out| {
                ndp::announcement(v6, mac, tags, out)
            }),
        }
    }

    /// Sends the frame that `write` makes out of the MAC address that a service address has here.
    fn send_answer(
        &mut self,
        len_max: usize,
        address: IpAddr,
        write: impl FnOnce(MacAddress, &mut [u8]) -> Result<usize, DropReason>,
    ) -> Result<(), DropReason> {
        let interface = self.parts.interface;
        let mut frame = vec![0; len_max];
        let mac = self.parts.shared_macs.get(&address).copied().unwrap_or(interface.mac);
        let len = write(mac, &mut frame)?;
        // No switch may learn that a MAC address which several nodes have is here.
        ethernet::set_source(&mut frame, interface.mac)?;
        self.parts.outbox.send_frame(Owned::finished(&frame[..len], interface.link));
        Ok(())
    }

    /// Gives an IP packet that lies at `packet` in the frame `received` to the local stack.
    fn send_to_stack(&mut self, received: Received, packet: Range<usize>) -> Result<(), DropReason> {
        let device = &self.parts.device;
        let next_hop = NextHop {
            link: device.link,
            source: device.mac,
            destination: device.kernel_mac,
            tags: Tags::default(),
        };
        let sent = InBuffer {
            buffer: received.buffer,
            packet: HEADROOM + packet.start..HEADROOM + packet.end,
            offload: received.offload,
        };
        self.parts.outbox.send_to(&mut self.batch, sent, next_hop)
    }

    /// Queues an IP packet that lies at `packet` in the frame `received`.
    fn send_in_place(
        &mut self,
        received: Received,
        packet: Range<usize>,
        to: Towards,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        let sent = InBuffer {
            buffer: received.buffer,
            packet: HEADROOM + packet.start..HEADROOM + packet.end,
            offload: received.offload,
        };
        self.parts.outbox.send_in_place(&mut self.batch, sent, to, now)
    }
}

/// Largest IP packet that the frame is on the wire, bytes, and how many packets.
fn on_the_wire(frame: &Frame, offload: Offload) -> (usize, u32) {
    let outer = frame.outer.map_or(0, |outer| usize::from(outer.len));
    let packet = &frame.packet;
    let transport_len = match packet.kind {
        Kind::Tcp(header) => header.header_len(),
        Kind::Udp(_) => udp::HEADER_LEN,
        _ => return (outer + packet.ip.total_len(), 1),
    };
    let Some(segment_len) = offload.segment_len() else { return (outer + packet.ip.total_len(), 1) };
    let headers = packet.ip.header_len() + transport_len;
    let data = packet.ip.total_len().saturating_sub(headers);
    // A packet has at most 65,535 bytes of data.
    let packets = data.div_ceil(segment_len).max(1) as u32;
    (outer + headers + segment_len.min(data), packets)
}
