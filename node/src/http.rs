//! The built-in HTTP/1.1 server: static files or a page of its own, `/.dpr/whoami`, `/.dpr/health`.
//!
//! It listens on 0.0.0.0, because connections come to delivery addresses. It refuses to be a proxy, to run programs,
//! to compress, to read request bodies and to write anything. Every wait has a limit, so that no client holds a
//! connection for nothing.

mod body;
mod coding;
mod condition;
mod connection;
mod deliveries;
mod figures;
mod file_cache;
mod files;
mod media_type;
mod range;
mod refusal;
mod representation;
mod running;
mod site;
#[cfg(test)]
mod tests;

pub(crate) use deliveries::Deliveries;
pub(crate) use figures::{Figures, FiguresNow};
pub(crate) use file_cache::FileCache;
pub(crate) use files::Directory;
pub(crate) use running::Running;
pub(crate) use site::Site;

use anyhow::Context as _;
use site::text;
use socket2::{Domain, Protocol, Socket, Type};
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How the server is to end, step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Accepts and serves.
    Serving,
    /// Accepts and serves, but every response is its connection's last.
    Draining,
    /// Accepts no more; open requests get [`FINISH_TIMEOUT`].
    Closing,
}

/// How long requests may take after the server stopped accepting.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after the system refused to accept, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections waiting to be accepted; the system cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Opens a listening socket for every delivery address of a port.
///
/// # Errors
/// The port is taken, or may not be used.
pub(crate) fn listen(port: u16) -> anyhow::Result<std::net::TcpListener> {
    let open = |address: IpAddr| -> io::Result<std::net::TcpListener> {
        let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM.cloexec().nonblocking(), Some(Protocol::TCP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(address, port).into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    let listener = match open(Ipv6Addr::UNSPECIFIED.into()) {
        // The kernel has no IPv6.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => open(Ipv4Addr::UNSPECIFIED.into()),
        opened => opened,
    };
    listener
        .with_context(|| format!("listening on port {port}; does another server have it (http.external)?"))
}

/// Accepts and serves until the phase is [`Phase::Closing`], then lets open requests finish.
///
/// `slots` bounds the connections of all listeners together; further clients wait to be accepted.
pub(crate) async fn serve(
    listener: TcpListener,
    site: Arc<Site>,
    slots: Arc<Semaphore>,
    mut phase: watch::Receiver<Phase>,
) {
    let mut connections = JoinSet::new();
    let phase_of_connections = phase.clone();
    loop {
        tokio::select! {
            biased;
            () = reached(&mut phase, Phase::Closing) => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &slots) => {
                let (stream, client, slot) = accepted;
                let (site, phase) = (Arc::clone(&site), phase_of_connections.clone());
                connections.spawn(async move {
                    if let Err(error) = connection::serve(stream, client, site, phase).await {
                        tracing::debug!(%client, %error, "a connection ended early");
                    }
                    drop(slot);
                });
            }
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH_TIMEOUT, finished).await.is_err() {
        tracing::info!(connections = connections.len(), "open requests are cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit) {
    let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                // IPv4 clients of a socket for both versions.
                let client = SocketAddr::new(client.ip().to_canonical(), client.port());
                return (stream, client, slot);
            }
            Err(error) => {
                tracing::debug!(%error, "the system refuses to accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits until the server is in a phase or beyond it.
async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    if phase.wait_for(|phase| *phase >= wanted).await.is_err() {
        // The sender is gone without having asked for it: so it never will.
        pending::<()>().await;
    }
}
