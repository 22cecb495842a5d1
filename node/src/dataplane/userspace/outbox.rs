//! Packets on their way out: to which device and MAC address, in which order, and what waits.

use super::next_hops::{NextHop, NextHops, Resolution};
use super::packet_socket::{Batch, Offload, Outgoing, Sender};
use super::plane::Interface;
use super::tagged_hosts::{TaggedHosts, Towards};
use super::transmit::{self, Owned, Ready};
use super::waiting::Waiting;
use anyhow::Context as _;
use dpr_host::NetlinkError;
use dpr_model::{DropReason, Timestamp};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

/// An IP packet in a receive buffer.
#[derive(Clone, Debug)]
pub(super) struct InBuffer {
    /// Which buffer of the batch.
    pub(super) buffer: usize,
    /// Where in the buffer the packet is.
    pub(super) packet: Range<usize>,
    /// What offloads left undone.
    pub(super) offload: Offload,
}

/// Queues what leaves, and asks for the way.
pub(super) struct Outbox {
    sender: Sender,
    next_hops: NextHops,
    /// Hosts under VLAN tags, of which the kernel knows nothing.
    tagged: TaggedHosts,
    ready: Vec<Ready>,
    waiting: Waiting,
    refused: u64,
}

impl Outbox {
    /// Most frames leave by the interface `trunk`, and all that have tags.
    ///
    /// # Errors
    /// The kernel has no packet sockets for this process, or the interface has gone.
    pub(super) fn open(trunk: Interface) -> anyhow::Result<Self> {
        Ok(Self {
            sender: open_sender(trunk)?,
            next_hops: NextHops::open()?,
            tagged: TaggedHosts::on(trunk),
            ready: Vec::new(),
            waiting: Waiting::default(),
            refused: 0,
        })
    }

    /// Takes `trunk` for the interface from now on.
    ///
    /// # Errors
    /// It has gone.
    pub(super) fn move_to(&mut self, trunk: Interface) -> anyhow::Result<()> {
        self.sender = open_sender(trunk)?;
        self.tagged = TaggedHosts::on(trunk);
        Ok(())
    }

    /// Queues a packet towards `to`, by the host's routes. It stays in its buffer, which must not be used for
    /// anything else before [`Self::flush`].
    pub(super) fn send_in_place(
        &mut self,
        batch: &mut Batch,
        sent: InBuffer,
        to: Towards,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        match self.resolve(to, now) {
            Resolution::Known(next_hop) => self.send_to(batch, sent, next_hop),
            Resolution::Pending(neighbourhood) => {
                let packet = &batch.bytes(sent.buffer)[sent.packet];
                let dropped = self.waiting.push(neighbourhood, to, packet, sent.offload, now);
                dropped.map_or(Ok(()), Err)
            }
            Resolution::Never(reason) => Err(reason),
        }
    }

    /// Queues a packet to a next hop that is known, as [`Self::send_in_place`].
    pub(super) fn send_to(
        &mut self,
        batch: &mut Batch,
        sent: InBuffer,
        next_hop: NextHop,
    ) -> Result<(), DropReason> {
        let nth = sent.buffer;
        self.ready.push(transmit::in_place(batch.buffer(nth), sent, next_hop)?);
        Ok(())
    }

    /// Sends a finished packet that lies elsewhere, behind what is queued already.
    pub(super) fn send_copy(
        &mut self,
        batch: &Batch,
        packet: &[u8],
        to: Towards,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        match self.resolve(to, now) {
            Resolution::Known(next_hop) => {
                self.flush(batch);
                self.send_frame(transmit::with_header(next_hop, packet, Offload::default()));
                Ok(())
            }
            Resolution::Pending(neighbourhood) => {
                let dropped = self.waiting.push(neighbourhood, to, packet, Offload::default(), now);
                dropped.map_or(Ok(()), Err)
            }
            Resolution::Never(reason) => Err(reason),
        }
    }

    /// Sends one whole frame at once.
    pub(super) fn send_frame(&mut self, frame: Owned) {
        self.send_frames(&[frame]);
    }

    /// Sends what is queued; its buffers are free again.
    pub(super) fn flush(&mut self, batch: &Batch) {
        if self.ready.is_empty() {
            return;
        }
        let frames: Vec<Outgoing<'_>> = self
            .ready
            .iter()
            .map(|ready| Outgoing {
                bytes: &batch.bytes(ready.buffer)[ready.range.clone()],
                link: ready.link.0,
            })
            .collect();
        self.refused += transmit::send_all(&self.sender, &frames);
        self.ready.clear();
    }

    /// Hears of changed routes and neighbours. True when packets that wait should be tried again.
    pub(super) fn hear(&mut self) -> Result<bool, NetlinkError> {
        self.next_hops.handle_events()
    }

    /// True when packets wait for a neighbour.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends what waited and can go now; returns why others had to be dropped.
    pub(super) fn retry_waiting(&mut self, now: Timestamp) -> Vec<DropReason> {
        let (next_hops, tagged) = (&mut self.next_hops, &mut self.tagged);
        let (mut ready, dropped) = self.waiting.retry(now, |to| tagged.resolve(to, next_hops, now));
        ready.extend(tagged.take_questions());
        self.send_frames(&ready);
        dropped
    }

    /// Hosts that were heard under VLAN tags.
    pub(super) fn tagged(&mut self) -> &mut TaggedHosts {
        &mut self.tagged
    }

    /// How many frames devices refused since the last call.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    fn resolve(&mut self, to: Towards, now: Timestamp) -> Resolution {
        let resolution = self.tagged.resolve(to, &mut self.next_hops, now);
        let questions = self.tagged.take_questions();
        if !questions.is_empty() {
            self.send_frames(&questions);
        }
        resolution
    }

    fn send_frames(&mut self, frames: &[Owned]) {
        let outgoing: Vec<Outgoing<'_>> =
            frames.iter().map(|owned| Outgoing { bytes: &owned.bytes, link: owned.link.0 }).collect();
        self.refused += transmit::send_all(&self.sender, &outgoing);
    }
}

fn open_sender(trunk: Interface) -> anyhow::Result<Sender> {
    Sender::open(trunk.link.0).context("opening packet sockets for sending")
}

impl AsFd for Outbox {
    /// Readable when [`Outbox::hear`] has something to hear.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.next_hops.as_fd()
    }
}
