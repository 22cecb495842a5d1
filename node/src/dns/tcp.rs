//! DNS by TCP (RFC 7766): many queries on a connection, answered in their order; bounds on everything.
//!
//! One thread has all connections and their responder, so nothing is locked. Clients come here when an answer was too
//! long for UDP, and to show that their address is theirs.

use super::{Desk, now};
use dpr_rrdns::{Client, Transport};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// Connections at once; further ones wait.
pub(super) const CONNECTIONS_MAX: usize = 512;

/// A connection without a query is closed after this time (RFC 7766 section 6.2.3: a few seconds).
const IDLE: Duration = Duration::from_secs(10);

/// The same when more than half of all connections are taken.
const IDLE_WHEN_FULL: Duration = Duration::from_secs(1);

/// Time for a begun query to arrive, and for a reply to be taken.
const TRANSFER: Duration = Duration::from_secs(3);

/// Bytes of a query at most.
const QUERY_MAX: usize = 4096;

/// How often the end of the server is looked for.
const TICK: Duration = Duration::from_millis(100);

/// Serves until the server ends.
pub(super) fn serve(listeners: Vec<std::net::TcpListener>, desk: Desk) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "DNS by TCP is not served"),
    };
    let desk = Rc::new(RefCell::new(desk));
    let tasks = LocalSet::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for listener in listeners {
        let (desk, slots) = (Rc::clone(&desk), Arc::clone(&slots));
        tasks.spawn_local(async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => accept(listener, desk, slots).await,
                Err(error) => tracing::error!(%error, "DNS by TCP is not served"),
            }
        });
    }
    tasks.block_on(&runtime, async move {
        while !desk.borrow().has_to_end() {
            tokio::time::sleep(TICK).await;
        }
    });
}

async fn accept(listener: TcpListener, desk: Rc<RefCell<Desk>>, slots: Arc<Semaphore>) {
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, from)) => {
                let (desk, slots) = (Rc::clone(&desk), Arc::clone(&slots));
                tokio::task::spawn_local(async move {
                    if let Err(error) = converse(stream, from, &desk, &slots).await {
                        tracing::debug!(%from, %error, "a DNS connection ended");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a DNS connection could not be accepted");
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

async fn converse(
    mut stream: TcpStream,
    from: SocketAddr,
    desk: &RefCell<Desk>,
    slots: &Semaphore,
) -> io::Result<()> {
    // Every reply is written whole: Nagle's algorithm could only delay it.
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let client = Client { address: from.ip().to_canonical(), transport: Transport::Tcp };
    let (mut query, mut reply, mut framed) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let is_full = slots.available_permits() < CONNECTIONS_MAX / 2;
        let idle = if is_full { IDLE_WHEN_FULL } else { IDLE };
        let Some(length) = begin_query(&mut reader, idle).await? else { return Ok(()) };
        query.resize(length, 0);
        timeout(TRANSFER, reader.read_exact(&mut query)).await??;
        {
            let mut desk = desk.borrow_mut();
            desk.renew();
            let outcome = desk.responder.answer(&query, client, now(), &mut reply);
            desk.counters.count(Transport::Tcp, outcome);
        }
        if reply.is_empty() {
            return Err(io::Error::other("it sent no query"));
        }
        frame(&reply, &mut framed)?;
        timeout(TRANSFER, writer.write_all(&framed)).await??;
    }
}

/// The length of the next query; `None` when the client has had enough, or was silent for too long.
async fn begin_query(reader: &mut (impl AsyncRead + Unpin), idle: Duration) -> io::Result<Option<usize>> {
    let first = match timeout(idle, reader.read_u8()).await {
        Ok(Ok(first)) => first,
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Ok(Err(error)) => return Err(error),
        Err(_) => return Ok(None),
    };
    let second = timeout(TRANSFER, reader.read_u8()).await??;
    match usize::from(u16::from_be_bytes([first, second])) {
        length if length <= QUERY_MAX => Ok(Some(length)),
        length => Err(io::Error::other(format!("a query of {length} bytes"))),
    }
}

/// Puts the length in front, so that both leave with one segment (RFC 7766 section 8).
fn frame(reply: &[u8], framed: &mut Vec<u8>) -> io::Result<()> {
    let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
    framed.clear();
    framed.extend(length.to_be_bytes());
    framed.extend(reply);
    Ok(())
}
