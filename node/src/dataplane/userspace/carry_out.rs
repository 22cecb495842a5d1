//! Frames to the director, and what it decides about them done to their bytes.

use super::next_hops::NextHop;
use super::outbox::InBuffer;
use super::packet_socket::{HEADROOM, Offload, Received};
use super::plane::Plane;
use super::transmit::Owned;
use super::tunnels;
use dpr_director::Arrival;
use dpr_model::{Delivery, DropReason, Forward, Reply, Timestamp, Verdict};
use dpr_rewrite::ethernet::{self, EthernetHeader};
use dpr_rewrite::{Frame, Kind, Parsed, arp, decapsulate, deliver, parse, parse_ip, reply, too_big};
use std::net::IpAddr;
use std::ops::Range;

impl Plane {
    /// A frame from the network. An error is a drop that was found out about after the verdict.
    pub(super) fn handle_frame(&mut self, received: Received, now: Timestamp) -> Result<(), DropReason> {
        let bytes = &self.batch.buffer(received.buffer)[HEADROOM..HEADROOM + received.len];
        // Tagged frames belong to another interface. The filter knows, unless it shows everything.
        if !EthernetHeader::parse(bytes)?.tags.is_empty() {
            return Ok(());
        }
        let parsed = parse(bytes)?;
        let (wire_len, packets) = match &parsed {
            Parsed::Ip(frame) => on_the_wire(frame, received.offload),
            Parsed::Arp(_) | Parsed::Neighbour(_) | Parsed::Other => (received.len, 1),
        };
        let arrival = Arrival { parsed: &parsed, wire_len, packets };
        let parts = &mut self.parts;
        let verdict = parts.director.handle_frame(arrival, &mut parts.sockets, now);
        match (verdict, &parsed) {
            (Verdict::Deliver(delivery), Parsed::Ip(frame)) => self.deliver(received, frame, delivery),
            (Verdict::Forward(forward), Parsed::Ip(frame)) => self.forward(received, frame, forward, now),
            (Verdict::TooBig { mtu, from }, Parsed::Ip(frame)) => {
                self.answer_too_big(received, frame, (mtu, from), now)
            }
            (Verdict::AnswerArp, Parsed::Arp(request)) => {
                let interface = self.parts.interface;
                let mut frame = vec![0; arp::REPLY_LEN_MAX];
                let len = request.reply(interface.mac, &mut frame)?;
                frame.truncate(len);
                self.parts.outbox.send_frame(Owned {
                    frame,
                    offload: Offload::default(),
                    link: interface.link,
                });
                Ok(())
            }
            (Verdict::Pass | Verdict::Drop(_) | Verdict::Reply(_), _) => Ok(()),
            (
                Verdict::Deliver(_)
                | Verdict::Forward(_)
                | Verdict::Direct { .. }
                | Verdict::Nat(_)
                | Verdict::NatReply(_)
                | Verdict::TooBig { .. }
                | Verdict::AnswerArp
                | Verdict::AnswerNeighbour
                | Verdict::AnswerEcho,
                _,
            ) => Err(DropReason::Malformed),
        }
    }

    /// A packet of the local TCP stack to a client.
    pub(super) fn handle_reply(&mut self, received: Received, now: Timestamp) -> Result<(), DropReason> {
        let bytes = &mut self.batch.buffer(received.buffer)[HEADROOM..HEADROOM + received.len];
        if ethernet::ethertype_of(bytes) != Some(ethernet::ethertype::IPV4) {
            return Ok(());
        }
        let frame = parse_ip(bytes, ethernet::HEADER_LEN)?;
        let Verdict::Reply(Reply { from, to, mss_max }) =
            self.parts.director.handle_reply(&frame, on_the_wire(&frame, received.offload).1)
        else {
            return Ok(());
        };
        reply(bytes, &frame.packet, from, mss_max, received.offload.checksum())?;
        self.send_in_place(received, frame.packet.at..frame.packet.end(), to, now)
    }

    fn deliver(&mut self, received: Received, frame: &Frame, delivery: Delivery) -> Result<(), DropReason> {
        let buffer = self.batch.buffer(received.buffer);
        let bytes = &mut buffer[HEADROOM..];
        let packet_at = match delivery.to {
            Some(to) => deliver(bytes, frame, to, received.offload.checksum())?,
            None => decapsulate(bytes, frame)?,
        };
        let device = &self.parts.device;
        let next_hop = NextHop { link: device.link, source: device.mac, destination: device.kernel_mac };
        let sent = InBuffer {
            buffer: received.buffer,
            packet: HEADROOM + packet_at..HEADROOM + frame.packet.end(),
            offload: received.offload.shifted(u16::from(delivery.decapsulate)),
        };
        self.parts.outbox.send_to(&mut self.batch, sent, next_hop)
    }

    fn forward(
        &mut self,
        received: Received,
        frame: &Frame,
        forward: Forward,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        let offload = received.offload;
        let buffer = self.batch.buffer(received.buffer);
        decapsulate(&mut buffer[HEADROOM..], frame)?;
        if offload.is_finished() {
            let start = tunnels::in_place(buffer, frame, &forward)?;
            let sent =
                InBuffer { buffer: received.buffer, packet: start..HEADROOM + frame.packet.end(), offload };
            return self.parts.outbox.send_in_place(&mut self.batch, sent, forward.to, now);
        }
        if offload.is_foreign() {
            return Err(DropReason::Malformed);
        }
        let segment_len = offload.segment_len().unwrap_or(usize::from(u16::MAX));
        let bytes = &mut buffer[HEADROOM..HEADROOM + received.len];
        let pieces = tunnels::in_pieces(bytes, &frame.packet, segment_len, &forward)?;
        for piece in &pieces {
            self.parts.outbox.send_copy(&self.batch, piece, forward.to, now)?;
        }
        Ok(())
    }

    fn answer_too_big(
        &mut self,
        received: Received,
        frame: &Frame,
        (mtu, source): (u16, IpAddr),
        now: Timestamp,
    ) -> Result<(), DropReason> {
        let to = frame.packet.ip.source();
        let buffer = self.batch.buffer(received.buffer);
        let original = &buffer[HEADROOM + frame.packet.at..HEADROOM + frame.packet.end()];
        let mut error = [0; too_big::ANSWER_LEN_MAX];
        let len = too_big::answer(original, mtu, source, &mut error)?;
        self.parts.outbox.send_copy(&self.batch, &error[..len], to, now)
    }

    /// Queues an IP packet that lies at `packet` in the frame `received`.
    fn send_in_place(
        &mut self,
        received: Received,
        packet: Range<usize>,
        to: IpAddr,
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
    match (packet.kind, offload.segment_len()) {
        (Kind::Tcp(header), Some(segment_len)) => {
            let headers = packet.ip.header_len() + usize::from(header.header_len);
            let data = packet.ip.total_len().saturating_sub(headers);
            // A packet has at most 65,535 bytes of data.
            let packets = data.div_ceil(segment_len).max(1) as u32;
            (outer + headers + segment_len.min(data), packets)
        }
        _ => (outer + packet.ip.total_len(), 1),
    }
}
