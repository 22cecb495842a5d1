//! The thread that moves packets.

use super::delivery_device::DeliveryDevice;
use super::diversion::{self, Diversion};
use super::kernel_sockets::KernelSockets;
use super::next_hops::{NextHop, NextHops, Resolution};
use super::packet_socket::{Batch, HEADROOM, Offload, Outgoing, PacketSocket, Received};
use super::transmit::{self, Owned, Ready, Waiting};
use crate::clock::now;
use crate::dataplane::{Command, Mailbox, Snapshot};
use anyhow::Context as _;
use dpr_director::{Arrival, Director};
use dpr_host::LinkIndex;
use dpr_model::{Delivery, DropReason, Forward, MacAddress, Reply, Timestamp, Verdict};
use dpr_rewrite::ethernet::{self, EthernetHeader};
use dpr_rewrite::{Frame, Kind, Parsed, arp, decapsulate, deliver, parse, parse_ip, reply, too_big};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// Entries that are looked at for expiry between two batches.
const EXPIRY_BUDGET: usize = 1024;
/// Longest sleep: expiry and waiting packets need no finer clock.
const SLEEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Batches in a row from one socket, so that the other one and the daemon get their turn under load.
const BATCHES_IN_A_ROW: usize = 4;

/// The interface that service packets come in on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interface {
    pub(super) link: LinkIndex,
    pub(super) mac: MacAddress,
}

/// What a plane is put together from.
pub(super) struct Parts {
    pub(super) director: Director,
    pub(super) network: PacketSocket,
    pub(super) replies: PacketSocket,
    pub(super) sender: PacketSocket,
    pub(super) device: DeliveryDevice,
    pub(super) diversion: Diversion,
    pub(super) next_hops: NextHops,
    pub(super) sockets: KernelSockets,
    pub(super) mailbox: Mailbox,
    pub(super) interface: Interface,
}

/// The data plane's thread.
pub(super) struct Plane {
    parts: Parts,
    batch: Batch,
    received: Vec<Received>,
    ready: Vec<Ready>,
    waiting: Waiting,
}

/// Which socket a batch came from.
#[derive(Clone, Copy)]
enum Source {
    Network,
    LocalStack,
}

impl Plane {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            batch: Batch::new(),
            received: Vec::new(),
            ready: Vec::new(),
            waiting: Waiting::default(),
        }
    }

    /// Runs until the daemon says stop, or goes away; then gives the host back.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let result = self.run_until_stopped();
        let Parts { diversion, device, .. } = self.parts;
        // In this order: the kernel has its packets again before their addresses go.
        let given_back = diversion.end().map_err(anyhow::Error::from).and(device.remove());
        result.and(given_back)
    }

    fn run_until_stopped(&mut self) -> anyhow::Result<()> {
        loop {
            let readable = self.wait()?;
            if readable.network {
                self.move_packets(Source::Network)?;
            }
            if readable.replies {
                self.move_packets(Source::LocalStack)?;
            }
            if readable.neighbours && self.parts.next_hops.handle_events()? || !self.waiting.is_empty() {
                self.retry_waiting();
            }
            if readable.mailbox {
                self.parts.mailbox.clear_wake();
                while let Some(command) = self.parts.mailbox.next() {
                    if !self.obey(command) {
                        return Ok(());
                    }
                }
            }
            self.parts.director.handle_timeout(now(), EXPIRY_BUDGET);
        }
    }

    fn wait(&self) -> anyhow::Result<Readable> {
        let parts = &self.parts;
        let mut descriptors = [
            PollFd::new(&parts.network, PollFlags::IN),
            PollFd::new(&parts.replies, PollFlags::IN),
            PollFd::new(&parts.next_hops, PollFlags::IN),
            PollFd::new(&parts.mailbox, PollFlags::IN),
        ];
        match poll(&mut descriptors, Some(&SLEEP)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for packets"),
        }
        let [network, replies, neighbours, mailbox] = descriptors.map(|fd| !fd.revents().is_empty());
        Ok(Readable { network, replies, neighbours, mailbox })
    }

    fn move_packets(&mut self, source: Source) -> anyhow::Result<()> {
        for _ in 0..BATCHES_IN_A_ROW {
            let socket = match source {
                Source::Network => &self.parts.network,
                Source::LocalStack => &self.parts.replies,
            };
            match socket.receive(&mut self.batch, &mut self.received) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The interface went down or away; neighbours and routes will tell when it is back.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => return Ok(()),
                Err(error) => return Err(error).context("receiving packets"),
            }
            let now = now();
            let frames = std::mem::take(&mut self.received);
            for received in &frames {
                let handled = match source {
                    Source::Network => self.handle_frame(*received, now),
                    Source::LocalStack => self.handle_reply(*received, now),
                };
                if let Err(reason) = handled {
                    self.parts.director.count_drop(reason);
                }
            }
            self.received = frames;
            self.send_ready();
        }
        Ok(())
    }

    /// A frame from the network. An error is a drop that was found out about after the verdict.
    fn handle_frame(&mut self, received: Received, now: Timestamp) -> Result<(), DropReason> {
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
                self.send_owned(&[Owned { frame, offload: Offload::default(), link: interface.link }]);
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
    fn handle_reply(&mut self, received: Received, now: Timestamp) -> Result<(), DropReason> {
        let bytes = &mut self.batch.buffer(received.buffer)[HEADROOM..HEADROOM + received.len];
        if ethernet::ethertype_of(bytes) != Some(ethernet::ethertype::IPV4) {
            return Ok(());
        }
        let frame = parse_ip(bytes, ethernet::HEADER_LEN)?;
        let Verdict::Reply(Reply { from, to: IpAddr::V4(to), mss_max }) =
            self.parts.director.handle_reply(&frame, on_the_wire(&frame, received.offload).1)
        else {
            return Ok(());
        };
        reply(bytes, &frame.packet, from, mss_max, received.offload.checksum())?;
        let packet = HEADROOM + frame.packet.at..HEADROOM + frame.packet.end();
        self.send_to_next_hop(received, packet, to, now)
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
        let start = transmit::write_header(buffer, HEADROOM + packet_at, next_hop)?;
        self.ready.push(Ready {
            buffer: received.buffer,
            range: start..HEADROOM + frame.packet.end(),
            offload: received.offload.shifted(u16::from(delivery.decapsulate)),
            link: device.link,
        });
        Ok(())
    }

    fn forward(
        &mut self,
        received: Received,
        frame: &Frame,
        forward: Forward,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        let IpAddr::V4(to) = forward.to else { return Err(DropReason::NoRoute) };
        let offload = received.offload;
        let buffer = self.batch.buffer(received.buffer);
        decapsulate(&mut buffer[HEADROOM..], frame)?;
        if offload.is_finished() {
            let start = transmit::tunnel_in_place(buffer, frame, &forward)?;
            return self.send_to_next_hop(received, start..HEADROOM + frame.packet.end(), to, now);
        }
        if offload.is_foreign() {
            return Err(DropReason::Malformed);
        }
        let segment_len = offload.segment_len().unwrap_or(usize::from(u16::MAX));
        let bytes = &mut buffer[HEADROOM..HEADROOM + received.len];
        let pieces = transmit::tunnel_in_pieces(bytes, &frame.packet, segment_len, &forward)?;
        for piece in &pieces {
            self.send_copy(piece, to, now)?;
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
        let IpAddr::V4(to) = frame.packet.ip.source() else { return Err(DropReason::NoRoute) };
        let buffer = self.batch.buffer(received.buffer);
        let original = &buffer[HEADROOM + frame.packet.at..HEADROOM + frame.packet.end()];
        let mut error = [0; too_big::ANSWER_LEN_MAX];
        let len = too_big::answer(original, mtu, source, &mut error)?;
        self.send_copy(&error[..len], to, now)
    }

    /// Queues an IP packet that lies in the buffer of `received`.
    fn send_to_next_hop(
        &mut self,
        received: Received,
        packet: std::ops::Range<usize>,
        to: Ipv4Addr,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        let buffer = self.batch.buffer(received.buffer);
        match self.parts.next_hops.resolve(to, now) {
            Resolution::Known(next_hop) => {
                let start = transmit::write_header(buffer, packet.start, next_hop)?;
                self.ready.push(Ready {
                    buffer: received.buffer,
                    range: start..packet.end,
                    offload: received.offload,
                    link: next_hop.link,
                });
                Ok(())
            }
            Resolution::Pending(neighbourhood) => {
                let dropped = self.waiting.push(neighbourhood, to, &buffer[packet], received.offload, now);
                dropped.map_or(Ok(()), Err)
            }
            Resolution::Never(reason) => Err(reason),
        }
    }

    /// Sends an IP packet that lies elsewhere, behind what is queued already.
    fn send_copy(&mut self, packet: &[u8], to: Ipv4Addr, now: Timestamp) -> Result<(), DropReason> {
        match self.parts.next_hops.resolve(to, now) {
            Resolution::Known(next_hop) => {
                self.send_ready();
                self.send_owned(&[transmit::with_header(next_hop, packet, Offload::default())]);
                Ok(())
            }
            Resolution::Pending(neighbourhood) => {
                let dropped = self.waiting.push(neighbourhood, to, packet, Offload::default(), now);
                dropped.map_or(Ok(()), Err)
            }
            Resolution::Never(reason) => Err(reason),
        }
    }

    fn retry_waiting(&mut self) {
        let now = now();
        let next_hops = &mut self.parts.next_hops;
        let (ready, dropped) = self.waiting.retry(now, |destination| next_hops.resolve(destination, now));
        self.send_owned(&ready);
        for reason in dropped {
            self.parts.director.count_drop(reason);
        }
    }

    fn send_ready(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        let batch = &self.batch;
        let frames: Vec<Outgoing<'_>> = self
            .ready
            .iter()
            .map(|ready| Outgoing {
                frame: &batch.bytes(ready.buffer)[ready.range.clone()],
                offload: ready.offload,
                link: ready.link.0,
            })
            .collect();
        let dropped = transmit::send_all(&self.parts.sender, &frames);
        self.ready.clear();
        self.count_refused(dropped);
    }

    fn send_owned(&mut self, frames: &[Owned]) {
        let outgoing: Vec<Outgoing<'_>> = frames
            .iter()
            .map(|owned| Outgoing { frame: &owned.frame, offload: owned.offload, link: owned.link.0 })
            .collect();
        let dropped = transmit::send_all(&self.parts.sender, &outgoing);
        self.count_refused(dropped);
    }

    fn count_refused(&mut self, frames: usize) {
        for _ in 0..frames {
            self.parts.director.count_drop(DropReason::TransmitFailed);
        }
    }

    /// Does what the daemon asks; false when it asks to stop. Somebody who no longer waits for an answer gets none.
    fn obey(&mut self, command: Command) -> bool {
        let director = &mut self.parts.director;
        match command {
            Command::Update(update) => {
                director.update(&update, now());
                if let Err(error) = self.parts.diversion.take_tunnels_from(diversion::peers_of(&update)) {
                    tracing::error!(%error, "tunnels of new peers cannot be taken from the kernel");
                }
            }
            Command::Snapshot(answer) => {
                let _ = answer.send(Snapshot {
                    counters: director.counters(),
                    conntrack: director.conntrack_status(),
                    deliveries: director.delivery_addresses(),
                    received: director.acknowledgements(),
                    sent: director.sent(),
                    forwarded_out: director.forwarded_out(),
                    lease_valid: director.lease_is_valid(now()),
                });
            }
            Command::Connections { limit, reply } => {
                let _ = reply.send(director.connections(now()).take(limit).collect());
            }
            Command::Stop => return false,
        }
        true
    }
}

#[derive(Clone, Copy)]
struct Readable {
    network: bool,
    replies: bool,
    neighbours: bool,
    mailbox: bool,
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
