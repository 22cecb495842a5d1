//! What the daemon asks of a data plane, and the types that cross between the two.
//!
//! A data plane is a thread of its own that owns the packet path: it never waits for the daemon, and the daemon
//! tells it what changed through a [`Mailbox`]. It refuses to read configuration, to gossip and to measure load;
//! it only sees [`Settings`] once and [`Update`]s afterwards. The event loop is its only caller.

mod userspace;
pub(crate) mod xdp;

pub(crate) use userspace::packet_socket;

use crate::config::{Conntrack, DataplaneKind, ProgramMode, Service, Vlan};
use anyhow::{Context as _, anyhow};
pub(crate) use dpr_director::{DeliveryAddress, ExternalServer, Peer, SentTo, ThisNode, Update};
use dpr_director::{DeliveryRanges, SyncMessage, SyncStatus};
use dpr_host::Link;
use dpr_model::status::{ClientsStatus, Connection, ConntrackStatus, Counters, ProgramsStatus};
use dpr_model::{FlowKey, Incarnation, NodeId, PortRange, ReceivedFrom};
use dpr_ownership::agreement::Duty;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::future::pending;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc as tokio_mpsc, oneshot, watch};

/// What a data plane is told once, when it starts.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// This node.
    pub(crate) node: NodeId,
    /// Node address: where tunnels to this node end.
    pub(crate) address: IpAddr,
    /// Interface that carries the node address.
    pub(crate) interface: String,
    /// VLANs on it whose frames are like untagged ones.
    pub(crate) vlans: Vec<Vlan>,
    /// Services that this node is home to.
    pub(crate) services: Vec<Service>,
    /// Prefixes from which delivery addresses are taken.
    pub(crate) delivery_ranges: DeliveryRanges,
    /// Ports of translated connections, if some service translates.
    pub(crate) nat_ports: Option<PortRange>,
    /// Bounds and timeouts of the connection-forwarding table.
    pub(crate) conntrack: Conntrack,
    /// Where the program for incoming packets runs.
    pub(crate) program_mode: ProgramMode,
    /// Where the kernel's programs and maps are kept.
    pub(crate) pin_directory: PathBuf,
}

/// Which data plane it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlaneSnapshot {
    /// Its word in status.
    pub(crate) kind: &'static str,
    /// The kernel's programs, where they are in use.
    pub(crate) programs: Option<ProgramsStatus>,
    /// Why it is not what was asked for.
    pub(crate) reason: Option<String>,
}

/// What a data plane says about itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Which one it is.
    pub(crate) plane: PlaneSnapshot,
    /// Packets and decisions, cumulative.
    pub(crate) counters: Counters,
    /// Fill of the connection-forwarding table.
    pub(crate) conntrack: ConntrackStatus,
    /// Clients of services with persistence.
    pub(crate) clients: Option<ClientsStatus>,
    /// Delivery addresses in use.
    pub(crate) deliveries: Vec<DeliveryAddress>,
    /// Connections received from directors, cumulative; goes into load reports.
    pub(crate) received: Vec<ReceivedFrom>,
    /// Connections given to peers, cumulative.
    pub(crate) sent: Vec<SentTo>,
    /// Connections that this node forwards to others at the moment.
    pub(crate) forwarded_out: u32,
    /// Whether the lease to decide is valid.
    pub(crate) lease_valid: bool,
    /// Serial of the duty that packets follow, where nodes agree on anything.
    pub(crate) duty_serial: Option<u64>,
    /// Copies of connections, by the node that they go to or come from.
    pub(crate) copies: Vec<SyncStatus>,
    /// Connections that others were asked about: how many somebody knew, and how many nobody.
    pub(crate) asked: (u64, u64),
    /// Messages about connections that were refused, by reason.
    pub(crate) sync_refused: BTreeMap<&'static str, u64>,
}

/// One message to a data plane.
#[derive(Debug)]
pub(crate) enum Command {
    /// The cluster changed.
    Update {
        /// What the data plane may do for addresses that other nodes could own; `None` where nodes agree on nothing.
        duty: Option<Duty>,
        /// Who is there.
        update: Update,
    },
    /// Another node says something about connections.
    Sync {
        /// Who, in which life.
        from: (NodeId, Incarnation),
        /// The message.
        bytes: Vec<u8>,
    },
    /// Say how you are.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Which node has a connection, as far as this one knows.
    RealServerOf {
        /// Which connection.
        flow: FlowKey,
        /// Where the answer goes.
        reply: oneshot::Sender<Option<NodeId>>,
    },
    /// List the connection-forwarding table.
    Connections {
        /// Entries at most.
        limit: usize,
        /// Where the list goes.
        reply: oneshot::Sender<Vec<Connection>>,
    },
    /// The interface was made anew: go on there.
    Rejoin(Link),
    /// Restore the host and end.
    Stop,
}

/// The data plane's end: a queue of commands, and a descriptor that is readable when there are some.
#[derive(Debug)]
pub(crate) struct Mailbox {
    commands: mpsc::Receiver<Command>,
    wake: Arc<OwnedFd>,
    acts_by: watch::Sender<Option<u64>>,
    sync: tokio_mpsc::Sender<SyncMessage>,
}

impl Mailbox {
    /// Tells the daemon which duty packets follow from now on, by its serial.
    pub(crate) fn act_by(&self, serial: Option<u64>) {
        self.acts_by.send_if_modified(|known| std::mem::replace(known, serial) != serial);
    }

    /// Has the daemon send a message about connections; never blocks. One that finds no room is as good as lost on the way:
    /// what matters is said again.
    pub(crate) fn send_sync(&self, message: SyncMessage) {
        let _ = self.sync.try_send(message);
    }

    /// The next command, if there is one; never blocks. A daemon that went away without a word means
    /// [`Command::Stop`].
    pub(crate) fn next(&self) -> Option<Command> {
        match self.commands.try_recv() {
            Ok(command) => Some(command),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => Some(Command::Stop),
        }
    }

    /// Makes the descriptor unreadable again; to be called after it woke the thread and before [`Mailbox::next`].
    pub(crate) fn clear_wake(&self) {
        let mut count = [0; 8];
        // Would only fail with EAGAIN, which says that it is clear already.
        let _ = rustix::io::read(&*self.wake, &mut count);
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// How the daemon talks to a data plane; copies can wait for answers while the event loop goes on.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    commands: mpsc::Sender<Command>,
    wake: Arc<OwnedFd>,
}

impl Line {
    /// Counters, delivery addresses, acknowledgements.
    ///
    /// # Errors
    /// The data plane has ended, or did not answer within a second.
    pub(crate) async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Snapshot(reply));
        answer_of(answer).await
    }

    /// At most `limit` entries of the connection-forwarding table.
    ///
    /// # Errors
    /// The data plane has ended, or did not answer within a second.
    pub(crate) async fn connections(&self, limit: usize) -> anyhow::Result<Vec<Connection>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Connections { limit, reply });
        answer_of(answer).await
    }

    /// The node that has a connection, if this one knows.
    ///
    /// # Errors
    /// The data plane has ended, or did not answer within a second.
    pub(crate) async fn real_server_of(&self, flow: FlowKey) -> anyhow::Result<Option<NodeId>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::RealServerOf { flow, reply });
        answer_of(answer).await
    }

    fn send(&self, command: Command) {
        // A closed queue means that the thread has ended, which the replies and `Handle::has_ended` report.
        if self.commands.send(command).is_ok() {
            // A saturated counter keeps the descriptor readable, which is all that is wanted.
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// What a data plane says unasked.
#[derive(Debug)]
pub(crate) enum Word {
    /// Packets follow the duty of this serial from now on.
    ActsBy(u64),
    /// Something to be sent to other nodes.
    Sync(SyncMessage),
}

/// The daemon's end of a running data plane.
#[derive(Debug)]
pub(crate) struct Handle {
    line: Line,
    acts_by: watch::Receiver<Option<u64>>,
    sync: tokio_mpsc::Receiver<SyncMessage>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Handle {
    /// Tells the data plane what changed, and that the daemon lives; never blocks.
    pub(crate) fn update(&self, duty: Option<Duty>, update: Update) {
        self.line.send(Command::Update { duty, update });
    }

    /// Tells the data plane what another node says about connections; never blocks.
    pub(crate) fn take_sync(&self, from: (NodeId, Incarnation), bytes: Vec<u8>) {
        self.line.send(Command::Sync { from, bytes });
    }

    /// Tells the data plane that its interface was made anew; never blocks.
    pub(crate) fn rejoin(&self, link: Link) {
        self.line.send(Command::Rejoin(link));
    }

    /// Waits until the data plane has something to say.
    pub(crate) async fn next_word(&mut self) -> Word {
        tokio::select! {
            biased;
            serial = serial_of(&mut self.acts_by) => Word::ActsBy(serial),
            message = self.sync.recv() => match message {
                Some(message) => Word::Sync(message),
                None => pending().await,
            },
        }
    }

    /// A further message about connections, if there is one.
    pub(crate) fn further_sync(&mut self) -> Option<SyncMessage> {
        self.sync.try_recv().ok()
    }

    /// A copy of the line to it.
    pub(crate) fn line(&self) -> Line {
        self.line.clone()
    }

    /// True when its thread has ended by itself; [`Handle::stop`] then tells why.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the data plane and waits until the host is as it was before it started.
    ///
    /// # Errors
    /// What went wrong in its thread, or on the way back to the host's former state.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.line.send(Command::Stop);
        let thread = self.thread;
        let ended = tokio::task::spawn_blocking(move || thread.join()).await;
        ended
            .context("waiting for the data plane")?
            .map_err(|_| anyhow!("the data plane's thread panicked"))?
    }
}

/// Starts a data plane; when this returns, it sees packets. It decides nothing before its first [`Update`].
///
/// # Errors
/// What the host refuses, with the operation that it refused; the host is then as it was before.
pub(crate) fn start(kind: DataplaneKind, settings: &Settings) -> anyhow::Result<Handle> {
    let (sender, commands) = mpsc::channel();
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("creating an eventfd")?;
    let wake = Arc::new(wake);
    let (act_by, acts_by) = watch::channel(None);
    let (sync_sender, sync) = tokio_mpsc::channel(SYNC_WAITING_MAX);
    let mailbox = Mailbox { commands, wake: Arc::clone(&wake), acts_by: act_by, sync: sync_sender };
    let choice = xdp::choose(kind, settings)?;
    let thread = userspace::start(settings, mailbox, choice).context("starting the data plane")?;
    Ok(Handle { line: Line { commands: sender, wake }, acts_by, sync, thread })
}

/// Removes what a killed daemon left in this network namespace. Says whether there was anything.
///
/// # Errors
/// It cannot be removed; or it belongs to a daemon that lives.
pub(crate) fn remove_leftovers(pin_directory: &Path, ranges: DeliveryRanges) -> anyhow::Result<bool> {
    let of_userspace = userspace::remove_leftovers(ranges)?;
    Ok(xdp::remove_leftovers(pin_directory)? || of_userspace)
}

/// What the user-space plane makes on the host, by name: what is found without a daemon is left from a killed one.
pub(crate) mod traces {
    /// The kernel's end of the delivery device.
    pub(crate) const LINK: &str = "dpr0";
    /// The data plane's end of it.
    pub(crate) const OTHER_END: &str = "dpr1";
    /// Priority of the policy rule for replies.
    pub(crate) const RULE_PRIORITY: u32 = 7777;
    /// nftables table, family netdev.
    pub(crate) const NFT_TABLE: &str = "dpr";
}

/// A number that nobody outside can guess: the standard library draws its hash keys from the kernel.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Name of the data plane's thread, for those who look at threads.
pub(crate) const THREAD: &str = "dataplane";

/// Messages about connections that wait to be sent: a tenth of a second of three streams at full rate.
const SYNC_WAITING_MAX: usize = 1024;

/// How long a data plane may take to answer; its thread never sleeps longer than a few milliseconds over packets.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

async fn answer_of<T>(answer: oneshot::Receiver<T>) -> anyhow::Result<T> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer)
        .await
        .context("the data plane did not answer within a second")?
        .context("the data plane has ended")
}

/// The serial of the next other duty that packets follow.
async fn serial_of(acts_by: &mut watch::Receiver<Option<u64>>) -> u64 {
    loop {
        if acts_by.changed().await.is_err() {
            // The thread has ended; who observes it next is told why.
            return pending().await;
        }
        if let Some(serial) = *acts_by.borrow_and_update() {
            return serial;
        }
    }
}
