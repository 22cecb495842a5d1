//! The thread that moves packets.

use super::announcer::Announcer;
use super::delivery_device::DeliveryDevice;
use super::diversion::Diversion;
use super::endings::Endings;
use super::filter;
use super::host_settings::HostSettings;
use super::interest::Interests;
use super::kernel_sockets::KernelSockets;
use super::memberships::Memberships;
use super::outbox::Outbox;
use super::packet_socket::{Batch, Received, Receiver, WAITING_BATCHES_MAX};
use super::programs::Without;
use crate::clock::now;
use crate::dataplane::xdp::{Following, KernelPath};
use crate::dataplane::{Command, Mailbox, PlaneSnapshot, Snapshot, Update};
use anyhow::Context as _;
use dpr_director::Director;
use dpr_host::LinkIndex;
use dpr_model::status::Connection;
use dpr_model::{DeliveryMode, DropReason, FlowKey, MacAddress, Timestamp};
use dpr_ownership::agreement::Duty;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Entries that are looked at for expiry between two batches.
const EXPIRY_BUDGET: usize = 1024;
/// Between two looks at what has ended here, and at what there is to tell others about connections; the longest sleep. Each end that
/// woke this thread up would cost several microseconds.
const SYNC_EVERY: Duration = Duration::from_millis(20);
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
    /// The kernel's programs in front, if there are some.
    pub(super) kernel: Option<KernelPath>,
    /// What there is of them otherwise.
    pub(super) without: Without,
    pub(super) director: Director,
    pub(super) network: Receiver,
    pub(super) replies: Receiver,
    pub(super) device: DeliveryDevice,
    pub(super) diversion: Diversion,
    pub(super) outbox: Outbox,
    pub(super) sockets: KernelSockets,
    pub(super) endings: Endings,
    pub(super) mailbox: Mailbox,
    pub(super) host: HostSettings,
    pub(super) memberships: Memberships,
    pub(super) interest: Interests,
    pub(super) interface: Interface,
    /// MAC addresses that all nodes have, by the service address that they have them for.
    pub(super) shared_macs: BTreeMap<IpAddr, MacAddress>,
    pub(super) announcer: Announcer,
    /// Keeps strangers from aiming at one path among those that tunnels are spread over.
    pub(super) flow_seed: u32,
}

/// The data plane's thread.
pub(super) struct Plane {
    pub(super) parts: Parts,
    pub(super) batch: Batch,
    received: Vec<Received>,
    /// When there may be something to tell.
    pub(super) sync_at: Timestamp,
    sync_refused: BTreeMap<&'static str, u64>,
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
            batch: Batch::default(),
            received: Vec::new(),
            sync_at: Timestamp::default(),
            sync_refused: BTreeMap::new(),
        }
    }

    /// Runs until the daemon says stop, or goes away; then gives the host back.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let result = self.run_until_stopped();
        let Parts { kernel, diversion, device, host, memberships, .. } = self.parts;
        drop(memberships);
        drop(kernel);
        // In this order: the kernel has its packets again before their addresses go.
        let given_back = diversion.end().map_err(anyhow::Error::from).and(device.remove());
        result.and(given_back).and(host.restore())
    }

    fn run_until_stopped(&mut self) -> anyhow::Result<()> {
        loop {
            let readable = self.wait()?;
            if readable.network {
                self.move_batches(Source::Network, BATCHES_IN_A_ROW)?;
            }
            if readable.replies {
                self.move_batches(Source::LocalStack, BATCHES_IN_A_ROW)?;
            }
            if readable.neighbours && self.parts.outbox.hear()? || self.parts.outbox.has_waiting() {
                for reason in self.parts.outbox.retry_waiting(now()) {
                    self.parts.director.count_drops(reason, 1);
                }
            }
            if readable.mailbox {
                self.parts.mailbox.clear_wake();
                while let Some(command) = self.parts.mailbox.next() {
                    if !self.obey(command) {
                        return Ok(());
                    }
                }
            }
            self.announce_addresses();
            self.tell_others();
            self.parts.director.handle_timeout(now(), EXPIRY_BUDGET);
        }
    }

    fn wait(&self) -> anyhow::Result<Readable> {
        let parts = &self.parts;
        let mut descriptors = [
            PollFd::new(&parts.network, PollFlags::IN),
            PollFd::new(&parts.replies, PollFlags::IN),
            PollFd::new(&parts.outbox, PollFlags::IN),
            PollFd::new(&parts.mailbox, PollFlags::IN),
        ];
        let sleep = Timespec { tv_sec: 0, tv_nsec: SYNC_EVERY.subsec_nanos().into() };
        match poll(&mut descriptors, Some(&sleep)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for packets"),
        }
        let [network, replies, neighbours, mailbox] = descriptors.map(|fd| !fd.revents().is_empty());
        Ok(Readable { network, replies, neighbours, mailbox })
    }

    /// Handles what came in before another duty by the duty that it came in under, however late this thread is. Where all
    /// nodes see all packets, the owner before has handled it, or is about to: nobody else may, and nobody else will.
    fn catch_up(&mut self) -> anyhow::Result<()> {
        self.move_batches(Source::Network, WAITING_BATCHES_MAX)
    }

    /// Handles what waits, up to so many batches.
    fn move_batches(&mut self, source: Source, batches_max: usize) -> anyhow::Result<()> {
        for _ in 0..batches_max {
            let socket = match source {
                Source::Network => &mut self.parts.network,
                Source::LocalStack => &mut self.parts.replies,
            };
            match socket.receive(&mut self.batch, &mut self.received) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
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
                    self.parts.director.count_drops(reason, 1);
                }
            }
            self.received = frames;
            self.parts.outbox.flush(&self.batch);
            self.batch.clear();
            let refused = self.parts.outbox.take_refused();
            self.parts.director.count_drops(DropReason::TransmitFailed, refused);
        }
        Ok(())
    }

    /// Tells other nodes about connections, and asks them.
    fn tell_others(&mut self) {
        let now = now();
        if now < self.sync_at {
            return;
        }
        self.sync_at = now + SYNC_EVERY;
        let Parts { kernel, director, sockets, endings, .. } = &mut self.parts;
        endings.report(director);
        if let Some(kernel) = kernel {
            kernel.report_changes(director, now);
        }
        // After the changes: a connection may have been short.
        director.end_kept(sockets, now);
        match kernel {
            Some(kernel) => kernel.settle(director),
            None => while director.poll_settled().is_some() {},
        }
        while let Some(message) = self.parts.director.poll_sync(now) {
            self.parts.mailbox.send_sync(message);
        }
    }

    /// Tells neighbours which addresses have come here.
    fn announce_addresses(&mut self) {
        let due = self.parts.announcer.due(now());
        for address in &due {
            tracing::info!(%address, "packets for this address come in here now");
            if let Err(reason) = self.announce(*address) {
                self.parts.director.count_drops(reason, 1);
            }
        }
        if !due.is_empty() {
            self.parts.outbox.flush(&self.batch);
        }
    }

    /// Takes what concerns the peers of `update` away from the kernel, and nothing of former peers; has the addresses of
    /// services with alias delivery.
    fn follow(&mut self, update: &Update) -> anyhow::Result<()> {
        let parts = &mut self.parts;
        let deliveries = parts.director.delivery_addresses();
        for alias in deliveries.iter().filter(|delivery| delivery.mode == DeliveryMode::Alias) {
            if parts.host.hold(alias.service)? && parts.kernel.is_none() {
                parts.device.take_replies_from(alias.service)?;
            }
        }
        let Some(interest) = parts.interest.changed_by(update) else { return Ok(()) };
        // First seen, then kept from the kernel: between the two a packet is handled twice rather than not at all.
        parts.network.attach(&filter::program(&interest))?;
        parts.diversion.change_to(&interest)?;
        parts.memberships.change_to(&interest.asked_for)?;
        parts.interest.current = interest;
        Ok(())
    }

    /// Takes over what the daemon knows, and passes it on to the kernel's programs.
    fn update(&mut self, duty: Option<Duty>, update: &Update) -> anyhow::Result<()> {
        let is_another =
            duty.as_ref().is_some_and(|duty| self.parts.director.duty_serial() != Some(duty.serial));
        if is_another {
            self.catch_up()?;
        }
        let now = now();
        let parts = &mut self.parts;
        if let Some(kernel) = &mut parts.kernel {
            kernel.report(&mut parts.director, now)?;
            // Whose backups hear of them, the duty says by which they were made.
            kernel.report_changes(&mut parts.director, now);
        }
        if let Some(duty) = duty {
            parts.director.set_duty(duty, now);
        }
        parts.director.update(update, now);
        parts.announcer.follow(&parts.director.fronted_addresses(now), now);
        self.follow(update).context("taking packets of new peers from the kernel")?;
        let Parts { kernel, director, .. } = &mut self.parts;
        let following = match kernel {
            Some(kernel) => kernel.follow(director, now).context("telling the kernel's programs")?,
            None => Following::Yes,
        };
        match following {
            Following::Yes => {}
            Following::NotYet => return Ok(()),
            Following::No(reason) => self.go_on_without_programs(reason)?,
        }
        if is_another {
            self.sync_at = now;
            self.tell_others();
        }
        // Only now nothing goes by an earlier duty any more.
        self.parts.mailbox.act_by(self.parts.director.duty_serial());
        Ok(())
    }

    /// The data plane's word in status.
    pub(super) fn kind(&self) -> &'static str {
        if self.parts.kernel.is_some() { "xdp" } else { "userspace" }
    }

    /// Why it is user space alone.
    pub(super) fn why_no_programs(&self) -> Option<&str> {
        self.parts.without.reason.as_deref()
    }

    /// Counts what came in while this thread was late. There is no other trace of it.
    fn count_lost(&mut self) {
        let Parts { network, replies, director, .. } = &mut self.parts;
        for socket in [network, replies] {
            match socket.take_lost() {
                Ok(lost) => director.count_drops(DropReason::QueueFull, lost),
                Err(error) => tracing::debug!(%error, "a packet socket does not say what it lost"),
            }
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        self.count_lost();
        let kind = self.kind();
        let Parts { kernel, director, without, .. } = &mut self.parts;
        let mut snapshot = Snapshot {
            plane: PlaneSnapshot { kind, programs: None, reason: without.reason.clone() },
            counters: director.counters(),
            conntrack: director.conntrack_status(),
            clients: director.clients_status(),
            deliveries: director.delivery_addresses(),
            received: director.acknowledgements(),
            sent: director.sent(),
            forwarded_out: director.forwarded_out(),
            lease_valid: director.lease_is_valid(now()),
            duty_serial: director.duty_serial(),
            copies: director.sync_status(now()),
            asked: director.asked(),
            sync_refused: self.sync_refused.clone(),
        };
        without.retired.add_to(&mut snapshot);
        if let Some(Err(error)) = kernel.as_ref().map(|kernel| kernel.add_to(&mut snapshot)) {
            tracing::error!(error = %format_args!("{error:#}"), "the programs' counters cannot be read");
        }
        snapshot
    }

    /// Entries of the director and of the kernel's programs, `limit` at most.
    fn connections(&self, limit: usize) -> Vec<Connection> {
        let mut listed = match self.parts.kernel.as_ref().map(|kernel| kernel.connections(limit)) {
            None => Vec::new(),
            Some(Ok(listed)) => listed,
            Some(Err(error)) => {
                tracing::error!(error = %format_args!("{error:#}"), "the programs' connections cannot be read");
                Vec::new()
            }
        };
        // The director hears of those that others may have to go on with.
        let twice: BTreeSet<FlowKey> = listed.iter().map(|connection| connection.flow).collect();
        let others = self.parts.director.connections(now());
        let others = others.filter(|connection| !twice.contains(&connection.flow));
        listed.extend(others.take(limit.saturating_sub(twice.len())));
        listed
    }

    /// Does what the daemon asks; false when it asks to stop. Somebody who no longer waits for an answer gets none.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Update { duty, update } => {
                if let Err(error) = self.update(duty, &update) {
                    tracing::error!(error = %format_args!("{error:#}"), "the data plane could not follow an update");
                }
            }
            Command::Sync { from, bytes } => {
                let (director, mut known) = self.parts.director_and_known();
                let handled = director.handle_sync(from, &bytes, &mut known, now());
                if let Err(error) = handled {
                    tracing::debug!(peer = %from.0, %error, "a message about connections is ignored");
                    *self.sync_refused.entry(error.label()).or_default() += 1;
                }
                self.sync_at = now();
            }
            Command::Snapshot(answer) => {
                let _ = answer.send(self.snapshot());
            }
            Command::RealServerOf { flow, reply } => {
                let (director, mut known) = self.parts.director_and_known();
                let _ = reply.send(director.server_of(&flow, &mut known));
            }
            Command::Connections { limit, reply } => {
                let _ = reply.send(self.connections(limit));
            }
            Command::Rejoin(link) => {
                if let Err(error) = self.rejoin(&link) {
                    tracing::error!(error = %format_args!("{error:#}"), "the data plane hears nothing at the new interface");
                }
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
