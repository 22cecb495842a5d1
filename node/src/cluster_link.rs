//! The interface that carries the node address, and what is bound to it outside of the data plane.

use crate::config::Config;
use crate::foreign_sockets::ForeignSockets;
use crate::gossip_socket::{Binding, GossipSocket};
use crate::path_mtu::PathMtus;
use anyhow::bail;
use dpr_host::{Link, Netlink};

/// The interface that carries the node address.
///
/// # Errors
/// There is none, or it is not the one that the configuration names.
pub(crate) fn cluster_link(config: &Config) -> anyhow::Result<Link> {
    let mut netlink = Netlink::open()?;
    let address = config.node.address;
    let found = netlink.link_by_address(address)?;
    let link = match (&config.node.interface, found) {
        (None, Some(link)) => link,
        (None, None) => {
            bail!("no interface has the node address {address}; `ip address` shows what there is")
        }
        (Some(name), _) => match netlink.link_by_name(name)? {
            Some(link) => link,
            None => bail!("there is no interface {name} (node.interface); `ip link` shows what there is"),
        },
    };
    if link.loopback {
        bail!("the node address {address} is on the loopback interface, where no peer can reach it");
    }
    Ok(link)
}

/// What hears and asks peers.
#[derive(Debug)]
pub(crate) struct BoundToLink {
    /// Where gossip speaks.
    pub(crate) socket: GossipSocket,
    /// Where it speaks and hears with another source than its own, if the system lets it.
    pub(crate) foreign: Option<ForeignSockets>,
    /// What finds out path MTUs.
    pub(crate) paths: PathMtus,
}

impl BoundToLink {
    /// Opens everything. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The gossip socket cannot be had: the port is taken, the interface is gone, or a group cannot be joined.
    pub(crate) fn open(config: &Config, link: &Link) -> anyhow::Result<Self> {
        let binding = Binding {
            interface: &link.name,
            interface_index: link.index.0,
            address: config.node.address,
            port: config.gossip.port,
        };
        let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        Ok(Self {
            socket: GossipSocket::open(binding, config.gossip.groups.clone())?,
            foreign: ForeignSockets::open(link, config),
            paths: PathMtus::start(config.node.address, link.index, mtu),
        })
    }
}
