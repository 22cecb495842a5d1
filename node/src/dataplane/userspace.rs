//! The user-space data plane: packet sockets in and out, and `director` between them.
//!
//! Portable, not fast: it works wherever packet sockets do, an unprivileged user namespace included, and does what
//! the XDP plane does; where that one is in front, it does what is left. One thread owns everything and handles, in this
//! order: packets, answers of the kernel about neighbours, the daemon's commands, expiry. By another duty it acts when it has
//! handled all packets that came in before. It cannot keep forwarded connections over a crash of the process.

mod announcer;
mod carry_out;
mod delivery_device;
mod diversion;
mod ears;
mod endings;
mod filter;
mod host_settings;
mod interest;
mod kernel_sockets;
mod known_here;
mod memberships;
pub(super) mod next_hops;
mod outbox;
pub(crate) mod packet_socket;
mod plane;
mod programs;
mod tagged_hosts;
mod transmit;
mod tunnels;
mod waiting;

use super::xdp::Choice;
use super::{Mailbox, Settings, random, traces};
use crate::config::{Service, Vlan};
use announcer::Announcer;
use anyhow::{Context as _, bail};
use delivery_device::{DeliveryDevice, RepliesBy};
use diversion::Diversion;
use dpr_director::{DeliveryRanges, Director, PersistenceSettings, PersistentService};
use dpr_host::Netlink;
use dpr_host::nft::{NftError, Nftables};
use dpr_model::{MacAddress, Protocol};
use endings::Endings;
use host_settings::HostSettings;
use interest::{Interest, Interests};
use kernel_sockets::KernelSockets;
use outbox::Outbox;
use plane::Plane;
use programs::Without;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread::JoinHandle;

/// Prepares the host and starts the thread, with the kernel's programs in front if there are some. On an error the host is
/// as it was.
pub(super) fn start(
    settings: &Settings,
    mailbox: Mailbox,
    choice: Choice,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let plane = prepare(settings, mailbox, choice)?;
    std::thread::Builder::new()
        .name(super::THREAD.to_owned())
        .spawn(move || plane.run())
        .context("starting the data plane's thread")
}

/// Removes what a killed daemon left. Says whether there was anything.
///
/// # Errors
/// It cannot be removed; or a daemon lives, which the packet filter knows, as it lets nobody else touch that one's table.
pub(super) fn remove_leftovers(ranges: DeliveryRanges) -> anyhow::Result<bool> {
    let of_filter = match Nftables::open()?.delete_table(traces::NFT_TABLE) {
        Err(NftError::Netlink(error)) if error.is_permission_denied() => bail!(
            "a daemon is at work in this network, or this user lacks CAP_NET_ADMIN; name the daemon's socket with --socket"
        ),
        deleted => deleted?,
    };
    let mut netlink = Netlink::open()?;
    Ok(delivery_device::remove_leftovers(&mut netlink, ranges)? || of_filter)
}

fn prepare(settings: &Settings, mailbox: Mailbox, choice: Choice) -> anyhow::Result<Plane> {
    let Choice { kernel, may_do_without, why_not } = choice;
    let mut netlink = Netlink::open()?;
    let interface = &settings.interface;
    let link =
        netlink.link_by_name(interface)?.with_context(|| format!("there is no interface {interface}"))?;
    let trunk = ears::interface_of(&link)?;
    let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX).saturating_sub(room_for_tags(&settings.vlans));
    let held: Vec<IpAddr> = netlink.addresses()?.into_iter().map(|held| held.prefix.address()).collect();

    let mut interest = Interest::new(settings, &held);
    let mut director = Director::new(director_settings(settings, &interest, mtu));
    let mut replies_by = RepliesBy::Pair;
    if let Some(kernel) = &kernel {
        director.restore_deliveries(kernel.deliveries());
        for carried in kernel.carried() {
            director.adopt_carried(carried, crate::clock::now());
        }
        for (flow, entry) in kernel.begun_below(&director)? {
            director.take_over(&flow, entry, crate::clock::now());
        }
        replies_by = RepliesBy::Programs;
        // The programs keep strangers from there, and what they deliver there must get through.
        interest.forbidden = Vec::new();
    }
    let host = HostSettings::change(settings)?;
    let shared_macs = shared_macs(settings);
    let (network, memberships) = ears::open(link.index, &interest, shared_macs.values().copied())?;
    let device = DeliveryDevice::create(settings.delivery_ranges, mtu.into(), replies_by)?;
    let replies = device.replies()?;
    let outbox = Outbox::open(trunk)?;
    let with_udp = settings.services.iter().any(|service| service.protocol == Protocol::Udp);
    let sockets = KernelSockets::open(with_udp)?;
    // Last: from here on packets depend on this process.
    let diversion = Diversion::begin(interface, &interest)?;
    let mut plane = Plane::new(plane::Parts {
        kernel,
        without: Without { reason: why_not, ..Without::default() },
        director,
        network,
        replies,
        device,
        diversion,
        outbox,
        sockets,
        endings: Endings::open(),
        mailbox,
        host,
        memberships,
        interest: Interests { without_peers: interest.clone(), current: interest, held },
        interface: trunk,
        shared_macs,
        announcer: Announcer::default(),
        flow_seed: random() as u32,
    });
    plane.attach_programs(may_do_without)?;
    tracing::info!(
        interface,
        services = settings.services.len(),
        mtu,
        kind = plane.kind(),
        because = plane.why_no_programs(),
        "the data plane is ready"
    );
    Ok(plane)
}

/// What VLAN tags take of the largest packet, bytes: nothing for one tag of 802.1Q, for which every interface has room
/// beyond its MTU; but the kernel grants that room to no frame whose outer tag is of 802.1ad (`packet_snd` in
/// `net/packet/af_packet.c`).
fn room_for_tags(vlans: &[Vlan]) -> u16 {
    let tags = vlans.iter().map(|vlan| vlan.tags()).find(|tags| tags.as_slice().len() > 1);
    tags.map_or(0, |tags| tags.len_in_header() as u16)
}

/// MAC addresses that all nodes have, by the service address that they have them for.
fn shared_macs(settings: &Settings) -> BTreeMap<IpAddr, MacAddress> {
    settings.services.iter().filter_map(|service| Some((service.address, service.shared_mac?))).collect()
}

fn director_settings(settings: &Settings, interest: &Interest, mtu: u16) -> dpr_director::Settings {
    let conntrack = &settings.conntrack;
    let persistent = |service: &Service| {
        service.persistence.map(|persistence| PersistentService {
            protocol: service.protocol,
            service: service.socket(),
            prefix_len: persistence.prefix_len,
            timeout: persistence.timeout,
        })
    };
    dpr_director::Settings {
        node: settings.node,
        address: settings.address,
        delivery_ranges: settings.delivery_ranges,
        services: settings.services.iter().map(Service::report).collect(),
        answer_for: interest.answer_for.iter().copied().collect(),
        mtu,
        nat_ports: settings.nat_ports,
        conntrack: dpr_conntrack::Config {
            capacity: conntrack.capacity,
            half_open_capacity: conntrack.half_open_capacity,
            timeouts: conntrack.timeouts,
            hash_seed: [random(), random()],
        },
        persistence: PersistenceSettings {
            services: settings.services.iter().filter_map(persistent).collect(),
            clients_max: conntrack.clients,
        },
        seed: random(),
    }
}
