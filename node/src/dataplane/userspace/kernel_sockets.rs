//! Whether the local stack holds a connection.

use dpr_director::LocalSockets;
use dpr_host::sock_diag::{InetSockets, SocketState};
use dpr_model::{ClientSocket, Protocol, ServiceSocket};
use std::net::SocketAddr;

/// Asks the kernel (`sock_diag`), one exact look-up per question.
pub(crate) struct KernelSockets {
    tcp: InetSockets,
    /// `None` where the kernel cannot tell, or nothing asks.
    udp: Option<InetSockets>,
}

impl KernelSockets {
    /// Opens what is needed for services of TCP, and of UDP if `with_udp`.
    pub(crate) fn open(with_udp: bool) -> anyhow::Result<Self> {
        let open_udp = || {
            let warn = |error: &_| {
                tracing::warn!(%error, "connected UDP sockets of this host are not seen: their datagrams are balanced");
            };
            InetSockets::open(Protocol::Udp).inspect_err(warn).ok()
        };
        Ok(Self { tcp: InetSockets::open(Protocol::Tcp)?, udp: with_udp.then(open_udp).flatten() })
    }
}

impl LocalSockets for KernelSockets {
    fn holds(&mut self, protocol: Protocol, local: ServiceSocket, client: ClientSocket) -> bool {
        self.has(protocol, local, client) == Some(true)
    }

    fn lacks(&mut self, protocol: Protocol, local: ServiceSocket, client: ClientSocket) -> bool {
        self.has(protocol, local, client) == Some(false)
    }
}

impl KernelSockets {
    /// `None` where the kernel does not say.
    fn has(&mut self, protocol: Protocol, local: ServiceSocket, client: ClientSocket) -> Option<bool> {
        let sockets = match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => self.udp.as_mut()?,
        };
        let local = SocketAddr::new(local.address, local.port);
        let client = SocketAddr::new(client.address, client.port);
        let state = sockets
            .state_of(local, client)
            .inspect_err(|error| tracing::debug!(%local, %client, %error, "no answer about a socket"));
        state.ok().map(|state| state.is_some_and(SocketState::holds_connection))
    }
}
