//! Whether the local TCP stack holds a connection.

use dpr_director::LocalSockets;
use dpr_host::sock_diag::{TcpSocketState, TcpSockets};
use dpr_model::{ClientSocket, Protocol, ServiceSocket};
use std::net::SocketAddr;

/// Asks the kernel (`sock_diag`), one exact look-up per question.
pub(crate) struct KernelSockets {
    sockets: TcpSockets,
}

impl KernelSockets {
    pub(crate) fn open() -> anyhow::Result<Self> {
        Ok(Self { sockets: TcpSockets::open()? })
    }
}

impl LocalSockets for KernelSockets {
    fn holds(&mut self, _protocol: Protocol, local: ServiceSocket, client: ClientSocket) -> bool {
        let local = SocketAddr::new(local.address, local.port);
        let client = SocketAddr::new(client.address, client.port);
        match self.sockets.state_of(local, client) {
            Ok(state) => state.is_some_and(TcpSocketState::holds_connection),
            Err(error) => {
                tracing::debug!(%local, %client, %error, "no answer about a socket");
                false
            }
        }
    }
}
