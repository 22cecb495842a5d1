//! Frames on a device.
//!
//! Frames that are sent as they are stay in the buffer they came in; only segments cut from a large frame, and
//! answers, are written elsewhere.

use super::next_hops::NextHop;
use super::packet_socket::{Offload, Outgoing, PacketSocket};
use dpr_host::LinkIndex;
use dpr_model::DropReason;
use dpr_rewrite::ethernet::{self, ethertype};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::ops::Range;
use std::time::Duration;

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

/// An IP packet with an Ethernet header in front, as a frame of its own.
pub(crate) fn with_header(next_hop: NextHop, packet: &[u8], offload: Offload) -> Owned {
    let mut frame = Vec::with_capacity(ethernet::HEADER_LEN + packet.len());
    frame.extend_from_slice(&header(next_hop, packet));
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
    let packet = buffer.get(packet_at..).ok_or(DropReason::Truncated)?;
    let header = header(next_hop, packet);
    buffer.get_mut(start..packet_at).ok_or(DropReason::Truncated)?.copy_from_slice(&header);
    Ok(start)
}

fn header(next_hop: NextHop, packet: &[u8]) -> [u8; ethernet::HEADER_LEN] {
    let is_v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    let ethertype = if is_v6 { ethertype::IPV6 } else { ethertype::IPV4 };
    ethernet::header(next_hop.destination, next_hop.source, ethertype)
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
