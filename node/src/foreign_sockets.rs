//! Sockets for gossip's datagrams that come from no address of their sender: only the network in between is asked with them.

use crate::config::Config;
use dpr_host::{ForeignListener, ForeignSender, Link, foreign_source};
use std::io;
use std::net::SocketAddr;

/// Probes are short; of what is longer the rest is lost, and so its tag is wrong.
const PACKET_MAX: usize = 2048;

/// Both ends of the probes, for one IP version.
#[derive(Debug)]
pub(crate) struct ForeignSockets {
    sender: ForeignSender,
    listener: ForeignListener,
    from: SocketAddr,
}

impl ForeignSockets {
    /// The sockets on the cluster interface; without the right to have them nothing is ever found out, and the log says so.
    pub(crate) fn open(link: &Link, config: &Config) -> Option<Self> {
        let is_v6 = config.node.address.is_ipv6();
        let port = config.gossip.port;
        let open = || {
            Ok(Self {
                sender: ForeignSender::open(&link.name, is_v6)?,
                listener: ForeignListener::open(link.index, is_v6, port)?,
                from: SocketAddr::new(foreign_source(is_v6), port),
            })
        };
        open()
            .inspect_err(|error: &io::Error| {
                tracing::warn!(%error, "whether direct replies reach their clients stays unknown");
            })
            .ok()
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.sender.send(bytes, to)
    }

    /// Up to `max` datagrams that have come: from where they pretend to come, and their data.
    pub(crate) fn receive(&self, max: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut buffer = [0; PACKET_MAX];
        // Nothing there, or an interface that is down: there is no hurry.
        let received = std::iter::from_fn(|| {
            self.listener.receive(&mut buffer).ok().map(|data| data.map(<[u8]>::to_vec))
        });
        received.take(max).flatten().map(|data| (self.from, data)).collect()
    }
}
