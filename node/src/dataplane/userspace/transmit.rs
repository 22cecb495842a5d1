//! Frames on a device.
//!
//! Frames that are sent as they are stay in the buffer they came in; only segments cut from a large frame, and
//! answers, are written elsewhere.

use super::next_hops::NextHop;
use super::outbox::InBuffer;
use super::packet_socket::{Offload, Outgoing, Sender};
use dpr_host::LinkIndex;
use dpr_model::DropReason;
use dpr_rewrite::ethernet::{self, EthernetHeader, ethertype};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// How long a full device is waited for before the rest of a batch is dropped.
const DEVICE_TIME: Duration = Duration::from_millis(2);

/// A frame that lies ready in a receive buffer.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) buffer: usize,
    /// Where in the buffer the frame is, with its offload in front.
    pub(crate) range: Range<usize>,
    pub(crate) link: LinkIndex,
}

/// A frame of its own.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    /// The frame, with its offload in front.
    pub(crate) bytes: Vec<u8>,
    pub(crate) link: LinkIndex,
}

impl Owned {
    /// A frame of which nothing is left undone.
    pub(crate) fn finished(frame: &[u8], link: LinkIndex) -> Self {
        Self { bytes: [&Offload::default().to_bytes(), frame].concat(), link }
    }
}

/// An IP packet with an Ethernet header in front, as a frame of its own.
pub(crate) fn with_header(next_hop: NextHop, packet: &[u8], offload: Offload) -> Owned {
    let header = header(next_hop, packet);
    let offload = header.in_front_of(offload).to_bytes();
    Owned { bytes: [&offload, header.bytes(), packet].concat(), link: next_hop.link }
}

/// Writes the Ethernet header and the offload in front of the IP packet at `packet`; returns the frame.
pub(crate) fn in_place(buffer: &mut [u8], sent: InBuffer, next_hop: NextHop) -> Result<Ready, DropReason> {
    let InBuffer { buffer: nth, packet, offload } = sent;
    let header = header(next_hop, buffer.get(packet.start..).ok_or(DropReason::Truncated)?);
    let start = packet.start.checked_sub(Offload::LEN + header.len).ok_or(DropReason::Truncated)?;
    let room = buffer.get_mut(start..packet.start).ok_or(DropReason::Truncated)?;
    let (for_offload, for_header) = room.split_at_mut(Offload::LEN);
    for_offload.copy_from_slice(&header.in_front_of(offload).to_bytes());
    for_header.copy_from_slice(header.bytes());
    Ok(Ready { buffer: nth, range: start..packet.end, link: next_hop.link })
}

/// An Ethernet header with its tags.
struct Header {
    bytes: [u8; ethernet::HEADER_LEN_MAX],
    len: usize,
}

impl Header {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// What is left undone, as of the frame with this header.
    fn in_front_of(&self, offload: Offload) -> Offload {
        // At most two tags of four bytes.
        offload.behind((self.len - ethernet::HEADER_LEN) as u16)
    }
}

fn header(next_hop: NextHop, packet: &[u8]) -> Header {
    let is_v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    let NextHop { source, destination, tags, .. } = next_hop;
    let ethertype = if is_v6 { ethertype::IPV6 } else { ethertype::IPV4 };
    let mut bytes = [0; ethernet::HEADER_LEN_MAX];
    let header = EthernetHeader { destination, source, tags, ethertype };
    let len = header.write(&mut bytes).expect("there is room for as many tags as there can be");
    Header { bytes, len }
}

/// Sends all of `frames`, waiting a little for a full device; returns how many had to be dropped.
pub(crate) fn send_all(socket: &Sender, frames: &[Outgoing<'_>]) -> u64 {
    let mut rest = frames;
    let mut dropped = 0;
    while !rest.is_empty() {
        let (sent, error) = socket.send(rest);
        rest = &rest[sent..];
        let Some(error) = error else { continue };
        if error.kind() == io::ErrorKind::WouldBlock && wait_for_room(socket.towards(rest[0].link)) {
            continue;
        }
        // The frame at the front is what the device refused; those behind it may be for another device.
        tracing::debug!(%error, "a frame was refused");
        dropped += 1;
        rest = &rest[1..];
    }
    dropped
}

fn wait_for_room(socket: BorrowedFd<'_>) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(DEVICE_TIME.subsec_nanos()) };
    let mut descriptors = [PollFd::new(&socket, PollFlags::OUT)];
    matches!(poll(&mut descriptors, Some(&timeout)), Ok(1))
}
