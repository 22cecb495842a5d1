//! The XDP data plane: programs of the kernel in front of the user-space plane.
//!
//! ```text
//! frame in → program at the interface → out again | delivered | dropped, counted
//!                     ↓ what it does not do
//!            packet socket → director, in user space
//! ```
//!
//! The programs decide by what [`dpr_xdp::Mirror`] makes of the director's knowledge, several times a second, and stop
//! deciding when that ends. The director counts what they did. It is all or nothing: where a service of the cluster needs
//! what the programs do not do, they leave the interface, and the user-space plane has everything, their connections too
//! (docs/decisions/0031, 0044).
//!
//! Maps and links are pinned, so a daemon that is killed or replaced leaves a packet path that works. This module refuses to
//! touch packets.

mod adoption;
mod carried;
mod choice;
mod counts;
mod heard;
mod interfaces;
mod retirement;
mod succession;
mod ways;

use super::{PlaneSnapshot, Settings, Snapshot};
use crate::clock::monotonic_ns;
use crate::config::Conntrack;
use adoption::Adoption;
use anyhow::{Context as _, bail};
use carried::Carried;
pub(super) use choice::{Choice, choose};
pub(crate) use choice::{beyond_the_programs, unfinished_checksums};
use dpr_director::{Director, LEASE_MAX};
use dpr_model::status::{Connection, MapStatus, ProgramsStatus};
use dpr_model::{MacAddress, NodeId, Timestamp};
use dpr_xdp::abi::{Counters, NodeCounts, TICK_SHIFT};
use dpr_xdp::{
    Attached, Connections, Found, Host, Left, Mirror, Mode, Pins, Programs, Sizes, Sweep, Tables, Tally,
    Timeouts, XdpError, remove_pins,
};
use interfaces::Interfaces;
pub(crate) use interfaces::VETH;
pub(super) use retirement::Retired;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ways::Ways;

/// Batches of entries that are looked at for expiry at each update: a million entries in about a second.
const SWEEP_BATCHES: usize = 32;

/// Time between two walks in which the director hears which connections are still there that others may have to go on with. What
/// is over for it sooner, as timeouts are short, it learns anew.
const REFRESH_EVERY: Duration = Duration::from_secs(60);

/// Changes that are heard of in one go: all that the programs have room for, so that a flood of them holds up nothing for ever.
const CHANGES_AT_ONCE: usize = 1 << 14;

/// Time between two walks: also an empty table of a million entries is a million buckets to look at.
const SWEEP_PAUSE: Duration = Duration::from_millis(500);

/// The programs and everything about them. Dropping it takes them off the interfaces and removes what is pinned; only a
/// killed daemon leaves them.
pub(super) struct KernelPath {
    programs: Programs,
    tables: Tables,
    mirror: Mirror,
    sweep: Sweep,
    sweep_at: Timestamp,
    /// When the director is to hear again what is still there.
    refresh_at: Timestamp,
    /// It hears it in this walk.
    is_refreshing: bool,
    carried: Carried,
    ways: Ways,
    interfaces: Interfaces,
    attached: Option<Attached>,
    timeouts: Timeouts,
    /// That all nodes have.
    shared_macs: Vec<MacAddress>,
    /// Keeps strangers from aiming at one path among those that tunnels are spread over.
    flow_seed: u32,
    sizes: Sizes,
    /// What the kernel had counted before this daemon.
    before: Counters,
    /// Of nodes by number, as of this update.
    counts: Vec<NodeCounts>,
    adoption: Option<Adoption>,
    /// Programs that an earlier daemon has left act by what it said for a lease at most, from here on.
    opened: Timestamp,
    /// Maps whose programs go on until these programs know as much.
    left: Option<Left>,
    /// Connections have come out of such maps.
    has_carried: bool,
    pins: Option<Pins>,
    pin_directory: PathBuf,
}

/// Whether the programs can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Following {
    /// They know what the director knows.
    Yes,
    /// They still act by what an earlier daemon told them.
    NotYet,
    /// They cannot, and why.
    No(String),
}

impl KernelPath {
    /// Loads the programs, and takes over what an earlier daemon left. They see no packet before [`Self::attach`], but
    /// those that were left go on until then.
    ///
    /// # Errors
    /// The kernel has no BPF, does not allow it, or has other pinned objects than expected.
    pub(super) fn open(settings: &Settings, flow_seed: u32) -> anyhow::Result<Self> {
        let sizes = sizes_of(&settings.conntrack);
        let pin_directory = of_this_namespace(&settings.pin_directory)?;
        let pins = open_pins(&pin_directory, sizes, settings.node)?;
        let (programs, mut tables) = dpr_xdp::load(sizes, pins.clone())?;
        let mut mirror = Mirror::new(settings.node);
        let left = pins.as_ref().and_then(succession::readable_left);
        let content = match &left {
            Some(left) => left.content().clone(),
            None => tables.read()?.clone(),
        };
        let end = content.nodes.keys().next_back().map_or(0, |number| number + 1);
        let counts = tables.counts(end)?;
        if !mirror.restore(&content, &counts) {
            return Err(XdpError::OtherNode.into());
        }
        Ok(Self {
            before: tables.counters()?,
            carried: Carried::found_in(&tables, left.as_ref())?,
            programs,
            tables,
            mirror,
            sweep: Sweep::default(),
            sweep_at: Timestamp::default(),
            refresh_at: Timestamp::default(),
            is_refreshing: false,
            opened: crate::clock::now(),
            ways: Ways::open()?,
            interfaces: Interfaces::open(&settings.interface, settings.program_mode)?,
            attached: None,
            timeouts: settings.conntrack.timeouts,
            shared_macs: settings.services.iter().filter_map(|service| service.shared_mac).collect(),
            flow_seed,
            sizes,
            counts,
            adoption: Adoption::of(&content, crate::clock::now()),
            left,
            has_carried: false,
            pins,
            pin_directory,
        })
    }

    /// Service and delivery addresses of connections that are still open.
    pub(super) fn deliveries(&self) -> Vec<(IpAddr, IpAddr)> {
        self.adoption.as_ref().map(Adoption::deliveries).unwrap_or_default()
    }

    /// Tells the programs what `director` knows, then lets them see packets.
    ///
    /// # Errors
    /// A service needs what the programs do not do, another XDP program is on the interface, or the kernel refuses.
    pub(super) fn attach(&mut self, director: &Director, now: Timestamp) -> anyhow::Result<()> {
        if let Following::No(reason) = self.tell(director, now)? {
            bail!("{reason}");
        }
        match self.left {
            Some(_) => Ok(()),
            None => self.take_place(),
        }
    }

    /// Why the programs may be shown packets that they cannot send on; `None` where they run in the driver.
    pub(super) fn unfinished_checksums(&self) -> Option<String> {
        self.attached.as_ref().filter(|attached| attached.mode == Mode::Generic)?;
        let unfinished = self.interfaces.unfinished_checksums()?;
        Some(format!(
            "the kernel's programs would run behind the driver only, and the interface is {unfinished}"
        ))
    }

    /// Tells `director` what the programs counted since the last time; to be called before the director's update.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub(super) fn report(&mut self, director: &mut Director, now: Timestamp) -> anyhow::Result<()> {
        self.counts = self.tables.counts(self.mirror.numbers_end())?;
        self.mirror.report(director, &self.counts, now);
        Ok(())
    }

    /// Tells the programs what `director` knows after its update, and looks after entries and interfaces.
    ///
    /// # Errors
    /// The kernel refuses; the programs then decide until their lease runs out.
    pub(super) fn follow(&mut self, director: &mut Director, now: Timestamp) -> anyhow::Result<Following> {
        if self.left.is_some() {
            return self.tell(director, now);
        }
        match self.interfaces.follow(&mut self.programs, now) {
            Ok(None) => {}
            Ok(Some(attached)) => self.attached = Some(attached),
            Err(error) => return Ok(Following::No(format!("{error:#}"))),
        }
        self.walk(director, now)?;
        let following = self.tell(director, now)?;
        if following == Following::Yes && self.adoption.is_none() {
            self.follow_carried(director, now)?;
        }
        Ok(following)
    }

    /// Puts the programs on an interface that was made anew. To be called before anybody else hears its packets: who knows the
    /// connections is the programs.
    ///
    /// # Errors
    /// They cannot be put there.
    pub(super) fn rejoin(&mut self) -> anyhow::Result<()> {
        if let Some(attached) = self.interfaces.look(&mut self.programs)? {
            self.attached = Some(attached);
        }
        Ok(())
    }

    fn tell(&mut self, director: &Director, now: Timestamp) -> anyhow::Result<Following> {
        let view = director.view();
        if self.adoption.as_ref().is_some_and(|adoption| !adoption.is_over(&view, now)) {
            let is_over = now.since(self.opened) > LEASE_MAX;
            return Ok(if is_over { Following::Yes } else { Following::NotYet });
        }
        // Before the first update nobody may decide.
        let moment = crate::clock::now();
        let boot_time_ns = if director.lease_is_valid(now) { moment.as_nanos() } else { 0 };
        self.ways.follow(&view, self.interfaces.service(), now)?;
        let host = Host {
            mac: self.interfaces.service_mac(),
            shared_macs: &self.shared_macs,
            routers: self.ways.routers(),
            timeouts: self.timeouts,
            boot_time_ns,
            now: moment,
            flow_seed: self.flow_seed,
        };
        let content = self.mirror.content(&view, &self.counts, &host, |address| self.ways.to(address));
        if content.left_out > 0 {
            return Ok(Following::No(format!(
                "{} services, peers or candidates need what the kernel's programs do not do; \
                 docs/decisions/0030-xdp-plane.md lists what that is",
                content.left_out
            )));
        }
        self.enter_gained(director);
        self.hand_down(director);
        self.tables.write(&content)?;
        self.adoption = None;
        if let Some(left) = self.left.take()
            && let Err(error) = self.replace(&left)
        {
            return Ok(Following::No(format!("{error:#}")));
        }
        Ok(Following::Yes)
    }

    /// Adds what the programs did and hold to what user space says of itself.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub(super) fn add_to(&self, snapshot: &mut Snapshot) -> anyhow::Result<()> {
        let kernel = self.tables.counters()?.since(&self.before);
        let tally = self.sweep.tally();
        snapshot.plane = PlaneSnapshot {
            kind: snapshot.plane.kind,
            programs: Some(self.status(
                tally,
                counts::handled(&snapshot.counters),
                kernel.syns_without_entry,
            )),
            reason: None,
        };
        counts::add(&mut snapshot.counters, &kernel);
        snapshot.conntrack = counts::conntrack(snapshot.conntrack, tally, self.sizes, &kernel);
        snapshot.forwarded_out += tally.established_by_node.values().sum::<u32>();
        Ok(())
    }

    /// Connections that the programs know, at most `limit`.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub(super) fn connections(&self, limit: usize) -> anyhow::Result<Vec<Connection>> {
        Ok(self.mirror.connections(&self.tables, limit, ticks_now())?)
    }

    fn status(&self, tally: &Tally, handled_above: u64, syns_without_entry: u64) -> ProgramsStatus {
        let map = |name: &str, entries: u64, capacity: u64, memory_bytes| MapStatus {
            name: name.to_owned(),
            entries,
            capacity,
            memory_bytes,
        };
        let connections = |table: Connections| {
            let (entries, memory) =
                (tally.entries(table), self.tables.memory_bytes(table).unwrap_or_default());
            [0, 1].map(|version| {
                let capacity = self.sizes.of(table).into();
                map(table.names()[version], entries[version], capacity, memory[version])
            })
        };
        let mut maps: Vec<MapStatus> = Connections::ALL.into_iter().flat_map(connections).collect();
        let (carried, room) = (self.carried.len() as u64, u64::from(self.sizes.carried()) / 2);
        maps.push(map("carried", carried, room, None));
        maps.extend(
            self.tables
                .fill()
                .map(|(name, entries, capacity)| map(name, entries as u64, capacity as u64, None)),
        );
        ProgramsStatus {
            mode: self.attached.as_ref().map_or("detached", |attached| attached.mode.label()).to_owned(),
            why_generic: self.attached.as_ref().and_then(|attached| attached.why_not_native.clone()),
            pinned: self.pins.as_ref().map(|pins| pins.directory().display().to_string()),
            found: self.found().to_owned(),
            handled_above,
            syns_without_entry,
            maps,
        }
    }

    fn found(&self) -> &'static str {
        match self.pins.as_ref().map(Pins::found) {
            None | Some(Found::Nothing) => "nothing",
            Some(Found::Maps) => "taken over",
            Some(Found::OtherMaps) if self.has_carried => "carried over",
            Some(Found::OtherMaps) => "replaced",
        }
    }
}

impl Drop for KernelPath {
    fn drop(&mut self) {
        if let Err(error) = self.programs.detach() {
            tracing::warn!(%error, "programs could not be taken off their interfaces");
        }
        match remove_pins(&self.pin_directory) {
            Ok(_) => remove_if_empty(&self.pin_directory),
            Err(error) => tracing::warn!(%error, "pinned programs or maps could not be removed"),
        }
    }
}

/// Removes programs and maps that a killed daemon left in this network namespace. Says whether there were any.
///
/// # Errors
/// They cannot be removed.
pub(super) fn remove_leftovers(pin_directory: &Path) -> anyhow::Result<bool> {
    let directory = of_this_namespace(pin_directory)?;
    match remove_pins(&directory) {
        Ok(false) => Ok(false),
        // Who may not look has left nothing there.
        Err(XdpError::Pins { source, .. }) if source.kind() == ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error.into()),
        Ok(true) => {
            tracing::info!(directory = %directory.display(), "removed programs and maps that an earlier daemon left");
            remove_if_empty(&directory);
            Ok(true)
        }
    }
}

/// Where this namespace's daemon pins: daemons of several may share a file system, and must not take each other's.
///
/// # Errors
/// There is no `/proc`.
pub(crate) fn of_this_namespace(pin_directory: &Path) -> anyhow::Result<PathBuf> {
    let namespace = fs::metadata("/proc/thread-self/ns/net").context("looking up the network namespace")?;
    Ok(pin_directory.join(namespace.ino().to_string()))
}

/// The directory around that of a namespace, when it was the last one.
fn remove_if_empty(directory: &Path) {
    if let Some(around) = directory.parent() {
        // Others are in it, or somebody made it.
        let _ = fs::remove_dir(around);
    }
}

/// Without a place for pins the programs work, and end with the daemon.
fn open_pins(directory: &Path, sizes: Sizes, node: NodeId) -> anyhow::Result<Option<Pins>> {
    match Pins::open(directory, sizes, node) {
        Ok(pins) => Ok(Some(pins)),
        Err(error @ XdpError::NoBpfFileSystem(_)) => {
            tracing::warn!(
                %error,
                "the kernel's programs end with this process, and connections that they forward with them; \
                 to keep them: mount -t bpf bpf /sys/fs/bpf"
            );
            Ok(None)
        }
        Err(error) => Err(error).context("preparing the directory of pinned maps"),
    }
}

fn sizes_of(conntrack: &Conntrack) -> Sizes {
    let size = |capacity: usize| u32::try_from(capacity).unwrap_or(u32::MAX);
    Sizes { flows: size(conntrack.capacity), half_open: size(conntrack.half_open_capacity) }
}

/// Now, as deadlines of entries count; the upper bits go, as the programs' clock wraps too.
fn ticks_now() -> u32 {
    (monotonic_ns() >> TICK_SHIFT) as u32
}
