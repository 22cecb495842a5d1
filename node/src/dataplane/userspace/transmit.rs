//! From a verdict to frames on a device.
//!
//! Frames that are sent as they are stay in the buffer they came in; only segments cut from a large frame, and
//! answers, are written elsewhere.

use super::next_hops::{Neighbourhood, NextHop, Resolution};
use super::packet_socket::{HEADROOM, Offload, Outgoing, PacketSocket};
use dpr_host::LinkIndex;
use dpr_model::{DropReason, Forward, Timestamp};
use dpr_rewrite::ethernet::{self, ethertype};
use dpr_rewrite::segment::Segments;
use dpr_rewrite::{FlowHash, Frame, Packet, Tunnel, edit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Duration;

/// Packets that wait for a neighbour's MAC address.
const WAITING_MAX: usize = 256;
/// How long they wait: as long as the kernel's own three requests take.
const WAITING_TIME: Duration = Duration::from_secs(3);
/// How long a full device is waited for before the rest of a batch is dropped.
const DEVICE_TIME: Duration = Duration::from_millis(2);

/// A frame that lies ready in a receive buffer.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) buffer: usize,
    /// Where in the buffer the frame is.
    pub(crate) range: Range<usize>,
    pub(crate) offload: Offload,
    pub(crate) link: LinkIndex,
}

/// A frame of its own.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) frame: Vec<u8>,
    pub(crate) offload: Offload,
    pub(crate) link: LinkIndex,
}

/// Packets for neighbours that the kernel is looking for.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    packets: VecDeque<WaitingPacket>,
}

#[derive(Debug)]
struct WaitingPacket {
    neighbourhood: Neighbourhood,
    /// An IP packet.
    packet: Vec<u8>,
    offload: Offload,
    destination: Ipv4Addr,
    since: Timestamp,
}

impl Waiting {
    /// Keeps a packet; the oldest one goes when there are too many.
    pub(crate) fn push(
        &mut self,
        neighbourhood: Neighbourhood,
        destination: Ipv4Addr,
        packet: &[u8],
        offload: Offload,
        now: Timestamp,
    ) -> Option<DropReason> {
        let dropped = (self.packets.len() >= WAITING_MAX).then(|| self.packets.pop_front()).flatten();
        let packet = packet.to_vec();
        self.packets.push_back(WaitingPacket { neighbourhood, packet, offload, destination, since: now });
        dropped.map(|_| DropReason::NoNeighbour)
    }

    /// True when no packet waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Takes out what can be sent now, and what has waited for too long; `resolve` answers for a destination.
    pub(crate) fn retry(
        &mut self,
        now: Timestamp,
        mut resolve: impl FnMut(Ipv4Addr) -> Resolution,
    ) -> (Vec<Owned>, Vec<DropReason>) {
        let (mut ready, mut dropped) = (Vec::new(), Vec::new());
        self.packets.retain(|waiting| match resolve(waiting.destination) {
            Resolution::Known(next_hop) => {
                ready.push(with_header(next_hop, &waiting.packet, waiting.offload));
                false
            }
            Resolution::Pending(neighbourhood) if neighbourhood == waiting.neighbourhood => {
                let patient = now.since(waiting.since) < WAITING_TIME;
                if !patient {
                    dropped.push(DropReason::NoNeighbour);
                }
                patient
            }
            // The route changed meanwhile: the sender will try again.
            Resolution::Pending(_) => {
                dropped.push(DropReason::NoNeighbour);
                false
            }
            Resolution::Never(reason) => {
                dropped.push(reason);
                false
            }
        });
        (ready, dropped)
    }
}

/// An IP packet with an Ethernet header in front, as a frame of its own.
pub(crate) fn with_header(next_hop: NextHop, packet: &[u8], offload: Offload) -> Owned {
    let mut frame = Vec::with_capacity(ethernet::HEADER_LEN + packet.len());
    frame.extend_from_slice(&ethernet::header(next_hop.destination, next_hop.source, ethertype::IPV4));
    frame.extend_from_slice(packet);
    Owned { frame, offload, link: next_hop.link }
}

/// Writes the Ethernet header in front of the IP packet at `packet_at`; returns where the frame begins.
pub(crate) fn write_header(
    buffer: &mut [u8],
    packet_at: usize,
    next_hop: NextHop,
) -> Result<usize, DropReason> {
    let start = packet_at.checked_sub(ethernet::HEADER_LEN).ok_or(DropReason::Truncated)?;
    let header = ethernet::header(next_hop.destination, next_hop.source, ethertype::IPV4);
    buffer.get_mut(start..packet_at).ok_or(DropReason::Truncated)?.copy_from_slice(&header);
    Ok(start)
}

/// Puts the packet of a frame that is one segment into a tunnel, in place; returns where the outer header begins.
pub(crate) fn tunnel_in_place(
    buffer: &mut [u8],
    frame: &Frame,
    forward: &Forward,
) -> Result<usize, DropReason> {
    let bytes = buffer.get_mut(HEADROOM..).ok_or(DropReason::Truncated)?;
    edit::decrement_hop_limit(bytes, &frame.packet)?;
    let flow = flow_hash(&frame.packet);
    tunnel_of(forward).encapsulate(buffer, HEADROOM + frame.packet.at, forward.hops, flow)
}

/// Cuts a large or unfinished packet and puts every piece into a tunnel of its own.
pub(crate) fn tunnel_in_pieces(
    bytes: &mut [u8],
    packet: &Packet,
    segment_len: usize,
    forward: &Forward,
) -> Result<Vec<Vec<u8>>, DropReason> {
    edit::decrement_hop_limit(bytes, packet)?;
    let mut pieces = Vec::new();
    let mut segments = Segments::new(bytes, packet, segment_len)?;
    let tunnel = tunnel_of(forward);
    let overhead = tunnel.overhead();
    let mut piece = vec![0; overhead + packet.ip.total_len()];
    while let Some(len) = segments.next_into(&mut piece[overhead..]) {
        let len = len?;
        tunnel.encapsulate(&mut piece, overhead, forward.hops, flow_hash(packet))?;
        pieces.push(piece[..overhead + len].to_vec());
    }
    Ok(pieces)
}

fn tunnel_of(forward: &Forward) -> Tunnel {
    Tunnel { encapsulation: forward.encapsulation, source: forward.from, destination: forward.to }
}

/// An outer IPv4 header of IP in IP has no place for a hash, so its seed is of no use to anybody.
fn flow_hash(packet: &Packet) -> FlowHash {
    FlowHash::of(packet, 0)
}

/// Sends all of `frames`, waiting a little for a full device; returns how many had to be dropped.
pub(crate) fn send_all(socket: &PacketSocket, frames: &[Outgoing<'_>]) -> usize {
    let mut rest = frames;
    let mut dropped = 0;
    while !rest.is_empty() {
        let (sent, error) = socket.send(rest);
        rest = &rest[sent..];
        let Some(error) = error else { continue };
        if error.kind() == io::ErrorKind::WouldBlock && wait_for_room(socket) {
            continue;
        }
        // The frame at the front is what the device refused; those behind it may be for another device.
        tracing::debug!(%error, "a frame was refused");
        dropped += 1;
        rest = &rest[1..];
    }
    dropped
}

fn wait_for_room(socket: &PacketSocket) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(DEVICE_TIME.subsec_nanos()) };
    let mut descriptors = [PollFd::new(socket, PollFlags::OUT)];
    matches!(poll(&mut descriptors, Some(&timeout)), Ok(1))
}
