//! The user-space data plane: packet sockets in and out, and `director` between them.
//!
//! Portable, not fast: it works wherever packet sockets do, an unprivileged user namespace included, and does what
//! the XDP plane does. One thread owns everything and handles, in this order: packets, answers of the kernel about
//! neighbours, the daemon's commands, expiry. It cannot keep forwarded connections over a crash of the process.

mod carry_out;
mod delivery_device;
mod diversion;
mod filter;
mod kernel_sockets;
mod next_hops;
mod outbox;
pub(crate) mod packet_socket;
mod plane;
mod transmit;
mod tunnels;
mod waiting;

use super::{Mailbox, Settings};
use anyhow::Context as _;
use delivery_device::DeliveryDevice;
use diversion::Diversion;
use dpr_director::{DeliveryRange, DeliveryRanges, Director};
use dpr_host::Netlink;
use dpr_model::{Protocol, ServiceReport, ServiceSocket};
use filter::Interest;
use kernel_sockets::KernelSockets;
use next_hops::NextHops;
use outbox::Outbox;
use packet_socket::{Accept, PacketSocket};
use plane::Plane;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::thread::JoinHandle;

/// Prepares the host and starts the thread. On an error the host is as it was.
pub(super) fn start(settings: &Settings, mailbox: Mailbox) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let plane = prepare(settings, mailbox)?;
    std::thread::Builder::new()
        .name(super::THREAD.to_owned())
        .spawn(move || plane.run())
        .context("starting the data plane's thread")
}

fn prepare(settings: &Settings, mailbox: Mailbox) -> anyhow::Result<Plane> {
    let mut netlink = Netlink::open()?;
    let interface = &settings.interface;
    let link =
        netlink.link_by_name(interface)?.with_context(|| format!("there is no interface {interface}"))?;
    let mac = link.mac.with_context(|| format!("{interface} has no MAC address; only Ethernet will do"))?;
    let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
    let held: Vec<IpAddr> = netlink.addresses()?.into_iter().map(|held| held.prefix.address()).collect();

    let mut answer_arp_for: Vec<Ipv4Addr> = settings.services.iter().map(|service| service.address).collect();
    answer_arp_for.sort_unstable();
    answer_arp_for.dedup();
    answer_arp_for.retain(|address| !held.contains(&IpAddr::V4(*address)));

    let prefix = settings.delivery_range;
    let range = DeliveryRange::new(prefix.address.into(), prefix.length)?;
    let director = Director::new(director_settings(settings, range, &answer_arp_for, mtu));
    let service_sockets: Vec<SocketAddrV4> =
        settings.services.iter().map(|service| SocketAddrV4::new(service.address, service.port)).collect();
    let interest = Interest {
        services: service_sockets.iter().map(|socket| (*socket.ip(), socket.port())).collect(),
        node_address: settings.address,
        answer_arp_for,
    };

    let device = DeliveryDevice::create(range, link.mtu)?;
    let network = PacketSocket::receiver(link.index.0, &filter::program(&interest), Accept::ForThisHost)
        .with_context(|| format!("opening a packet socket on {interface}"))?;
    let replies = device.replies()?;
    let sender = PacketSocket::sender().context("opening a packet socket for sending")?;
    let outbox = Outbox::new(sender, NextHops::open()?);
    let sockets = KernelSockets::open()?;
    // Last: from here on packets depend on this process.
    let diversion = Diversion::begin(interface, &service_sockets, settings.address, prefix)?;
    tracing::info!(interface, services = service_sockets.len(), mtu, "user-space data plane is ready");
    Ok(Plane::new(plane::Parts {
        director,
        network,
        replies,
        device,
        diversion,
        outbox,
        sockets,
        mailbox,
        interface: plane::Interface { link: link.index, mac },
    }))
}

fn director_settings(
    settings: &Settings,
    delivery_range: DeliveryRange,
    answer_arp_for: &[Ipv4Addr],
    mtu: u16,
) -> dpr_director::Settings {
    let conntrack = &settings.conntrack;
    dpr_director::Settings {
        node: settings.node,
        address: settings.address.into(),
        delivery_ranges: DeliveryRanges::default().with(delivery_range),
        services: settings
            .services
            .iter()
            .map(|service| {
                let socket = ServiceSocket { address: IpAddr::V4(service.address), port: service.port };
                ServiceReport::new(Protocol::Tcp, socket)
            })
            .collect(),
        answer_for: answer_arp_for.iter().copied().map(IpAddr::V4).collect(),
        mtu,
        nat_ports: None,
        conntrack: dpr_conntrack::Config {
            capacity: conntrack.capacity,
            half_open_capacity: conntrack.half_open_capacity,
            timeouts: dpr_conntrack::Timeouts {
                syn: conntrack.syn_timeout,
                established: conntrack.established_timeout,
                fin: conntrack.fin_timeout,
                close: conntrack.close_timeout,
                ..dpr_conntrack::Timeouts::default()
            },
            hash_seed: [random(), random()],
        },
        seed: random(),
    }
}

/// A number that nobody outside can guess: the standard library draws its hash keys from the kernel.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
